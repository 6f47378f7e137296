//! The drop-in for `AsyncUdpV4` of epics-base-rs: one bundle of sockets, bound on every NIC, which
//! answers each datagram by the NIC that heard it.
//!
//! `cargo run --features udp-v4 --example async_udp_v4 -- 5999`, then `nc -u 127.0.0.1 5999`.

use nicring::udp_v4::AsyncUdpV4;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok()).unwrap_or(0);
    let bundle = AsyncUdpV4::bind(port, true)?;
    for socket in bundle.ifaces() {
        println!("{} on interface {}", socket.iface_ip, socket.ifindex);
    }
    let mut payload = vec![0; 65_507];
    loop {
        let meta = bundle.recv_with_meta(&mut payload).await?;
        println!("{} bytes from {}, heard by {}", meta.n, meta.src, meta.iface_ip);
        bundle.send_via(&payload[..meta.n], meta.src, meta.iface_ip).await?;
    }
}
