//! quinn-udp: `recvmmsg` of 32 with decoded control messages and GRO, on tokio's readiness.

use std::{io, io::IoSliceMut, sync::Arc};

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use tokio::{io::Interest, net::UdpSocket};

use super::{BUFFER_LEN, Setup, ipv4, open_sockets};
use crate::service::{Service, Way};

struct Endpoint {
    socket: UdpSocket,
    state: UdpSocketState,
}

pub(super) fn serve(setup: Setup, ready: &mut dyn FnMut()) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let endpoint = |socket: socket2::Socket| {
            let state = UdpSocketState::new((&socket).into())?;
            Ok(Endpoint { socket: UdpSocket::from_std(socket.into())?, state })
        };
        let sockets = open_sockets(&setup, false)?.into_iter();
        let endpoints: Arc<[Endpoint]> = sockets.map(endpoint).collect::<io::Result<_>>()?;
        let start = |index| {
            let (endpoints, service) = (Arc::clone(&endpoints), setup.service.fork());
            tokio::spawn(async move { serve_one(&endpoints, index, service).await })
        };
        let tasks: Vec<_> = (0..endpoints.len()).map(start).collect();
        ready();
        for task in tasks {
            task.await??;
        }
        Ok(())
    })
}

async fn serve_one(endpoints: &[Endpoint], index: usize, mut service: Service) -> io::Result<()> {
    let Endpoint { socket, state } = &endpoints[index];
    // A buffer has to hold all datagrams that GRO may join.
    let buffer_len = BUFFER_LEN * state.gro_segments();
    let mut memory = vec![0; buffer_len * BATCH_SIZE];
    let mut buffers: Vec<_> = memory.chunks_exact_mut(buffer_len).map(IoSliceMut::new).collect();
    let mut metas = [RecvMeta::default(); BATCH_SIZE];
    loop {
        socket.readable().await?;
        let received = socket
            .try_io(Interest::READABLE, || state.recv(socket.into(), &mut buffers, &mut metas));
        let count = match received {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            result => result?,
        };
        let mut datagram_count = 0;
        for (meta, buffer) in metas[..count].iter().zip(&buffers) {
            let source = ipv4(meta.addr)?;
            for payload in buffer[..meta.len].chunks(meta.stride.max(1)) {
                service.handle(source, payload, &mut |way, to, payload| {
                    let Endpoint { socket, state } = match way {
                        Way::Back(_) => &endpoints[index],
                        Way::Nic(nic) => &endpoints[nic],
                    };
                    let transmit = Transmit {
                        destination: to.into(),
                        ecn: None,
                        contents: payload,
                        segment_size: None,
                        src_ip: None,
                    };
                    let _ = state.try_send(socket.into(), &transmit);
                });
                datagram_count += 1;
            }
        }
        service.received(datagram_count);
    }
}
