//! What a bundle shares with whoever receives for it: its tasks, or the thread of the ring.

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{
    inbox::{Inbox, Via},
    ready::Ready,
    ring,
};
use crate::lock::lock;

/// How long dropping a bundle waits for the ring to let go of its sockets.
pub(super) const LEAVE_TIME_MAX: Duration = Duration::from_secs(2);

/// How many bundles the ring did not let go of in time.
static HELD_COUNT: AtomicU64 = AtomicU64::new(0);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Feed {
    inbox: Mutex<Inbox>,
    pub ready: Arc<Ready>,
    /// Whether the thread of the ring has let go of the sockets.
    has_left: Mutex<bool>,
    left: Condvar,
}

impl Feed {
    pub fn new(inbox: Inbox, ready: Arc<Ready>) -> Arc<Self> {
        let inbox = Mutex::new(inbox);
        Arc::new(Self { inbox, ready, has_left: Mutex::default(), left: Condvar::new() })
    }

    pub fn inbox(&self) -> MutexGuard<'_, Inbox> {
        lock(&self.inbox)
    }

    /// What the first receive does beside receiving.
    pub fn begin(self: &Arc<Self>, inbox: &mut Inbox) {
        inbox.is_in_use = true;
        if !matches!(inbox.via, Via::RingToCome) {
            return;
        }
        match ring::attach(self) {
            Ok(hub) => {
                self.ready.clear();
                inbox.via = Via::Ring(hub);
            }
            Err(error) => {
                tracing::warn!(%error, "no io_uring for a bundle: receiving by readiness");
                inbox.via = Via::Tasks;
            }
        }
    }

    /// Closes the sockets, but for clones that the caller has.
    pub fn close(self: &Arc<Self>) {
        let via = std::mem::take(&mut self.inbox().via);
        if let Via::Ring(hub) = via {
            if let Err(error) = hub.leave(self) {
                let held_count = HELD_COUNT.fetch_add(1, Relaxed) + 1;
                tracing::error!(%error, held_count, "the ports of a bundle may not be free yet");
            }
        }
        self.inbox().clear();
    }

    /// The ring has let go of the sockets.
    pub fn note_left(&self) {
        *lock(&self.has_left) = true;
        self.left.notify_all();
    }

    /// Waits for that.
    pub fn wait_until_left(&self) -> io::Result<()> {
        let has_left = lock(&self.has_left);
        let waited = self.left.wait_timeout_while(has_left, LEAVE_TIME_MAX, |has_left| !*has_left);
        let (has_left, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if *has_left { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) }
    }
}
