//! What the kernel itself allows, asked without nicring.

use std::{fs, io, path::Path, thread};

use super::wait_until;

/// Opens and closes a ring by the bare system call. It uses a separate thread, because closing a
/// ring interrupts, a little later, the thread that opened it. When this returns, that thread is
/// gone from `/proc` too.
pub fn open() -> io::Result<()> {
    let opener = thread::spawn(|| {
        let opened = io_uring::IoUring::new(8).map(drop);
        (opened, fs::read_link("/proc/thread-self").expect("/proc"))
    });
    let (opened, directory) = opener.join().expect("no panic");
    wait_until("the thread is gone", || !Path::new("/proc").join(&directory).exists());
    opened
}

/// Linux shares a port only among sockets that all set this too.
pub fn share_port(socket: &socket2::Socket) {
    socket.set_reuse_port(true).expect("SO_REUSEPORT");
}
