//! NICs, addresses and routes that come, change and go while the engine runs.

use std::net::Ipv4Addr;

use nicring::Backend;

use crate::{
    common::{Server, for_each_backend, is_on, wait_until},
    host::{GROUP, Host},
    oracle::{PORT, assert_heard_as_by_a_plain_server, builder},
};

for_each_backend!(crate::common::netns::on:
    what_comes_is_heard_without_a_rescan_by_hand,
    a_nic_made_again_with_its_name_and_its_index_hears_its_group,
    a_nic_that_gets_another_name_is_heard_on_and_shown_by_its_new_name,
    a_bridge_port_that_leaves_its_bridge_is_still_a_nic,
    news_that_were_lost_are_made_good_by_a_fresh_list,
);

#[track_caller]
fn assert_answered(host: &Host, number: u8, to: impl Into<Ipv4Addr>) {
    let client = host.neighbour(number).client(Ipv4Addr::UNSPECIFIED);
    let to = to.into();
    client.ask("heard", to, PORT);
    assert_eq!(client.receive().0, b"heard", "{to}");
}

fn hears_at(server: &Server, address: [u8; 4]) -> bool {
    server.handle.sockets().iter().any(|socket| *socket.address.ip() == Ipv4Addr::from(address))
}

fn what_comes_is_heard_without_a_rescan_by_hand(backend: Backend) {
    let host = Host::new(2);
    host.server.configure("link delete s2");
    let server = host.server.echo(builder(backend));
    // A NIC.
    host.connect(2);
    host.server.configure("address add 10.201.2.1/24 brd + dev s2");
    wait_until("the NIC is heard", || hears_at(&server, [10, 201, 2, 255]));
    for to in [Ipv4Addr::new(10, 201, 2, 1), Ipv4Addr::new(10, 201, 2, 255), GROUP] {
        assert_answered(&host, 2, to);
    }
    // An address.
    host.server.configure("address add 10.201.6.1/24 brd + dev s2");
    host.neighbour(2).configure("address add 10.201.6.2/24 brd + dev eth0");
    wait_until("the address is heard", || hears_at(&server, [10, 201, 6, 255]));
    assert_answered(&host, 2, [10, 201, 6, 255]);
    // A route: the kernel tells of no address.
    host.server.configure("route add local 198.51.100.7 dev lo");
    wait_until("the address is heard", || hears_at(&server, [198, 51, 100, 7]));
    assert_answered(&host, 2, [198, 51, 100, 7]);
    host.server.configure("route add local 192.0.2.0/28 dev lo");
    let hears_rest = || hears_at(&server, [0, 0, 0, 0]);
    wait_until("the subnet is heard", || {
        let nics = server.handle.nics();
        hears_rest() && nics.owner([192, 0, 2, 5].into()).is_some()
    });
    assert_answered(&host, 2, [192, 0, 2, 5]);
    // They go.
    host.server.configure("route del local 198.51.100.7 dev lo\naddress del 10.201.6.1/24 dev s2");
    wait_until("they are gone", || {
        !hears_at(&server, [198, 51, 100, 7]) && !hears_at(&server, [10, 201, 6, 1])
    });
    host.server.configure("link set s2 down");
    wait_until("the NIC is not heard", || !hears_at(&server, [10, 201, 2, 255]));
    host.server.configure("link set s2 up");
    wait_until("the NIC is heard again", || hears_at(&server, [10, 201, 2, 255]));
    host.wait_for_link("s2");
    assert_answered(&host, 2, [10, 201, 2, 255]);
    assert!(server.handle.failed_nics().is_empty());
}

fn a_nic_made_again_with_its_name_and_its_index_hears_its_group(backend: Backend) {
    for follows in [true, false] {
        let host = Host::new(1);
        let make = || {
            host.server.configure(&format!(
                "link add x1 index 77 type veth peer name eth1 netns {}\n\
                 address add 10.201.7.1/24 brd + dev x1\n\
                 link set x1 up",
                host.neighbour(1).name
            ));
            host.neighbour(1).configure(
                "address add 10.201.7.2/24 brd + dev eth1\n\
                 link set eth1 up\n\
                 route add 224.0.0.0/4 dev eth1",
            );
            host.wait_for_link("x1");
        };
        make();
        let builder = || builder(backend);
        let builder = if follows { builder() } else { builder().fixed_nics() };
        let server = host.server.echo(builder);
        assert_answered(&host, 1, GROUP);
        let is_member = || {
            let listed = host.server.shown("maddress show dev x1");
            listed.contains("224.0.0.128")
        };
        for _ in 0..3 {
            assert!(is_member());
            // At once: both are one look.
            host.server.configure("link delete x1");
            make();
            if !follows {
                server.handle.rescan();
            }
            wait_until("the host is a member of the group", is_member);
            for to in [GROUP, [10, 201, 7, 1].into(), [10, 201, 7, 255].into()] {
                assert_answered(&host, 1, to);
            }
        }
    }
}

