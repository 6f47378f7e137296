//! Every class, from outside and from the same host. Each frame is heard once, attributed to the
//! right NIC, and answered from the address that was asked.

use std::net::Ipv4Addr;

use nicring::{Backend, Class, Egress, Listen, Stats, Unicast};
use socket2::SockRef;

use crate::{
    common::{Client, LOCALHOST, Server, by_class, for_each_backend},
    star::{GROUPS, PORT, Question, Star, at_port, broadcast, nic, on_every_nic, own, peer},
};

for_each_backend!(crate::common::netns::on:
    every_class_from_outside_by_class_sockets,
    every_class_from_outside_by_a_wildcard_socket,
    every_class_from_the_same_host_by_class_sockets,
    every_class_from_the_same_host_by_a_wildcard_socket,
    broadcasts_and_groups_are_heard_where_unicasts_are_left,
    a_client_bound_to_another_nics_address_is_answered_from_the_one_it_asked,
    each_of_two_ports_hears_its_own_on_every_nic,
    nics_are_chosen_and_excluded_by_class_sockets,
    nics_are_chosen_and_excluded_by_a_wildcard_socket,
    a_beacon_leaves_by_the_route_or_as_pinned,
    a_question_from_port_0_is_guarded_and_counted,
);

fn every_class_from_outside_by_class_sockets(backend: Backend) {
    from_outside(backend, Listen::Class, Unicast::Take);
}

fn every_class_from_outside_by_a_wildcard_socket(backend: Backend) {
    from_outside(backend, Listen::Wildcard, Unicast::Take);
}

fn broadcasts_and_groups_are_heard_where_unicasts_are_left(backend: Backend) {
    from_outside(backend, Listen::Class, Unicast::Leave);
}

fn from_outside(backend: Backend, listen: Listen, unicast: Unicast) {
    let star = Star::new(3);
    let server = star.server.echo(on_every_nic(backend).listen(listen).unicast(unicast));
    for number in 1..=3 {
        let client = star.client(number).client([0, 0, 0, 0]);
        for question in questions_from_outside(&star, number) {
            if question.class != Class::Unicast || unicast == Unicast::Take {
                question.ask(&client, &server);
            }
        }
        client.expect_nothing();
    }
    let stats = server.stop_having_heard_all();
    let unicast_count = if unicast == Unicast::Take { 3 } else { 0 };
    for number in 1..=3 {
        let counts = counts_of(&stats, &nic(number));
        assert_eq!(by_class(&counts), [unicast_count, 1, 1, 2], "{stats}");
        assert_eq!(counts.sent_count, unicast_count + 4, "{stats}");
    }
}

/// What the client with this number can ask, and what the server must see of it.
fn questions_from_outside(star: &Star, number: u8) -> Vec<Question> {
    let index = star.index(number);
    let ask =
        |to, class| Question { to, class, nic: index, ifindex: index, answered_from: own(number) };
    let mut questions = vec![
        ask(broadcast(number), Class::Subnet),
        ask(Ipv4Addr::BROADCAST, Class::Limited),
        ask(GROUPS[0], Class::Group),
        ask(GROUPS[1], Class::Group),
    ];
    // The address of another NIC, asked over this one, is heard for the NIC that has it.
    for asked in 1..=3 {
        questions.push(Question {
            nic: star.index(asked),
            answered_from: own(asked),
            ..ask(own(asked), Class::Unicast)
        });
    }
    questions
}

fn every_class_from_the_same_host_by_class_sockets(backend: Backend) {
    from_the_same_host(backend, Listen::Class);
}

fn every_class_from_the_same_host_by_a_wildcard_socket(backend: Backend) {
    from_the_same_host(backend, Listen::Wildcard);
}

