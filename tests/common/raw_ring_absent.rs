//! Systems without io_uring.

use std::io;

/// There is none.
pub fn open() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// SO_REUSEADDR alone shares a port.
pub fn share_port(_socket: &socket2::Socket) {}
