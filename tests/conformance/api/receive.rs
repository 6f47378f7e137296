//! What is heard, in which order, and what is counted.

use std::{collections::BTreeMap, ops::ControlFlow, thread, time::Duration};

use nicring::{Backend, Class, Filter, Pattern, Stats};

use crate::common::{Client, LOCALHOST, Server, for_each_backend, on_loopback};

for_each_backend!(crate::common::on:
    a_datagram_is_heard_once_with_all_that_is_known_of_it,
    several_ports_are_told_apart,
    the_nic_of_a_datagram_is_told_by_name,
    empty_datagrams_are_heard_and_do_not_end_reception,
    what_does_not_fit_a_buffer_is_cut_marked_and_counted,
    the_longest_datagrams_arrive_whole,
    many_senders_are_all_heard,
    the_order_of_a_sender_is_kept,
    a_burst_beyond_buffers_and_batch_loses_nothing,
    a_batch_is_never_longer_than_asked,
    a_slow_handler_loses_nothing,
    a_filter_drops_what_it_does_not_keep,
    a_busy_port_does_not_starve_another,
    counts_never_go_down_and_end_up_right,
);

fn a_filter_drops_what_it_does_not_keep(backend: Backend) {
    let filter = Filter::new().payload(Pattern::new().byte(0, b'k').bits(1, 0x80, 0));
    let filter = filter.ignore("198.51.100.0/24".parse().expect("a subnet"));
    let server = Server::echo(on_loopback(backend).filter(filter));
    let client = Client::on_loopback();
    for text in ["kept", "k", "other", "", "kept too", "k\u{e9}"] {
        client.send(text, server.address());
    }
    for text in ["kept", "kept too"] {
        assert_eq!(server.next().text(), text);
        client.expect(text, server.address());
    }
    let stats = server.stop_having_heard_all();
    assert_eq!((stats.total().received_count(), stats.total().filtered_count), (2, 4), "{stats}");
}

fn a_datagram_is_heard_once_with_all_that_is_known_of_it(backend: Backend) {
    let server = Server::echo(on_loopback(backend));
    let client = Client::on_loopback();
    client.send("who is there", server.address());

    let heard = server.next();
    assert_eq!(heard.text(), "who is there");
    assert_eq!(heard.source, client.address());
    assert_eq!((heard.port, heard.class), (server.port, Class::Unicast));
    assert!(!heard.is_truncated);
    let nics = server.handle.nics();
    let loopback = nics.loopback().expect("every host has one");
    // What a platform cannot report is `None`, never a wrong value.
    assert!(heard.destination.is_none_or(|destination| destination == LOCALHOST));
    assert!(heard.nic.is_none_or(|nic| nic == loopback.index));
    assert!(heard.ifindex.is_none_or(|ifindex| ifindex == loopback.index));

    client.expect("who is there", server.address());
    assert_eq!(server.handle.backend().backend, backend);
    server.stop_having_heard_all();
    client.expect_nothing();
}

fn the_nic_of_a_datagram_is_told_by_name(backend: Backend) {
    let server = Server::start(on_loopback(backend), |batch| {
        for datagram in batch {
            let name = batch.nic(&datagram).map_or("unknown", |nic| &nic.name);
            assert_eq!(batch.nic(&datagram).map(|nic| nic.index), datagram.nic());
            batch.reply(&datagram, name.as_bytes());
        }
        ControlFlow::Continue(())
    });
    let client = Client::on_loopback();
    client.send("which NIC", server.address());
    let nics = server.handle.nics();
    client.expect(&nics.loopback().expect("every host has one").name, server.address());
}

fn several_ports_are_told_apart(backend: Backend) {
    let engine = crate::common::open(on_loopback(backend).ports([0, 0]));
    let ports = engine.ports().to_vec();
    assert_eq!(ports.len(), 3);
    let server = Server::over(engine, |batch| {
        for datagram in batch {
            batch.reply(&datagram, datagram.port().to_string().as_bytes());
        }
        ControlFlow::Continue(())
    });
    let client = Client::on_loopback();
    for port in ports {
        client.ask("which port", LOCALHOST, port);
        client.expect(port.to_string(), std::net::SocketAddrV4::new(LOCALHOST, port));
        assert_eq!(server.next().port, port);
    }
    server.stop_having_heard_all();
}

