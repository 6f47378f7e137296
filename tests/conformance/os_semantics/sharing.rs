//! Which sockets may share a port, by the socket options of Unix.

use std::{io, net::UdpSocket};

use nicring::{Backend, Class, Event, FailedNic, Hears, Listen, Unicast};

use crate::common::{self, Client, LOCALHOST, Server, for_each_backend, on_loopback, refused};

for_each_backend!(crate::common::on:
    a_port_that_nobody_used_is_shared_with_nobody,
    an_exclusive_port_keeps_out_who_would_share_it,
    unicasts_that_are_left_reach_the_plain_server,
    unicasts_that_are_left_at_one_address_reach_the_plain_server,
    a_held_address_costs_only_itself_until_it_is_free,
);

fn a_port_that_nobody_used_is_shared_with_nobody(backend: Backend) {
    let server = Server::echo(on_loopback(backend));
    let builder = common::on_loopback_without_port(backend).port(server.port);
    let error = refused(builder);
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
}

fn an_exclusive_port_keeps_out_who_would_share_it(backend: Backend) {
    let port = common::unused_port();
    let builder = || common::on_loopback_without_port(backend).port(port);
    let _first = common::open(builder().exclusive());
    assert_eq!(refused(builder()).kind(), io::ErrorKind::AddrInUse);
}

fn unicasts_that_are_left_reach_the_plain_server(backend: Backend) {
    let port = common::unused_port();
    let plain = Client::sharing(port);
    let builder = common::on_loopback_without_port(backend).port(port);
    let server = Server::echo(builder.unicast(Unicast::Leave));
    let sockets = server.handle.sockets();
    assert!(
        !sockets.iter().any(|socket| socket.hears == Hears::Class(Class::Unicast)),
        "{sockets:#?}"
    );
    let client = Client::on_loopback();
    for number in 0..20 {
        client.ask(&number.to_string(), LOCALHOST, port);
        plain.expect(number.to_string(), client.address());
    }
    server.stop_having_heard_all();
}

fn unicasts_that_are_left_at_one_address_reach_the_plain_server(backend: Backend) {
    let port = common::unused_port();
    let plain = Client::sharing(port);
    let left = "127.0.0.1";
    let builder = common::on_loopback_without_port(backend).port(port).leave_unicast(left);
    let server = Server::echo(builder);
    let client = Client::on_loopback();
    for number in 0..20 {
        client.ask(&number.to_string(), LOCALHOST, port);
        plain.expect(number.to_string(), client.address());
    }
    server.stop_having_heard_all();
}

fn a_held_address_costs_only_itself_until_it_is_free(backend: Backend) {
    let port = common::unused_port();
    let holder = UdpSocket::bind((LOCALHOST, port)).expect("an unused port, unshared");
    // Broadcasts on lo are still heard.
    let builder = common::on_loopback_without_port(backend).port(port).listen(Listen::Class);
    let server = Server::echo(builder);
    let failed = server.handle.failed_nics();
    let is_it = |failed: &FailedNic| {
        *failed.address.ip() == LOCALHOST && failed.error.kind() == io::ErrorKind::AddrInUse
    };
    assert!(failed.len() == 1 && is_it(&failed[0]), "{failed:#?}");
    let mut events = server.handle.events();
    drop(holder);
    common::wait_until("all is heard", || server.handle.failed_nics().is_empty());
    let opened = events.try_next();
    let is_its = |event: &Event| match event {
        Event::SocketOpened(socket) => *socket.address.ip() == LOCALHOST,
        _ => false,
    };
    assert!(opened.as_ref().is_some_and(is_its) && events.try_next().is_none(), "{opened:?}");
    let client = Client::on_loopback();
    client.send("heard by now", server.address());
    client.expect("heard by now", server.address());
}
