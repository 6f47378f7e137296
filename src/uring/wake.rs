//! What ends the wait of an engine in its ring, beside datagrams: descriptors that the ring
//! watches. One is an eventfd, which other threads write to. Another one tells news of the NICs.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{
    kernel::{Completion, Kernel},
    user_data::UserData,
};
use crate::path::{ERROR_COUNT_MAX, Wake};

/// The watch on a descriptor. It completes each time when there is something new to read.
#[derive(Debug)]
pub(super) struct Watch {
    file: OwnedFd,
    user_data: UserData,
    is_armed: bool,
    /// Errors in a row.
    error_count: u32,
}

impl Watch {
    /// The watch has the file for itself, whoever else has a descriptor of it.
    pub fn new(file: BorrowedFd<'_>, user_data: UserData) -> io::Result<Self> {
        let file = file.try_clone_to_owned()?;
        Ok(Self { file, user_data, is_armed: false, error_count: 0 })
    }

    pub fn is_armed(&self) -> bool {
        self.is_armed
    }

    /// Whether the ring refuses to watch the descriptor.
    pub fn is_hopeless(&self) -> bool {
        self.error_count >= ERROR_COUNT_MAX
    }

    /// Starts the watch, unless it lives already.
    pub fn arm(&mut self, ring: &mut impl Kernel) -> io::Result<()> {
        if self.is_hopeless() {
            return Err(io::Error::other("the ring refuses to watch a descriptor"));
        }
        if !self.is_armed {
            ring.push_watch(self.file.as_fd(), self.user_data.encode())?;
            self.is_armed = true;
        }
        Ok(())
    }

    pub fn complete(&mut self, completion: Completion) {
        self.is_armed = completion.has_more();
        self.error_count = if completion.result < 0 { self.error_count + 1 } else { 0 };
    }
}

/// Wakes an engine by an eventfd. Its counter has room for 2^64 - 2 wakes, so that nobody has to
/// read it: the watch completes at each write.
#[derive(Debug)]
pub(super) struct Waker(EventFd);

impl Waker {
    pub fn new() -> io::Result<Arc<Self>> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Arc::new(Self(EventFd::from_value_and_flags(0, flags)?)))
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Wake for Waker {
    fn wake(&self) {
        if let Err(error) = self.0.write(1) {
            tracing::warn!(%error, "waking the engine");
        }
    }
}
