//! The io_uring backend: one ring for the sockets of all NICs.
//!
//! A turn is one system call. It submits the replies of the last batch and the receives that have
//! to be armed again, and waits for completions of any socket.
//!
//! In reading order:
//!
//! - [`probe`]: whether io_uring works here.
//! - [`kernel`]: what is asked of it.
//! - [`ring`]: the ring that does it.
//! - [`buffers`]: the memory that it receives into.
//! - [`arms`]: the receives.
//! - [`flights`]: the sends.
//! - [`user_data`]: what tells a completion's request.
//! - [`wake`]: what ends a wait.
//! - [`drain`]: what happens when the engine closes.
//! - [`audit`]: what must be true at all times.

mod arms;
mod audit;
mod buffers;
mod drain;
mod flights;
mod kernel;
mod probe;
mod ring;
#[cfg(test)]
mod tests;
mod user_data;
mod wake;

use std::{
    collections::VecDeque,
    hint, io,
    os::fd::AsFd,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use nix::sys::resource::{Resource, getrlimit};

use self::{
    arms::{Arms, HEADER_BYTES},
    buffers::{BufferRing, Slab},
    flights::Flights,
    kernel::{Completion, Entered, Kernel},
    ring::Ring,
    user_data::UserData,
    wake::{Waker, Watch},
};
use crate::{
    datagram::{LentBuffers, Outbox, Payloads, Record},
    error::{Error, Result, Unavailable},
    path::{
        BackendDriver, BackendSettings, BackendSetup, Batch, ListenSocket, Pace, SLOT_COUNT_MAX,
        Turn, Wake, sleep,
    },
    stats::add,
    sys::{Signal, nic_watch::NicWatch},
};

/// The size of the submission queue. When it is full, what is queued is submitted.
const SUBMISSION_COUNT: u32 = 512;

/// Checks that this process may use io_uring, and that it works here.
#[allow(dead_code, reason = "for the feature udp-v4")]
pub(crate) fn check() -> Result<(), Unavailable> {
    on_other_thread(probe::preflight)?
}

/// Opens the backend. Returns it with its setup, or why it cannot be opened.
pub(crate) fn open(
    settings: &BackendSettings,
) -> Result<(Box<dyn BackendDriver>, BackendSetup), Unavailable> {
    let uring = on_other_thread(|| {
        probe::preflight()?;
        Uring::open(settings).map_err(|failure| probe::explain(failure.0, failure.1))
    })??;
    let setup = uring.setup();
    Ok((Box::new(uring), setup))
}

/// Runs `set_up` on a thread of its own. The kernel takes a ring apart some time after it was
/// closed, by work that runs on the thread that made the ring. If that thread still lived, the work
/// would interrupt the system call that it waits in by then.
///
/// # Errors
///
/// No thread can be started.
fn on_other_thread<T: Send>(set_up: impl FnOnce() -> T + Send) -> Result<T, Unavailable> {
    let refused = |error| probe::explain("starting a thread", error);
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, set_up).map_err(refused)?;
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// The io_uring backend.
#[derive(Debug)]
struct Uring<K: Kernel = Ring> {
    // Fields are dropped in this order: the ring, then the memory that the kernel reaches through
    // it.
    ring: K,
    buffers: BufferRing,
    arms: Arms,
    flights: Flights,
    waker: Arc<Waker>,
    watch: Watch,
    /// The watch for news of the NICs, if there is one.
    news: Option<Watch>,
    has_news: bool,
    /// Records that did not fit the batch of their turn.
    backlog: VecDeque<Record>,
    /// This turn re-arms receives that ran out of buffers: their datagrams are already queued, so
    /// do not wait.
    is_resuming: bool,
    /// How many buffers are in batches.
    lent_count: usize,
    pace: Pace,
    settings: BackendSettings,
    is_closed: bool,
}

impl Uring {
    fn open(settings: &BackendSettings) -> Result<Self, (&'static str, io::Error)> {
        let buffer_count = settings.buffer_count.next_power_of_two();
        // Room for every completion that can be outstanding, so that none overflows: one per
        // buffer, one for the end of each receive, two outboxes per turn, and a few more.
        let completion_count =
            buffer_count + SLOT_COUNT_MAX + 2 * settings.replies_max + SUBMISSION_COUNT as usize;
        let ring = Ring::open(SUBMISSION_COUNT, completion_count as u32)
            .map_err(|error| ("io_uring_setup", error))?;
        ring.register_files(file_count()).map_err(|error| ("io_uring_register (files)", error))?;
        Self::over(ring, settings)
    }

    fn setup(&self) -> BackendSetup {
        BackendSetup::IoUring {
            flags: self.ring.flags().to_vec(),
            buffer_count: self.buffers.slab().count(),
            buffer_bytes: self.settings.buffer_bytes,
            waits_for_several: self.ring.can_coalesce(),
        }
    }
}

/// How many files to register. The kernel refuses more than this process may open
/// (io_uring_register(2), EMFILE), and more would be of no use.
fn file_count() -> u32 {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    limit.min(SLOT_COUNT_MAX as u64) as u32
}

impl<K: Kernel> Uring<K> {
    /// Builds the backend over a ring that has registered files and is not enabled yet.
    fn over(mut ring: K, settings: &BackendSettings) -> Result<Self, (&'static str, io::Error)> {
        let buffer_count = settings.buffer_count.next_power_of_two();
        let waker = Waker::new().map_err(|error| ("eventfd", error))?;
        let watch = Watch::new(waker.as_fd(), UserData::Wake).map_err(|error| ("dup", error))?;
        let slab = Slab::new(buffer_count, HEADER_BYTES + settings.buffer_bytes)
            .map_err(|error| ("allocating the receive buffers", error))?;
        // The last that may fail: from now on the ring has to be closed before the buffers go.
        let buffers = BufferRing::register(&mut ring, Arc::new(slab), settings.batch_max)
            .map_err(|error| ("io_uring_register (buffer ring)", error))?;
        Ok(Self {
            ring,
            buffers,
            arms: Arms::new(),
            flights: Flights::new(settings.replies_max, settings.uses_gso),
            waker,
            watch,
            news: None,
            has_news: false,
            backlog: VecDeque::with_capacity(buffer_count),
            is_resuming: false,
            lent_count: 0,
            pace: Pace::new(settings.delay_max),
            settings: *settings,
            is_closed: false,
        })
    }

    /// Queues everything that goes to the kernel with the next submission.
    fn queue(&mut self, turn: &mut Turn<'_>, batch: &mut Batch) -> io::Result<()> {
        self.give_back(batch);
        let Self { ring, buffers, .. } = self;
        self.is_resuming = self.arms.ran_short();
        buffers.restock(self.is_resuming);
        if !ring.is_enabled() {
            ring.enable()?;
        }
        or_next_turn(self.watch.arm(ring))?;
        if let Some(news) = &mut self.news {
            or_next_turn(news.arm(ring))?;
        }
        or_next_turn(self.arms.arm(ring, buffers))?;
        self.flights.send(ring, turn.dispatch, batch.outbox_mut())?;
        self.flights.send(ring, turn.dispatch, turn.posted)
    }

    fn enter(&mut self, turn: &Turn<'_>) -> io::Result<()> {
        let has_work = turn.is_polling || !self.backlog.is_empty() || self.is_resuming;
        // No more datagrams can come than the kernel has buffers for.
        let room = self.buffers.given_count().max(1) as u32;
        let Self { ring, buffers, .. } = self;
        let mut note = |entered| {
            if entered == Entered::WithLoss {
                add(&turn.stats.overflow_count, 1);
                buffers.expect_losses();
            }
        };
        if has_work || ring.has_completions() {
            note(ring.submit()?);
            return Ok(());
        }
        let wait = self.pace.wait();
        if wait.is_none() && !self.settings.spin.is_zero() {
            note(ring.submit()?);
            if spin(ring, self.settings.spin, turn.deadline) {
                note(ring.submit()?);
                return Ok(());
            }
        }
        let entered = match wait {
            Some((count, wait_max)) if ring.can_coalesce() => {
                ring.submit_and_coalesce(count.min(room), wait_max, turn.deadline)?
            }
            Some((_, wait_max)) => {
                note(ring.submit()?);
                sleep(wait_max, turn.deadline);
                ring.submit_and_wait(turn.deadline)?
            }
            None => ring.submit_and_wait(turn.deadline)?,
        };
        note(entered);
        Ok(())
    }

    /// Takes all completions. Up to `record_max` records go into the batch, and those that do not
    /// fit into the backlog.
    fn reap(&mut self, turn: &Turn<'_>, batch: &mut Batch, record_max: usize) {
        while batch.records.len() < record_max {
            let Some(record) = self.backlog.pop_front() else {
                break;
            };
            self.lend(record, batch);
        }
        while let Some(completion) = self.ring.next_completion() {
            let Some(record) = self.complete(turn, completion) else {
                continue;
            };
            if batch.records.len() < record_max {
                self.lend(record, batch);
            } else {
                self.backlog.push_back(record);
            }
        }
        audit::check(self);
    }

    fn lend(&mut self, record: Record, batch: &mut Batch) {
        self.lent_count += 1;
        batch.records.push(record);
    }

    /// Takes the buffers of a batch back.
    fn give_back(&mut self, batch: &mut Batch) {
        self.lent_count -= batch.records.len();
        for record in batch.records.drain(..) {
            self.buffers.give_back(record.span.buffer);
        }
    }

    #[inline]
    fn complete(&mut self, turn: &Turn<'_>, completion: Completion) -> Option<Record> {
        let Self { ring, buffers, .. } = self;
        match UserData::decode(completion.user_data) {
            Some(UserData::Receive { slot, generation }) => {
                let of = (slot, generation);
                return self.arms.complete(ring, buffers, turn.admission, of, completion);
            }
            Some(UserData::Send { flight, index }) => {
                let of = (flight, index);
                self.flights.complete(ring, turn.dispatch, of, completion);
            }
            Some(UserData::Wake) => self.watch.complete(completion),
            Some(UserData::News) => {
                self.has_news = true;
                if let Some(news) = &mut self.news {
                    news.complete(completion);
                    if news.is_hopeless() {
                        tracing::error!(?completion, "the NICs are no longer followed");
                        self.news = None;
                    }
                }
            }
            Some(UserData::Cancel) => {}
            None => tracing::error!(?completion, "a completion of no request"),
        }
        if let Some(buffer) = completion.buffer() {
            buffers.reclaim(buffer);
        }
        None
    }
}

/// Looks for news for `time`, before the thread sleeps. Returns whether there is any.
fn spin(ring: &mut impl Kernel, time: Duration, deadline: Option<Instant>) -> bool {
    let end = Instant::now() + time;
    let end = deadline.map_or(end, |deadline| deadline.min(end));
    while !ring.has_news() {
        if Instant::now() >= end {
            return false;
        }
        hint::spin_loop();
    }
    true
}

/// Ignores `WouldBlock`: the kernel takes no requests for the moment, and the next turn queues what
/// is left.
fn or_next_turn(pushed: io::Result<()>) -> io::Result<()> {
    match pushed {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        other => other,
    }
}

/// How long a flush may take to send what is left.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(1);

impl<K: Kernel> BackendDriver for Uring<K> {
    fn new_batch(&self) -> Batch {
        let slab: Arc<Slab> = Arc::clone(self.buffers.slab());
        let lent: Arc<dyn LentBuffers> = slab;
        let outbox = Outbox::new(self.settings.replies_max);
        Batch::new(Payloads::Lent(lent), outbox, self.settings.batch_max)
    }

    fn add(&mut self, slot: u16, socket: Arc<ListenSocket>) -> io::Result<()> {
        let of_hearing = socket.plan.hears().then_some(socket.recv_buffer_bytes);
        self.arms.add(&mut self.ring, slot, socket)?;
        if let Some(recv_buffer_bytes) = of_hearing {
            self.pace.add(slot, recv_buffer_bytes);
        }
        Ok(())
    }

    fn remove(&mut self, slot: u16) {
        self.pace.remove(slot);
        // What is queued names the slot, and is for the socket that is in it now.
        if let Err(error) = self.ring.submit() {
            tracing::debug!(%error, "submitting before a socket leaves");
        }
        if let Err(error) = self.arms.remove(&mut self.ring, slot) {
            tracing::warn!(%error, slot, "a socket stays open until the engine closes");
        }
    }

    fn is_free(&self, slot: u16) -> bool {
        self.arms.is_free(slot)
    }

    fn take_deaf(&mut self) -> Option<(u16, io::Error)> {
        self.arms.take_deaf()
    }

    fn watch_nics(&mut self, nics: &NicWatch) -> io::Result<()> {
        self.news = Some(Watch::new(nics.as_fd(), UserData::News)?);
        Ok(())
    }

    fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    fn expects_more(&self) -> bool {
        self.pace.wait().is_some()
    }

    fn signal(&mut self, by: &Signal) -> io::Result<()> {
        self.ring.signal(by.as_fd())
    }

    fn is_starved(&self) -> bool {
        self.arms.is_starved()
    }

    fn turn(&mut self, mut turn: Turn<'_>, batch: &mut Batch) -> Result<()> {
        let failed = |operation| move |source| Error::Backend { operation, source };
        self.queue(&mut turn, batch).map_err(failed("submitting to io_uring"))?;
        self.enter(&turn).map_err(failed("io_uring_enter"))?;
        self.reap(&turn, batch, self.settings.batch_max);
        self.pace.note(Instant::now, batch.records.len());
        Ok(())
    }

    fn flush(&mut self, mut turn: Turn<'_>, batch: &mut Batch) -> Result<()> {
        let failed = |source| Error::Backend { operation: "io_uring_enter", source };
        let end = Instant::now() + FLUSH_TIME_MAX;
        loop {
            self.queue(&mut turn, batch).map_err(failed)?;
            self.ring.submit().map_err(failed)?;
            self.reap(&turn, batch, 0);
            let is_sent = batch.outbox_mut().is_empty()
                && turn.posted.is_empty()
                && self.flights.remaining_count() == 0;
            if is_sent || Instant::now() > end {
                return Ok(());
            }
        }
    }

    fn take_back(&mut self, batch: &mut Batch) {
        self.give_back(batch);
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.waker) as Arc<dyn Wake>
    }

    fn close(&mut self) {
        if std::mem::replace(&mut self.is_closed, true) {
            return;
        }
        drain::drain(self);
        audit::check(self);
    }

    fn abandon(&mut self) {
        self.is_closed = true;
        self.ring.abandon();
        self.arms.clear();
    }
}

impl<K: Kernel> Drop for Uring<K> {
    fn drop(&mut self) {
        self.close();
    }
}
