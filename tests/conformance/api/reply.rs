//! What is sent, from which address, and what is refused.

use std::{net::SocketAddrV4, ops::ControlFlow, sync::mpsc};

use nicring::{Backend, Egress, Queued};

use crate::common::{self, Client, LOCALHOST, Server, for_each_backend, on_loopback};

for_each_backend!(crate::common::on:
    a_reply_comes_from_the_address_that_was_asked,
    a_reply_is_written_in_place,
    a_reply_goes_where_the_asker_said,
    several_replies_to_one_datagram_keep_their_order,
    a_batch_sends_what_answers_nothing,
    a_handle_sends_from_the_first_port_at_any_time,
    a_beacon_leaves_from_the_port_that_it_names,
    a_full_outbox_refuses_and_counts_and_works_again,
    a_full_inbox_of_the_handle_refuses_and_counts_and_works_again,
    what_udp_cannot_carry_is_refused,
    a_reply_to_a_closed_port_disturbs_nothing,
    a_reply_that_cannot_be_sent_is_counted_and_ends_nothing,
    replies_queued_when_the_handler_breaks_still_leave,
);

fn a_reply_comes_from_the_address_that_was_asked(backend: Backend) {
    let server = Server::echo(on_loopback(backend));
    let client = Client::on_loopback();
    // A connected socket hears only datagrams from its peer.
    client.0.connect(server.address()).expect("loopback");
    client.0.send(b"connected").expect("loopback");
    client.expect("connected", server.address());
}

fn a_reply_is_written_in_place(backend: Backend) {
    let server = Server::start(on_loopback(backend), |batch| {
        for datagram in batch {
            let queued = batch.reply_with(&datagram, 1000, |buffer| {
                assert_eq!(buffer.len(), 1000);
                buffer[..7].copy_from_slice(b"written");
                7
            });
            assert_eq!(queued, Queued::Yes);
        }
        ControlFlow::Continue(())
    });
    let client = Client::on_loopback();
    for _ in 0..3 {
        client.send("write", server.address());
        client.expect("written", server.address());
    }
}

fn a_reply_goes_where_the_asker_said(backend: Backend) {
    let other = Client::on_loopback();
    let destination = other.address();
    let server = Server::start(on_loopback(backend), move |batch| {
        for datagram in batch {
            assert!(batch.reply_to(&datagram, destination, b"for the other").is_queued());
        }
        ControlFlow::Continue(())
    });
    let client = Client::on_loopback();
    client.send("tell the other", server.address());
    other.expect("for the other", server.address());
    client.expect_nothing();
}

fn several_replies_to_one_datagram_keep_their_order(backend: Backend) {
    let server = Server::start(on_loopback(backend), |batch| {
        for datagram in batch {
            for number in 0..100 {
                assert!(batch.reply(&datagram, number.to_string().as_bytes()).is_queued());
            }
        }
        ControlFlow::Continue(())
    });
    let client = Client::on_loopback();
    client.send("count", server.address());
    for number in 0..100 {
        client.expect(number.to_string(), server.address());
    }
}

fn a_batch_sends_what_answers_nothing(backend: Backend) {
    let listener = Client::on_loopback();
    let destination = listener.address();
    let server = Server::start(on_loopback(backend), move |batch| {
        let loopback = batch.nics().loopback().expect("every host has one").index;
        let pinned = Egress::by_nic(loopback).with_source(LOCALHOST);
        assert!(batch.send(pinned, destination, b"by the NIC").is_queued());
        assert!(batch.send(Egress::by_route(), destination, b"by the route").is_queued());
        ControlFlow::Continue(())
    });
    Client::on_loopback().send("now", server.address());
    let mut got = [listener.receive(), listener.receive()];
    got.sort();
    let expected = [b"by the NIC".to_vec(), b"by the route".to_vec()];
    assert_eq!(got, expected.map(|payload| (payload, server.address())));
}

fn a_handle_sends_from_the_first_port_at_any_time(backend: Backend) {
    let engine = common::open(on_loopback(backend).port(0));
    let first = SocketAddrV4::new(LOCALHOST, engine.ports()[0]);
    let listener = Client::on_loopback();
    let handle = engine.handle();
    let beacon = |text: &str| handle.send(Egress::by_route(), listener.address(), text.as_bytes());
    assert_eq!(beacon("before run"), Queued::Yes);
    let server = Server::over(engine, |_| ControlFlow::Continue(()));
    listener.expect("before run", first);
    for number in 0..20 {
        // Nothing else happens, so this must wake the engine.
        assert_eq!(beacon(&number.to_string()), Queued::Yes);
        listener.expect(number.to_string(), first);
    }
    let stats = server.stop_having_heard_all();
    assert_eq!(stats.total().sent_count, 21);
}

fn a_full_outbox_refuses_and_counts_and_works_again(backend: Backend) {
    let (sender, outcomes) = mpsc::channel();
    let server = Server::start(on_loopback(backend).replies_max(4), move |batch| {
        for datagram in batch {
            let replies = (0..6).map(|_| batch.reply(&datagram, b"x"));
            sender.send(replies.collect::<Vec<_>>()).expect("the test waits");
        }
        ControlFlow::Continue(())
    });
    let client = Client::on_loopback();
    for round in 1..=3 {
        client.send("six", server.address());
        let outcomes = outcomes.recv_timeout(common::PATIENCE).expect("a batch");
        assert_eq!(outcomes[..4], [Queued::Yes; 4]);
        assert_eq!(outcomes[4..], [Queued::Full; 2]);
        (0..4).for_each(|_| client.expect("x", server.address()));
        common::wait_until("the refusals are counted", || {
            server.handle.stats().outbox_full_count == 2 * round
        });
    }
    client.expect_nothing();
}

