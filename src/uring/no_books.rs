//! No books, for release builds: everything here is nothing.

use super::{Uring, kernel::Kernel};

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally;

impl Tally {
    pub fn add(&mut self, _: usize) {}

    pub fn subtract(&mut self, _: usize) {}

    pub fn and(self, _: usize) -> Self {
        self
    }
}

pub(super) fn check<K: Kernel>(_: &Uring<K>) {}
