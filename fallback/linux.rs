//! Linux: `recvmmsg` and `sendmmsg`.

use std::{io, os::fd::AsFd};

use crate::{
    admit::Message,
    listen::ListenSocket,
    outbox::{Outbox, Outgoing},
    uring::mmsg::Mmsg,
};

/// What is kept for a socket beside itself: nothing.
#[derive(Debug)]
pub(super) struct Prepared;

/// Receives and sends up to 64 datagrams a system call.
#[derive(Debug)]
pub(super) struct Transport {
    mmsg: Mmsg,
    stride: usize,
}

impl Transport {
    pub const DETAILS: &str = "epoll, recvmmsg and sendmmsg";
    /// Whether a call returns before the queue is empty however much was asked for.
    pub const RECEIVES_ONE: bool = false;

    pub fn new(stride: usize) -> Self {
        Self { mmsg: Mmsg::new(), stride }
    }

    pub fn prepare(&mut self, _socket: &socket2::Socket) -> io::Result<Prepared> {
        Ok(Prepared)
    }

    /// Fills `memory` from its start, `stride` bytes a datagram; says with how many.
    pub fn receive(
        &mut self,
        socket: &ListenSocket,
        _: &Prepared,
        stride: usize,
        memory: &mut [u8],
    ) -> io::Result<usize> {
        self.mmsg.receive(socket.socket.as_fd(), memory, stride)
    }

    /// What is known of the datagram at `index` of the last receive, and its length there.
    pub fn message(&self, index: usize) -> (Message, usize) {
        self.mmsg.message(index, self.stride)
    }

    /// Sends the first of `outgoing`, and as many more as one call takes.
    pub fn send(
        &mut self,
        socket: &ListenSocket,
        _: &Prepared,
        outbox: &Outbox,
        outgoing: &[Outgoing],
    ) -> io::Result<usize> {
        let sent = self.mmsg.send(socket.socket.as_fd(), outbox, outgoing);
        sent.map_err(|error| match error.raw_os_error() {
            // A device's queue is full: as good as a full socket.
            Some(libc::ENOBUFS) => io::ErrorKind::WouldBlock.into(),
            _ => error,
        })
    }
}