fn a_beacon_leaves_from_the_port_that_it_names(backend: Backend) {
    let engine = common::open(on_loopback(backend).port(0));
    let ports = engine.ports().to_vec();
    let (handle, listener) = (engine.handle(), Client::on_loopback());
    let server = Server::over(engine, |_| ControlFlow::Continue(()));
    let to = listener.address();
    for port in [ports[1], ports[0]] {
        // How far it may travel makes no difference here, but is set and set back.
        for egress in [Egress::by_route(), Egress::by_route().with_ttl(5)] {
            assert_eq!(handle.send(egress.with_port(port), to, b"beacon"), Queued::Yes);
            listener.expect("beacon", SocketAddrV4::new(LOCALHOST, port));
        }
    }
    let stray = Egress::by_route().with_port(ports[0] ^ ports[1]);
    assert_eq!(handle.send(stray, to, b"never"), Queued::NoPort);
    assert_eq!(handle.fan_out(stray, to, b"never"), Queued::NoPort);
    // There is no NIC but the loopback one.
    assert_eq!(handle.heard_nics().iter().filter(|nic| nic.is_loopback).count(), 1);
    assert_eq!(handle.fan_out(Egress::by_route(), to, b"once"), Queued::Yes);
    listener.expect("once", SocketAddrV4::new(LOCALHOST, ports[0]));
    listener.expect_nothing();
    server.stop_having_heard_all();
}

fn a_full_inbox_of_the_handle_refuses_and_counts_and_works_again(backend: Backend) {
    let engine = common::open(on_loopback(backend).replies_max(4));
    let address = SocketAddrV4::new(LOCALHOST, engine.ports()[0]);
    let listener = Client::on_loopback();
    let handle = engine.handle();
    let beacon = || handle.send(Egress::by_route(), listener.address(), b"beacon");
    let outcomes: Vec<Queued> = (0..6).map(|_| beacon()).collect();
    assert_eq!(outcomes[..4], [Queued::Yes; 4]);
    assert_eq!(outcomes[4..], [Queued::Full; 2]);
    let server = Server::over(engine, |_| ControlFlow::Continue(()));
    (0..4).for_each(|_| listener.expect("beacon", address));
    assert_eq!(beacon(), Queued::Yes);
    listener.expect("beacon", address);
    let stats = server.stop_having_heard_all();
    assert_eq!(stats.outbox_full_count, 2);
}

fn what_udp_cannot_carry_is_refused(backend: Backend) {
    let (sender, outcomes) = mpsc::channel();
    let server = Server::start(on_loopback(backend), move |batch| {
        for datagram in batch {
            let outcome = [
                batch.reply(&datagram, &[7; 65_508]),
                batch.reply_with(&datagram, 65_508, |_| panic!("it is refused before")),
                batch.reply(&datagram, &[7; 65_507]),
            ];
            sender.send(outcome).expect("the test waits");
        }
        ControlFlow::Continue(())
    });
    let client = Client::on_loopback();
    client.send("too long", server.address());
    let outcome = outcomes.recv_timeout(common::PATIENCE).expect("a batch");
    assert_eq!(outcome, [Queued::TooLong, Queued::TooLong, Queued::Yes]);
    let (longest, _) = client.receive();
    assert_eq!(longest.len(), 65_507);
}

fn a_reply_that_cannot_be_sent_is_counted_and_ends_nothing(backend: Backend) {
    let server = Server::start(on_loopback(backend), |batch| {
        for datagram in batch {
            // No socket of this host can send from an address reserved for documentation (RFC
            // 5737).
            let nowhere = Egress::by_route().with_source([198, 51, 100, 1].into());
            assert!(batch.send(nowhere, datagram.source(), b"never").is_queued());
            assert!(batch.reply(&datagram, b"answer").is_queued());
        }
        ControlFlow::Continue(())
    });
    let client = Client::on_loopback();
    for _ in 0..3 {
        client.send("answer me", server.address());
        client.expect("answer", server.address());
    }
    server.take(3);
    let stats = server.stop_having_heard_all();
    let total = stats.total();
    assert_eq!((total.sent_count, total.send_error_count), (3, 3));
    client.expect_nothing();
}

/// The host answers with an ICMP error, which some systems report to the next receive.
fn a_reply_to_a_closed_port_disturbs_nothing(backend: Backend) {
    let server = Server::echo(on_loopback(backend));
    let client = Client::on_loopback();
    for round in 0..20 {
        let gone = Client::on_loopback();
        gone.send("who asks and goes", server.address());
        drop(gone);
        client.send(round.to_string(), server.address());
        client.expect(round.to_string(), server.address());
    }
    assert_eq!(server.take(40).len(), 40);
    let total = server.stop_having_heard_all().total();
    assert_eq!((total.receive_error_count, total.rearmed_count), (0, 0));
}

fn replies_queued_when_the_handler_breaks_still_leave(backend: Backend) {
    let server = Server::start(on_loopback(backend), |batch| {
        for datagram in batch {
            batch.reply(&datagram, b"farewell");
        }
        ControlFlow::Break(())
    });
    let (client, address) = (Client::on_loopback(), server.address());
    client.send("last", address);
    let stats = server.join().expect("no panic").expect("a good end");
    client.expect("farewell", address);
    assert_eq!(stats.total().sent_count, 1);
}
