//! The books of the io_uring backend, which must balance whenever the engine hands out a batch and
//! once it has closed. Debug builds check them each time; release builds keep none (`no_books.rs`).

use super::{Uring, kernel::Kernel};

/// A count that is kept for the checks alone.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally(usize);

impl Tally {
    pub fn add(&mut self, count: usize) {
        self.0 += count;
    }

    pub fn subtract(&mut self, count: usize) {
        self.0 -= count;
    }

    /// The sum of both.
    pub fn and(self, count: usize) -> Self {
        Self(self.0 + count)
    }
}

/// Fails where something was lost or is held twice.
pub(super) fn check<K: Kernel>(uring: &Uring<K>) {
    let (free_count, backlog_count) = (uring.buffers.free_count(), uring.backlog.len());
    let Tally(lent_count) = uring.lent;
    let all_count = uring.buffers.slab().count();
    assert_eq!(
        free_count + lent_count + backlog_count,
        all_count,
        "buffers: {free_count} free, {lent_count} lent, {backlog_count} in the backlog"
    );
    assert!(uring.buffers.is_balanced(), "{:?}", uring.buffers);
    assert!(uring.receiver.is_balanced(), "{:?}", uring.receiver);
    assert!(uring.sender.is_balanced(), "{:?}", uring.sender);
}
