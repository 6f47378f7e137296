//! Readiness where the poller takes only sockets that it owns: it gets a duplicate.

use std::io;

use mio::{Interest, Registry, Token, net::UdpSocket};
use socket2::Socket;

/// A duplicate of a socket, which the poller watches.
#[derive(Debug)]
pub(super) struct Watched(UdpSocket);

impl Watched {
    pub fn new(socket: &Socket) -> io::Result<Self> {
        Ok(Self(UdpSocket::from_std(socket.try_clone()?.into())))
    }

    pub fn register(&mut self, _: &Socket, by: &Registry, token: Token) -> io::Result<()> {
        by.register(&mut self.0, token, Interest::READABLE)
    }

    pub fn deregister(&mut self, _: &Socket, by: &Registry) -> io::Result<()> {
        by.deregister(&mut self.0)
    }

    /// Reads from the socket. mio watches on only if it sees `WouldBlock`.
    pub fn try_io<T>(&self, read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.0.try_io(read)
    }
}
