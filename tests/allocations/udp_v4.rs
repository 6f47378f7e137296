//! `AsyncUdpV4`: neither a receive nor an answer allocates.

use nicring::{Backend, udp_v4::AsyncUdpV4};

use crate::{
    cases::{ask, measure},
    common::{Client, LOCALHOST, for_each_backend},
};

for_each_backend!(crate::cases::alone:
    a_bundle_allocates_nothing,
    a_bundle_on_every_nic_allocates_nothing,
);

const STOP: &[u8] = b"stop";

fn a_bundle_allocates_nothing(backend: Backend) {
    serve(|| AsyncUdpV4::bind_single(LOCALHOST, 0, true), backend);
}

/// This bundle also has sockets for broadcasts.
fn a_bundle_on_every_nic_allocates_nothing(backend: Backend) {
    serve(|| AsyncUdpV4::bind_ephemeral_same_port(true), backend);
}

/// Answers questions. Meanwhile receives are dropped and made again.
fn serve(bind: impl FnOnce() -> std::io::Result<AsyncUdpV4>, backend: Backend) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let bundle = bind().and_then(|bundle| bundle.with_backend(backend)).expect("a bundle");
        let port = bundle.local_addrs()[0].port();
        let client = std::thread::spawn(move || {
            measure(port, ask);
            Client::on_loopback().send(STOP, std::net::SocketAddrV4::new(LOCALHOST, port));
        });
        let mut buf = [0; 64];
        loop {
            let meta = tokio::select! {
                biased;
                () = tokio::task::yield_now() => continue,
                meta = bundle.recv_with_meta(&mut buf) => meta.expect("a datagram"),
            };
            if &buf[..meta.n] == STOP {
                break;
            }
            bundle.send_via(&buf[..meta.n], meta.src, meta.iface_ip).await.expect("an answer");
        }
        client.join().expect("nothing was allocated");
        assert_eq!(bundle.backend(), backend);
    });
}