fn empty_datagrams_are_heard_and_do_not_end_reception(backend: Backend) {
    let server = Server::echo(on_loopback(backend).buffer_count(8));
    let client = Client::on_loopback();
    client.send("", server.address());
    client.expect("", server.address());
    for _ in 0..300 {
        client.send("", server.address());
    }
    client.send("after the flood", server.address());
    let heard = server.take(302);
    assert!(heard[..301].iter().all(|one| one.payload.is_empty() && !one.is_truncated));
    assert_eq!(heard[301].text(), "after the flood");
    let stats = server.stop_having_heard_all();
    assert_eq!(stats.total().received_bytes, "after the flood".len() as u64);
}

fn what_does_not_fit_a_buffer_is_cut_marked_and_counted(backend: Backend) {
    let server = Server::echo(on_loopback(backend).buffer_bytes(64));
    let client = Client::on_loopback();
    let payload: Vec<u8> = (0..200).collect();
    for len in [63, 64, 65, 200, 1] {
        client.send(&payload[..len], server.address());
        let heard = server.next();
        assert_eq!(heard.payload, payload[..len.min(64)]);
        assert_eq!(heard.is_truncated, len > 64, "{len} bytes into a buffer of 64");
    }
    let total = server.stop_having_heard_all().total();
    assert_eq!((total.truncated_count, total.received_count()), (2, 5));
    assert_eq!(total.received_bytes, 63 + 64 + 64 + 64 + 1);
}

fn the_longest_datagrams_arrive_whole(backend: Backend) {
    const LONGEST: usize = 65_507;
    let builder = on_loopback(backend).buffer_bytes(LONGEST).buffer_count(4).batch_max(4);
    let server = Server::echo(builder.recv_buffer_bytes(4 << 20));
    let client = Client::on_loopback();
    for round in 0..6 {
        let payload: Vec<u8> = (0..LONGEST).map(|at| (at * 7 + round) as u8).collect();
        client.send(&payload, server.address());
        let heard = server.next();
        assert!(heard.payload == payload && !heard.is_truncated, "round {round}");
        let (answer, from) = client.receive();
        assert!(answer == payload && from == server.address(), "round {round}");
    }
    let total = server.stop_having_heard_all().total();
    assert_eq!(total.truncated_count, 0);
}

fn many_senders_are_all_heard(backend: Backend) {
    let server = Server::echo(on_loopback(backend));
    let clients: Vec<Client> = (0..64).map(|_| Client::on_loopback()).collect();
    for round in 0..4 {
        for (number, client) in clients.iter().enumerate() {
            client.send(format!("{number}/{round}"), server.address());
        }
    }
    let mut by_source = BTreeMap::<_, Vec<String>>::new();
    for heard in server.take(4 * clients.len()) {
        by_source.entry(heard.source).or_default().push(heard.text().to_owned());
    }
    for (number, client) in clients.iter().enumerate() {
        let expected: Vec<String> = (0..4).map(|round| format!("{number}/{round}")).collect();
        assert_eq!(by_source[&client.address()], expected);
        for text in expected {
            client.expect(text, server.address());
        }
    }
    server.stop_having_heard_all();
}

fn the_order_of_a_sender_is_kept(backend: Backend) {
    let server = Server::echo(on_loopback(backend).recv_buffer_bytes(4 << 20));
    let client = Client::on_loopback();
    let expected: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
    expected.iter().for_each(|text| client.send(text, server.address()));
    let heard = server.take(expected.len());
    let heard: Vec<&str> = heard.iter().map(|heard| heard.text()).collect();
    assert_eq!(heard, expected);
    server.stop_having_heard_all();
}

fn a_burst_beyond_buffers_and_batch_loses_nothing(backend: Backend) {
    let builder = on_loopback(backend).buffer_count(8).batch_max(4).recv_buffer_bytes(4 << 20);
    let engine = crate::common::open(builder);
    let port = engine.ports()[0];
    let client = Client::on_loopback();
    let expected: Vec<String> = (0..500).map(|number| number.to_string()).collect();
    // Half of it before anyone receives.
    expected[..250].iter().for_each(|text| client.ask(text, LOCALHOST, port));
    let server = Server::over(engine, |_| ControlFlow::Continue(()));
    expected[250..].iter().for_each(|text| client.ask(text, LOCALHOST, port));
    let heard = server.take(expected.len());
    let heard: Vec<&str> = heard.iter().map(|heard| heard.text()).collect();
    assert_eq!(heard, expected);
    let stats = server.stop_having_heard_all();
    assert_eq!(
        (stats.total().kernel_drop_count().unwrap_or(0), stats.overflow_count),
        (0, 0),
        "{stats}"
    );
}

