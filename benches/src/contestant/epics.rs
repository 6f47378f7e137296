//! `AsyncUdpV4` of epics-base-rs 0.18.3, of epics-libcom-rs 0.33 and of nicring, which have the
//! same methods.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
};

use nicring::Backend;

use super::{BUFFER_LEN, RECV_BUFFER_BYTES, Setup, ipv4};
use crate::{
    network::set_recv_buffer,
    service::{Outgoing, Way},
};

/// The methods that are used here.
trait PerNic {
    /// Returns the length, the source, and the address of the NIC.
    async fn recv(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddrV4, Ipv4Addr)>;
    async fn send(&self, payload: &[u8], to: SocketAddrV4, nic: Ipv4Addr) -> io::Result<usize>;
}

macro_rules! per_nic {
    ($module:path) => {
        impl PerNic for $module {
            async fn recv(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddrV4, Ipv4Addr)> {
                let (meta, _drops) = self.recv_with_meta_with_drops(buffer).await?;
                Ok((meta.n, ipv4(meta.src)?, meta.iface_ip))
            }

            async fn send(
                &self,
                payload: &[u8],
                to: SocketAddrV4,
                nic: Ipv4Addr,
            ) -> io::Result<usize> {
                self.send_via(payload, to.into(), nic).await
            }
        }
    };
}

per_nic!(epics_base_rs::net::AsyncUdpV4);
per_nic!(epics_libcom_rs::net::async_udp_v4::AsyncUdpV4);
per_nic!(nicring::udp_v4::AsyncUdpV4);

pub(super) fn serve_nicring(
    backend: Backend,
    setup: Setup,
    ready: &mut dyn FnMut(),
) -> io::Result<()> {
    block_on(async {
        let bound = nicring::udp_v4::AsyncUdpV4::bind(setup.port, true)?;
        let sockets = bound.with_backend(backend)?;
        sockets.set_recv_buffer_size(RECV_BUFFER_BYTES)?;
        serve(&sockets, setup, ready).await
    })
}

/// Receives by [`AsyncUdpV4::recv_batch`](nicring::udp_v4::AsyncUdpV4::recv_batch).
pub(super) fn serve_batches(setup: Setup, ready: &mut dyn FnMut()) -> io::Result<()> {
    block_on(async {
        let sockets = nicring::udp_v4::AsyncUdpV4::bind(setup.port, true)?;
        sockets.set_recv_buffer_size(RECV_BUFFER_BYTES)?;
        let Setup { addresses, mut service, .. } = setup;
        let mut batch = nicring::udp_v4::RecvBatch::default();
        let mut outgoing = Outgoing::default();
        ready();
        loop {
            let count = sockets.recv_batch(&mut batch, 64).await?;
            for (details, payload) in batch.iter() {
                let meta = details.meta;
                let send = &mut |way, to, payload: &[u8]| outgoing.push(way, to, payload);
                service.handle(ipv4(meta.src)?, payload, send);
                send_all(&sockets, &mut outgoing, &addresses, meta.iface_ip).await;
            }
            service.received(count);
        }
    })
}

pub(super) fn serve_seed(setup: Setup, ready: &mut dyn FnMut()) -> io::Result<()> {
    block_on(async {
        let sockets = epics_base_rs::net::AsyncUdpV4::bind(setup.port, true)?;
        sockets.enable_so_rxq_ovfl()?;
        for nic in sockets.ifaces() {
            set_recv_buffer(&nic.sock, RECV_BUFFER_BYTES)?;
        }
        serve(&sockets, setup, ready).await
    })
}

pub(super) fn serve_libcom(setup: Setup, ready: &mut dyn FnMut()) -> io::Result<()> {
    use epics_libcom_rs::net::{PortUse, async_udp_v4::AsyncUdpV4};
    block_on(async {
        let sockets = AsyncUdpV4::bind(setup.port, PortUse::Shared, true)?;
        sockets.enable_so_rxq_ovfl()?;
        for nic in sockets.ifaces() {
            set_recv_buffer(&nic.sock, RECV_BUFFER_BYTES)?;
        }
        serve(&sockets, setup, ready).await
    })
}

fn block_on(server: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(server)
}

async fn serve(sockets: &impl PerNic, setup: Setup, ready: &mut dyn FnMut()) -> io::Result<()> {
    let Setup { addresses, mut service, .. } = setup;
    let mut buffer = vec![0; BUFFER_LEN];
    let mut outgoing = Outgoing::default();
    ready();
    loop {
        let (len, source, nic) = sockets.recv(&mut buffer).await?;
        let send = &mut |way, to, payload: &[u8]| outgoing.push(way, to, payload);
        service.handle(source, &buffer[..len], send);
        send_all(sockets, &mut outgoing, &addresses, nic).await;
        service.received(1);
    }
}

async fn send_all(
    sockets: &impl PerNic,
    outgoing: &mut Outgoing,
    addresses: &[Ipv4Addr],
    nic: Ipv4Addr,
) {
    for (way, to, payload) in outgoing.iter() {
        let nic = match way {
            Way::Back(_) => nic,
            Way::Nic(position) => addresses[position],
        };
        let _ = sockets.send(payload, to, nic).await;
    }
    outgoing.clear();
}
