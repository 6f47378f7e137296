//! compio's `UdpSocket`: one task per socket, multishot receives into its pool of buffers.

use std::{io, num::NonZero, pin::pin, rc::Rc};

use compio::{BufResult, driver::ProactorBuilder, net::UdpSocket, runtime};
use futures_util::StreamExt;

use super::{BUFFER_LEN, Setup, open_sockets};
use crate::service::{Outgoing, Service, Way};

/// As many buffers as nicring has by default.
const BUFFER_COUNT: NonZero<u16> = NonZero::new(1024).expect("not zero");

pub(super) fn serve(setup: Setup, ready: &mut dyn FnMut()) -> io::Result<()> {
    let mut proactor = ProactorBuilder::new();
    proactor.buffer_pool_size(BUFFER_COUNT).buffer_pool_buffer_len(BUFFER_LEN);
    // Without these, each datagram interrupts the receiver.
    proactor.single_issuer(true).defer_taskrun(true);
    let runtime = runtime::Runtime::builder().with_proactor(proactor).build()?;
    runtime.block_on(async {
        let sockets = open_sockets(&setup, true)?.into_iter();
        let sockets: Rc<[UdpSocket]> =
            sockets.map(|socket| UdpSocket::from_std(socket.into())).collect::<io::Result<_>>()?;
        let start = |index| {
            let (sockets, service) = (Rc::clone(&sockets), setup.service.fork());
            runtime::spawn(async move { serve_one(&sockets, index, service).await })
        };
        let tasks: Vec<_> = (0..sockets.len()).map(start).collect();
        ready();
        for task in tasks {
            task.await.map_err(|_| io::Error::other("a task panicked"))??;
        }
        Ok(())
    })
}

async fn serve_one(sockets: &[UdpSocket], index: usize, mut service: Service) -> io::Result<()> {
    let mut reply = Vec::with_capacity(BUFFER_LEN);
    let mut outgoing = Outgoing::default();
    loop {
        // The stream ends when the kernel finds no buffer.
        let mut datagrams = pin!(sockets[index].recv_from_multi());
        while let Some(datagram) = datagrams.next().await {
            let Ok(datagram) = datagram else {
                break;
            };
            let source = datagram.addr().and_then(|source| source.as_socket_ipv4());
            let Some(source) = source else {
                continue;
            };
            let send = &mut |way, to, payload: &[u8]| outgoing.push(way, to, payload);
            service.handle(source, datagram.data(), send);
            for (way, to, payload) in outgoing.iter() {
                let socket = match way {
                    Way::Back(_) => &sockets[index],
                    Way::Nic(nic) => &sockets[nic],
                };
                reply.clear();
                reply.extend_from_slice(payload);
                let to = std::net::SocketAddr::V4(to);
                BufResult(_, reply) = socket.send_to(reply, to).await;
            }
            outgoing.clear();
            service.received(1);
        }
    }
}
