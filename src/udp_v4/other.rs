//! Other systems: one datagram a call, without the kernel's word on where it arrived.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
};

use tokio::net::UdpSocket;

use crate::admit::Message;

/// Where the system writes to: room for one datagram.
#[derive(Debug)]
pub(super) struct Scratch {
    memory: Box<[u8]>,
    last: (Message, usize),
}

impl Scratch {
    pub fn new() -> Self {
        let nobody = Message::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
        Self { memory: vec![0; 1 << 16].into(), last: (nobody, 0) }
    }

    /// Takes one datagram, and says whether there may be more.
    pub fn receive(&mut self, sock: &UdpSocket) -> io::Result<(usize, bool)> {
        match sock.try_recv_from(&mut self.memory) {
            Ok((len, SocketAddr::V4(source))) => {
                self.last = (Message::from(source), len);
                Ok((1, true))
            }
            // No IPv4 socket hears of such a sender.
            Ok((_, SocketAddr::V6(_))) => Ok((0, true)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok((0, false)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok((0, true)),
            Err(error) => Err(error),
        }
    }

    /// The datagram of the last receive.
    pub fn message(&self, _index: usize) -> (Message, &[u8]) {
        (self.last.0, &self.memory[..self.last.1])
    }
}

/// This system does not tell.
pub(super) fn drop_count(_sock: &UdpSocket) -> Option<u32> {
    None
}

/// Nothing to ask for.
pub(super) fn tell_drops<S>(_sock: &S) -> io::Result<()> {
    Ok(())
}

pub(super) async fn recv_with_drops(
    sock: &UdpSocket,
    buf: &mut [u8],
) -> io::Result<(usize, SocketAddr, u32)> {
    let (len, source) = sock.recv_from(buf).await?;
    Ok((len, source, 0))
}
