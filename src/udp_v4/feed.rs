//! What a bundle shares with whoever receives for it: its tasks, or a thread that feeds it.

use std::{
    fmt, io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{inbox::Inbox, ready::Ready};
use crate::{Backend, lock::lock};

/// How many bundles the feeder did not let go of in time.
static HELD_COUNT: AtomicU64 = AtomicU64::new(0);

/// Receives on behalf of bundles. This is the only interface between them and the ring (`ring/`).
pub(super) trait Feeder: fmt::Debug + Send + Sync {
    /// Asks the feeder to look at a bundle that is new, has another socket, has room again, or
    /// leaves. Returns `false` if the feeder has ended.
    fn call(&self, feed: &Arc<Feed>) -> bool;

    /// Returns when the feeder has let go of the sockets of a bundle. The bundle's state must no
    /// longer name the feeder.
    ///
    /// # Errors
    ///
    /// If the feeder did not let go in time.
    fn leave(&self, feed: &Arc<Feed>) -> io::Result<()>;
}

/// Gives the sockets of a bundle to a feeder.
pub(super) type Attach = fn(&Arc<Feed>) -> io::Result<Arc<dyn Feeder>>;

/// Who moves datagrams from the sockets to the inbox.
#[derive(Debug, Default)]
pub(super) enum ReceivedBy {
    /// The tasks that receive, from sockets that are ready.
    #[default]
    Tasks,
    /// A feeder, from the first receive on.
    FeederToCome(Attach),
    Feeder(Arc<dyn Feeder>),
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Feed {
    state: Mutex<FeedState>,
    pub ready: Arc<Ready>,
    /// Whether the feeder has let go of the sockets.
    #[allow(dead_code, reason = "for the ring, which only Linux has")]
    pub detached: Detached,
}

/// What the lock protects.
#[derive(Debug)]
pub(super) struct FeedState {
    pub inbox: Inbox,
    pub received_by: ReceivedBy,
    /// Whether the queue was full: the feeder then does not receive until there is room.
    pub is_paused: bool,
    /// Whether anybody has received: the backend can then no longer be chosen.
    pub is_in_use: bool,
}

impl FeedState {
    pub fn backend(&self) -> Backend {
        match self.received_by {
            ReceivedBy::Tasks => Backend::Portable,
            ReceivedBy::FeederToCome(_) | ReceivedBy::Feeder(_) => Backend::IoUring,
        }
    }

    pub fn is_fed(&self) -> bool {
        matches!(self.received_by, ReceivedBy::Feeder(_))
    }

    pub fn feeder(&self) -> Option<&Arc<dyn Feeder>> {
        match &self.received_by {
            ReceivedBy::Feeder(feeder) => Some(feeder),
            ReceivedBy::Tasks | ReceivedBy::FeederToCome(_) => None,
        }
    }

    /// Ends a pause if there is room again; returns the feeder that has to be called then.
    pub fn resume(&mut self) -> Option<&Arc<dyn Feeder>> {
        if !self.is_paused || !self.inbox.has_room() {
            return None;
        }
        self.is_paused = false;
        self.feeder()
    }
}

/// Used by the ring.
#[allow(dead_code, reason = "only Linux has it")]
impl FeedState {
    /// Pauses the feeder if the queue is full. Returns whether it is paused.
    pub fn pause_if_full(&mut self) -> bool {
        self.is_paused |= self.inbox.is_full();
        self.is_paused
    }

    /// Makes the tasks receive from now on; the caller wakes them.
    pub fn read_by_tasks(&mut self, ready: &Ready) {
        (self.received_by, self.is_paused) = (ReceivedBy::Tasks, false);
        (0..self.inbox.socket_count()).for_each(|socket| ready.push(socket));
    }
}

impl Feed {
    pub fn new(inbox: Inbox, ready: Arc<Ready>, received_by: ReceivedBy) -> Arc<Self> {
        let state = FeedState { inbox, received_by, is_paused: false, is_in_use: false };
        Arc::new(Self { state: Mutex::new(state), ready, detached: Detached::default() })
    }

    pub fn state(&self) -> MutexGuard<'_, FeedState> {
        lock(&self.state)
    }

    /// Notes the first receive, and starts the feeder if one was chosen.
    pub fn begin(self: &Arc<Self>, state: &mut FeedState) {
        state.is_in_use = true;
        let ReceivedBy::FeederToCome(attach) = state.received_by else {
            return;
        };
        match attach(self) {
            Ok(feeder) => {
                self.ready.clear();
                state.received_by = ReceivedBy::Feeder(feeder);
            }
            Err(error) => {
                tracing::warn!(%error, "no io_uring for a bundle: receiving by readiness");
                state.received_by = ReceivedBy::Tasks;
            }
        }
    }

    /// Closes the sockets, except clones that the caller holds.
    pub fn close(self: &Arc<Self>) {
        let received_by = std::mem::take(&mut self.state().received_by);
        if let ReceivedBy::Feeder(feeder) = received_by {
            if let Err(error) = feeder.leave(self) {
                let held_count = HELD_COUNT.fetch_add(1, Relaxed) + 1;
                tracing::error!(%error, held_count, "the ports of a bundle may not be free yet");
            }
        }
        self.state().inbox.clear();
    }
}

/// Whether the feeder has let go of the sockets of a bundle.
#[derive(Debug, Default)]
pub(super) struct Detached {
    is_over: Mutex<bool>,
    over: Condvar,
}

#[allow(dead_code, reason = "for the ring, which only Linux has")]
impl Detached {
    pub fn note(&self) {
        *lock(&self.is_over) = true;
        self.over.notify_all();
    }

    pub fn wait(&self, time_max: Duration) -> io::Result<()> {
        let is_over = lock(&self.is_over);
        let waited = self.over.wait_timeout_while(is_over, time_max, |is_over| !*is_over);
        let (is_over, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if *is_over { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) }
    }
}
