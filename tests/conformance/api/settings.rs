//! What the settings promise, and how they are refused.

use std::{io, time::Duration};

use nicring::{
    Backend, Builder, Engine, Error, Hears, Join, Listen, Nics, OnFailedNic, SocketInfo, Unicast,
};

use crate::common::{
    self, Client, LOCALHOST, Server, ask_steadily, for_each_backend, on_loopback, refused,
};

for_each_backend!(crate::common::on:
    two_engines_share_a_port_unless_told_otherwise,
    an_exclusive_port_is_refused_with_the_name_of_the_nic,
    a_held_port_is_an_error_even_where_nics_may_fail,
    shards_are_opened_by_their_own_method_and_share_their_port,
    settings_that_cannot_be_right_are_refused_by_name,
    no_nic_that_matches_is_an_error,
    a_nic_that_is_not_there_is_an_error_unless_it_is_waited_for,
    the_smallest_settings_work,
    waiting_for_several_loses_nothing,
);

fn two_engines_share_a_port_unless_told_otherwise(backend: Backend) {
    let port = common::unused_port();
    let builder = || common::on_loopback_without_port(backend).port(port);
    let servers = [Server::echo(builder()), Server::echo(builder())];
    // The kernel spreads unicast over the two engines by source: each datagram goes to exactly one.
    let clients: Vec<Client> = (0..64).map(|_| Client::on_loopback()).collect();
    for client in &clients {
        client.ask("either", LOCALHOST, port);
        client.expect("either", servers[0].address());
    }
    let mut count = 0;
    for server in servers {
        let (stats, heard) = server.stop();
        assert_eq!(stats.total().received_count(), heard.len() as u64);
        count += heard.len();
    }
    assert_eq!(count, clients.len());
}

fn an_exclusive_port_is_refused_with_the_name_of_the_nic(backend: Backend) {
    let port = common::unused_port();
    let builder = || common::on_loopback_without_port(backend).port(port);
    let first = common::open(builder());
    let loopback = first.handle().nics().loopback().expect("every host has one").name.clone();
    let error = refused(builder().exclusive());
    assert_in_use(&error, &loopback, port);
    drop(first);

    let first = common::open(builder().exclusive());
    let error = refused(builder().exclusive());
    assert_in_use(&error, &loopback, port);
    drop(first);
    common::open(builder().exclusive());
}

#[track_caller]
fn assert_in_use(error: &Error, nic: &str, port: u16) {
    assert!(matches!(error, Error::Socket { .. }), "{error:?}");
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    let text = error.to_string();
    let is_named = text.starts_with(&format!("{nic}: ")) || text.starts_with("all NICs: ");
    assert!(is_named && text.contains(&format!(":{port}")), "{text}");
    assert!(text.contains("another program holds the port"), "{text}");
    assert!(std::error::Error::source(error).is_some());
}

fn a_held_port_is_an_error_even_where_nics_may_fail(backend: Backend) {
    let port = common::unused_port();
    let builder = || common::on_loopback_without_port(backend).port(port);
    let _first = common::open(builder());
    let error = refused(builder().exclusive().on_failed_nic(OnFailedNic::Warn));
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{error}");
}

fn shards_are_opened_by_their_own_method_and_share_their_port(backend: Backend) {
    let group = || Join::group([224, 0, 0, 128]);
    let base = || on_loopback(backend);
    let rows = [
        (base().shards(2).open().map(drop), "a handler of its own"),
        (base().shards(2).open_async().map(drop), "a handler of its own"),
        (base().shards(0).open().map(drop), "0 is not between 1 and 64"),
        (base().shards(65).open_shards().map(drop), "65 is not between 1 and 64"),
    ];
    for (opened, excerpt) in rows {
        let error = opened.expect_err(excerpt).to_string();
        assert!(error.starts_with("shards: ") && error.contains(excerpt), "{error}");
    }
    let at_unused = group().on(LOCALHOST).port(0);
    let shards = base().join(at_unused).shards(2).open_shards();
    let shards = shards.expect("two, or one where there are no filters");
    assert_eq!(shards.len(), if cfg!(target_os = "linux") { 2 } else { 1 });
    let (handle, port) = (shards.handle(), shards.ports()[0]);
    let server = std::thread::spawn(move || {
        shards.run(|_| {
            |batch: &nicring::Batch| {
                batch.iter().for_each(|datagram| _ = batch.reply(&datagram, datagram.payload()));
                std::ops::ControlFlow::Continue(())
            }
        })
    });
    for number in 0..20 {
        let client = Client::on_loopback();
        client.ask(&number.to_string(), LOCALHOST, port);
        client.expect(number.to_string(), std::net::SocketAddrV4::new(LOCALHOST, port));
    }
    handle.stop();
    let stats = server.join().expect("no panic").expect("a good end");
    assert_eq!((stats.total().received_count(), stats.total().sent_count), (20, 20));
    common::assert_free(port);
    if cfg!(target_os = "linux") {
        let refused = |builder: Builder| builder.shards(2).open_shards().map(drop).expect_err("so");
        let exclusive = refused(base().exclusive()).to_string();
        assert!(exclusive.contains("leave out Builder::exclusive"), "{exclusive}");
        let wildcard = refused(base().listen(Listen::Wildcard)).to_string();
        assert!(wildcard.contains("use Listen::Class"), "{wildcard}");
    }
}

