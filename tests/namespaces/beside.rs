//! A plain server on 0.0.0.0 on the same host, at the same port.

use std::net::Ipv4Addr;

use nicring::{Backend, Listen, Unicast};
use socket2::{InterfaceIndexOrAddress, SockRef};

use crate::{
    common::{Client, LOCALHOST, for_each_backend},
    star::{GROUPS, PORT, Star, at_port, broadcast, on_every_nic, own},
};

for_each_backend!(crate::common::netns::on:
    a_plain_server_keeps_its_unicasts_where_they_are_left,
    a_plain_server_loses_its_unicasts_where_they_are_taken,
    a_plain_server_that_comes_later_gets_the_same,
    a_group_that_only_another_program_joined_is_left_to_it,
);

fn a_plain_server_keeps_its_unicasts_where_they_are_left(backend: Backend) {
    let star = Star::new(2);
    let plain = plain_server(&star);
    let server = star.server.echo(on_every_nic(backend).unicast(Unicast::Leave));
    unicasts_reach_the_plain_server(&star, &plain);
    both_hear_the_rest(&star, &plain, &server);
    server.stop_having_heard_all();
    plain.expect_nothing();
}

fn a_plain_server_that_comes_later_gets_the_same(backend: Backend) {
    let star = Star::new(2);
    let server = star.server.echo(on_every_nic(backend).unicast(Unicast::Leave));
    let plain = plain_server(&star);
    unicasts_reach_the_plain_server(&star, &plain);
    both_hear_the_rest(&star, &plain, &server);
    server.stop_having_heard_all();
    plain.expect_nothing();
}

/// The contrast, of which `Unicast::Take` warns: sockets bound to an address win.
fn a_plain_server_loses_its_unicasts_where_they_are_taken(backend: Backend) {
    let star = Star::new(2);
    let plain = plain_server(&star);
    let server = star.server.echo(on_every_nic(backend).unicast(Unicast::Take));
    for number in 1..=2 {
        let client = star.client(number).client([0, 0, 0, 0]);
        for round in 0..20 {
            let text = format!("{number}/{round}");
            client.ask(&text, own(number), PORT);
            client.expect(&text, at_port(own(number)));
            assert_eq!(server.next().text(), text);
        }
    }
    both_hear_the_rest(&star, &plain, &server);
    server.stop_having_heard_all();
    plain.expect_nothing();
}

/// By default, Linux delivers such a group to every wildcard socket. If that is switched off, it
/// may hand the only copy to the wrong one of two sockets that share the port.
fn a_group_that_only_another_program_joined_is_left_to_it(backend: Backend) {
    let star = Star::new(1);
    let other_group = Ipv4Addr::new(239, 9, 9, 9);
    let plain = star.server.run(|| Client::sharing(PORT));
    let index = InterfaceIndexOrAddress::Index(star.index(1));
    let joined = SockRef::from(&plain.0).join_multicast_v4_n(&other_group, &index);
    joined.expect("a NIC of the server");
    for listen in [Listen::Class, Listen::Wildcard] {
        let server = star.server.echo(on_every_nic(backend).listen(listen));
        for round in 0..20 {
            let client = star.client(1).client([0, 0, 0, 0]);
            client.ask(&round.to_string(), other_group, PORT);
            assert_eq!(plain.receive().0, round.to_string().as_bytes(), "{listen:?}");
        }
        server.stop_having_heard_all();
    }
}

fn plain_server(star: &Star) -> Client {
    let plain = star.server.run(|| Client::sharing(PORT));
    for number in 1..=2 {
        let index = InterfaceIndexOrAddress::Index(star.index(number));
        let joined = SockRef::from(&plain.0).join_multicast_v4_n(&GROUPS[0], &index);
        joined.expect("a NIC of the server");
    }
    plain
}

fn unicasts_reach_the_plain_server(star: &Star, plain: &Client) {
    let local = star.server.client(LOCALHOST);
    for round in 0..20 {
        for number in 1..=2 {
            let client = star.client(number).client([0, 0, 0, 0]);
            let text = format!("{number}/{round}");
            client.ask(&text, own(number), PORT);
            assert_eq!(plain.receive().0, text.as_bytes());
        }
        local.ask("local", LOCALHOST, PORT);
        plain.expect("local", local.address());
    }
}

/// Each of the two gets its own copy of broadcasts and groups, once.
fn both_hear_the_rest(star: &Star, plain: &Client, server: &crate::common::Server) {
    for number in 1..=2 {
        let client = star.client(number).client([0, 0, 0, 0]);
        for to in [broadcast(number), Ipv4Addr::BROADCAST, GROUPS[0]] {
            let text = format!("{number} {to}");
            client.ask(&text, to, PORT);
            assert_eq!(plain.receive().0, text.as_bytes());
            assert_eq!(server.next().text(), text);
            client.expect(&text, at_port(own(number)));
        }
    }
}
