//! Linux: `recvmmsg` and `sendmmsg`.

use std::{io, os::fd::AsFd};

use nix::sys::socket::{getsockopt, sockopt};

use crate::{
    admit::Message,
    listen::ListenSocket,
    outbox::{Outbox, Outgoing},
    uring::mmsg::Mmsg,
};

/// What is kept for a socket beside itself: nothing.
#[derive(Debug)]
pub(super) struct Prepared;

/// Receives up to 64 datagrams a system call, and sends up to 64 trains of them.
#[derive(Debug)]
pub(super) struct Transport {
    mmsg: Mmsg,
    stride: usize,
}

impl Transport {
    pub const DETAILS: &str = "epoll, recvmmsg and sendmmsg";

    pub fn new(stride: usize) -> Self {
        Self { mmsg: Mmsg::new(), stride }
    }

    pub fn prepare(&mut self, socket: &socket2::Socket) -> io::Result<Prepared> {
        // A kernel before 4.18 would not refuse a train, but send it as one long datagram.
        if getsockopt(socket, sockopt::UdpGsoSegment).is_err() {
            self.mmsg.turn_trains_off();
        }
        Ok(Prepared)
    }

    /// Fills `memory` from its start, `stride` bytes a datagram; says with how many, and whether there
    /// may be more.
    pub fn receive(
        &mut self,
        socket: &ListenSocket,
        _: &Prepared,
        stride: usize,
        memory: &mut [u8],
    ) -> io::Result<(usize, bool)> {
        self.mmsg.receive(socket.socket.as_fd(), memory, stride)
    }

    /// What is known of the datagram at `index` of the last receive, and its length there.
    pub fn message(&self, index: usize) -> (Message, usize) {
        self.mmsg.message(index, self.stride)
    }

    /// Sends the first of `outgoing`, and as many more as one call takes; says how many, or how
    /// many of the first were not sent.
    pub fn send(
        &mut self,
        socket: &ListenSocket,
        _: &Prepared,
        outbox: &Outbox,
        outgoing: &[Outgoing],
    ) -> Result<usize, (usize, io::Error)> {
        let sent = self.mmsg.send(socket.socket.as_fd(), outbox, outgoing);
        sent.map_err(|(count, error)| match error.raw_os_error() {
            // A device's queue is full: as good as a full socket.
            Some(libc::ENOBUFS) => (count, io::ErrorKind::WouldBlock.into()),
            _ => (count, error),
        })
    }
}
