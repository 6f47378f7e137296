//! What addresses a host may have.

use std::net::Ipv4Addr;

use nicring::Backend;

use crate::{
    common::{for_each_backend, netns, wait_until},
    host::Host,
    oracle::{PORT, assert_heard_as_by_a_plain_server, builder},
};

for_each_backend!(crate::common::netns::on:
    all_of_127_is_this_host,
    every_address_of_a_local_subnet_is_this_host,
    the_copies_of_broadcasts_that_come_for_a_local_subnet_are_counted_and_not_handed_out,
    a_tunnel_with_a_prefix_hears_its_broadcasts,
    a_broadcast_address_that_was_configured_is_heard_beside_the_one_of_the_mask,
    an_address_with_any_label_is_an_address,
    a_peer_address_with_a_prefix_has_the_broadcasts_of_the_peers_subnet,
    one_address_on_two_nics_is_heard_once,
    the_address_of_a_nic_that_is_down_is_still_an_address_of_the_host,
    aliases_and_addresses_without_a_subnet_are_heard,
    bridges_and_macvlans_are_nics,
    a_nic_without_an_address_keeps_nothing_from_the_others,
);

fn all_of_127_is_this_host(backend: Backend) {
    let mut host = Host::new(1);
    host.neighbour_asks(1, ["10.201.1.1", "10.201.1.255", "255.255.255.255", "224.0.0.128"])
        .asks_itself("127.0.0.1", ["127.0.0.1", "127.0.1.1", "127.0.0.53", "127.200.3.4"])
        .asks_itself("127.0.1.1", ["127.0.1.1", "127.255.255.254", "127.255.255.255"])
        .asks_itself("10.201.1.1", ["127.0.1.1", "10.201.1.1", "10.201.1.255"])
        .asks_itself("10.201.1.1", ["255.255.255.255", "224.0.0.128"])
        .asks_itself("127.0.0.1", ["224.0.0.128"]);
    assert_heard_as_by_a_plain_server(&host, backend);
}

fn every_address_of_a_local_subnet_is_this_host(backend: Backend) {
    let mut host = Host::new(2);
    host.server.configure(
        "address add 10.78.0.1/24 brd + dev lo\n\
         route add local 192.0.2.0/28 dev lo\n\
         route add local 198.51.100.7 dev lo\n\
         route add local 203.0.113.0/24 dev s2",
    );
    for number in 1..=2 {
        host.neighbour_asks(number, ["10.78.0.1", "10.78.0.7", "10.78.0.255", "192.0.2.9"])
            .neighbour_asks(number, ["198.51.100.7", "203.0.113.5", "10.201.1.1"])
            .neighbour_asks(number, ["255.255.255.255", "224.0.0.128"]);
    }
    host.neighbour_asks(1, ["10.201.1.255"])
        .asks_itself("127.0.0.1", ["10.78.0.9", "192.0.2.3", "127.0.1.1"])
        .asks_itself("10.201.1.1", ["10.78.0.255", "203.0.113.5", "10.201.1.255"]);
    assert_heard_as_by_a_plain_server(&host, backend);
}

fn the_copies_of_broadcasts_that_come_for_a_local_subnet_are_counted_and_not_handed_out(
    backend: Backend,
) {
    let host = Host::new(1);
    host.server.configure("route add local 203.0.113.0/24 dev s1");
    let server = host.server.echo(builder(backend));
    let client = host.neighbour(1).client(Ipv4Addr::UNSPECIFIED);
    for to in [[10, 201, 1, 255], [255; 4], [203, 0, 113, 9]] {
        client.ask("once", to, PORT);
        assert_eq!(client.receive().0, b"once");
        server.next();
    }
    wait_until("both copies are counted", || server.handle.stats().total().copy_count == 2);
    server.stop_having_heard_all();
}

fn a_tunnel_with_a_prefix_hears_its_broadcasts(backend: Backend) {
    netns::need_tunnels();
    let mut host = Host::new(1);
    let ends = [host.server.tunnel(1, 2), host.neighbour(1).tunnel(2, 1)];
    // What has no subnet goes by the tunnel.
    host.neighbour(1).configure(
        "route add 224.0.0.0/4 dev tun0\n\
         route replace default dev tun0",
    );
    host.neighbour_asks(1, ["10.8.0.1", "10.8.0.255", "255.255.255.255", "224.0.0.128"])
        .neighbour_asks(1, ["10.201.1.1", "10.201.1.255"])
        .asks_itself("10.8.0.1", ["10.8.0.255"]);
    assert_heard_as_by_a_plain_server(&host, backend);
    drop(host);
    for mut end in ends {
        let _ = end.wait();
    }
}

fn a_broadcast_address_that_was_configured_is_heard_beside_the_one_of_the_mask(backend: Backend) {
    let mut host = Host::without_addresses(1);
    host.server.configure("address add 10.201.1.1/24 brd 10.201.63.255 dev s1");
    host.neighbour(1).configure("address add 10.201.1.3/24 brd 10.201.63.255 dev eth0");
    host.neighbour_asks(1, ["10.201.63.255", "10.201.1.255", "10.201.1.1", "255.255.255.255"]);
    assert_heard_as_by_a_plain_server(&host, backend);
}

