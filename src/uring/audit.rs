//! What must be true whenever the engine hands out a batch, and after it has closed: nothing was
//! lost, and nothing is held twice. Debug builds check it each time.

use super::{Uring, kernel::Kernel};

/// Panics, in debug builds, if something was lost or is held twice.
pub(super) fn check<K: Kernel>(uring: &Uring<K>) {
    debug_assert_eq!(
        uring.buffers.free_count() + uring.lent_count + uring.backlog.len(),
        uring.buffers.slab().count(),
        "buffers: {} free, {} lent, {} in the backlog",
        uring.buffers.free_count(),
        uring.lent_count,
        uring.backlog.len(),
    );
    debug_assert!(uring.buffers.is_balanced(), "{:?}", uring.buffers);
    debug_assert!(uring.arms.is_balanced(), "{:?}", uring.arms);
    debug_assert!(uring.flights.is_balanced(), "{:?}", uring.flights);
}
