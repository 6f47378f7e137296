//! The memory that tasks receive into, before datagrams go to the inbox.

use std::io;

use socket2::SockRef;
use tokio::{io::Interest, net::UdpSocket};

use crate::{
    datagram::Arrival,
    fallback::{Transport, is_icmp_error},
    sys::options::PacketInfo,
};

/// How many datagrams are taken from a socket before the next socket has its turn.
const COUNT_MAX: usize = 16;
/// Room for the longest datagram, and 64 bytes more, so that not all start in the same cache sets.
const STRIDE: usize = (1 << 16) + 64;

/// 1 MiB where one system call receives several datagrams. Pages that no datagram has reached take
/// no memory.
#[derive(Debug)]
pub(super) struct Scratch {
    transport: Transport,
    memory: Box<[u8]>,
}

impl Scratch {
    pub fn new() -> Self {
        let count = COUNT_MAX.min(Transport::DATAGRAMS_PER_CALL_MAX);
        Self { transport: Transport::new(STRIDE, false), memory: vec![0; count * STRIDE].into() }
    }

    /// Takes what is queued. Returns how many datagrams that were, and whether there may be more.
    pub fn receive(
        &mut self,
        sock: &UdpSocket,
        packet_info: &PacketInfo,
    ) -> io::Result<(usize, bool)> {
        let mut count = 0;
        let result = sock.try_io(Interest::READABLE, || {
            let socket = SockRef::from(sock);
            let may_have_more;
            (count, may_have_more) =
                self.transport.receive(&socket, packet_info, &mut self.memory)?;
            // The queue is empty, and the next datagram is a new event.
            if may_have_more { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
        });
        match result {
            Ok(()) => Ok((count, true)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok((count, false)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok((0, true)),
            Err(error) if is_icmp_error(&error) => Ok((0, true)),
            Err(error) => Err(error),
        }
    }

    /// A datagram of the last receive.
    pub fn datagram(&self, index: usize) -> (Arrival, &[u8]) {
        let (arrival, len) = self.transport.arrival(index);
        (arrival, &self.memory[index * STRIDE..][..len])
    }
}
