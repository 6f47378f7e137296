//! Systems without io_uring.

use std::io;

/// Always fails: there is no io_uring.
pub fn open() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Does nothing: SO_REUSEADDR alone shares a port here.
pub fn share_port(_socket: &socket2::Socket) {}
