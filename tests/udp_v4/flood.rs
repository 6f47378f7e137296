//! Sixteen NICs are flooded with the longest datagrams of UDP. The memory of a bundle stays
//! bounded, and is freed when the flood ends. Each case runs in its own process, whose memory no
//! other test uses. Needs network namespaces.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use nicring::{Backend, udp_v4::AsyncUdpV4};
use tokio::time;

use crate::{
    Bundle, block_on,
    common::{
        Client, OnDrop, for_each_backend,
        memory::{forget_peak, peak, resident},
        netns::Namespace,
        sandbox::is_child_of,
    },
    over,
};

for_each_backend!(crate::common::netns::on:
    whole_datagrams_on_sixteen_nics_take_bounded_memory_that_returns,
);

const PORT: u16 = 5076;
const NIC_COUNT: u8 = 16;
const PAYLOAD_LEN: usize = 65_507;
const FLOOD_TIME: Duration = Duration::from_secs(2);
const IDLE_TIME: Duration = Duration::from_millis(500);
/// The memory has to be freed within this time.
const RETURN_TIME: Duration = Duration::from_secs(1);
/// What the allocator and tokio may use in addition.
const SLACK_BYTES: usize = 512 << 10;
/// How far the kernel's count of the peak may be off, on two CPUs.
const PEAK_ERROR_BYTES: usize = 512 << 10;

/// The memory that a bundle takes at most, by the documentation of `udp_v4`, and how much of it
/// stays until the bundle is dropped.
fn caps(backend: Backend) -> (usize, usize) {
    match backend {
        // A queue, and the thread's receive memory, which stays.
        Backend::Portable => ((1 + 1) << 20, 1 << 20),
        // The ring's buffers, which stay, and a queue.
        _ => ((4 + 8) << 20, 4 << 20),
    }
}

fn whole_datagrams_on_sixteen_nics_take_bounded_memory_that_returns(backend: Backend) {
    let case = "whole_datagrams_on_sixteen_nics_take_bounded_memory_that_returns";
    if is_child_of(&format!("flood::{backend}::{case}"), &[], |_| {}) {
        let star = Star::new();
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| star.peer.run(|| flood(&is_over)));
            let _end = OnDrop(|| is_over.store(true, Relaxed));
            star.server.run(|| block_on(serve(backend, &is_over)));
        });
    }
}

/// Sixteen NICs that reach the same peer. Each has an MTU that holds a whole datagram.
struct Star {
    server: Namespace,
    peer: Namespace,
}

impl Star {
    fn new() -> Self {
        let [server, peer] = ["s", "p"].map(|label| Namespace::new(label).expect("it can be made"));
        for number in 1..=NIC_COUNT {
            let (nic, peer_nic) = (format!("nic{number}"), format!("eth{number}"));
            server.connect(&nic, &peer, &peer_nic).expect("veth");
            for (namespace, name, host) in [(&server, &nic, 1), (&peer, &peer_nic, 2)] {
                namespace.configure(&format!(
                    "link set {name} mtu 65535\n\
                     address add 10.81.{number}.{host}/24 brd + dev {name}"
                ));
            }
        }
        Self { server, peer }
    }
}

/// Sends unicast and broadcast datagrams to every NIC in turn. The first byte names the NIC.
fn flood(is_over: &AtomicBool) {
    let client = Client::bind((Ipv4Addr::UNSPECIFIED, 0));
    let mut payload = vec![0x5a; PAYLOAD_LEN];
    while !is_over.load(Relaxed) {
        for number in 1..=NIC_COUNT {
            payload[0] = number;
            for host in [1, 255] {
                let to = SocketAddrV4::new([10, 81, number, host].into(), PORT);
                // Full queues drop it: that is the purpose of the flood.
                let _ = client.0.send_to(&payload, to);
            }
        }
    }
}

/// Receives once and then nothing for a while. Then it receives more slowly than the flood comes,
/// so that all queues and buffers fill. When the flood is over, it receives the rest.
async fn serve(backend: Backend, is_over: &AtomicBool) {
    let mut buf = vec![0x5a; PAYLOAD_LEN];
    let bundle = over(backend, AsyncUdpV4::bind_non_loopback(PORT, true));
    bundle.set_recv_buffer_size(1 << 20).expect("SO_RCVBUF");
    let before = resident();
    forget_peak();
    let mut heard_counts = [0; NIC_COUNT as usize + 1];
    let mut receive = async |bundle: &Bundle| {
        let meta = bundle.recv_with_meta(&mut buf).await.expect("a receive");
        assert_eq!(meta.n, PAYLOAD_LEN);
        assert!(buf[1..].iter().all(|byte| *byte == 0x5a), "another payload");
        assert_eq!(meta.iface_ip, Ipv4Addr::new(10, 81, buf[0], 1));
        heard_counts[usize::from(buf[0])] += 1;
    };
    let start = Instant::now();
    time::timeout(FLOOD_TIME, receive(&bundle)).await.expect("nothing was heard");
    time::sleep(IDLE_TIME).await;
    while start.elapsed() < FLOOD_TIME {
        time::timeout(FLOOD_TIME, receive(&bundle)).await.expect("nothing was heard");
        time::sleep(Duration::from_millis(1)).await;
    }
    is_over.store(true, Relaxed);
    while time::timeout(Duration::from_millis(100), receive(&bundle)).await.is_ok() {}
    let end = Instant::now();
    let (held_max, kept_max) = caps(backend);
    let grown = peak().saturating_sub(before);
    assert!(grown <= held_max + SLACK_BYTES + PEAK_ERROR_BYTES, "{grown} bytes were held");
    let mut kept = resident().saturating_sub(before);
    while kept > kept_max + SLACK_BYTES && end.elapsed() < RETURN_TIME {
        // Some datagrams may have been delayed on the way.
        let _ = time::timeout(Duration::from_millis(10), receive(&bundle)).await;
        kept = resident().saturating_sub(before);
    }
    assert!(kept <= kept_max + SLACK_BYTES, "{kept} bytes did not return");
    assert!(heard_counts[1..].iter().all(|count| *count > 0), "not from all: {heard_counts:?}");
}
