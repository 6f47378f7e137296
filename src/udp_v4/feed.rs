//! What a bundle shares with whoever receives for it: its tasks, or the thread of the ring.

use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::{
    inbox::{Inbox, Via},
    ready::Ready,
    ring::{self, Departure},
};
use crate::lock::lock;

/// How many bundles the ring did not let go of in time.
static HELD_COUNT: AtomicU64 = AtomicU64::new(0);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Feed {
    inbox: Mutex<Inbox>,
    pub ready: Arc<Ready>,
    #[allow(dead_code, reason = "for the ring, which only Linux has")]
    pub departure: Departure,
}

impl Feed {
    pub fn new(inbox: Inbox, ready: Arc<Ready>) -> Arc<Self> {
        Arc::new(Self { inbox: Mutex::new(inbox), ready, departure: Departure::default() })
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
}
