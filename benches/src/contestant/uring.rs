//! tokio-uring's `UdpSocket`: one task per socket, one receive at a time, buffers passed along.

use std::{io, rc::Rc};

use tokio_uring::net::UdpSocket;

use super::{BUFFER_LEN, Setup, ipv4, open_sockets};
use crate::service::{Outgoing, Service, Way};

pub(super) fn serve(setup: Setup, ready: &mut dyn FnMut()) -> io::Result<()> {
    // Without these, each completion interrupts the receiver. Deferred task work is not possible
    // for a ring that tokio waits for.
    let mut ring = tokio_uring::uring_builder();
    ring.setup_single_issuer().setup_coop_taskrun().setup_taskrun_flag();
    tokio_uring::builder().uring_builder(&ring).start(async {
        // Blocking sockets: for non-blocking ones io_uring returns EAGAIN.
        let sockets = open_sockets(&setup, true)?.into_iter();
        let sockets: Rc<[UdpSocket]> =
            sockets.map(|socket| UdpSocket::from_std(socket.into())).collect();
        let start = |index| {
            let (sockets, service) = (Rc::clone(&sockets), setup.service.fork());
            tokio_uring::spawn(async move { serve_one(&sockets, index, service).await })
        };
        let tasks: Vec<_> = (0..sockets.len()).map(start).collect();
        ready();
        for task in tasks {
            task.await??;
        }
        Ok(())
    })
}

async fn serve_one(sockets: &[UdpSocket], index: usize, mut service: Service) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_LEN];
    let mut reply = Vec::with_capacity(BUFFER_LEN);
    let mut outgoing = Outgoing::default();
    loop {
        let (received, used) = sockets[index].recv_from(buffer).await;
        buffer = used;
        let (len, source) = received?;
        let send = &mut |way, to, payload: &[u8]| outgoing.push(way, to, payload);
        service.handle(ipv4(source)?, &buffer[..len], send);
        for (way, to, payload) in outgoing.iter() {
            let socket = match way {
                Way::Back(_) => &sockets[index],
                Way::Nic(nic) => &sockets[nic],
            };
            reply.clear();
            reply.extend_from_slice(payload);
            (_, reply) = socket.send_to(reply, to.into()).await;
        }
        outgoing.clear();
        service.received(1);
    }
}
