//! What an engine's thread owns, and one turn of it.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{
    choose::{self, Backend},
    handle::Shared,
    rescan::Listening,
};
use crate::{
    datagram::Outbox,
    error::{Error, Result},
    lock::lock,
    path::{
        Admission, BackendDriver, BackendSettings, Batch, Dispatch, Host, ListenSettings, Turn,
    },
    stats::{Stats, StatsTable, add},
};

/// How long an engine that is told to stop goes on handing out what was received.
pub(super) const DRAIN_TIME_MAX: Duration = Duration::from_millis(200);
/// Every so many turns the drop counters are read even if nobody asked: they are 32 bits wide, and
/// a jump of more than half of that would look like a decrease.
const DROPS_EVERY: u64 = 4096;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Core {
    listening: Listening,
    admission: Admission,
    dispatch: Dispatch,
    host: Arc<Host>,
    pub driver: Box<dyn BackendDriver>,
    pub shared: Arc<Shared>,
    posted: Outbox,
    delay_max: Duration,
    /// Whether the last turn has taken an errand. It does not look at all that one may be about.
    #[allow(dead_code, reason = "for the feature tokio-uring")]
    pub had_errand: bool,
    is_closed: bool,
}

impl Core {
    pub fn open(
        listen: ListenSettings,
        backend: Backend,
        settings: &BackendSettings,
    ) -> Result<Self> {
        let stats = StatsTable::default();
        let mut listening = Listening::open(listen, &stats)?;
        let (mut driver, report) = choose::open(backend, settings)?;
        listening.add_all(&mut *driver)?;
        let (layout, replies_max) = (listening.layout(), settings.replies_max);
        let (waker, drops) = (driver.waker(), listening.shared_drops());
        let shared = Shared::new(waker, report, stats, layout, replies_max, drops);
        listening.publish(&shared);
        Ok(Self {
            admission: listening.admission(&shared.stats),
            dispatch: listening.dispatch(&shared.stats),
            host: shared.host(),
            listening,
            driver,
            shared: Arc::new(shared),
            posted: Outbox::new(replies_max),
            delay_max: settings.delay_max,
            had_errand: false,
            is_closed: false,
        })
    }

    /// The ports that it listens on, in the order in which they were asked for.
    pub fn ports(&self) -> &[u16] {
        self.listening.ports()
    }

    /// An error in a process that was forked since this was opened.
    #[inline]
    pub fn check_process(&self) -> Result<()> {
        if self.shared.opener.is_this() { Ok(()) } else { Err(Error::Forked) }
    }

    /// One turn of the backend: takes the batch back, sends, waits, fills the batch.
    pub fn turn(&mut self, batch: &mut Batch, deadline: Option<Instant>) -> Result<()> {
        self.turn_or_poll(batch, deadline, false)
    }

    /// As [`Core::turn`]; with `is_polling` it returns without waiting.
    pub fn turn_or_poll(
        &mut self,
        batch: &mut Batch,
        deadline: Option<Instant>,
        is_polling: bool,
    ) -> Result<()> {
        self.keep_up();
        if (self.shared.stats.turn_count.load(Ordering::Relaxed) + 1) % DROPS_EVERY == 0 {
            self.shared.refresh_drop_counts();
        }
        self.count_refusals(batch);
        // A thread that stores an errand after this sees that the engine waits, and wakes it.
        self.shared.is_waiting.store(true, Ordering::SeqCst);
        self.had_errand = self.shared.has_errand.swap(false, Ordering::SeqCst);
        let is_polling = self.had_errand || is_polling;
        self.take_posted();
        let turn = Turn {
            admission: &self.admission,
            dispatch: &self.dispatch,
            stats: &self.shared.stats,
            deadline: deadline.into_iter().chain(self.listening.next_at()).min(),
            is_polling,
            posted: &mut self.posted,
        };
        let result = self.driver.turn(turn, batch);
        self.shared.is_waiting.store(false, Ordering::SeqCst);
        add(&self.shared.stats.turn_count, 1);
        batch.host = Arc::clone(&self.host);
        result
    }

    /// How long a turn may wait for a fuller batch.
    #[allow(dead_code, reason = "for the feature tokio-uring")]
    pub fn delay_max(&self) -> Duration {
        self.delay_max
    }

    /// When something is due without a datagram.
    #[allow(dead_code, reason = "for the feature tokio-uring")]
    pub fn next_at(&self) -> Option<Instant> {
        self.listening.next_at()
    }

    /// Whether handles have queued something that is not sent yet.
    pub fn has_posted(&self) -> bool {
        !self.posted.is_empty() || self.shared.has_posted.load(Ordering::SeqCst)
    }

    /// Takes what handles have queued, unless what was taken before is still to be sent.
    fn take_posted(&mut self) {
        if self.posted.is_empty() && self.shared.has_posted.swap(false, Ordering::SeqCst) {
            std::mem::swap(&mut *lock(&self.shared.posted), &mut self.posted);
            self.shared.stats.note_posted(self.posted.len());
            self.shared.stats.note_refusals(self.posted.take_refusals());
        }
    }

    fn count_refusals(&self, batch: &mut Batch) {
        self.shared.stats.note_refusals(batch.outbox_mut().take_refusals());
    }

    /// Follows the NICs.
    fn keep_up(&mut self) {
        let has_changed = if self.shared.wants_rescan.swap(false, Ordering::SeqCst) {
            self.listening.rescan(&mut *self.driver, &self.shared);
            true
        } else {
            self.listening.keep_up(&mut *self.driver, &self.shared)
        };
        if has_changed {
            self.admission = self.listening.admission(&self.shared.stats);
            self.dispatch = self.listening.dispatch(&self.shared.stats);
            self.host = self.shared.host();
        }
    }

    /// Hands out what was received before the engine was told to stop, for up to
    /// [`DRAIN_TIME_MAX`].
    pub fn drain(
        &mut self,
        batch: &mut Batch,
        mut hand_out: impl FnMut(&Batch) -> bool,
    ) -> Result<()> {
        let end = Instant::now() + DRAIN_TIME_MAX;
        loop {
            self.check_process()?;
            self.turn_or_poll(batch, None, true)?;
            if batch.is_empty() || !hand_out(batch) || Instant::now() > end {
                return Ok(());
            }
        }
    }

    /// Sends what is queued, and does not receive.
    pub fn flush(&mut self, batch: &mut Batch) -> Result<()> {
        self.check_process()?;
        self.count_refusals(batch);
        self.take_posted();
        let turn = Turn {
            admission: &self.admission,
            dispatch: &self.dispatch,
            stats: &self.shared.stats,
            deadline: None,
            is_polling: true,
            posted: &mut self.posted,
        };
        self.driver.flush(turn, batch)
    }

    /// Sends what is queued and closes.
    pub fn finish(&mut self, batch: &mut Batch) -> Result<Stats> {
        let flushed = self.flush(batch);
        // Closing counts what is left in the sockets.
        self.close();
        flushed.map(|()| self.shared.stats())
    }

    /// Closes every socket. When it returns, the ports are free.
    pub fn close(&mut self) {
        if std::mem::replace(&mut self.is_closed, true) {
            return;
        }
        if !self.shared.opener.is_this() {
            self.driver.abandon();
            return;
        }
        self.shared.is_stopping.store(true, Ordering::SeqCst);
        self.shared.refresh_drop_counts();
        lock(&self.shared.sockets).clear();
        lock(&self.shared.infos).clear();
        self.listening.close();
        self.driver.close();
        self.shared.subscribers.close();
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.close();
    }
}
