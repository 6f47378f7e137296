//! Sends back whatever comes, by one wildcard socket: how fast a load is that nobody holds up.

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
    DRAIN_MAX, Setup,
    mmsg::{Outbox, Received},
    take_recv_buffer,
};

pub(super) fn serve(setup: &Setup, ready: &mut dyn FnMut()) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    take_recv_buffer(&socket)?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, setup.port).into())?;
    let (mut received, mut outbox) = (Received::new(DRAIN_MAX), Outbox::new(DRAIN_MAX));
    ready();
    loop {
        let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            result => result?,
        };
        let count = received.receive(socket.as_fd())?;
        for datagram in received.iter() {
            outbox.push(socket.as_fd(), datagram.source, datagram.payload);
        }
        outbox.flush(socket.as_fd());
        setup.service.received(count);
    }
}