fn an_address_with_any_label_is_an_address(backend: Backend) {
    let mut host = Host::without_addresses(2);
    host.server.configure(
        "address add 10.201.1.1/24 brd + dev s1 label s1vip\n\
         address add 10.201.2.1/24 brd + dev s2 label s1\n\
         address add 10.201.4.1/24 brd + dev s2 label s2:x",
    );
    host.neighbour(2).configure("address add 10.201.4.2/24 brd + dev eth0");
    host.neighbour_asks(1, ["10.201.1.1", "10.201.1.255", "255.255.255.255", "224.0.0.128"])
        .neighbour_asks(2, ["10.201.2.1", "10.201.2.255", "10.201.4.1", "10.201.4.255"]);
    assert_heard_as_by_a_plain_server(&host, backend);
}

fn a_peer_address_with_a_prefix_has_the_broadcasts_of_the_peers_subnet(backend: Backend) {
    let mut host = Host::without_addresses(2);
    host.server.configure(
        "address add 10.201.1.1/24 brd + dev s1\n\
         address add 10.201.9.1 peer 10.201.2.0/24 brd + dev s2",
    );
    host.neighbour(2).configure("route add 10.201.9.1 dev eth0");
    host.neighbour_asks(1, ["10.201.1.1", "10.201.1.255"])
        .neighbour_asks(2, ["10.201.9.1", "10.201.2.255", "255.255.255.255", "224.0.0.128"]);
    assert_heard_as_by_a_plain_server(&host, backend);
}

/// Unnumbered NICs.
fn one_address_on_two_nics_is_heard_once(backend: Backend) {
    let mut host = Host::without_addresses(2);
    for number in 1..=2 {
        host.server.configure(&format!(
            "address add 10.201.8.1/32 dev s{number}\nroute add 10.201.{number}.2 dev s{number}"
        ));
        host.neighbour(number).configure(
            "route add 10.201.8.1 dev eth0\n\
             route replace default via 10.201.8.1 dev eth0 onlink",
        );
        host.neighbour_asks(number, ["10.201.8.1", "255.255.255.255", "224.0.0.128"]);
    }
    assert_heard_as_by_a_plain_server(&host, backend);
}

fn the_address_of_a_nic_that_is_down_is_still_an_address_of_the_host(backend: Backend) {
    let mut host = Host::new(2);
    host.server.configure("link set s2 down");
    host.neighbour_asks(1, ["10.201.2.1", "10.201.1.255", "255.255.255.255", "224.0.0.128"])
        .neighbour_asks_in_vain(2, ["10.201.2.255"])
        .asks_itself("10.201.1.1", ["10.201.2.1"]);
    assert_heard_as_by_a_plain_server(&host, backend);
}

fn aliases_and_addresses_without_a_subnet_are_heard(backend: Backend) {
    let mut host = Host::new(1);
    host.server.configure(
        "address add 10.201.1.7/24 brd + dev s1\n\
         address add 10.55.0.1/16 brd + dev s1\n\
         address add 10.56.0.0/31 dev s1\n\
         address add 10.57.0.1/32 dev lo\n\
         address add 169.254.7.7/16 brd + scope link dev s1",
    );
    host.neighbour(1).configure(
        "address add 10.55.0.2/16 brd + dev eth0\n\
         address add 10.56.0.1/31 dev eth0\n\
         address add 169.254.7.8/16 brd + scope link dev eth0",
    );
    host.neighbour_asks(1, ["10.201.1.1", "10.201.1.7", "10.201.1.255", "10.55.255.255"])
        .neighbour_asks(1, ["10.55.0.1", "10.56.0.0", "10.57.0.1", "169.254.7.7"])
        .neighbour_asks(1, ["169.254.255.255", "255.255.255.255", "224.0.0.128"])
        .asks_itself("10.57.0.1", ["10.57.0.1", "10.55.255.255"]);
    assert_heard_as_by_a_plain_server(&host, backend);
}

fn bridges_and_macvlans_are_nics(backend: Backend) {
    let mut host = Host::without_addresses(2);
    host.server.configure(
        "link add br0 type bridge\n\
         link set s1 master br0\n\
         link set br0 up\n\
         address add 10.201.1.1/24 brd + dev br0\n\
         link add link s2 name mv0 type macvlan mode bridge\n\
         link set mv0 up\n\
         address add 10.201.2.1/24 brd + dev mv0\n\
         address add 10.201.2.9/24 brd + dev s2",
    );
    wait_until("the bridge forwards", || host.server.is_up("br0"));
    host.neighbour_asks(1, ["10.201.1.1", "10.201.1.255", "255.255.255.255", "224.0.0.128"])
        .neighbour_asks(2, ["10.201.2.1", "10.201.2.9", "10.201.2.255", "255.255.255.255"])
        .neighbour_asks(2, ["224.0.0.128"]);
    assert_heard_as_by_a_plain_server(&host, backend);
}

/// A plain server hears limited broadcasts there: an exception.
fn a_nic_without_an_address_keeps_nothing_from_the_others(backend: Backend) {
    let mut host = Host::without_addresses(2);
    host.server.configure("address add 10.201.1.1/24 brd + dev s1");
    host.neighbour_asks(1, ["10.201.1.1", "10.201.1.255", "255.255.255.255", "224.0.0.128"])
        .neighbour_asks(2, ["255.255.255.255"])
        .neighbour_asks_in_vain(2, ["10.201.2.255"]);
    assert_heard_as_by_a_plain_server(&host, backend);
}
