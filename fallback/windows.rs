//! Windows: one datagram per call, by WSARecvMsg of the `socket-pktinfo` crate.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
};

use mio::{Registry, Token};
use socket2::Socket;

use crate::{
    datagram::{Arrival, Outbox, Outgoing, PAYLOAD_LEN_MAX},
    path::ListenSocket,
    sys::{
        nic_watch::NicWatch,
        options::{PacketInfo, with_travel},
    },
};

/// Windows Sockets error code: ICMP answers that the time to live of something that was sent
/// earlier ran out.
const WSAENETRESET: i32 = 10_052;

/// Receives and sends one datagram per system call.
#[derive(Debug)]
pub(crate) struct Transport {
    /// The longest datagram fits. Windows cuts one that does not fit and reports an error
    /// (WSAEMSGSIZE), and the crate hands that on without saying whose datagram it was.
    whole: Box<[u8]>,
    stride: usize,
    last: (Arrival, usize),
}

impl Transport {
    pub const CALLS: &str = "WSARecvMsg and WSASendTo";
    pub const DATAGRAMS_PER_CALL_MAX: usize = 1;

    /// Each datagram is received into `stride` bytes.
    pub fn new(stride: usize, _uses_gso: bool) -> Self {
        let nobody = Arrival::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
        Self { whole: vec![0; PAYLOAD_LEN_MAX + 1].into(), stride, last: (nobody, 0) }
    }

    /// Nothing to prepare.
    pub fn prepare(&mut self, _socket: &Socket) {}

    /// Receives one datagram into the start of `memory`. Returns 1, and whether there may be more.
    pub fn receive(
        &mut self,
        _: &Socket,
        packet_info: &PacketInfo,
        memory: &mut [u8],
    ) -> io::Result<(usize, bool)> {
        let received = packet_info.recv(&mut self.whole);
        let (whole_len, info) = received.map_err(|error| match error.raw_os_error() {
            Some(WSAENETRESET) => io::ErrorKind::ConnectionReset.into(),
            _ => error,
        })?;
        let len = whole_len.min(self.stride);
        memory[..len].copy_from_slice(&self.whole[..len]);
        let source = match info.addr_src {
            SocketAddr::V4(source) => source,
            SocketAddr::V6(_) => SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0),
        };
        let mut arrival = Arrival::from(source);
        if let IpAddr::V4(destination) = info.addr_dst {
            arrival.destination = destination;
        }
        arrival.ifindex = u32::try_from(info.if_index).unwrap_or(0);
        arrival.is_truncated = whole_len > self.stride;
        self.last = (arrival, len);
        Ok((1, true))
    }

    /// What is known of the datagram of the last receive, and its length.
    pub fn arrival(&self, _index: usize) -> (Arrival, usize) {
        self.last
    }

    /// Sends the first of `outgoing` alone, from the address that the socket is bound to.
    pub fn send(
        &mut self,
        socket: &ListenSocket,
        outbox: &Outbox,
        outgoing: &[Outgoing],
    ) -> Result<usize, (usize, io::Error)> {
        let first = &outgoing[0];
        // The engine chose the socket that has the source, or else the interface, if there is one.
        let own_index = socket.plan.nic.as_ref().map(|nic| nic.index);
        let is_own = match first.egress.source {
            Some(source) => source == socket.plan.address,
            None => first.egress.ifindex.is_none() || first.egress.ifindex == own_index,
        };
        if !is_own {
            return Err((1, io::ErrorKind::AddrNotAvailable.into()));
        }
        let sent = with_travel(&socket.socket, first, || {
            socket.socket.send_to(outbox.payload(first), &first.destination.into())
        });
        sent.map(|_| 1).map_err(|error| (1, error))
    }
}

/// Nothing to watch: here NICs are listed again and again.
pub(super) fn watch_nics(_: &NicWatch, _: &Registry, _: Token) -> io::Result<()> {
    Ok(())
}
