//! Many replies to one client over `lo`. Linux sends them as segments, and the client, a plain
//! socket, must not notice.

use std::net::{Ipv4Addr, SocketAddrV4};

use nicring::{Backend, Listen};

use crate::common::{
    Client, LOCALHOST, for_each_backend, on_loopback,
    segments::{self, Wanted},
};

for_each_backend!(crate::common::on:
    many_replies_come_once_in_order_and_unchanged,
    many_replies_of_a_wildcard_socket_come_so_too,
    many_datagrams_to_a_broadcast_address_or_a_group_come_so_to_every_listener,
);

fn many_replies_come_once_in_order_and_unchanged(backend: Backend) {
    many_replies(backend, Listen::Class);
}

fn many_replies_of_a_wildcard_socket_come_so_too(backend: Backend) {
    many_replies(backend, Listen::Wildcard);
}

fn many_replies(backend: Backend, listen: Listen) {
    let server = segments::serve(on_loopback(backend).listen(listen));
    let client = Client::on_loopback().with_room();
    let rows = segments::rows();
    rows.iter().for_each(|wanted| client.ask_for(*wanted, LOCALHOST, server.port));
    client.expect_nothing();
    let stats = server.stop().0;
    let total = stats.total();
    assert_eq!(total.sent_count, segments::count_of(&rows) as u64, "{stats}");
    assert_eq!((total.would_block_count, total.send_error_count), (0, 0), "{stats}");
}

fn many_datagrams_to_a_broadcast_address_or_a_group_come_so_to_every_listener(backend: Backend) {
    const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 128);
    let server = segments::serve(on_loopback(backend));
    let client = Client::on_loopback();
    let first = Client::sharing(0).with_room();
    let port = first.address().port();
    let listeners = [first, Client::sharing(port).with_room()];
    for listener in &listeners {
        listener.0.join_multicast_v4(&GROUP, &LOCALHOST).expect("a group on lo");
    }
    for destination in [Ipv4Addr::new(127, 255, 255, 255), Ipv4Addr::BROADCAST, GROUP] {
        let destination = Some(SocketAddrV4::new(destination, port));
        for wanted in [Wanted::equal(64, 40), Wanted::mixed(40, 700, 3)] {
            let wanted = Wanted { destination, ..wanted };
            client.ask_for_all(wanted, LOCALHOST, server.port, &listeners);
        }
    }
    listeners.iter().for_each(Client::expect_nothing);
    let stats = server.stop().0;
    assert_eq!((stats.total().sent_count, stats.total().send_error_count), (312, 0), "{stats}");
}
