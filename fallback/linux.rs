//! Linux: `recvmmsg` and `sendmmsg`.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use mio::{Interest, Registry, Token, unix::SourceFd};
use nix::sys::socket::{getsockopt, sockopt};
use socket2::Socket;

use crate::{
    datagram::{Arrival, Outbox, Outgoing},
    path::ListenSocket,
    sys::{
        linux::mmsg::{self, Mmsg},
        nic_watch::NicWatch,
        options::PacketInfo,
    },
};

/// Receives up to 64 datagrams per system call, and sends up to 64 runs of segments.
#[derive(Debug)]
pub(crate) struct Transport {
    mmsg: Mmsg,
    stride: usize,
}

impl Transport {
    pub const CALLS: &str = "epoll, recvmmsg and sendmmsg";
    pub const DATAGRAMS_PER_CALL_MAX: usize = mmsg::COUNT_MAX;

    /// Each datagram is received into `stride` bytes.
    pub fn new(stride: usize, uses_gso: bool) -> Self {
        let mut mmsg = Mmsg::new();
        if !uses_gso {
            mmsg.turn_segments_off();
        }
        Self { mmsg, stride }
    }

    /// Prepares to send by `socket`: turns segments off if the kernel does not know them.
    pub fn prepare(&mut self, socket: &Socket) {
        // A kernel before 4.18 would not refuse segments, but send them as one long datagram.
        if getsockopt(socket, sockopt::UdpGsoSegment).is_err() {
            self.mmsg.turn_segments_off();
        }
    }

    /// Fills `memory` from its start. Returns the number of datagrams, and whether there may be
    /// more.
    pub fn receive(
        &mut self,
        socket: &Socket,
        _: &PacketInfo,
        memory: &mut [u8],
    ) -> io::Result<(usize, bool)> {
        self.mmsg.receive(socket.as_fd(), memory, self.stride)
    }

    /// What is known of the datagram at `index` of the last receive, and its length there.
    pub fn arrival(&self, index: usize) -> (Arrival, usize) {
        self.mmsg.arrival(index, self.stride)
    }

    /// Sends the first of `outgoing`, and as many more as one call takes. Returns how many left, or
    /// how many of the first were not sent and why.
    pub fn send(
        &mut self,
        socket: &ListenSocket,
        outbox: &Outbox,
        outgoing: &[Outgoing],
    ) -> Result<usize, (usize, io::Error)> {
        let sent = self.mmsg.send(socket.socket.as_fd(), outbox, outgoing);
        sent.map_err(|(count, error)| match error.raw_os_error() {
            // A device's queue is full. It counts like a full socket.
            Some(libc::ENOBUFS) => (count, io::ErrorKind::WouldBlock.into()),
            _ => (count, error),
        })
    }
}

/// Tells the poller of the descriptor that tells news of the NICs.
pub(super) fn watch_nics(nics: &NicWatch, by: &Registry, token: Token) -> io::Result<()> {
    by.register(&mut SourceFd(&nics.as_fd().as_raw_fd()), token, Interest::READABLE)
}
