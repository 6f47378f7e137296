//! What the thread of the ring does.

use std::{
    io, mem,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use socket2::SockRef;

use super::{super::feed::Feed, ENGINE, Hub, LEAVE_TIME_MAX};
use crate::{
    admit::{Admission, Message},
    backend::{BackendDriver, BackendSettings, Coalesce, Turn},
    batch::Batch,
    error::Error,
    listen::ListenSocket,
    lock::lock,
    meta::Record,
    outbox::{Outbox, PAYLOAD_LEN_MAX},
    stats::{NicCounters, StatsTable},
};

/// Each has room for the longest datagram: 4 MiB in all, of which only what datagrams have reached
/// takes memory. Where 300,000 datagrams come a second, the ring waits 100 µs for more of them, and
/// that is 30.
const BUFFER_COUNT: usize = 64;
const SLOT_MAX: usize = 4096;
/// For so long the thread waits for another bundle when the last one has left.
const LINGER: Duration = Duration::from_secs(1);
/// How long to wait for a slot to become free before looking again.
const STEP: Duration = Duration::from_millis(10);
/// A socket that gave so many datagrams at once had a long queue.
const LONG_RUN_COUNT: usize = 16;

/// Opens the ring and starts its thread.
pub(super) fn start() -> io::Result<Arc<Hub>> {
    let settings = BackendSettings {
        buffer_bytes: PAYLOAD_LEN_MAX,
        buffer_count: BUFFER_COUNT,
        // One for each buffer: no record stays behind for a later turn.
        batch_max: BUFFER_COUNT,
        replies_max: 1,
        coalesce: Coalesce::Adaptive,
        spin: Duration::ZERO,
        slot_max: SLOT_MAX,
    };
    let (driver, details) = crate::uring::open(&settings).map_err(Error::Unavailable)?;
    let hub = Hub::new(driver.waker());
    let stats = StatsTable::default();
    let engine = Engine {
        hub: Arc::clone(&hub),
        batch: driver.new_batch(),
        driver,
        admission: Admission::unguarded(&stats),
        counters: stats.nowhere(),
        stats,
        posted: Outbox::new(1),
        members: Vec::new(),
        occupants: Vec::new(),
        is_unsettled: false,
        idle_since: None,
        error_count: 0,
        called: Vec::new(),
        to_wake: Vec::new(),
    };
    thread::Builder::new().name("nicring-udp-v4".into()).spawn(|| serve(engine))?;
    tracing::info!(details, "bundles receive by io_uring");
    Ok(hub)
}

fn serve(engine: Engine) {
    ENGINE.set(Some(engine));
    let mut to_wake = Vec::new();
    let end = loop {
        let turn = || {
            ENGINE.with_borrow_mut(|engine| {
                let Some(engine) = engine else {
                    return Ok(false);
                };
                let goes_on = engine.turn();
                mem::swap(&mut engine.to_wake, &mut to_wake);
                goes_on
            })
        };
        let goes_on = panic::catch_unwind(AssertUnwindSafe(turn));
        wake(to_wake.drain(..));
        match goes_on {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => break None,
            Ok(Err(error)) => break Some(error.to_string()),
            Err(_) => break Some("its thread has panicked".to_owned()),
        }
    };
    if let Some(cause) = &end {
        tracing::error!(cause, "io_uring has failed: bundles receive by readiness");
    }
    if let Some(engine) = ENGINE.take() {
        wake(engine.end().into_iter());
    }
}

/// Wakers may do anything; one that panics concerns nobody else.
fn wake(feeds: impl Iterator<Item = Arc<Feed>>) {
    for feed in feeds {
        for waker in feed.ready.take_wakers() {
            if panic::catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err() {
                tracing::error!("a waker has panicked");
            }
        }
    }
}

/// A bundle whose sockets the ring has.
#[derive(Debug)]
struct Member {
    feed: Arc<Feed>,
    seats: Vec<Seat>,
    /// Whether its sockets are on their way out of their slots.
    is_rising: bool,
    /// Whether the ring refuses something of it, so that it has to receive by itself.
    has_failed: bool,
}

#[derive(Debug)]
struct Seat {
    socket: Arc<ListenSocket>,
    slot: Option<u16>,
}

/// Whose socket a slot has, and which of the bundle's sockets that is.
#[derive(Debug)]
struct Occupant {
    number: u32,
    feed: Arc<Feed>,
    position: usize,
}

/// What the thread owns.
#[derive(Debug)]
pub(super) struct Engine {
    hub: Arc<Hub>,
    driver: Box<dyn BackendDriver>,
    batch: Batch,
    admission: Admission,
    stats: StatsTable,
    counters: Arc<NicCounters>,
    posted: Outbox,
    members: Vec<Member>,
    /// By slot.
    occupants: Vec<Option<Occupant>>,
    /// Whether the ring does not yet do for every bundle what that wants.
    is_unsettled: bool,
    /// Since when there is no bundle.
    idle_since: Option<Instant>,
    /// How many errors of sockets have been looked at.
    error_count: u64,
    called: Vec<Arc<Feed>>,
    to_wake: Vec<Arc<Feed>>,
}

impl Engine {
    /// Does what bundles want, and waits for datagrams; `false` when it is time to end.
    fn turn(&mut self) -> crate::Result<bool> {
        // Whoever calls after this sees that the thread waits, and wakes it.
        self.hub.is_waiting.store(true, Ordering::SeqCst);
        if self.hub.has_calls.swap(false, Ordering::SeqCst) {
            self.answer_calls();
        }
        if self.is_over() {
            return Ok(false);
        }
        if !self.to_wake.is_empty() {
            // First those whom a bundle that left, or one that the ring refuses, left work to.
            self.hub.is_waiting.store(false, Ordering::SeqCst);
            return Ok(true);
        }
        let result = self.receive();
        self.hub.is_waiting.store(false, Ordering::SeqCst);
        result.map(|()| true)
    }

    /// Whether no bundle came while there was none.
    fn is_over(&mut self) -> bool {
        if !self.members.is_empty() {
            self.idle_since = None;
            return false;
        }
        let idle_since = *self.idle_since.get_or_insert_with(Instant::now);
        let mut calls = lock(&self.hub.calls);
        calls.is_over = calls.feeds.is_empty() && idle_since.elapsed() >= LINGER;
        calls.is_over
    }

    fn receive(&mut self) -> crate::Result<()> {
        let deadline = match self.idle_since {
            _ if self.is_unsettled => Some(Instant::now() + STEP),
            idle_since => idle_since.map(|since| since + LINGER),
        };
        let turn = Turn {
            admission: &self.admission,
            stats: &self.stats,
            deadline,
            is_polling: false,
            posted: &mut self.posted,
        };
        self.driver.turn(turn, &mut self.batch)?;
        self.deliver();
        self.look_for_silence();
        if self.is_unsettled {
            self.is_unsettled = false;
            (0..self.members.len()).rev().for_each(|position| self.adjust(position));
        }
        Ok(())
    }

    /// Copies what was received to the inboxes.
    fn deliver(&mut self) {
        let Self { batch, occupants, to_wake, is_unsettled, .. } = self;
        for run in batch.records.chunk_by(|one, next| one.heard_by == next.heard_by) {
            let heard_by = run[0].heard_by;
            let occupant = occupants.get(usize::from(heard_by.slot)).and_then(Option::as_ref);
            let Some(occupant) = occupant.filter(|occupant| occupant.number == heard_by.number)
            else {
                continue;
            };
            let mut inbox = occupant.feed.inbox();
            if !inbox.is_read_by_ring() {
                continue; // dropped
            }
            if run.len() >= LONG_RUN_COUNT {
                inbox.ask_for_drops(occupant.position);
            }
            for record in run {
                let payload = batch.storage.payload(record);
                inbox.keep(occupant.position, &message(record), payload);
            }
            *is_unsettled |= inbox.pause_if_full();
            drop(inbox);
            if !to_wake.iter().any(|feed| Arc::ptr_eq(feed, &occupant.feed)) {
                to_wake.push(Arc::clone(&occupant.feed));
            }
        }
    }

    /// Finds sockets that the ring has given up.
    fn look_for_silence(&mut self) {
        let error_count = self.counters.counters.receive_error_count.load(Ordering::Relaxed);
        if mem::replace(&mut self.error_count, error_count) == error_count {
            return;
        }
        for member in &mut self.members {
            let is_silent = |seat: &Seat| seat.slot.is_some_and(|slot| self.driver.is_silent(slot));
            if !member.is_rising && member.seats.iter().any(is_silent) {
                tracing::warn!("io_uring gave up a socket: its bundle receives by readiness");
                member.has_failed = true;
                self.is_unsettled = true;
            }
        }
    }

    fn answer_calls(&mut self) {
        let mut called = mem::take(&mut self.called);
        mem::swap(&mut called, &mut lock(&self.hub.calls).feeds);
        for feed in called.drain(..) {
            let position = self.position(&feed).unwrap_or_else(|| {
                let seats = Vec::new();
                self.members.push(Member { feed, seats, is_rising: false, has_failed: false });
                self.members.len() - 1
            });
            self.adjust(position);
        }
        self.called = called;
    }

    fn position(&self, feed: &Arc<Feed>) -> Option<usize> {
        self.members.iter().position(|member| Arc::ptr_eq(&member.feed, feed))
    }

    /// Takes a step towards what a bundle wants: to hear, to pause, or to leave. A step that has to
    /// wait for the kernel is followed by another one.
    fn adjust(&mut self, position: usize) {
        let is_to_hear = |member: &Member| {
            let inbox = member.feed.inbox();
            !member.has_failed && inbox.is_read_by_ring() && !inbox.is_paused
        };
        if is_to_hear(&self.members[position]) && !self.members[position].is_rising {
            if let Err(error) = self.seat(position) {
                tracing::warn!(%error, "io_uring refuses a bundle: it receives by readiness");
                self.members[position].has_failed = true;
            }
        }
        let member = &mut self.members[position];
        if !is_to_hear(member) && !member.is_rising {
            let slots = member.seats.iter().filter_map(|seat| seat.slot);
            slots.for_each(|slot| self.driver.remove(slot));
            member.is_rising = true;
        }
        if !member.is_rising {
            return;
        }
        for seat in &mut member.seats {
            if let Some(slot) = seat.slot.take_if(|slot| self.driver.is_free(*slot)) {
                self.occupants[usize::from(slot)] = None;
            }
        }
        if member.seats.iter().any(|seat| seat.slot.is_some()) {
            self.is_unsettled = true;
            return;
        }
        member.is_rising = false;
        let leaves = member.has_failed || !member.feed.inbox().is_read_by_ring();
        if leaves {
            let feed = self.members.swap_remove(position).feed;
            leave(&feed);
            self.to_wake.push(feed);
        } else {
            // It may want to go on by now.
            self.is_unsettled |= is_to_hear(member);
        }
    }

    /// Puts the sockets of a bundle that have no slot into one.
    fn seat(&mut self, position: usize) -> io::Result<()> {
        let Self { members, driver, occupants, stats, .. } = self;
        let Member { feed, seats, .. } = &mut members[position];
        let mut inbox = feed.inbox();
        for position in seats.len()..inbox.socket_count() {
            let (socket, class) = inbox.socket(position);
            let socket = SockRef::from(socket).try_clone()?;
            let socket = Arc::new(ListenSocket::over(socket, class, stats));
            seats.push(Seat { socket, slot: None });
        }
        let seats = seats.iter_mut().enumerate().filter(|(_, seat)| seat.slot.is_none());
        for (position, seat) in seats {
            let free = occupants.iter().position(Option::is_none).unwrap_or(occupants.len());
            if free == SLOT_MAX {
                return Err(io::Error::other("the ring has no room for more than 4,096 sockets"));
            }
            driver.add(free as u16, Arc::clone(&seat.socket))?;
            if free == occupants.len() {
                occupants.push(None);
            }
            let (number, feed) = (seat.socket.number, Arc::clone(feed));
            occupants[free] = Some(Occupant { number, feed, position });
            seat.slot = Some(free as u16);
            // After a pause there may be many, and the datagrams that come first do not tell them.
            inbox.ask_for_drops(position);
        }
        Ok(())
    }

    /// Lets go of the sockets of a bundle that was dropped on this thread.
    pub fn let_go(&mut self, feed: &Arc<Feed>) -> io::Result<()> {
        let end = Instant::now() + LEAVE_TIME_MAX;
        self.answer_calls();
        while self.position(feed).is_some() {
            if Instant::now() > end {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.receive()?;
        }
        Ok(())
    }

    /// Closes the ring; from then on bundles receive by themselves. Returns those to wake.
    fn end(mut self) -> Vec<Arc<Feed>> {
        let called = {
            let mut calls = lock(&self.hub.calls);
            calls.is_over = true;
            mem::take(&mut calls.feeds)
        };
        self.driver.close();
        self.occupants.clear();
        let mut feeds = called;
        feeds.extend(self.members.drain(..).map(|member| member.feed));
        feeds.iter().for_each(leave);
        feeds
    }
}

/// The ring has no socket of this bundle any more.
fn leave(feed: &Arc<Feed>) {
    let mut inbox = feed.inbox();
    if inbox.is_read_by_ring() {
        inbox.read_by_tasks(&feed.ready);
    }
    drop(inbox);
    feed.departure.note();
}

fn message(record: &Record) -> Message {
    Message {
        destination: record.destination,
        ifindex: record.ifindex,
        drop_count: record.drop_count,
        kernel_time: record.kernel_time,
        is_truncated: record.is_truncated,
        ..Message::from(record.source)
    }
}
