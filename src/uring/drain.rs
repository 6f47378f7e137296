//! Coming to rest. Before memory is freed everything is cancelled, and the last completion is
//! awaited. Closing a ring does that too, but some time after close(2) has returned
//! (io_uring_cancelation(7)). That is too late for the memory, and for whoever wants to bind the
//! port.

use std::{
    io,
    time::{Duration, Instant},
};

use super::{
    Uring,
    buffers::GROUP,
    kernel::{Completion, Kernel},
    user_data::UserData,
};

/// How long the kernel may take. After that the memory that it may still use is leaked.
const TIME_MAX: Duration = Duration::from_secs(2);
/// How long one attempt lasts. After that what still lives is cancelled again.
const STEP: Duration = Duration::from_millis(50);

/// Ends every request and closes the sockets. If the kernel does not let go of the memory in time,
/// it is leaked on purpose: memory that the kernel might write to is never freed.
pub(super) fn drain<K: Kernel>(uring: &mut Uring<K>) {
    let end = Instant::now() + TIME_MAX;
    let mut is_at_rest = self::is_at_rest(uring);
    while !is_at_rest && Instant::now() < end && cancel_and_reap(uring) {
        is_at_rest = self::is_at_rest(uring);
    }
    if let Err(error) = uring.ring.unregister_files() {
        tracing::warn!(%error, "the ports may be held until the ring is gone");
    }
    uring.arms.clear();
    if !is_at_rest {
        tracing::error!("io_uring did not come to rest: its memory is kept for good");
        // The ring itself is closed all the same. The kernel then cancels what is left, and lets go
        // of the sockets when it is done.
        uring.buffers.leak();
        uring.flights.leak();
    } else if let Err(error) = uring.ring.unregister_buffer_ring(GROUP) {
        tracing::debug!(%error, "the buffer ring goes with the ring");
    }
}

fn is_at_rest<K: Kernel>(uring: &Uring<K>) -> bool {
    let watches = [Some(&uring.watch), uring.news.as_ref()];
    uring.arms.armed_count() == 0
        && uring.flights.remaining_count() == 0
        && !watches.iter().flatten().any(|watch| watch.is_armed())
}

/// Makes one attempt. Returns whether another one makes sense.
fn cancel_and_reap<K: Kernel>(uring: &mut Uring<K>) -> bool {
    let end = Instant::now() + STEP;
    match uring.ring.push_cancel_all(UserData::Cancel.encode()) {
        // The kernel takes no requests until completions are taken, as happens below.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(error) => {
            tracing::error!(%error, "cancelling what is under way");
            return false;
        }
        Ok(()) => {}
    }
    while !is_at_rest(uring) && Instant::now() < end {
        if let Err(error) = uring.ring.submit_and_wait(Some(end)) {
            tracing::error!(%error, "waiting for what was cancelled");
            return false;
        }
        while let Some(completion) = uring.ring.next_completion() {
            discard(uring, completion);
        }
    }
    true
}

fn discard<K: Kernel>(uring: &mut Uring<K>, completion: Completion) {
    if let Some(buffer) = completion.buffer() {
        uring.buffers.reclaim(buffer);
    }
    match UserData::decode(completion.user_data) {
        Some(UserData::Receive { slot, generation }) => {
            uring.arms.discard((slot, generation), completion);
        }
        Some(UserData::Send { flight, index }) => {
            uring.flights.discard((flight, index), completion);
        }
        Some(UserData::Wake) => uring.watch.complete(completion),
        Some(UserData::News) => {
            if let Some(news) = &mut uring.news {
                news.complete(completion);
            }
        }
        Some(UserData::Cancel) | None => {}
    }
}
