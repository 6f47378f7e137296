//! Faults that only several NICs show.

use std::{
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    process::Command,
    time::Duration,
};

use nicring::{
    Backend,
    udp_v4::{AsyncUdpV4, IfaceDiff, IfaceMap},
};
use socket2::SockRef;
use tokio::time;

use crate::{
    at, block_on,
    common::{
        Client, for_each_backend,
        netns::{self, Namespace},
        skip,
    },
    over, receive, receive_nothing,
};

for_each_backend!(crate::common::netns::on:
    every_class_is_heard_once_with_the_kernels_destination_and_interface,
    the_interface_is_the_one_it_arrived_on,
    two_nics_on_one_subnet_hear_their_own_broadcasts_alone,
    an_ephemeral_bundle_hears_subnet_broadcasts,
    fanout_leaves_once_by_every_nic_that_is_no_loopback,
    a_nic_that_is_stuck_delays_no_other,
    the_longest_prefix_and_then_the_route_picks_the_nic,
    an_address_that_has_left_is_told_as_not_available,
    a_nic_that_is_down_is_left_out,
    without_loopback_nothing_is_taken_from_it,
);

const PORT: u16 = 5076;
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);

/// A server with two NICs, 10.78.1.1/24 and 10.78.2.1/24, and behind each a client with the address
/// .2.
struct Pair {
    server: Namespace,
    clients: [Namespace; 2],
}

impl Pair {
    fn new() -> Self {
        let made = |label| Namespace::new(label).unwrap_or_else(|error| panic!("{error}"));
        let pair = Self { server: made("s"), clients: ["c", "d"].map(made) };
        for (number, client) in (1..).zip(&pair.clients) {
            pair.server.connect(&format!("nic{number}"), client, "eth0").unwrap();
            let subnet = format!("10.78.{number}");
            pair.server.configure(&format!("address add {subnet}.1/24 brd + dev nic{number}"));
            client.configure(&format!(
                "address add {subnet}.2/24 brd + dev eth0\nroute add default via {subnet}.1"
            ));
        }
        pair
    }

    /// Runs a case in the server's namespace.
    fn serve<F: Future<Output = ()>>(&self, case: impl FnOnce() -> F + Send) {
        self.server.run(|| block_on(async { case().await }));
    }

    fn client(&self, number: u8) -> Client {
        self.clients[usize::from(number) - 1].client(Ipv4Addr::UNSPECIFIED)
    }

    fn index(&self, number: u8) -> u32 {
        self.server.index_of(&format!("nic{number}"))
    }
}

fn own(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 78, number, 1)
}

fn broadcast(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 78, number, 255)
}

/// Each class is heard once, with the right metadata, and answered from an address that the client
/// can reach.
fn every_class_is_heard_once_with_the_kernels_destination_and_interface(backend: Backend) {
    let pair = Pair::new();
    pair.server.configure("address add 10.78.1.9/24 brd + dev nic1"); // an alias
    pair.serve(|| async {
        let bundle = over(backend, AsyncUdpV4::bind(PORT, true));
        bundle.join_multicast_v4(GROUP).unwrap();
        bundle.join_multicast_v4(GROUP).unwrap();
        for number in [1, 2] {
            let client = pair.client(number);
            for to in [own(number), broadcast(number), Ipv4Addr::BROADCAST, GROUP] {
                client.ask("search", to, PORT);
                let (text, meta, _) = receive(&bundle).await;
                let told = (text.as_str(), meta.dst_ip, meta.ifindex, meta.iface_ip);
                let index = pair.index(number);
                assert_eq!(told, ("search", Some(to), Some(index), own(number)), "{number} {to}");
                bundle.send_via(b"found", meta.src, meta.iface_ip).await.unwrap();
                let (answer, from) = client.receive();
                assert_eq!(
                    (&answer[..], from),
                    (&b"found"[..], SocketAddrV4::new(own(number), PORT))
                );
                receive_nothing(&bundle).await;
            }
        }
        pair.client(1).ask("alias", [10, 78, 1, 9], PORT);
        assert_eq!(receive(&bundle).await.1.iface_ip, Ipv4Addr::new(10, 78, 1, 9));
    });
}

/// The weak host model: an address of nic2 is asked over nic1.
fn the_interface_is_the_one_it_arrived_on(backend: Backend) {
    let pair = Pair::new();
    pair.serve(|| async {
        let bundle = over(backend, AsyncUdpV4::bind(PORT, true));
        pair.client(1).ask("over there", own(2), PORT);
        let (_, meta, _) = receive(&bundle).await;
        let told = (meta.dst_ip, meta.ifindex, meta.iface_ip);
        assert_eq!(told, (Some(own(2)), Some(pair.index(1)), own(2)));
    });
}

fn two_nics_on_one_subnet_hear_their_own_broadcasts_alone(backend: Backend) {
    let pair = Pair::new();
    pair.server.configure("address flush dev nic2\naddress add 10.78.1.7/24 brd + dev nic2");
    pair.serve(|| async {
        let bundle = over(backend, AsyncUdpV4::bind(PORT, true));
        pair.client(1).ask("search", broadcast(1), PORT);
        let (_, meta, _) = receive(&bundle).await;
        assert_eq!((meta.ifindex, meta.iface_ip), (Some(pair.index(1)), own(1)));
        receive_nothing(&bundle).await;
    });
}

