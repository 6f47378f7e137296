//! The ring itself: set-up with the flags that the kernel grants, submission, waiting.
#![allow(unsafe_code)]

use std::{
    fmt, io,
    mem::ManuallyDrop,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    time::{Duration, Instant},
};

use io_uring::{
    Builder, EnterFlags, IoUring, opcode, squeue,
    types::{CancelBuilder, Fd, Fixed, SubmitArgs, Timespec},
};

use super::{
    buffers::GROUP,
    kernel::{Completion, Entered, Kernel},
};

type Flag = (&'static str, fn(&mut Builder));

/// Optional flags of io_uring_setup(2), each with the Linux version that brought it. If the kernel
/// refuses them, the first is given up and the rest are tried, until it accepts.
const OPTIONAL_FLAGS: [Flag; 5] = [
    ("NO_SQARRAY", |builder| _ = builder.setup_no_sqarray()), // 6.6
    ("DEFER_TASKRUN", |builder| _ = builder.setup_defer_taskrun()), // 6.1
    ("SINGLE_ISSUER", |builder| _ = builder.setup_single_issuer()), // 6.0
    ("COOP_TASKRUN", |builder| {
        // TASKRUN_FLAG tells, without a system call, whether one is needed. Both: 5.19.
        builder.setup_coop_taskrun().setup_taskrun_flag();
    }),
    ("SUBMIT_ALL", |builder| _ = builder.setup_submit_all()), // 5.18
];

/// An io_uring that belongs to the thread that enables it.
pub(super) struct Ring {
    ring: ManuallyDrop<IoUring>,
    flags: Vec<&'static str>,
    is_enabled: bool,
    is_leaked: bool,
    /// Whether the kernel lost a completion, and nobody was told yet.
    has_lost: bool,
}

impl Ring {
    /// Sets up a ring that is still disabled, so that any thread may enable it.
    pub fn open(submission_count: u32, completion_count: u32) -> io::Result<Self> {
        let mut first = 0;
        loop {
            let mut builder = IoUring::builder();
            builder.setup_cqsize(completion_count).setup_clamp().setup_r_disabled().dontfork();
            let optional = &OPTIONAL_FLAGS[first..];
            optional.iter().for_each(|(_, set)| set(&mut builder));
            match builder.build(submission_count) {
                Ok(ring) => {
                    let flags = optional.iter().map(|(name, _)| *name).collect();
                    return Ok(Self {
                        ring: ManuallyDrop::new(ring),
                        flags,
                        is_enabled: false,
                        is_leaked: false,
                        has_lost: false,
                    });
                }
                Err(error) => {
                    let is_refusal = error.raw_os_error() == Some(libc::EINVAL);
                    if !is_refusal || first == OPTIONAL_FLAGS.len() {
                        return Err(error);
                    }
                    first += 1;
                }
            }
        }
    }

    /// The optional flags that the kernel granted.
    pub fn flags(&self) -> &[&'static str] {
        &self.flags
    }

    /// Makes room for `count` registered files, none of them set.
    pub fn register_files(&self, count: u32) -> io::Result<()> {
        self.ring.submitter().register_files_sparse(count)
    }

    /// Keeps the ring open for good: dropping this does not close it.
    pub fn leak(&mut self) {
        self.is_leaked = true;
    }

    /// Submits and waits. A waiting server is idle, not busy with a disk: where the kernel lets us
    /// say so (Linux 6.15), the wait does not count as iowait.
    fn wait(&mut self, count: usize, arguments: &SubmitArgs<'_, '_>) -> io::Result<Entered> {
        let is_known = self.ring.params().is_feature_no_iowait();
        let flags = if is_known { EnterFlags::NO_IOWAIT } else { EnterFlags::empty() };
        let result = self.ring.submitter().submit_with_args_and_flags(count, arguments, flags);
        Ok(self.told(entered(result)?))
    }

    /// What is to be told of an entry, and of those that nobody was told of.
    fn told(&mut self, entered: Entered) -> Entered {
        if std::mem::take(&mut self.has_lost) { Entered::WithLoss } else { entered }
    }

    /// Queues a submission. If the queue is full, submits what is queued first. The error is
    /// `WouldBlock` if the kernel takes nothing even then.
    ///
    /// # Safety
    ///
    /// What the entry points to must live until its last completion. Buffers that it names must
    /// belong to the kernel until then.
    unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: passed on to the caller.
        if unsafe { self.ring.submission().push(entry) }.is_ok() {
            return Ok(());
        }
        self.has_lost |= entered(self.ring.submit())? == Entered::WithLoss;
        // SAFETY: passed on to the caller.
        let pushed = unsafe { self.ring.submission().push(entry) };
        pushed.map_err(|_| io::ErrorKind::WouldBlock.into())
    }
}

impl Kernel for Ring {
    fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    fn enable(&mut self) -> io::Result<()> {
        self.ring.submitter().register_enable_rings()?;
        self.is_enabled = true;
        Ok(())
    }

    fn signal(&mut self, event: BorrowedFd<'_>) -> io::Result<()> {
        self.ring.submitter().register_eventfd(event.as_raw_fd())
    }

    fn can_coalesce(&self) -> bool {
        self.ring.params().is_feature_min_timeout()
    }

    fn set_file(&mut self, index: u32, file: Option<BorrowedFd<'_>>) -> io::Result<()> {
        // -1 takes a file away (io_uring_register_files_update(3)).
        let fd = file.map_or(-1, |file| file.as_raw_fd());
        self.ring.submitter().register_files_update(index, &[fd]).map(drop)
    }

