//! What the kernel itself grants, asked without nicring.

use std::{fs, io, path::Path, thread};

/// A ring, by the bare system call. On a thread of its own: a ring that is closed interrupts, a
/// little later, the thread that opened it.
pub fn open() -> io::Result<()> {
    let opener = thread::spawn(|| io_uring::IoUring::new(8).map(drop));
    opener.join().expect("no panic")
}

/// Linux shares a port only among sockets that all set this too.
pub fn share_port(socket: &socket2::Socket) {
    socket.set_reuse_port(true).expect("SO_REUSEPORT");
}