fn an_ephemeral_bundle_hears_subnet_broadcasts(backend: Backend) {
    let pair = Pair::new();
    pair.serve(|| async {
        let bundle = over(backend, AsyncUdpV4::bind_ephemeral_same_port(true));
        let port = bundle.local_addrs()[0].port();
        assert_eq!(bundle.local_addrs()[0], SocketAddr::from((own(1), port)));
        for number in [1, 2] {
            pair.client(number).ask("beacon", broadcast(number), port);
            assert_eq!(receive(&bundle).await.1.iface_ip, own(number));
        }
    });
}

fn fanout_leaves_once_by_every_nic_that_is_no_loopback(backend: Backend) {
    let pair = Pair::new();
    pair.server.configure("address add 10.78.1.9/24 brd + dev nic1");
    pair.serve(|| async {
        let bundle = over(backend, AsyncUdpV4::bind_ephemeral_same_port(true));
        let listeners = [0, 1].map(|at| pair.clients[at].run(|| Client::sharing(PORT)));
        let sent = bundle.fanout_to(b"search", at(Ipv4Addr::BROADCAST, PORT)).await;
        assert_eq!(sent.unwrap(), 2);
        for (number, listener) in (1..).zip(&listeners) {
            let (payload, source) = listener.receive();
            assert_eq!((&payload[..], *source.ip()), (&b"search"[..], own(number)));
            listener.expect_nothing();
        }
    });
}

/// The queue discipline passes nothing on, so what is sent fills the socket's buffer.
fn a_nic_that_is_stuck_delays_no_other(backend: Backend) {
    let pair = Pair::new();
    let stuck = "tc qdisc add dev nic1 root tbf rate 8bit burst 2000 limit 100000000";
    let stuck = ["netns", "exec", &pair.server.name].into_iter().chain(stuck.split(' '));
    if let Err(reason) = netns::run(Command::new("ip").args(stuck), "") {
        skip("tc", &reason);
    }
    pair.serve(|| async {
        let bundle = over(backend, AsyncUdpV4::bind_ephemeral_same_port(true));
        let first = &bundle.ifaces()[0];
        assert_eq!(first.iface_ip, own(1));
        SockRef::from(&*first.sock).set_send_buffer_size(4096).unwrap();
        let listener = pair.clients[1].run(|| Client::sharing(PORT));
        let payload = [7; 1400];
        for _ in 0..30 {
            let sent = bundle.fanout_to(&payload, at(Ipv4Addr::BROADCAST, PORT));
            let sent = time::timeout(Duration::from_secs(1), sent).await;
            assert!(sent.expect("it waited").unwrap() >= 1);
            assert_eq!(listener.receive().0, payload);
        }
    });
}

fn the_longest_prefix_and_then_the_route_picks_the_nic(backend: Backend) {
    let pair = Pair::new();
    pair.server.configure(
        "address add 10.1.0.1/8 dev nic2\nroute add 192.0.2.0/24 via 10.78.2.2\n\
         route add default via 10.78.1.2",
    );
    pair.serve(|| async {
        let bundle = over(backend, AsyncUdpV4::bind_ephemeral_same_port(true));
        let picked = |dest: [u8; 4]| bundle.pick_nic(dest.into()).unwrap().iface_ip;
        assert_eq!(picked([10, 78, 1, 200]), own(1));
        assert_eq!(picked([10, 78, 2, 255]), own(2));
        assert_eq!(picked([10, 200, 0, 1]), Ipv4Addr::new(10, 1, 0, 1));
        assert_eq!(picked([192, 0, 2, 1]), own(2));
        assert_eq!(picked([198, 51, 100, 1]), own(1));
        assert_eq!(picked([127, 0, 0, 5]), Ipv4Addr::LOCALHOST);
    });
}

fn an_address_that_has_left_is_told_as_not_available(backend: Backend) {
    let pair = Pair::new();
    pair.serve(|| async {
        let bundle = over(backend, AsyncUdpV4::bind(PORT, true));
        let map = IfaceMap::new();
        let before = map.all();
        pair.server.configure("address del 10.78.2.1/24 dev nic2");
        let error = bundle.send_via(b"x", at([10, 78, 2, 2], PORT), own(2)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable, "{error}");
        // The other NIC goes on.
        pair.client(1).ask("search", own(1), PORT);
        assert_eq!(receive(&bundle).await.0, "search");
        let diff = map.try_refresh().unwrap();
        assert_eq!(diff, IfaceDiff::between(&before, &map.all()));
        assert_eq!((diff.removed.len(), diff.removed[0].ip), (1, own(2)));
    });
}

fn a_nic_that_is_down_is_left_out(backend: Backend) {
    let pair = Pair::new();
    pair.server.configure("link set nic2 down");
    pair.serve(|| async {
        let bundle = over(backend, AsyncUdpV4::bind(PORT, true));
        let has = |address| bundle.ifaces().iter().any(|nic| nic.iface_ip == address);
        assert!(has(own(1)) && !has(own(2)));
        let down = IfaceMap::new().by_index(pair.index(2)).unwrap();
        assert_eq!((down.ip, down.up_non_loopback), (own(2), false));
    });
}

fn without_loopback_nothing_is_taken_from_it(backend: Backend) {
    let pair = Pair::new();
    pair.serve(|| async {
        let bundle = over(backend, AsyncUdpV4::bind_non_loopback(PORT, true));
        assert!(bundle.ifaces().iter().all(|nic| !nic.is_loopback));
        let plain = Client::sharing(PORT);
        Client::on_loopback().ask("local", Ipv4Addr::LOCALHOST, PORT);
        assert_eq!(plain.receive().0, b"local");
        receive_nothing(&bundle).await;
    });
}
