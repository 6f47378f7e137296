//! Readiness where the system's poller takes any descriptor: the socket's own will do.

use std::{io, os::fd::AsRawFd};

use mio::{Interest, Registry, Token, unix::SourceFd};
use socket2::Socket;

/// Stands for a socket that the poller watches. It owns nothing.
#[derive(Debug)]
pub(super) struct Watched;

impl Watched {
    pub fn new(_: &Socket) -> io::Result<Self> {
        Ok(Self)
    }

    pub fn register(&mut self, socket: &Socket, by: &Registry, token: Token) -> io::Result<()> {
        by.register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE)
    }

    pub fn deregister(&mut self, socket: &Socket, by: &Registry) -> io::Result<()> {
        by.deregister(&mut SourceFd(&socket.as_raw_fd()))
    }

    /// Reads from the socket.
    pub fn try_io<T>(&self, read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        read()
    }
}
