//! What the kernel itself grants, asked without nicring.

use std::io;

/// A ring, by the bare system call.
pub fn open() -> io::Result<()> {
    io_uring::IoUring::new(8).map(drop)
}

/// Linux shares a port only among sockets that all set this too.
pub fn share_port(socket: &socket2::Socket) {
    socket.set_reuse_port(true).expect("SO_REUSEPORT");
}
