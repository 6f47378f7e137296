//! Receives one datagram of a caller's socket, with the drop count that the kernel reports.

use std::{
    cell::RefCell,
    io::{self, IoSliceMut},
    net::SocketAddr,
    os::fd::AsRawFd,
};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};
use tokio::{io::Interest, net::UdpSocket};

/// Receives one datagram directly into the caller's buffer.
pub(super) async fn recv_with_drops(
    sock: &UdpSocket,
    buf: &mut [u8],
) -> io::Result<(usize, SocketAddr, u32)> {
    sock.async_io(Interest::READABLE, || recv_one(sock, buf)).await
}

/// Room for the control messages of one datagram. It is allocated, and so aligned for their
/// headers.
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
        // A truncated list is an error here: no drops are reported then.
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
