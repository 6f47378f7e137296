//! Hosts that are routers: a broadcast to one NIC's subnet may come in by another NIC.

use nicring::Backend;

use crate::{
    common::for_each_backend,
    host::Host,
    oracle::{MODES, assert_heard_as_by_a_plain_server, builder, compare},
};

for_each_backend!(crate::common::netns::on:
    a_broadcast_of_one_nic_that_comes_in_by_another_is_heard,
    so_it_is_where_there_are_too_many_nics_for_a_socket_for_each_pair,
    two_nics_on_one_subnet_hear_each_broadcast_twice_as_a_plain_server_does,
    what_comes_by_nics_that_were_not_chosen_is_left_to_others,
);

fn a_broadcast_of_one_nic_that_comes_in_by_another_is_heard(backend: Backend) {
    let mut host = Host::new(2);
    host.server.set("ipv4/ip_forward", "1");
    host.neighbour_asks(1, ["10.201.2.255", "10.201.2.1", "10.201.1.255", "10.201.1.1"])
        .neighbour_asks(2, ["10.201.1.255", "10.201.1.1", "10.201.2.255", "10.201.2.1"])
        .neighbour_asks(1, ["255.255.255.255", "224.0.0.128"])
        .asks_itself("10.201.1.1", ["10.201.2.255"]);
    assert_heard_as_by_a_plain_server(&host, backend);
}

fn so_it_is_where_there_are_too_many_nics_for_a_socket_for_each_pair(backend: Backend) {
    let mut host = Host::new(12);
    host.server.set("ipv4/ip_forward", "1");
    host.neighbour_asks(1, ["10.201.2.255", "10.201.12.255", "10.201.1.255", "10.201.1.1"])
        .neighbour_asks(12, ["10.201.1.255", "10.201.12.255", "10.201.12.1", "10.201.5.1"])
        .neighbour_asks(7, ["255.255.255.255", "224.0.0.128"])
        .asks_itself("127.0.0.1", ["127.0.1.1", "127.255.255.255"]);
    assert_heard_as_by_a_plain_server(&host, backend);
}

fn two_nics_on_one_subnet_hear_each_broadcast_twice_as_a_plain_server_does(backend: Backend) {
    let mut host = Host::without_addresses(2);
    host.server.configure(
        "address add 10.201.1.1/24 brd + dev s1\n\
         address add 10.201.1.3/24 brd + dev s2",
    );
    // One neighbour has both cables in one bridge.
    let neighbour = host.neighbour(1);
    let cable = host.server.connect("s3", neighbour, "eth1");
    cable.unwrap_or_else(|error| panic!("{error}"));
    host.server.configure("address flush dev s2\naddress add 10.201.1.3/24 brd + dev s3");
    neighbour.configure(
        "link add br0 type bridge\n\
         link set eth0 master br0\n\
         link set eth1 master br0\n\
         address flush dev eth0\n\
         link set br0 up\n\
         address add 10.201.1.2/24 brd + dev br0\n\
         route add default via 10.201.1.1",
    );
    crate::common::wait_until("the bridge forwards", || neighbour.is_up("br0"));
    host.neighbour_asks(1, ["10.201.1.255", "255.255.255.255", "224.0.0.128", "10.201.1.1"])
        .neighbour_asks(1, ["10.201.1.3"]);
    assert_heard_as_by_a_plain_server(&host, backend);
}

fn what_comes_by_nics_that_were_not_chosen_is_left_to_others(backend: Backend) {
    let mut host = Host::new(3);
    host.server.configure("route add local 203.0.113.0/24 dev s1");
    host.neighbour_asks(1, ["10.201.1.1", "10.201.1.255", "255.255.255.255", "224.0.0.128"])
        .neighbour_asks(2, ["10.201.2.1", "10.201.2.255", "255.255.255.255", "224.0.0.128"])
        .neighbour_asks(1, ["203.0.113.9"])
        .neighbour_asks_elsewhere(3, ["10.201.3.1", "10.201.3.255", "224.0.0.128"])
        .neighbour_asks_elsewhere(3, ["255.255.255.255"]);
    for mode in MODES {
        let builder = builder(backend).nic("s1").nic("s2");
        compare(&host, mode, builder.listen(mode.listen).unicast(mode.unicast));
    }
}
