//! What the servers of PVA on one host pass on to each other.

use std::net::{Ipv4Addr, SocketAddrV4};

use nicring::{
    Backend,
    search::{Answerer, Protocol, Reject, pva},
};
use socket2::SockRef;

use super::{
    Client, LOCALHOST, NameServer, answered, at, for_each_backend, on_loopback_without_port,
    request,
};

for_each_backend!(crate::common::on:
    what_a_server_of_this_host_passes_on_is_answered,
    what_was_sent_to_an_address_not_listened_on_is_not_answered,
);

/// A SEARCH that `client` sent to `origin`, as a server of this host passes it on.
fn passed_on(client: &Client, origin: Ipv4Addr) -> Vec<u8> {
    let (search, mut datagram) = (request(client, Protocol::Pva, [1]), Vec::new());
    assert!(pva::append_forwarded(&mut datagram, &search, origin, client.address()));
    datagram
}

/// A server that passes on what clients asked it.
fn forwarder() -> Client {
    let forwarder = Client::on_loopback();
    SockRef::from(&forwarder.0).set_multicast_if_v4(&LOCALHOST).expect("an own address");
    forwarder
}

fn what_a_server_of_this_host_passes_on_is_answered(backend: Backend) {
    let builder = on_loopback_without_port(backend).join(pva::FORWARD_GROUP);
    let server = NameServer::start(builder, Answerer::new());
    let (client, forwarder) = (Client::on_loopback(), forwarder());
    let (datagram, port) = (passed_on(&client, LOCALHOST), server.port(Protocol::Pva));
    forwarder.send(&datagram, SocketAddrV4::new(pva::FORWARD_GROUP, port));
    assert_eq!(answered(&client, Protocol::Pva), [1]);
    // Whoever is no server of this host cannot say the same.
    forwarder.send(&datagram, at(port));
    server.wait_for(Protocol::Pva, 2);
    let counts = server.counts(Protocol::Pva);
    assert_eq!((counts.hit_count, counts.rejected(Reject::UntrustedOriginTag)), (1, 1));
}

fn what_was_sent_to_an_address_not_listened_on_is_not_answered(backend: Backend) {
    let builder = on_loopback_without_port(backend).join(pva::FORWARD_GROUP);
    let server = NameServer::start(builder, Answerer::new());
    let (client, forwarder) = (Client::on_loopback(), forwarder());
    let to = SocketAddrV4::new(pva::FORWARD_GROUP, server.port(Protocol::Pva));
    forwarder.send(passed_on(&client, [192, 0, 2, 1].into()), to);
    forwarder.send(passed_on(&client, LOCALHOST), to);
    assert_eq!(answered(&client, Protocol::Pva), [1]);
    server.wait_for(Protocol::Pva, 2);
    let counts = server.counts(Protocol::Pva);
    assert_eq!((counts.hit_count, counts.rejected(Reject::ForeignOrigin)), (1, 1));
}
