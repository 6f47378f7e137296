//! What Windows decides and nicring relies on.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use nicring::{Backend, Class, Nic};

use crate::common::{self, Client, LOCALHOST, Server, by_class, for_each_backend};

for_each_backend!(crate::common::on:
    address_bound_sockets_hear_every_class_once,
    no_broadcast_address_can_be_bound,
    a_port_is_shared_with_who_asks_for_it,
    an_exclusive_port_keeps_out_who_does_not_ask_to_share,
    an_exclusive_port_cannot_keep_out_who_sets_reuseaddr,
);

const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 128);

/// A NIC with a broadcast address, if there is one.
fn broadcasting_nic() -> Option<Nic> {
    let nics = nicring::Nics::enumerate().expect("the NICs");
    let broadcasts = |nic: &&Nic| {
        nic.is_up && !nic.is_loopback && nic.addresses.iter().any(|own| own.broadcast.is_some())
    };
    nics.iter().find(broadcasts).cloned()
}

fn address_bound_sockets_hear_every_class_once(backend: Backend) {
    let Some(nic) = broadcasting_nic() else {
        common::skip("nic", "no NIC has a broadcast address");
    };
    let own = nic.addresses.iter().find(|own| own.broadcast.is_some()).expect("it was chosen so");
    let filter = nic.name.parse().unwrap_or(nicring::NicFilter::Address(own.address));
    let server = Server::echo(common::builder(backend).port(0).nic(filter).join(GROUP));
    let client = Client::bind((own.address, 0));
    let rows = [
        (own.address, Class::Unicast),
        (own.broadcast.expect("it was chosen so"), Class::Subnet),
        (Ipv4Addr::BROADCAST, Class::Limited),
        (GROUP, Class::Group),
    ];
    for (destination, class) in rows {
        client.ask("class", destination, server.port);
        let heard = server.next();
        assert_eq!((heard.class, heard.destination), (class, Some(destination)));
        assert_eq!(heard.nic, Some(nic.index), "{class}");
        client.expect("class", SocketAddrV4::new(own.address, server.port));
    }
    let stats = server.stop_having_heard_all();
    assert_eq!(by_class(&stats.total()), [1; 4]);
    client.expect_nothing();
}

fn no_broadcast_address_can_be_bound(_: Backend) {
    assert!(UdpSocket::bind((Ipv4Addr::BROADCAST, 0)).is_err());
}

fn a_port_is_shared_with_who_asks_for_it(backend: Backend) {
    let port = common::unused_port();
    let _plain = Client::sharing(port);
    let server = Server::echo(common::on_loopback_without_port(backend).port(port));
    let client = Client::on_loopback();
    client.ask("the address wins", LOCALHOST, port);
    client.expect("the address wins", server.address());
}

fn an_exclusive_port_keeps_out_who_does_not_ask_to_share(backend: Backend) {
    let port = common::unused_port();
    let _engine = common::open(common::on_loopback_without_port(backend).port(port).exclusive());
    assert!(UdpSocket::bind((LOCALHOST, port)).is_err());
}

/// This is why the table of platforms promises so little of `exclusive()`.
fn an_exclusive_port_cannot_keep_out_who_sets_reuseaddr(backend: Backend) {
    let port = common::unused_port();
    let _engine = common::open(common::on_loopback_without_port(backend).port(port).exclusive());
    Client::sharing(port);
}