fn from_the_same_host(backend: Backend, listen: Listen) {
    let star = Star::new(3);
    let server = star.server.echo(on_every_nic(backend).listen(listen));
    let lo = star.server.index_of("lo");
    for number in 1..=3 {
        let index = star.index(number);
        // The kernel loops a copy of what leaves by a NIC back to that NIC, as if it had arrived
        // there.
        let looped = |to, class| Question {
            to,
            class,
            nic: index,
            ifindex: index,
            answered_from: own(number),
        };
        let client = star.server.client(own(number));
        SockRef::from(&client.0).set_multicast_if_v4(&own(number)).expect("an own address");
        looped(broadcast(number), Class::Subnet).ask(&client, &server);
        looped(Ipv4Addr::BROADCAST, Class::Limited).ask(&client, &server);
        looped(GROUPS[0], Class::Group).ask(&client, &server);
        looped(GROUPS[1], Class::Group).ask(&client, &server);
        // A datagram to an address of this host goes over lo, but the kernel names the NIC that has
        // the address.
        let local = looped(own(number), Class::Unicast);
        local.ask(&client, &server);

        let unbound = star.server.client([0, 0, 0, 0]);
        looped(broadcast(number), Class::Subnet).ask(&unbound, &server);
        local.ask(&unbound, &server);
        client.expect_nothing();
        unbound.expect_nothing();
    }
    ask_over_lo(&star, &server, lo);
    let stats = server.stop_having_heard_all();
    for number in 1..=3 {
        assert_eq!(by_class(&counts_of(&stats, &nic(number))), [2, 2, 1, 2], "{stats}");
    }
    assert_eq!(by_class(&counts_of(&stats, "lo")), [1, 1, 1, 2], "{stats}");
}

fn ask_over_lo(star: &Star, server: &Server, lo: u32) {
    let client = star.server.client(LOCALHOST);
    SockRef::from(&client.0).set_multicast_if_v4(&LOCALHOST).expect("an own address");
    let rows = [
        (LOCALHOST, Class::Unicast),
        (Ipv4Addr::new(127, 255, 255, 255), Class::Subnet),
        (Ipv4Addr::BROADCAST, Class::Limited),
        (GROUPS[0], Class::Group),
        (GROUPS[1], Class::Group),
    ];
    for (to, class) in rows {
        Question { to, class, nic: lo, ifindex: lo, answered_from: LOCALHOST }.ask(&client, server);
    }
    client.expect_nothing();
}

fn a_client_bound_to_another_nics_address_is_answered_from_the_one_it_asked(backend: Backend) {
    let star = Star::new(3);
    let server = star.server.echo(on_every_nic(backend));
    for (bound, asked) in [(1, 2), (2, 1), (3, 1), (2, 3)] {
        let client = star.server.client(own(bound));
        let index = star.index(asked);
        let unicast = Question {
            to: own(asked),
            class: Class::Unicast,
            nic: index,
            ifindex: index,
            answered_from: own(asked),
        };
        unicast.ask(&client, &server);
        // A broadcast on a subnet that does not hold the client's address: the NIC's own address
        // answers.
        let to = broadcast(asked);
        Question { to, class: Class::Subnet, ifindex: index, ..unicast }.ask(&client, &server);
        client.expect_nothing();
    }
    server.stop_having_heard_all();
}

fn each_of_two_ports_hears_its_own_on_every_nic(backend: Backend) {
    let star = Star::new(2);
    let builder = on_every_nic(backend).port(5064);
    let server = star.server.echo(builder);
    for number in 1..=2 {
        let client = star.client(number).client([0, 0, 0, 0]);
        for port in [PORT, 5064] {
            for to in [own(number), broadcast(number), Ipv4Addr::BROADCAST, GROUPS[0]] {
                client.ask("which", to, port);
                let heard = server.next();
                assert_eq!((heard.port, heard.destination), (port, Some(to)));
                client.expect("which", std::net::SocketAddrV4::new(own(number), port));
            }
        }
    }
    server.stop_having_heard_all();
}

fn nics_are_chosen_and_excluded_by_class_sockets(backend: Backend) {
    chosen_and_excluded(backend, Listen::Class);
}

fn nics_are_chosen_and_excluded_by_a_wildcard_socket(backend: Backend) {
    chosen_and_excluded(backend, Listen::Wildcard);
}

