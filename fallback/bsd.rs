//! macOS and the BSDs: one datagram per call, control messages by the `nix` crate.

#[cfg(any(target_vendor = "apple", target_os = "netbsd"))]
#[path = "bsd_pktinfo.rs"]
mod control;
#[cfg(not(any(target_vendor = "apple", target_os = "netbsd")))]
#[path = "bsd_dstaddr.rs"]
mod control;

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::AsRawFd,
};

use mio::{Registry, Token};
use nix::sys::socket::{MsgFlags, SockaddrIn, recvmsg, sendmsg};
use socket2::Socket;

use crate::{
    datagram::{Arrival, Outbox, Outgoing},
    path::ListenSocket,
    sys::{
        nic_watch::NicWatch,
        options::{PacketInfo, with_travel},
    },
};

/// Receives and sends one datagram per system call.
#[derive(Debug)]
pub(crate) struct Transport {
    control: Vec<u8>,
    stride: usize,
    last: (Arrival, usize),
}

impl Transport {
    pub const CALLS: &str = "recvmsg and sendmsg";
    pub const DATAGRAMS_PER_CALL_MAX: usize = 1;

    /// Each datagram is received into `stride` bytes.
    pub fn new(stride: usize, _uses_gso: bool) -> Self {
        let nobody = Arrival::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
        Self { control: vec![0; control::RECEIVED_BYTES], stride, last: (nobody, 0) }
    }

    /// Nothing to prepare.
    pub fn prepare(&mut self, _socket: &Socket) {}

    /// Receives one datagram into the start of `memory`. Returns 1, and whether there may be more.
    pub fn receive(
        &mut self,
        socket: &Socket,
        _: &PacketInfo,
        memory: &mut [u8],
    ) -> io::Result<(usize, bool)> {
        let mut pieces = [IoSliceMut::new(&mut memory[..self.stride])];
        let received = recvmsg::<SockaddrIn>(
            socket.as_raw_fd(),
            &mut pieces,
            Some(&mut self.control),
            MsgFlags::MSG_DONTWAIT,
        )?;
        let unknown = || SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        let mut arrival = Arrival::from(received.address.map_or_else(unknown, Into::into));
        arrival.is_truncated = received.flags.contains(MsgFlags::MSG_TRUNC);
        arrival.is_control_truncated = received.flags.contains(MsgFlags::MSG_CTRUNC);
        if let Ok(controls) = received.cmsgs() {
            controls.for_each(|control| control::decode(&control, &mut arrival));
        }
        self.last = (arrival, received.bytes.min(self.stride));
        Ok((1, true))
    }

    /// What is known of the datagram of the last receive, and its length.
    pub fn arrival(&self, _index: usize) -> (Arrival, usize) {
        self.last
    }

    /// Sends the first of `outgoing` alone: the count is 1, on success and on error.
    pub fn send(
        &mut self,
        socket: &ListenSocket,
        outbox: &Outbox,
        outgoing: &[Outgoing],
    ) -> Result<usize, (usize, io::Error)> {
        let first = &outgoing[0];
        let pieces = [IoSlice::new(outbox.payload(first))];
        let destination = SockaddrIn::from(first.destination);
        let sent = control::with_egress(first.egress, socket.plan.address, |controls| {
            with_travel(&socket.socket, first, || {
                let fd = socket.socket.as_raw_fd();
                Ok(sendmsg(fd, &pieces, controls, MsgFlags::MSG_DONTWAIT, Some(&destination))?)
            })
        });
        sent.map(|_| 1).map_err(|error| (1, error))
    }
}

/// Nothing to watch: here NICs are listed again and again.
pub(super) fn watch_nics(_: &NicWatch, _: &Registry, _: Token) -> io::Result<()> {
    Ok(())
}
