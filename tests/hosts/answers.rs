//! Whose answers are lost when there are hosts that do not say where they are, NICs that are slow,
//! and firewalls.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    ops::ControlFlow,
};

use nicring::{Backend, Listen};

use crate::{
    common::{
        Client, Server, for_each_backend,
        netns::{Namespace, run},
        sandbox, wait_until,
    },
    host::Host,
    oracle::{PORT, builder},
};

for_each_backend!(crate::common::netns::on:
    an_asker_that_answers_no_arp_takes_nothing_from_anyone,
    one_asker_that_answers_no_arp_takes_nothing_where_send_buffers_are_small,
    a_slow_nic_delays_no_other,
    made_up_askers_of_limited_broadcasts_do_not_fill_the_table_of_neighbours,
    segments_that_a_firewall_refuses_leave_one_by_one,
    no_answer_goes_to_a_broadcast_address,
);

/// How often each asker is asked for in one go. More than fit an unprivileged receive buffer would
/// be lost before they are heard.
const CHUNK: usize = 100;

/// Sends questions with sources that nobody has, chunk after chunk, each when the last was heard.
fn flood(host: &Host, server: &Server, to: Ipv4Addr, count: usize, source: impl Fn(usize) -> u32) {
    let received = || server.handle.stats().total().received_count();
    let spoofer = Spoofer::new(host.neighbour(1));
    let before = received();
    for first in (0..count).step_by(CHUNK) {
        for number in first..first + CHUNK {
            spoofer.ask(Ipv4Addr::from_bits(source(number)), to);
        }
        wait_until("they are heard", || received() == before + (first + CHUNK) as u64);
    }
}

/// Sends UDP datagrams with any source address.
struct Spoofer(socket2::Socket);

impl Spoofer {
    fn new(on: &Namespace) -> Self {
        use socket2::{Domain, Protocol, Socket, Type};
        let open = || {
            // IPPROTO_RAW: the IP header is part of what is sent (raw(7)).
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))?;
            socket.set_broadcast(true)?;
            socket.bind_device(Some(b"eth0"))?;
            Ok::<_, std::io::Error>(socket)
        };
        Self(on.run(|| open().expect("a raw socket")))
    }

    fn ask(&self, source: Ipv4Addr, to: Ipv4Addr) {
        const PAYLOAD: &[u8] = b"nobody is there";
        let udp_len = 8 + PAYLOAD.len();
        // The kernel fills in total length, identification and checksum of the header.
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
        packet.extend(source.octets());
        packet.extend(to.octets());
        for field in [4000, PORT, udp_len as u16, 0] {
            packet.extend(field.to_be_bytes()); // a checksum of 0 is none
        }
        packet.extend(PAYLOAD);
        let to = SocketAddrV4::new(to, 0).into();
        assert_eq!(self.0.send_to(&packet, &to).expect("room"), packet.len());
    }
}

/// A neighbour asks, and gets every answer.
#[track_caller]
fn assert_all_answered(host: &Host, number: u8, to: Ipv4Addr, from: &str, count: usize) {
    let client = host.neighbour(number).client(Ipv4Addr::UNSPECIFIED);
    for number in 0..count {
        let text = format!("healthy {number}");
        client.ask(&text, to, PORT);
        client.expect(&text, SocketAddrV4::new(from.parse().expect("an address"), PORT));
    }
}

fn an_asker_that_answers_no_arp_takes_nothing_from_anyone(backend: Backend) {
    for (mode, to) in [
        (Listen::Class, [10, 201, 1, 1]),
        (Listen::Class, [10, 201, 1, 255]),
        (Listen::Wildcard, [10, 201, 1, 1]),
    ] {
        let host = Host::new(2);
        let server = host.server.echo(builder(backend).listen(mode));
        for asker_count in [1, 20, 150] {
            // Those of the last round are asked for by ARP for three seconds; these are others.
            let first = 0x0AC9_0100 + if asker_count == 150 { 100 } else { 3 + asker_count };
            flood(&host, &server, to.into(), 1_500, |number| first + number as u32 % asker_count);
            assert_all_answered(&host, 1, [10, 201, 1, 1].into(), "10.201.1.1", 20);
            assert_all_answered(&host, 1, [10, 201, 1, 255].into(), "10.201.1.1", 20);
            assert_all_answered(&host, 2, [10, 201, 2, 1].into(), "10.201.2.1", 20);
        }
    }
}

fn one_asker_that_answers_no_arp_takes_nothing_where_send_buffers_are_small(backend: Backend) {
    let host = Host::new(2);
    let server =
        host.server.run(|| sandbox::with_small_send_buffers(|| Server::echo(builder(backend))));
    flood(&host, &server, [10, 201, 1, 255].into(), 1_500, |_| 0x0AC9_0114);
    assert_all_answered(&host, 1, [10, 201, 1, 1].into(), "10.201.1.1", 50);
    assert_all_answered(&host, 1, [10, 201, 1, 255].into(), "10.201.1.1", 50);
    assert_all_answered(&host, 2, [10, 201, 2, 255].into(), "10.201.2.1", 50);
}

