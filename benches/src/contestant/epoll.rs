//! Edge-triggered epoll with `recvmmsg` and `sendmmsg` of 64, written as well as possible: nothing
//! is allocated or prepared per call.

use std::{io, os::fd::AsFd, thread, time::Duration};

use nix::{
    errno::Errno,
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        socket::{setsockopt, sockopt},
    },
};
use socket2::Socket;

use super::{
    DRAIN_MAX, Setup,
    mmsg::{Outbox, Received},
    open_sockets,
};
use crate::service::{Question, Way};

pub(super) fn serve(sleep: Duration, setup: &Setup, ready: &mut dyn FnMut()) -> io::Result<()> {
    let sockets = open_sockets(setup, false)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for (index, socket) in sockets.iter().enumerate() {
        // nicring asks for it too, and a SEARCH server needs it.
        setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?;
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        epoll.add(socket, EpollEvent::new(flags, index as u64))?;
    }
    ready();
    let mut receiver = Receiver {
        sockets,
        service: setup.service.fork(),
        received: Received::new(DRAIN_MAX),
        replies: Outbox::new(DRAIN_MAX),
    };
    let timeout = match setup.look_every {
        Some(every) => EpollTimeout::try_from(every).map_err(io::Error::other)?,
        None => EpollTimeout::NONE,
    };
    let mut events = vec![EpollEvent::empty(); receiver.sockets.len()];
    while !receiver.service.is_stopped() {
        let ready_count = match epoll.wait(&mut events, timeout) {
            Err(Errno::EINTR) => 0,
            result => result?,
        };
        if ready_count > 0 && !sleep.is_zero() {
            thread::sleep(sleep);
        }
        for event in &events[..ready_count] {
            // A short count means that the queue was empty. What comes later is another edge.
            while receiver.serve_some(event.data() as usize)? == DRAIN_MAX {}
        }
    }
    Ok(())
}

struct Receiver {
    sockets: Vec<Socket>,
    service: crate::service::Service,
    received: Received,
    replies: Outbox,
}

impl Receiver {
    /// One `recvmmsg`, and one `sendmmsg` for the replies.
    fn serve_some(&mut self, index: usize) -> io::Result<usize> {
        let Self { sockets, service, received, replies } = self;
        let socket = sockets[index].as_fd();
        let count = received.receive(socket)?;
        let questions = received.iter().map(|datagram| {
            std::hint::black_box(datagram.ifindex);
            Question { source: datagram.source, payload: datagram.payload, path: None }
        });
        service.handle_all(questions, &mut |way, to, payload| match way {
            Way::Back(_) => replies.push(socket, to, payload),
            Way::Nic(nic) => {
                let _ = sockets[nic].send_to(payload, &to.into());
            }
        });
        replies.flush(socket);
        service.received(count);
        Ok(count)
    }
}