    fn unregister_files(&mut self) -> io::Result<()> {
        self.ring.submitter().unregister_files()
    }

    unsafe fn register_buffer_ring(
        &mut self,
        address: u64,
        count: u16,
        group: u16,
    ) -> io::Result<()> {
        // SAFETY: passed on to the caller.
        unsafe { self.ring.submitter().register_buf_ring_with_flags(address, count, group, 0) }
    }

    fn unregister_buffer_ring(&mut self, group: u16) -> io::Result<()> {
        self.ring.submitter().unregister_buf_ring(group)
    }

    unsafe fn push_receive(
        &mut self,
        slot: u16,
        layout: *const libc::msghdr,
        user_data: u64,
    ) -> io::Result<()> {
        // No MSG_DONTWAIT: it would end the receive where it should wait.
        let receive = opcode::RecvMsgMulti::new(Fixed(slot.into()), layout, GROUP).build();
        // SAFETY: passed on to the caller.
        unsafe { self.push(&receive.user_data(user_data)) }
    }

    unsafe fn push_send(
        &mut self,
        slot: u16,
        message: *const libc::msghdr,
        user_data: u64,
    ) -> io::Result<()> {
        let send = opcode::SendMsg::new(Fixed(slot.into()), message)
            .flags(libc::MSG_DONTWAIT as u32)
            .build();
        // SAFETY: passed on to the caller.
        unsafe { self.push(&send.user_data(user_data)) }
    }

    fn push_watch(&mut self, file: BorrowedFd<'_>, user_data: u64) -> io::Result<()> {
        let file = Fd(file.as_raw_fd());
        let watch = opcode::PollAdd::new(file, libc::POLLIN as u32).multi(true).build();
        // SAFETY: a watch points to no memory, and the kernel holds the file itself.
        unsafe { self.push(&watch.user_data(user_data)) }
    }

    fn push_cancel(&mut self, target: u64, user_data: u64) -> io::Result<()> {
        let cancel = opcode::AsyncCancel::new(target).build();
        // SAFETY: a cancellation points to no memory.
        unsafe { self.push(&cancel.user_data(user_data)) }
    }

    fn push_cancel_all(&mut self, user_data: u64) -> io::Result<()> {
        let cancel = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
        // SAFETY: a cancellation points to no memory.
        unsafe { self.push(&cancel.user_data(user_data)) }
    }

    fn submit(&mut self) -> io::Result<Entered> {
        let (needs_entering, is_empty) = {
            let submission = self.ring.submission();
            (submission.taskrun() || submission.cq_overflow(), submission.is_empty())
        };
        if is_empty && !needs_entering {
            return Ok(self.told(Entered::Normally));
        }
        let result = self.ring.submit();
        Ok(self.told(entered(result)?))
    }

    fn submit_and_wait(&mut self, deadline: Option<Instant>) -> io::Result<Entered> {
        let Some(deadline) = deadline else {
            return self.wait(1, &SubmitArgs::new());
        };
        let timeout = timespec(deadline.saturating_duration_since(Instant::now()));
        self.wait(1, &SubmitArgs::new().timespec(&timeout))
    }

    fn submit_and_coalesce(
        &mut self,
        count: u32,
        wait_max: Duration,
        deadline: Option<Instant>,
    ) -> io::Result<Entered> {
        let wait_us = u32::try_from(wait_max.as_micros()).unwrap_or(u32::MAX);
        // Without a deadline the timeout is too long to matter.
        let far = Duration::from_secs(1 << 30);
        let remaining = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
        let timeout = timespec(deadline.map_or(far, remaining));
        let arguments = SubmitArgs::new().min_wait_usec(wait_us).timespec(&timeout);
        self.wait(count as usize, &arguments)
    }

    fn abandon(&mut self) {
        // The child has no copy of the mapped memory (`dontfork`). What is at its addresses by now
        // is not ours to unmap.
        self.leak();
        // SAFETY: the descriptor is this process's own, and the ring, which is leaked, neither
        // closes nor uses it any more.
        drop(unsafe { OwnedFd::from_raw_fd(self.ring.as_raw_fd()) });
    }

    fn has_news(&mut self) -> bool {
        let submission = self.ring.submission();
        let has_work = submission.taskrun() || submission.cq_overflow();
        drop(submission);
        has_work || self.has_completions()
    }

    fn has_completions(&mut self) -> bool {
        !self.ring.completion().is_empty()
    }

    fn next_completion(&mut self) -> Option<Completion> {
        self.ring.completion().next().map(|completion| Completion {
            user_data: completion.user_data(),
            result: completion.result(),
            flags: completion.flags(),
        })
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec::new().sec(duration.as_secs()).nsec(duration.subsec_nanos())
}

/// The outcome of io_uring_enter(2). Some of its errors are none for us.
fn entered(result: io::Result<usize>) -> io::Result<Entered> {
    let Err(error) = result else {
        return Ok(Entered::Normally);
    };
    match error.raw_os_error() {
        // In this order: a signal, the timeout, a full completion queue, memory that is short for
        // the moment. The remedy is to take completions and to enter again.
        Some(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN) => Ok(Entered::Normally),
        Some(libc::EBADR) => Ok(Entered::WithLoss),
        _ => Err(error),
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if !self.is_leaked {
            // SAFETY: dropped here and nowhere else, and not used after.
            unsafe { ManuallyDrop::drop(&mut self.ring) }
        }
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("flags", &self.flags)
            .field("is_enabled", &self.is_enabled)
            .finish_non_exhaustive()
    }
}