fn settings_that_cannot_be_right_are_refused_by_name(backend: Backend) {
    let base = || on_loopback(backend);
    let group = || Join::group([224, 0, 0, 128]);
    let without_port = || Engine::builder().backend(backend);
    let wildcard = || base().listen(Listen::Wildcard).unicast(Unicast::Leave);
    let too_often = base().list_nics_every(Duration::from_millis(9));
    let left = base().listen(Listen::Wildcard).leave_unicast("127.0.0.1");
    let rows: [(Builder, &str, &str); 23] = [
        (without_port(), "port", "Builder::port"),
        (without_port().port(5076).port(5064).port(5076), "port", "5076 is given twice"),
        (base().join([192, 0, 2, 1]), "join", "224.0.0.0/4"),
        (base().join(group().on("1.2.3")), "join", "expected a NIC's name, eth*"),
        (base().join(group().port(9)), "join", "at port 9, which is not listened on"),
        (base().join(group().on("no-such-nic")), "join", "no-such-nic: no NIC that is up"),
        (base().buffer_bytes(63), "buffer_bytes", "63 is not between 64 and 65507"),
        (base().buffer_bytes(65_508), "buffer_bytes", "65508"),
        (base().buffer_count(0), "buffer_count", "0 is not between"),
        (base().buffer_count(32_769), "buffer_count", "32769"),
        (base().batch_max(0), "batch_max", "0 is not between"),
        (base().batch_max(32_769), "batch_max", "32769"),
        (base().replies_max(0), "replies_max", "0 is not between"),
        (base().replies_max(32_769), "replies_max", "32769"),
        (base().recv_buffer_bytes(0), "recv_buffer_bytes", "0 is not between"),
        (base().tick(Duration::ZERO), "tick", "zero"),
        (base().delay_max(Duration::from_millis(101)), "delay_max", "longer than 100ms"),
        (wildcard(), "listen", "Listen::Class"),
        (too_often, "list_nics_every", "shorter than 10ms"),
        (left, "leave_unicast", "Listen::Class"),
        (base().nic("1.2.3"), "nic", "expected a NIC's name, eth*"),
        (base().exclude_nic("eth 0").nic("x/8"), "exclude_nic", "\"eth 0\" is neither"),
        (base().leave_unicast(""), "leave_unicast", "\"\" is neither"),
    ];
    for (builder, name, excerpt) in rows {
        let error = refused(builder.clone());
        let text = error.to_string();
        assert!(matches!(error, Error::Setting { setting, .. } if setting == name), "{error:?}");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(text.starts_with(name) && text.contains(excerpt), "{text}");
        assert!(builder.open_async().is_err(), "{name}: the async engine refuses it too");
    }
}

fn no_nic_that_matches_is_an_error(backend: Backend) {
    let builder = Engine::builder().backend(backend).port(0).nic("198.51.100.0/24");
    let error = refused(builder);
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().starts_with("nic: "), "{error}");

    let error = refused(on_loopback(backend).exclude_nic("0.0.0.0/0"));
    assert!(error.to_string().starts_with("nic: "), "{error}");
}

fn a_nic_that_is_not_there_is_an_error_unless_it_is_waited_for(backend: Backend) {
    let named = |name: &str| {
        let builder = common::builder(backend).port(common::unused_port());
        builder.nic(name).fixed_nics()
    };
    let error = refused(named("absent0"));
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    let text = error.to_string();
    assert!(text.contains("absent0: no NIC") && text.contains("wait_for_nics"), "{text}");
    // One of two is not enough.
    let lo = Nics::enumerate().expect("NICs").loopback().expect("every host has one").name.clone();
    let both = || named(&lo).nic("absent0");
    assert!(refused(both()).to_string().contains("absent0: no NIC"));
    let server = Server::echo(both().wait_for_nics());
    let client = Client::on_loopback();
    client.send("one is there", server.address());
    client.expect("one is there", server.address());
    // Nothing is heard for the time being.
    let engine = common::open(named("absent0").wait_for_nics());
    let hears = |socket: &SocketInfo| socket.hears != Hears::Nothing;
    let sockets = engine.handle().sockets();
    assert!(!sockets.iter().any(hears) || sockets.len() == 1, "a wildcard socket at most");
    engine.handle().stop();
    engine.run(|_| panic!("nothing is heard")).expect("it ends when told to");
}

fn the_smallest_settings_work(backend: Backend) {
    let builder = on_loopback(backend).buffer_bytes(64).buffer_count(1).batch_max(1);
    let server = Server::echo(builder.replies_max(1));
    let client = Client::on_loopback();
    (0..50).for_each(|number: u32| client.send(number.to_string(), server.address()));
    for number in 0..50 {
        client.expect(number.to_string(), server.address());
    }
    server.take(50);
    server.stop_having_heard_all();
}

fn waiting_for_several_loses_nothing(backend: Backend) {
    const STEADY_COUNT: usize = 4_000;
    for delay_max in [Duration::ZERO, Duration::from_millis(1)] {
        let server = Server::echo(on_loopback(backend).delay_max(delay_max));
        let client = Client::on_loopback();
        ask_steadily(&client, server.address(), STEADY_COUNT);
        for number in 0..100 {
            client.send(number.to_string(), server.address());
        }
        for number in 0..100 {
            client.expect(number.to_string(), server.address());
        }
        // One that no other follows must still come.
        client.send("alone", server.address());
        client.expect("alone", server.address());
        server.take(STEADY_COUNT + 101);
        server.stop_having_heard_all();
    }
}
