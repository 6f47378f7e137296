//! Linux: many datagrams a system call, and what the kernel tells beside them.

use std::{
    cell::RefCell,
    io::{self, IoSliceMut},
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd},
};

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use tokio::{io::Interest, net::UdpSocket};

use crate::{
    admit::Message,
    uring::{meminfo, mmsg::Mmsg},
};

/// How many datagrams a socket gives before the next one has its turn.
const COUNT_MAX: usize = 16;
/// Room for the longest datagram, and a little more, lest all start in the same cache sets.
const STRIDE: usize = (1 << 16) + 64;

/// Where the kernel writes to, 1 MiB; pages that no datagram reached take no memory.
#[derive(Debug)]
pub(super) struct Scratch {
    mmsg: Mmsg,
    memory: Box<[u8]>,
}

impl Scratch {
    pub fn new() -> Self {
        Self { mmsg: Mmsg::new(), memory: vec![0; COUNT_MAX * STRIDE].into() }
    }

    /// Takes what is queued, and says how much, and whether there may be more.
    pub fn receive(&mut self, sock: &UdpSocket) -> io::Result<(usize, bool)> {
        let mut count = 0;
        let result = sock.try_io(Interest::READABLE, || {
            let may_have_more;
            (count, may_have_more) = self.mmsg.receive(sock.as_fd(), &mut self.memory, STRIDE)?;
            // The queue is empty, and the next datagram is a new event.
            if may_have_more { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
        });
        match result {
            Ok(()) => Ok((count, true)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok((count, false)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok((0, true)),
            Err(error) => Err(error),
        }
    }

    /// A datagram of the last receive.
    pub fn message(&self, index: usize) -> (Message, &[u8]) {
        let (message, len) = self.mmsg.message(index, STRIDE);
        (message, &self.memory[index * STRIDE..][..len])
    }
}

/// What the socket has dropped, without waiting for a datagram to tell.
pub(super) fn drop_count(sock: &UdpSocket) -> Option<u32> {
    meminfo::drop_count(sock)
}

pub(super) fn tell_drops(sock: &impl AsFd) -> io::Result<()> {
    Ok(setsockopt(sock, sockopt::RxqOvfl, &1)?)
}

/// One datagram of a foreign socket, straight into the caller's buffer.
pub(super) async fn recv_with_drops(
    sock: &UdpSocket,
    buf: &mut [u8],
) -> io::Result<(usize, SocketAddr, u32)> {
    sock.async_io(Interest::READABLE, || recv_one(sock, buf)).await
}

/// The control messages of one datagram; its memory is aligned as any that was allocated.
const CONTROL_BYTES: usize = 128;

thread_local! {
    static CONTROL: RefCell<Vec<u8>> = RefCell::new(vec![0; CONTROL_BYTES]);
}

fn recv_one(sock: &UdpSocket, buf: &mut [u8]) -> io::Result<(usize, SocketAddr, u32)> {
    CONTROL.with_borrow_mut(|control| {
        let mut pieces = [IoSliceMut::new(buf)];
        let received = recvmsg::<SockaddrStorage>(
            sock.as_raw_fd(),
            &mut pieces,
            Some(control),
            MsgFlags::MSG_DONTWAIT,
        )?;
        let source = received.address.as_ref().and_then(socket_address);
        let source = source.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "the sender's address is no IP address")
        })?;
        let mut drop_count = 0;
        // A list that was cut short tells of no drops.
        for control in received.cmsgs().into_iter().flatten() {
            if let ControlMessageOwned::RxqOvfl(count) = control {
                drop_count = count;
            }
        }
        Ok((received.bytes, source, drop_count))
    })
}

fn socket_address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = || {
        let v4 = storage.as_sockaddr_in()?;
        Some(SocketAddr::from((v4.ip(), v4.port())))
    };
    v4().or_else(|| {
        let v6 = storage.as_sockaddr_in6()?;
        Some(std::net::SocketAddrV6::from(*v6).into())
    })
}
