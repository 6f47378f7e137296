//! tokio's `UdpSocket`: one task a socket, which drains it whenever it is readable.

use std::{io, sync::Arc};

use tokio::net::UdpSocket;

use super::{BUFFER_LEN, DRAIN_MAX, Setup, ipv4, open_sockets};
use crate::service::{Service, Way};

pub(super) fn serve(setup: Setup, ready: &mut dyn FnMut()) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let sockets = open_sockets(&setup, false)?.into_iter();
        let sockets: Arc<[UdpSocket]> =
            sockets.map(|socket| UdpSocket::from_std(socket.into())).collect::<io::Result<_>>()?;
        let start = |index| {
            let (sockets, service) = (Arc::clone(&sockets), setup.service.fork());
            tokio::spawn(async move { serve_one(&sockets, index, service).await })
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
    let send = &mut |way, to: std::net::SocketAddrV4, payload: &[u8]| {
        let socket = match way {
            Way::Back(_) => &sockets[index],
            Way::Nic(nic) => &sockets[nic],
        };
        let _ = socket.try_send_to(payload, to.into());
    };
    loop {
        let (len, source) = sockets[index].recv_from(&mut buffer).await?;
        service.handle(ipv4(source)?, &buffer[..len], send);
        let mut count = 1;
        while count < DRAIN_MAX {
            let Ok((len, source)) = sockets[index].try_recv_from(&mut buffer) else {
                break;
            };
            service.handle(ipv4(source)?, &buffer[..len], send);
            count += 1;
        }
        service.received(count);
    }
}