/// Its answers wait in the queue of its NIC, and fill the buffer of their sender.
fn a_slow_nic_delays_no_other(backend: Backend) {
    for listen in [Listen::Class, Listen::Wildcard] {
        let host = Host::new(2);
        let mut command = std::process::Command::new("tc");
        command.args(["-n", &host.server.name, "qdisc", "add", "dev", "s1", "root", "tbf"]);
        command.args(["rate", "64kbit", "burst", "2000", "limit", "100000000"]);
        run(&mut command, "").expect("a slow NIC");
        let builder = builder(backend).listen(listen).send_buffer_bytes(100_000);
        let server = host.server.echo(builder);
        let (slow, payload) = (host.neighbour(1).client(Ipv4Addr::UNSPECIFIED), [7; 1_000]);
        wait_until("the slow NIC takes no more", || {
            slow.send(payload, SocketAddrV4::new([10, 201, 1, 1].into(), PORT));
            server.handle.stats().total().would_block_count > 0
        });
        assert_all_answered(&host, 2, [10, 201, 2, 1].into(), "10.201.2.1", 50);
        assert_all_answered(&host, 2, [10, 201, 2, 255].into(), "10.201.2.1", 50);
        // By a broadcast from behind a router, which answers leave for by the kernel's route.
        host.neighbour(2).configure("address add 10.99.0.1/32 dev lo");
        host.server.configure("route add 10.99.0.1 via 10.201.2.2");
        let routed = host.neighbour(2).client([10, 99, 0, 1]);
        for number in 0..50 {
            let text = format!("routed {number}");
            routed.ask(&text, [10, 201, 2, 255], PORT);
            routed.expect(&text, SocketAddrV4::new([10, 201, 2, 1].into(), PORT));
        }
    }
}

fn made_up_askers_of_limited_broadcasts_do_not_fill_the_table_of_neighbours(backend: Backend) {
    let host = Host::new(1);
    host.server.set("ipv4/conf/all/rp_filter", "0");
    host.server.set("ipv4/conf/s1/rp_filter", "0");
    let server = host.server.echo(builder(backend));
    flood(&host, &server, Ipv4Addr::BROADCAST, 3_000, |number| 0x2C00_0001 + number as u32 * 7);
    let mut command = std::process::Command::new("ip");
    command.args(["-n", &host.server.name, "-4", "neighbour", "show", "nud", "all"]);
    let known_count = run(&mut command, "").expect("the neighbours").lines().count();
    assert!(known_count < 256, "{known_count} neighbours");
    assert_all_answered(&host, 1, Ipv4Addr::BROADCAST, "10.201.1.1", 10);
    // A few have a strange address, and are answered all the same.
    host.neighbour(1).configure("address add 192.0.2.77/32 dev eth0");
    let stranger = host.neighbour(1).client([192, 0, 2, 77]);
    let soon = Some(std::time::Duration::from_millis(20));
    stranger.0.set_read_timeout(soon).expect("a timeout");
    wait_until("a stranger is answered", || {
        stranger.ask("stranger", Ipv4Addr::BROADCAST, PORT);
        stranger.0.recv(&mut [0; 16]).is_ok()
    });
}

fn segments_that_a_firewall_refuses_leave_one_by_one(backend: Backend) {
    let host = Host::new(1);
    let chain = "add chain ip t out { type filter hook output priority 0 ; }";
    host.server.need_nft(&["add table ip t", chain]);
    host.server.nft("add rule ip t out meta l4proto udp meta length > 1400 drop").expect("a rule");
    let server = host.server.run(|| {
        Server::start(builder(backend), |batch| {
            for datagram in batch {
                for _ in 0..64 {
                    let _ = batch.reply(&datagram, &[7; 60]);
                }
            }
            ControlFlow::Continue(())
        })
    });
    let client = host.neighbour(1).client(Ipv4Addr::UNSPECIFIED);
    for _ in 0..3 {
        client.ask("64", [10, 201, 1, 1], PORT);
        for _ in 0..64 {
            assert_eq!(client.receive().0, [7; 60]);
        }
    }
    assert_eq!(server.handle.stats().total().send_error_count, 0);
}

/// By any of the ways in which an asker may name the address that is answered.
fn no_answer_goes_to_a_broadcast_address(backend: Backend) {
    let host = Host::new(1);
    host.server.set("ipv4/conf/all/rp_filter", "0");
    host.server.set("ipv4/conf/s1/rp_filter", "0");
    let targets: [[u8; 4]; 4] =
        [[10, 201, 1, 255], [255; 4], [127, 255, 255, 255], [224, 0, 0, 128]];
    let server = host.server.run(|| {
        Server::start(builder(backend), move |batch| {
            for datagram in batch {
                for target in targets {
                    let to = SocketAddrV4::new(target.into(), 4000);
                    let queued = batch.reply_to(&datagram, to, b"flood");
                    assert_eq!(queued, nicring::Queued::NoHost, "{to}");
                }
                let _ = batch.reply(&datagram, datagram.payload());
            }
            ControlFlow::Continue(())
        })
    });
    let bystander: Client = host.neighbour(1).run(|| Client::sharing(4000));
    Spoofer::new(host.neighbour(1)).ask([10, 201, 1, 255].into(), [10, 201, 1, 1].into());
    wait_until("it is counted", || server.handle.stats().total().guarded_count == 1);
    assert_all_answered(&host, 1, [10, 201, 1, 1].into(), "10.201.1.1", 1);
    bystander.expect_nothing();
    assert_eq!(server.handle.stats().no_host_count, 4);
}
