//! What the backend asks of the kernel, as a trait: tests put a scripted kernel in its place.
#![allow(unsafe_code)]

use std::{
    fmt, io,
    os::fd::BorrowedFd,
    time::{Duration, Instant},
};

use io_uring::cqueue;

/// An io_uring: [`Ring`](super::ring::Ring), or a fake one in tests.
///
/// It has registered files, one per slot, and one group of provided buffers.
///
/// Requests are pushed, and go to the kernel in order with the next submission. If the submission
/// queue is full, a push submits what is queued first. It fails with `WouldBlock` if the kernel
/// takes nothing for the moment; the kernel takes requests again once completions were taken.
///
/// Each request has one last completion. A receive and a watch may complete any number of times
/// before it (`IORING_CQE_F_MORE`). Callers check everything that a completion says.
pub(super) trait Kernel: fmt::Debug + Send {
    fn is_enabled(&self) -> bool;

    /// From now on only the calling thread may submit and wait.
    fn enable(&mut self) -> io::Result<()>;

    /// Writes to this eventfd from now on when there are completions to be taken, or some to be had
    /// by a submission.
    fn signal(&mut self, event: BorrowedFd<'_>) -> io::Result<()>;

    /// Whether the kernel can wait for several completions with a limit of time, as
    /// [`Kernel::submit_and_coalesce`] asks (Linux 6.12).
    fn can_coalesce(&self) -> bool;

    /// Sets the registered file at `index`, or takes it away.
    fn set_file(&mut self, index: u32, file: Option<BorrowedFd<'_>>) -> io::Result<()>;

    /// Lets go of all registered files. Sockets whose descriptors are closed already close now.
    fn unregister_files(&mut self) -> io::Result<()>;

    /// Registers a buffer ring of `count` entries.
    ///
    /// # Safety
    ///
    /// The memory at `address` must hold the entries, and live until the buffer ring was
    /// unregistered, until this ring is closed, or for good.
    unsafe fn register_buffer_ring(
        &mut self,
        address: u64,
        count: u16,
        group: u16,
    ) -> io::Result<()>;

    fn unregister_buffer_ring(&mut self, group: u16) -> io::Result<()>;

    /// Queues a multishot receive on a registered file.
    ///
    /// # Safety
    ///
    /// The layout must live until the next submission has returned, and the memory of the buffer
    /// ring's buffers until the last completion.
    unsafe fn push_receive(
        &mut self,
        slot: u16,
        layout: *const libc::msghdr,
        user_data: u64,
    ) -> io::Result<()>;

    /// Queues a `sendmsg` on a registered file, of one datagram or one run of segments. It never
    /// waits.
    ///
    /// # Safety
    ///
    /// What the message points to must live, unchanged, until the completion.
    unsafe fn push_send(
        &mut self,
        slot: u16,
        message: *const libc::msghdr,
        user_data: u64,
    ) -> io::Result<()>;

    /// Queues a watch that completes each time the descriptor becomes readable anew.
    fn push_watch(&mut self, file: BorrowedFd<'_>, user_data: u64) -> io::Result<()>;

    /// Queues the cancellation of one request.
    fn push_cancel(&mut self, target: u64, user_data: u64) -> io::Result<()>;

    /// Queues the cancellation of every request (Linux 5.19).
    fn push_cancel_all(&mut self, user_data: u64) -> io::Result<()>;

    /// Submits what is queued, and returns at once.
    fn submit(&mut self) -> io::Result<Entered>;

    /// Submits what is queued, and waits for a completion or the deadline.
    fn submit_and_wait(&mut self, deadline: Option<Instant>) -> io::Result<Entered>;

    /// As [`Kernel::submit_and_wait`], but first waits for `count` completions, for up to
    /// `wait_max`.
    fn submit_and_coalesce(
        &mut self,
        count: u32,
        wait_max: Duration,
        deadline: Option<Instant>,
    ) -> io::Result<Entered>;

    /// Lets go of the ring without a word to the kernel: this process was forked from the one that
    /// has it. Nothing else may be called afterwards.
    fn abandon(&mut self);

    /// Whether a completion is there to be taken.
    fn has_completions(&mut self) -> bool;

    /// Whether there are completions, or the kernel has some to hand over once it is entered.
    fn has_news(&mut self) -> bool;

    /// Takes the next completion.
    fn next_completion(&mut self) -> Option<Completion>;
}

/// One completion, copied out of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Completion {
    pub user_data: u64,
    pub result: i32,
    pub flags: u32,
}

impl Completion {
    /// Whether the request lives on.
    pub fn has_more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// The buffer that it names.
    pub fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
}

/// The outcome of entering the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entered {
    /// Something may have completed, time may be up, or a signal may have come.
    Normally,
    /// The kernel lost a completion: it did not fit the queue, and there was no memory to keep it.
    WithLoss,
}
