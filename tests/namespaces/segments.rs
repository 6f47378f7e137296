//! Many replies to one client across veth. Linux sends them as segments. Also: what happens if a
//! segment does not fit the path.

use std::net::{Ipv4Addr, SocketAddrV4};

use nicring::{Backend, Stats};

use crate::{
    common::{
        Client, for_each_backend,
        segments::{self, Wanted},
    },
    star::{GROUPS, PORT, Star, broadcast, on_every_nic, own, peer},
};

for_each_backend!(crate::common::netns::on:
    many_replies_cross_as_segments_and_come_once_in_order_and_unchanged,
    many_datagrams_to_a_broadcast_address_or_a_group_come_so_to_every_listener,
    segments_that_do_not_fit_the_path_are_sent_one_by_one,
    a_route_whose_mtu_becomes_small_loses_nothing,
);

/// The column of the frames that left by a NIC. On a veth, a run of segments is one frame.
const SENT_PACKETS: usize = 9;

fn client_of(star: &Star, number: u8) -> Client {
    star.client(number).client(peer(number)).with_room()
}

#[track_caller]
fn assert_all_sent(stats: &Stats, count: usize) {
    let total = stats.total();
    let seen = (total.sent_count, total.would_block_count, total.send_error_count);
    assert_eq!(seen, (count as u64, 0, 0), "{stats}");
}

fn many_replies_cross_as_segments_and_come_once_in_order_and_unchanged(backend: Backend) {
    let star = Star::new(1);
    let server = star.server.run(|| segments::serve(on_every_nic(backend)));
    let client = client_of(&star, 1);
    let rows = segments::rows();
    rows.iter().for_each(|wanted| client.ask_for(*wanted, own(1), PORT));
    let before = star.server.count_of("nic1", SENT_PACKETS);
    (0..10).for_each(|_| client.ask_for(Wanted::equal(128, 100), own(1), PORT));
    let frame_count = star.server.count_of("nic1", SENT_PACKETS) - before;
    assert!((20..40).contains(&frame_count), "{frame_count} frames for 1,280 replies");
    client.expect_nothing();
    assert_all_sent(&server.stop().0, segments::count_of(&rows) + 1280);
}

fn many_datagrams_to_a_broadcast_address_or_a_group_come_so_to_every_listener(backend: Backend) {
    let star = Star::new(1);
    let server = star.server.run(|| segments::serve(on_every_nic(backend)));
    let client = client_of(&star, 1);
    let listen = |port| star.client(1).run(move || Client::sharing(port).with_room());
    let first = listen(0);
    let port = first.address().port();
    let listeners = [first, listen(port)];
    for listener in &listeners {
        listener.0.join_multicast_v4(&GROUPS[1], &peer(1)).expect("a group");
    }
    for destination in [broadcast(1), Ipv4Addr::BROADCAST, GROUPS[1]] {
        let destination = Some(SocketAddrV4::new(destination, port));
        for wanted in [Wanted::equal(64, 40), Wanted::mixed(40, 700, 3)] {
            let wanted = Wanted { destination, ..wanted };
            client.ask_for_all(wanted, own(1), PORT, &listeners);
        }
    }
    listeners.iter().for_each(Client::expect_nothing);
    assert_all_sent(&server.stop().0, 312);
}

fn segments_that_do_not_fit_the_path_are_sent_one_by_one(backend: Backend) {
    let star = Star::new(2);
    // 548 bytes of payload.
    star.server.configure("link set nic1 mtu 576");
    let server = star.server.run(|| segments::serve(on_every_nic(backend)));
    let (narrow, wide) = (client_of(&star, 1), client_of(&star, 2));
    let mut asked_count = 0;
    let mut ask = |client: &Client, number, wanted: Wanted| {
        client.ask_for(wanted, own(number), PORT);
        asked_count += wanted.count;
    };
    for len in [547, 548, 549, 800, 1472, 549, 548] {
        for count in [1, 2, 65] {
            ask(&narrow, 1, Wanted::equal(count, len));
            ask(&wide, 2, Wanted::equal(count, len));
        }
    }
    // What fits still leaves as segments. So does everything by the other NIC.
    for (client, number, len) in [(&narrow, 1, 548), (&wide, 2, 1000)] {
        let nic = format!("nic{number}");
        let before = star.server.count_of(&nic, SENT_PACKETS);
        ask(client, number, Wanted::equal(60, len));
        let frame_count = star.server.count_of(&nic, SENT_PACKETS) - before;
        assert!(frame_count < 10, "{nic}: {frame_count} frames for 60 replies");
    }
    // A run of segments that is refused may be overtaken by one that is not.
    for spread in [2, 3, 100] {
        let wanted = Wanted::mixed(60, 600, spread);
        narrow.ask_for_in_any_order(wanted, own(1), PORT);
        asked_count += wanted.count;
    }
    narrow.expect_nothing();
    wide.expect_nothing();
    assert_all_sent(&server.stop().0, asked_count);
}

fn a_route_whose_mtu_becomes_small_loses_nothing(backend: Backend) {
    let star = Star::new(1);
    let server = star.server.run(|| segments::serve(on_every_nic(backend)));
    let client = client_of(&star, 1);
    let wanted = Wanted::equal(60, 1000);
    client.ask_for(wanted, own(1), PORT);
    star.server.configure("route replace 10.77.1.2/32 dev nic1 mtu 700");
    (0..3).for_each(|_| client.ask_for(wanted, own(1), PORT));
    star.server.configure("route delete 10.77.1.2/32 dev nic1");
    (0..3).for_each(|_| client.ask_for(wanted, own(1), PORT));
    client.expect_nothing();
    assert_all_sent(&server.stop().0, 7 * wanted.count);
}