fn a_batch_is_never_longer_than_asked(backend: Backend) {
    let engine = crate::common::open(on_loopback(backend).batch_max(5));
    let port = engine.ports()[0];
    let client = Client::on_loopback();
    (0..40).for_each(|_| client.ask("x", LOCALHOST, port));
    let server = Server::over(engine, |batch| {
        assert!(!batch.is_empty(), "there is no tick");
        assert!(batch.len() <= 5, "a batch of {}", batch.len());
        assert_eq!(batch.iter().len(), batch.len());
        ControlFlow::Continue(())
    });
    server.take(40);
    server.stop_having_heard_all();
}

fn a_slow_handler_loses_nothing(backend: Backend) {
    let builder = on_loopback(backend).batch_max(32).recv_buffer_bytes(4 << 20);
    let server = Server::start(builder, |batch| {
        thread::sleep(Duration::from_millis(10));
        for datagram in batch {
            batch.reply(&datagram, datagram.payload());
        }
        ControlFlow::Continue(())
    });
    let client = Client::on_loopback();
    let sender = thread::spawn({
        let address = server.address();
        move || {
            for number in 0..600 {
                client.send(number.to_string(), address);
                if number % 50 == 0 {
                    thread::sleep(Duration::from_millis(1));
                }
            }
        }
    });
    for (number, heard) in server.take(600).iter().enumerate() {
        assert_eq!(heard.text(), number.to_string());
    }
    sender.join().expect("the sender");
    let stats = server.stop_having_heard_all();
    assert_eq!(stats.total().sent_count, 600);
}

fn a_busy_port_does_not_starve_another(backend: Backend) {
    let builder = on_loopback(backend).port(0).batch_max(16).recv_buffer_bytes(4 << 20);
    let engine = crate::common::open(builder);
    let ports = engine.ports().to_vec();
    let client = Client::on_loopback();
    (0..600).for_each(|_| client.ask("busy", LOCALHOST, ports[0]));
    client.ask("quiet", LOCALHOST, ports[1]);
    let server = Server::over(engine, |_| ControlFlow::Continue(()));
    let heard = server.take(601);
    let position = heard.iter().position(|heard| heard.text() == "quiet");
    // One round over the busy socket may come first, but not everything that it holds.
    assert!(position.is_some_and(|position| position < 300), "heard as number {position:?}");
    server.stop_having_heard_all();
}

fn counts_never_go_down_and_end_up_right(backend: Backend) {
    let server = Server::echo(on_loopback(backend));
    let client = Client::on_loopback();
    let mut previous = counts(&server.handle.stats());
    for number in 0..400 {
        client.send(format!("{number:04}"), server.address());
        client.expect(format!("{number:04}"), server.address());
        let current = counts(&server.handle.stats());
        for (name, count) in &current {
            let before = previous.get(name).copied().unwrap_or(0);
            assert!(*count >= before, "{name} went down from {before} to {count}");
        }
        previous = current;
    }
    let handle = server.handle.clone();
    server.take(400);
    let stats = server.stop_having_heard_all();
    let total = stats.total();
    assert_eq!(total.received_in(Class::Unicast), 400);
    assert_eq!((total.received_count(), total.received_bytes), (400, 1600));
    assert_eq!((total.sent_count, total.would_block_count, total.send_error_count), (400, 0, 0));
    let troubles = [total.guarded_count, total.malformed_count, total.receive_error_count];
    assert_eq!(
        (troubles, total.kernel_drop_count().unwrap_or(0), total.truncated_count),
        ([0; 3], 0, 0)
    );
    assert!(stats.turn_count > 0);
    // A handle still reports the counts after the end.
    assert_eq!(counts(&handle.stats()), counts(&stats));
}

/// Every count by its name. The counts of a NIC have the NIC's name before theirs.
fn counts(stats: &Stats) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::from([
        ("outbox_full_count".to_owned(), stats.outbox_full_count),
        ("turn_count".to_owned(), stats.turn_count),
        ("overflow_count".to_owned(), stats.overflow_count),
    ]);
    for nic in &stats.nics {
        counts
            .extend(nic.counts.iter().map(|(name, count)| (format!("{} {name}", nic.name), count)));
    }
    counts
}
