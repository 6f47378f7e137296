//! Sends back whatever comes, by one wildcard socket. This shows what a load can do if the receiver
//! does not slow it.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::AsFd,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use socket2::{Domain, Socket, Type};

use super::{
    DRAIN_MAX, RECV_BUFFER_BYTES, Setup,
    mmsg::{Datagram, Outbox, Received},
};
use crate::{network::set_recv_buffer, segments};

pub(super) fn serve(is_segmented: bool, setup: &Setup, ready: &mut dyn FnMut()) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    set_recv_buffer(&socket, RECV_BUFFER_BYTES)?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, setup.port).into())?;
    let (mut received, mut outbox) = (Received::new(DRAIN_MAX), Outbox::new(DRAIN_MAX));
    let mut bytes = Vec::new();
    ready();
    loop {
        let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            result => result?,
        };
        let count = received.receive(socket.as_fd())?;
        if is_segmented {
            send_segmented(&socket, &received, &mut bytes)?;
        } else {
            for datagram in received.iter() {
                outbox.push(socket.as_fd(), datagram.source, datagram.payload);
            }
            outbox.flush(socket.as_fd());
        }
        setup.service.received(count);
    }
}

/// Consecutive datagrams of one length to one client leave by one system call.
fn send_segmented(socket: &Socket, received: &Received, bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut datagrams = received.iter().peekable();
    while let Some(first) = datagrams.next() {
        bytes.clear();
        bytes.extend_from_slice(first.payload);
        let is_alike =
            |d: &Datagram<'_>| (d.source, d.payload.len()) == (first.source, first.payload.len());
        while let Some(next) = datagrams.next_if(is_alike) {
            bytes.extend_from_slice(next.payload);
        }
        segments::send(socket.as_fd(), first.source.into(), bytes, first.payload.len())?;
    }
    Ok(())
}
