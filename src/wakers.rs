//! Calling wakers, which are code of the caller.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    task::Waker,
};

/// Calls a waker. Where no lock is held: it may do anything. One that panics harms nobody else.
pub(crate) fn wake(waker: Waker) {
    if catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err() {
        tracing::error!("the waker of a task panicked: the task may wait for ever");
    }
}