fn a_nic_that_gets_another_name_is_heard_on_and_shown_by_its_new_name(backend: Backend) {
    let host = Host::new(2);
    let server = host.server.echo(builder(backend));
    let sockets = || server.handle.sockets();
    let count = sockets().iter().filter(|socket| is_on(socket, "s2")).count();
    assert!(count > 0);
    assert_answered(&host, 2, GROUP);
    let index = host.server.index_of("s2");
    host.server.configure("link set s2 down\nlink set s2 name renamed\nlink set renamed up");
    let has_name = |name: &str| sockets().iter().filter(|socket| is_on(socket, name)).count();
    wait_until("it has its new name", || has_name("renamed") == count && has_name("s2") == 0);
    host.wait_for_link("renamed");
    for to in [GROUP, [10, 201, 2, 1].into(), [10, 201, 2, 255].into()] {
        assert_answered(&host, 2, to);
    }
    let stats = server.handle.stats();
    let nic = stats.nics.iter().find(|nic| nic.index == index).expect("its counts");
    assert_eq!((nic.name.as_str(), nic.counts.received_count()), ("renamed", 4));
}

/// A bridge tells of a port that goes by the same message that tells of a link that goes.
fn a_bridge_port_that_leaves_its_bridge_is_still_a_nic(backend: Backend) {
    let host = Host::new(1);
    let server = host.server.echo(builder(backend));
    host.server.configure(
        "link add br0 type bridge\nlink set br0 up\nlink set s1 master br0\nlink set s1 nomaster",
    );
    // What follows is seen after what went before.
    host.server.configure("address add 10.201.6.1/24 brd + dev s1");
    wait_until("the address is heard", || hears_at(&server, [10, 201, 6, 1]));
    assert!(hears_at(&server, [10, 201, 1, 1]) && hears_at(&server, [10, 201, 1, 255]));
    assert_answered(&host, 1, [10, 201, 1, 255]);
}

/// The engine's thread is busy while more changes than the kernel keeps for it.
fn news_that_were_lost_are_made_good_by_a_fresh_list(backend: Backend) {
    let host = Host::new(1);
    host.server.configure("link add many type bridge\nlink set many up");
    let (told, is_told) = std::sync::mpsc::channel::<()>();
    let is_told = std::sync::Mutex::new(is_told);
    let server = host.server.run(|| {
        Server::start(builder(backend), move |batch| {
            if batch.iter().any(|datagram| datagram.payload() == b"be busy") {
                let _ = is_told.lock().expect("no panic while held").recv();
            }
            for datagram in batch {
                let _ = batch.reply(&datagram, datagram.payload());
            }
            std::ops::ControlFlow::Continue(())
        })
    });
    let client = host.neighbour(1).client(Ipv4Addr::UNSPECIFIED);
    client.ask("be busy", [10, 201, 1, 1], PORT);
    assert_eq!(server.next().text(), "be busy");
    // About 700 bytes of news for each of some thousands of changes: more than a megabyte.
    for round in 0..20 {
        let change = |number: u32| {
            let address = format!("10.{}.{}.1/32", 100 + round, number % 250);
            format!("address add {address} dev many\naddress del {address} dev many\n")
        };
        host.server.configure(&(0..250).map(change).collect::<String>());
    }
    host.server.configure("address add 10.201.6.1/24 brd + dev s1");
    told.send(()).expect("it waits");
    wait_until("the address is heard", || hears_at(&server, [10, 201, 6, 1]));
    let mut host = host;
    host.neighbour_asks(1, ["10.201.1.1", "10.201.1.255", "224.0.0.128"]);
    drop(server);
    assert_heard_as_by_a_plain_server(&host, backend);
}
