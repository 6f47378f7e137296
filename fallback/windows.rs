//! Windows: one datagram a call, by WSARecvMsg and WSASendMsg of the `quinn-udp` crate.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
};

use quinn_udp::{RecvMeta, Transmit, UdpSocketState};

use crate::{
    admit::Message,
    listen::ListenSocket,
    outbox::{Outbox, Outgoing},
};

/// The datagram was longer than the buffer (Windows Sockets error codes).
const WSAEMSGSIZE: i32 = 10_040;

/// The crate's own state of a socket.
pub(super) type Prepared = UdpSocketState;

/// Receives and sends one datagram a system call.
#[derive(Debug)]
pub(super) struct Transport {
    last: (Message, usize),
}

impl Transport {
    pub const DETAILS: &str = "WSARecvMsg and WSASendMsg";
    /// Whether a call returns before the queue is empty however much was asked for.
    pub const RECEIVES_ONE: bool = true;

    pub fn new(_stride: usize) -> Self {
        let nobody = Message::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
        Self { last: (nobody, 0) }
    }

    /// Asks for IP_PKTINFO. The crate forbids fragmentation too, which is right for QUIC only; a
    /// SEARCH is shorter than any link's frame.
    pub fn prepare(&mut self, socket: &socket2::Socket) -> io::Result<Prepared> {
        UdpSocketState::new(socket.into())
    }

    /// Fills the start of `memory`; says with how many datagrams.
    pub fn receive(
        &mut self,
        socket: &ListenSocket,
        prepared: &Prepared,
        stride: usize,
        memory: &mut [u8],
    ) -> io::Result<usize> {
        let mut pieces = [IoSliceMut::new(&mut memory[..stride])];
        let mut metas = [RecvMeta::default()];
        let received = prepared.recv((&socket.socket).into(), &mut pieces, &mut metas);
        received.map_err(|error| match error.raw_os_error() {
            Some(WSAEMSGSIZE) => io::ErrorKind::InvalidData.into(),
            _ => error,
        })?;
        let [meta] = metas;
        let source = match meta.addr {
            SocketAddr::V4(source) => source,
            SocketAddr::V6(_) => SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0),
        };
        let mut message = Message::from(source);
        if let Some(IpAddr::V4(destination)) = meta.dst_ip {
            message.destination = destination;
        }
        message.ifindex = socket.wanted.nic.as_ref().map_or(0, |nic| nic.1);
        self.last = (message, meta.len.min(stride));
        Ok(1)
    }

    /// What is known of the datagram of the last receive, and its length.
    pub fn message(&self, _index: usize) -> (Message, usize) {
        self.last
    }

    /// Sends the first of `outgoing`. A socket that is bound to its address sends from it.
    pub fn send(
        &mut self,
        socket: &ListenSocket,
        prepared: &Prepared,
        outbox: &Outbox,
        outgoing: &[Outgoing],
    ) -> io::Result<usize> {
        let first = &outgoing[0];
        let transmit = Transmit {
            destination: first.destination.into(),
            ecn: None,
            contents: outbox.payload(first),
            segment_size: None,
            src_ip: None,
        };
        prepared.try_send((&socket.socket).into(), &transmit)?;
        Ok(1)
    }
}