/// Only nic2 is left: nic1 and lo were not chosen, nic3 was excluded.
fn chosen_and_excluded(backend: Backend, listen: Listen) {
    let star = Star::new(3);
    let builder = on_every_nic(backend).listen(listen);
    let builder = builder.nic("nic2").nic("10.77.3.0/24");
    let server = star.server.echo(builder.exclude_nic("10.77.3.1"));
    for number in [1, 3] {
        let client = star.client(number).client([0, 0, 0, 0]);
        for to in [own(number), broadcast(number), Ipv4Addr::BROADCAST, GROUPS[0], GROUPS[1]] {
            client.ask("nobody", to, PORT);
        }
        // For unicast, the kernel reports that no socket holds the port. That is not an answer.
        let _ = client.0.take_error();
    }
    star.server.client(LOCALHOST).ask("nobody", LOCALHOST, PORT);
    let client = star.client(2).client([0, 0, 0, 0]);
    for question in questions_from_outside(&star, 2) {
        if question.class != Class::Unicast || question.to == own(2) {
            question.ask(&client, &server);
        }
    }
    let stats = server.stop_having_heard_all();
    assert_eq!(by_class(&counts_of(&stats, "nic2")), [1, 1, 1, 2], "{stats}");
    assert_eq!(stats.total().received_count(), 5, "{stats}");
}

fn a_beacon_leaves_by_the_route_or_as_pinned(backend: Backend) {
    let star = Star::new(3);
    let server = star.server.echo(on_every_nic(backend));
    for number in 1..=3 {
        let listener = star.client(number).client(peer(number));
        let by_nic = Egress::by_nic(star.index(number));
        let send = |egress, to: Ipv4Addr, text: &str| {
            let to = std::net::SocketAddrV4::new(to, listener.address().port());
            assert!(server.handle.send(egress, to, text.as_bytes()).is_queued());
        };
        send(Egress::by_route(), peer(number), "by the route");
        listener.expect("by the route", at_port(own(number)));
        send(by_nic, peer(number), "by the NIC");
        listener.expect("by the NIC", at_port(own(number)));
        // The source address of another NIC, as the caller asked.
        send(by_nic.with_source(own(1)), peer(number), "by the NIC, from another");
        listener.expect("by the NIC, from another", at_port(own(1)));
        // The client's socket is bound to its unicast address and does not hear broadcasts. This
        // one does.
        let open_ear = star.client(number).run(|| Client::bind(("0.0.0.0", 0)));
        let to = open_ear.address().port();
        for destination in [broadcast(number), Ipv4Addr::BROADCAST] {
            let to = std::net::SocketAddrV4::new(destination, to);
            let egress = by_nic.with_source(own(number));
            assert!(server.handle.send(egress, to, b"beacon").is_queued());
            open_ear.expect("beacon", at_port(own(number)));
        }
    }
    let stats = server.stop_having_heard_all();
    assert_eq!((stats.total().sent_count, stats.total().send_error_count), (15, 0), "{stats}");
}

fn a_question_from_port_0_is_guarded_and_counted(backend: Backend) {
    let star = Star::new(1);
    let server = star.server.echo(on_every_nic(backend));
    let payload = b"no way back";
    let mut segment = Vec::new();
    // RFC 768: source port, destination port, length, and a checksum of 0 for none.
    for field in [0, PORT, 8 + payload.len() as u16, 0] {
        segment.extend_from_slice(&field.to_be_bytes());
    }
    segment.extend_from_slice(payload);
    let raw = star.client(1).run(|| {
        let (domain, kind) = (socket2::Domain::IPV4, socket2::Type::RAW);
        socket2::Socket::new(domain, kind, Some(socket2::Protocol::UDP)).expect("root may")
    });
    for _ in 0..3 {
        raw.send_to(&segment, &at_port(own(1)).into()).expect("a raw datagram");
    }
    let client = star.client(1).client([0, 0, 0, 0]);
    client.ask("with a way back", own(1), PORT);
    assert_eq!(server.next().text(), "with a way back");
    let stats = server.stop_having_heard_all();
    let counts = counts_of(&stats, "nic1");
    assert_eq!((counts.guarded_count, counts.received_count()), (3, 1), "{stats}");
}

#[track_caller]
fn counts_of(stats: &Stats, name: &str) -> nicring::Counts {
    let nic = stats.nics.iter().find(|nic| nic.name == name);
    nic.unwrap_or_else(|| panic!("no {name} in {stats}")).counts
}
