//! tokio's `UdpSocket`: one task per socket, which drains it whenever it is readable.

use std::{
    io::{self, IoSliceMut},
    net::SocketAddrV4,
    os::fd::AsRawFd,
    sync::Arc,
};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt};
use tokio::{io::Interest, net::UdpSocket};

use super::{BUFFER_LEN, DRAIN_MAX, Setup, ipv4, open_sockets};
use crate::service::{Service, Way};

/// With `is_told` it asks for destination, interface and drop counts, as nicring does.
pub(super) fn serve(is_told: bool, setup: Setup, ready: &mut dyn FnMut()) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let sockets = open_sockets(&setup, false)?.into_iter();
        let sockets: Arc<[UdpSocket]> =
            sockets.map(|socket| UdpSocket::from_std(socket.into())).collect::<io::Result<_>>()?;
        if is_told {
            for socket in &*sockets {
                setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?;
                setsockopt(socket, sockopt::RxqOvfl, &1)?;
            }
        }
        let start = |index| {
            let (sockets, service) = (Arc::clone(&sockets), setup.service.fork());
            let mut receiver = Receiver { control: is_told.then(|| vec![0; CONTROL_BYTES]) };
            tokio::spawn(async move { receiver.serve_one(&sockets, index, service).await })
        };
        let tasks: Vec<_> = (0..sockets.len()).map(start).collect();
        ready();
        for task in tasks {
            task.await??;
        }
        Ok(())
    })
}

/// Room for the control messages of a datagram. It is allocated, and so aligned for their headers.
const CONTROL_BYTES: usize = 128;

struct Receiver {
    /// `None` if nothing is asked for.
    control: Option<Vec<u8>>,
}

impl Receiver {
    async fn serve_one(
        &mut self,
        sockets: &[UdpSocket],
        index: usize,
        mut service: Service,
    ) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER_LEN];
        let socket = &sockets[index];
        let send = &mut |way, to: SocketAddrV4, payload: &[u8]| {
            let socket = match way {
                Way::Back(_) => socket,
                Way::Nic(nic) => &sockets[nic],
            };
            let _ = socket.try_send_to(payload, to.into());
        };
        loop {
            let (len, source) = match &mut self.control {
                None => socket.recv_from(&mut buffer).await.and_then(of_ipv4)?,
                Some(control) => {
                    let receive = || recv_told(socket, &mut buffer, control);
                    socket.async_io(Interest::READABLE, receive).await?
                }
            };
            service.handle(source, &buffer[..len], send);
            let mut count = 1;
            while count < DRAIN_MAX {
                let Ok((len, source)) = self.try_recv(socket, &mut buffer) else {
                    break;
                };
                service.handle(source, &buffer[..len], send);
                count += 1;
            }
            service.received(count);
        }
    }

    fn try_recv(
        &mut self,
        socket: &UdpSocket,
        buffer: &mut [u8],
    ) -> io::Result<(usize, SocketAddrV4)> {
        match &mut self.control {
            None => socket.try_recv_from(buffer).and_then(of_ipv4),
            Some(control) => {
                socket.try_io(Interest::READABLE, || recv_told(socket, buffer, control))
            }
        }
    }
}

fn of_ipv4((len, source): (usize, std::net::SocketAddr)) -> io::Result<(usize, SocketAddrV4)> {
    Ok((len, ipv4(source)?))
}

/// Receives a datagram and reads its control messages.
fn recv_told(
    socket: &UdpSocket,
    buffer: &mut [u8],
    control: &mut [u8],
) -> io::Result<(usize, SocketAddrV4)> {
    let mut pieces = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let received = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut pieces, Some(control), flags)?;
    for message in received.cmsgs()? {
        if let ControlMessageOwned::Ipv4PacketInfo(info) = &message {
            std::hint::black_box((info.ipi_ifindex, info.ipi_addr));
        } else {
            std::hint::black_box(&message);
        }
    }
    let source = received.address.ok_or(io::ErrorKind::InvalidData)?;
    Ok((received.bytes, source.into()))
}
