//! Waking an engine that waits in its ring: an eventfd that the ring watches.

use std::{
    io,
    os::fd::{AsRawFd, RawFd},
    sync::Arc,
};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{
    ring::{Completion, Ring},
    user_data::UserData,
};
use crate::backend::Wake;

/// The watch on the eventfd. It tells of each write, so that nobody has to read the counter: it
/// has room for 2^64 - 2 wakes.
#[derive(Debug)]
pub(super) struct Watch {
    waker: Arc<Waker>,
    is_armed: bool,
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
        Ok(Self { waker: Arc::new(waker), is_armed: false })
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

    /// Watches, unless it does already.
    pub fn arm(&mut self, ring: &mut Ring) -> io::Result<()> {
        if !self.is_armed {
            ring.push_watch(self.fd(), UserData::Wake.encode())?;
            self.is_armed = true;
        }
        Ok(())
    }

    pub fn complete(&mut self, completion: Completion) {
        self.is_armed = completion.has_more();
    }
}
