//! Waking an engine that waits in its ring: an eventfd that the ring watches.

use std::{
    io,
    os::fd::{AsRawFd, RawFd},
    sync::Arc,
};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{
    kernel::{Completion, Kernel},
    user_data::UserData,
};
use crate::path::{ERROR_COUNT_MAX, Wake};

/// The watch on the eventfd. It completes at each write, so that nobody has to read the counter,
/// which has room for 2^64 - 2 wakes.
#[derive(Debug)]
pub(super) struct Watch {
    waker: Arc<Waker>,
    is_armed: bool,
    /// Errors in a row.
    error_count: u32,
}

#[derive(Debug)]
struct Waker(EventFd);

impl Wake for Waker {
    fn wake(&self) {
        if let Err(error) = self.0.write(1) {
            tracing::warn!(%error, "waking the engine");
        }
    }
}

impl Watch {
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let waker = Waker(EventFd::from_value_and_flags(0, flags)?);
        Ok(Self { waker: Arc::new(waker), is_armed: false, error_count: 0 })
    }

    pub fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.waker) as Arc<dyn Wake>
    }

    fn fd(&self) -> RawFd {
        self.waker.0.as_raw_fd()
    }

    pub fn is_armed(&self) -> bool {
        self.is_armed
    }

    /// Starts the watch, unless it lives already.
    pub fn arm(&mut self, ring: &mut impl Kernel) -> io::Result<()> {
        if self.error_count >= ERROR_COUNT_MAX {
            return Err(io::Error::other("the ring refuses to watch an eventfd"));
        }
        if !self.is_armed {
            ring.push_watch(self.fd(), UserData::Wake.encode())?;
            self.is_armed = true;
        }
        Ok(())
    }

    pub fn complete(&mut self, completion: Completion) {
        self.is_armed = completion.has_more();
        self.error_count = if completion.result < 0 { self.error_count + 1 } else { 0 };
    }
}
