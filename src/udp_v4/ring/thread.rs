//! What the thread of the ring does.

use std::{
    io, mem,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use socket2::SockRef;

use super::{super::feed::Feed, Hub, LEAVE_TIME_MAX, OWNED};
use crate::{
    datagram::{Outbox, PAYLOAD_LEN_MAX},
    error::Error,
    lock::lock,
    nics::Nics,
    path::{
        Admission, BackendDriver, BackendSettings, Batch, DELAY_MAX_DEFAULT, Dispatch,
        ListenSocket, SLOT_COUNT_MAX, Turn,
    },
    stats::StatsTable,
};

/// Each buffer has room for the longest payload: 4 MiB in all, of which only the part that
/// datagrams have reached takes memory. At 300,000 datagrams per second, 30 arrive in the 100 µs
/// for which the ring may wait for more.
const BUFFER_COUNT: usize = 64;
/// How long the thread waits for another bundle after the last one has left.
const LINGER: Duration = Duration::from_secs(1);
/// How long to wait for a slot to become free before looking again.
const STEP: Duration = Duration::from_millis(10);
/// A socket that gave this many datagrams at once had a long queue.
const LONG_RUN_COUNT: usize = 16;

/// Opens the ring and starts its thread.
pub(super) fn start() -> io::Result<Arc<Hub>> {
    let settings = BackendSettings {
        buffer_bytes: PAYLOAD_LEN_MAX,
        buffer_count: BUFFER_COUNT,
        // One record per buffer: none is left for a later turn.
        batch_max: BUFFER_COUNT,
        replies_max: 1,
        delay_max: DELAY_MAX_DEFAULT,
        spin: Duration::ZERO,
        uses_gso: false,
    };
    let (driver, setup) = crate::uring::open(&settings).map_err(Error::Unavailable)?;
    let hub = Hub::new(driver.waker());
    let stats = StatsTable::default();
    let owned = RingThread {
        hub: Arc::clone(&hub),
        batch: driver.new_batch(),
        driver,
        admission: Admission::new(Arc::default(), Arc::default(), Vec::new(), &stats),
        dispatch: Dispatch::new(&[], &Nics::default(), &stats),
        stats,
        posted: Outbox::new(1),
        bundles: Vec::new(),
        owners: Vec::new(),
        has_pending_steps: false,
        idle_since: None,
        called: Vec::new(),
        to_wake: Vec::new(),
    };
    thread::Builder::new().name("nicring-udp-v4".into()).spawn(|| serve(owned))?;
    tracing::info!(%setup, "bundles receive by io_uring");
    Ok(hub)
}

fn serve(owned: RingThread) {
    OWNED.set(Some(owned));
    let mut to_wake = Vec::new();
    let end = loop {
        let turn = || {
            OWNED.with_borrow_mut(|owned| {
                let Some(owned) = owned else {
                    return Ok(false);
                };
                let goes_on = owned.turn();
                mem::swap(&mut owned.to_wake, &mut to_wake);
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
    if let Some(owned) = OWNED.take() {
        wake(owned.end().into_iter());
    }
}

/// Wakers may do anything. A waker that panics must not affect the others.
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
struct Bundle {
    feed: Arc<Feed>,
    sockets: Vec<InSlot>,
    /// Whether its sockets are being removed from their slots.
    is_leaving_slots: bool,
    /// Whether the ring refused or gave up one of its sockets: its tasks then receive by readiness.
    has_failed: bool,
}

#[derive(Debug)]
struct InSlot {
    socket: Arc<ListenSocket>,
    slot: Option<u16>,
}

/// The bundle whose socket is in a slot, and which of its sockets that is.
#[derive(Debug)]
struct SlotOwner {
    number: u32,
    feed: Arc<Feed>,
    position: usize,
}

/// What the thread owns.
#[derive(Debug)]
pub(super) struct RingThread {
    hub: Arc<Hub>,
    driver: Box<dyn BackendDriver>,
    batch: Batch,
    admission: Admission,
    dispatch: Dispatch,
    stats: StatsTable,
    posted: Outbox,
    bundles: Vec<Bundle>,
    /// Indexed by slot.
    owners: Vec<Option<SlotOwner>>,
    /// Whether some bundle still waits for a step of [`RingThread::adjust`].
    has_pending_steps: bool,
    /// Since when there has been no bundle.
    idle_since: Option<Instant>,
    called: Vec<Arc<Feed>>,
    to_wake: Vec<Arc<Feed>>,
}

impl RingThread {
    /// Answers the bundles' calls and waits for datagrams. Returns `false` when it is time to end.
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
            // First wake the tasks of bundles that left or that the ring refuses.
            self.hub.is_waiting.store(false, Ordering::SeqCst);
            return Ok(true);
        }
        let result = self.receive();
        self.hub.is_waiting.store(false, Ordering::SeqCst);
        result.map(|()| true)
    }

    /// Whether there has been no bundle for [`LINGER`]. If so, later calls are refused.
    fn is_over(&mut self) -> bool {
        if !self.bundles.is_empty() {
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
            _ if self.has_pending_steps => Some(Instant::now() + STEP),
            idle_since => idle_since.map(|since| since + LINGER),
        };
        let turn = Turn {
            admission: &self.admission,
            dispatch: &self.dispatch,
            stats: &self.stats,
            deadline,
            is_polling: false,
            posted: &mut self.posted,
        };
        self.driver.turn(turn, &mut self.batch)?;
        self.deliver();
        self.look_for_deaf_sockets();
        if self.has_pending_steps {
            self.has_pending_steps = false;
            (0..self.bundles.len()).rev().for_each(|position| self.adjust(position));
        }
        Ok(())
    }

    /// Copies the received datagrams to the inboxes.
    fn deliver(&mut self) {
        let Self { batch, owners, to_wake, has_pending_steps, .. } = self;
        for run in batch.records.chunk_by(|one, next| one.heard_by == next.heard_by) {
            let heard_by = run[0].heard_by;
            let owner = owners.get(usize::from(heard_by.slot)).and_then(Option::as_ref);
            let Some(owner) = owner.filter(|owner| owner.number == heard_by.number) else {
                continue;
            };
            let mut state = owner.feed.state();
            if !state.is_fed() {
                continue; // dropped
            }
            if run.len() >= LONG_RUN_COUNT {
                state.inbox.ask_for_drops(owner.position);
            }
            for record in run {
                let payload = batch.payloads.payload(record);
                state.inbox.keep(owner.position, &record.arrival, payload);
            }
            *has_pending_steps |= state.pause_if_full();
            drop(state);
            if !to_wake.iter().any(|feed| Arc::ptr_eq(feed, &owner.feed)) {
                to_wake.push(Arc::clone(&owner.feed));
            }
        }
    }

    /// Finds sockets that the ring has given up.
    fn look_for_deaf_sockets(&mut self) {
        while let Some((slot, error)) = self.driver.take_deaf() {
            let has_it =
                |bundle: &&mut Bundle| bundle.sockets.iter().any(|own| own.slot == Some(slot));
            if let Some(bundle) = self.bundles.iter_mut().find(has_it) {
                tracing::warn!(%error, "a socket failed: its bundle receives by readiness");
                bundle.has_failed = true;
                self.has_pending_steps = true;
            }
        }
    }

    fn answer_calls(&mut self) {
        let mut called = mem::take(&mut self.called);
        mem::swap(&mut called, &mut lock(&self.hub.calls).feeds);
        for feed in called.drain(..) {
            let position = self.position(&feed).unwrap_or_else(|| {
                let sockets = Vec::new();
                self.bundles.push(Bundle {
                    feed,
                    sockets,
                    is_leaving_slots: false,
                    has_failed: false,
                });
                self.bundles.len() - 1
            });
            self.adjust(position);
        }
        self.called = called;
    }

    fn position(&self, feed: &Arc<Feed>) -> Option<usize> {
        self.bundles.iter().position(|bundle| Arc::ptr_eq(&bundle.feed, feed))
    }

    /// Takes a step towards what a bundle wants: to hear, to pause, or to leave. If it has to wait
    /// for the kernel, another step follows.
    fn adjust(&mut self, position: usize) {
        let is_to_hear = |bundle: &Bundle| {
            let state = bundle.feed.state();
            !bundle.has_failed && state.is_fed() && !state.is_paused
        };
        if is_to_hear(&self.bundles[position]) && !self.bundles[position].is_leaving_slots {
            if let Err(error) = self.seat(position) {
                tracing::warn!(%error, "io_uring refuses a bundle: it receives by readiness");
                self.bundles[position].has_failed = true;
            }
        }
        let bundle = &mut self.bundles[position];
        if !is_to_hear(bundle) && !bundle.is_leaving_slots {
            let slots = bundle.sockets.iter().filter_map(|own| own.slot);
            slots.for_each(|slot| self.driver.remove(slot));
            bundle.is_leaving_slots = true;
        }
        if !bundle.is_leaving_slots {
            return;
        }
        for own in &mut bundle.sockets {
            if let Some(slot) = own.slot.take_if(|slot| self.driver.is_free(*slot)) {
                self.owners[usize::from(slot)] = None;
            }
        }
        if bundle.sockets.iter().any(|own| own.slot.is_some()) {
            self.has_pending_steps = true;
            return;
        }
        bundle.is_leaving_slots = false;
        let leaves = bundle.has_failed || !bundle.feed.state().is_fed();
        if leaves {
            let feed = self.bundles.swap_remove(position).feed;
            leave(&feed);
            self.to_wake.push(feed);
        } else {
            // It may want to hear again by now.
            self.has_pending_steps |= is_to_hear(bundle);
        }
    }

    /// Puts each socket of a bundle that has no slot into one.
    fn seat(&mut self, position: usize) -> io::Result<()> {
        let Self { bundles, driver, owners, stats, .. } = self;
        let Bundle { feed, sockets, .. } = &mut bundles[position];
        let inbox = &mut feed.state().inbox;
        for position in sockets.len()..inbox.socket_count() {
            let socket = SockRef::from(inbox.socket(position)).try_clone()?;
            let socket = Arc::new(ListenSocket::adopt(socket, stats));
            sockets.push(InSlot { socket, slot: None });
        }
        let sockets = sockets.iter_mut().enumerate().filter(|(_, own)| own.slot.is_none());
        for (position, own) in sockets {
            let free = owners.iter().position(Option::is_none).unwrap_or(owners.len());
            if free == SLOT_COUNT_MAX {
                let text = format!("the ring has no room for more than {SLOT_COUNT_MAX} sockets");
                return Err(io::Error::other(text));
            }
            driver.add(free as u16, Arc::clone(&own.socket))?;
            if free == owners.len() {
                owners.push(None);
            }
            let (number, feed) = (own.socket.number, Arc::clone(feed));
            owners[free] = Some(SlotOwner { number, feed, position });
            own.slot = Some(free as u16);
            // After a pause there may be many drops, and the first datagrams do not report them.
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

    /// Closes the ring; from then on the bundles receive by readiness. Returns the bundles to wake.
    fn end(mut self) -> Vec<Arc<Feed>> {
        let called = {
            let mut calls = lock(&self.hub.calls);
            calls.is_over = true;
            mem::take(&mut calls.feeds)
        };
        self.driver.close();
        self.owners.clear();
        let mut feeds = called;
        feeds.extend(self.bundles.drain(..).map(|bundle| bundle.feed));
        feeds.iter().for_each(leave);
        feeds
    }
}

/// Notes that the ring has no socket of this bundle any more.
fn leave(feed: &Arc<Feed>) {
    let mut state = feed.state();
    if state.is_fed() {
        state.read_by_tasks(&feed.ready);
    }
    drop(state);
    feed.detached.note();
}
