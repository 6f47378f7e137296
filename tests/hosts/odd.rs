//! What cannot be heard, or not yet. It costs only itself.

use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
};

use nicring::{Backend, FailedNic, Hears, Listen, OnFailedNic, Unicast};

use crate::{
    common::{
        Client, PATIENCE, Server, for_each_backend, open, refused, sandbox, shared_socket_at,
        wait_until,
    },
    host::{GROUP, Host},
    oracle::{MODES, PORT, assert_heard_as_by_a_plain_server, builder, compare, serve},
};

for_each_backend!(crate::common::netns::on:
    an_address_that_is_not_in_table_local_costs_only_itself,
    a_group_that_cannot_be_joined_costs_only_itself,
    twenty_five_nics_are_heard_in_a_group_where_no_socket_can_be_bound_to_a_device,
    what_could_not_be_opened_is_tried_again_until_it_can,
    an_address_that_another_program_holds_costs_only_itself,
    unicasts_are_left_address_by_address,
    a_service_address_on_lo_that_is_left_stays_with_its_server,
    a_subnet_that_is_local_can_be_chosen,
    an_exclusive_port_hears_what_a_shared_one_hears,
    a_nic_that_was_named_is_waited_for_if_asked,
    a_socket_that_fails_for_good_is_told_and_opened_again,
);

fn failures(server: &Server) -> Vec<FailedNic> {
    server.handle.failed_nics()
}

fn text(failures: &[FailedNic]) -> String {
    failures.iter().map(|failed| format!("{failed}\n")).collect()
}

/// As an address of a VRF is not.
fn an_address_that_is_not_in_table_local_costs_only_itself(backend: Backend) {
    let mut host = Host::new(2);
    host.server.configure("route del table local local 10.201.2.1 dev s2");
    host.neighbour_asks(1, ["10.201.1.1", "10.201.1.255", "255.255.255.255", "224.0.0.128"])
        .neighbour_asks(2, ["10.201.2.255", "255.255.255.255", "224.0.0.128"])
        .neighbour_asks_in_vain(2, ["10.201.2.1"]);
    assert_heard_as_by_a_plain_server(&host, backend);
    let class = || builder(backend).listen(Listen::Class);
    let server = host.server.echo(class());
    let failures = failures(&server);
    assert_eq!(failures.len(), 1, "{}", text(&failures));
    assert_eq!(failures[0].address, "10.201.2.1:5076".parse().unwrap());
    assert_eq!(failures[0].nic.as_ref().map(|nic| nic.name.as_str()), Some("s2"));
    assert!(text(&failures).contains("table `local`"), "{}", text(&failures));
    let nics = server.handle.nics();
    let is_local = |address: [u8; 4]| {
        let nic = nics.owner(address.into()).expect("an address of the host");
        nic.addresses[0].is_local
    };
    assert!(is_local([10, 201, 1, 1]) && !is_local([10, 201, 2, 1]));
    drop(server);
    let error = host.server.run(|| refused(class().on_failed_nic(OnFailedNic::Fail)));
    assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    // It is heard as soon as it is local.
    let server = host.server.echo(class());
    host.server.configure("route add table local local 10.201.2.1 dev s2");
    wait_until("all is heard", || server.handle.failed_nics().is_empty());
    let client = host.neighbour(2).client(Ipv4Addr::UNSPECIFIED);
    client.ask("local again", [10, 201, 2, 1], PORT);
    client.expect("local again", "10.201.2.1:5076".parse().unwrap());
}

fn a_group_that_cannot_be_joined_costs_only_itself(backend: Backend) {
    let mut host = Host::new(1);
    host.neighbour_asks(1, ["10.201.1.1", "10.201.1.255", "255.255.255.255"]);
    for mode in MODES {
        let builder =
            || builder(backend).listen(mode.listen).unicast(mode.unicast).join([239, 1, 1, 1]);
        // The plain server of this comparison joins its group before.
        let server = {
            host.server.set("ipv4/igmp_max_memberships", "0");
            let server = serve(&host, mode, builder());
            host.server.set("ipv4/igmp_max_memberships", "20");
            server
        };
        let client = host.neighbour(1).client(Ipv4Addr::UNSPECIFIED);
        client.ask("still heard", Ipv4Addr::BROADCAST, PORT);
        assert_eq!(server.next().text(), "still heard", "{mode:?}");
        wait_until("the groups are joined by now", || failures(&server).is_empty());
        client.ask("joined by now", GROUP, PORT);
        assert_eq!(server.next().text(), "joined by now", "{mode:?}");
    }
    host.server.set("ipv4/igmp_max_memberships", "0");
    let server = host.server.echo(builder(backend));
    let failures = failures(&server);
    assert_eq!(failures.len(), 2, "on lo and on s1: {}", text(&failures));
    assert!(failures.iter().all(|failed| *failed.address.ip() == GROUP));
    assert!(text(&failures).contains("igmp_max_memberships"), "{}", text(&failures));
    drop(server);
    let builder = builder(backend).on_failed_nic(OnFailedNic::Fail);
    let error = host.server.run(|| refused(builder));
    assert!(error.to_string().contains("224.0.0.128"), "{error}");
}

/// The kernel allows a socket 20 memberships.
fn twenty_five_nics_are_heard_in_a_group_where_no_socket_can_be_bound_to_a_device(
    backend: Backend,
) {
    let mut host = Host::new(25);
    for number in [1, 20, 21, 25] {
        host.neighbour_asks(number, ["224.0.0.128", "255.255.255.255"]);
    }
    host.asks_itself("10.201.25.1", ["224.0.0.128"]);
    let without_devices = MODES.into_iter().filter(|mode| !mode.has_devices);
    for mode in without_devices {
        for listen in [Listen::Auto, Listen::Class] {
            let builder = builder(backend).listen(listen).unicast(mode.unicast);
            compare(&host, mode, builder.on_failed_nic(OnFailedNic::Fail));
        }
    }
    let wildcard = builder(backend).listen(Listen::Wildcard).on_failed_nic(OnFailedNic::Fail);
    compare(&host, MODES[2], wildcard);
}

fn what_could_not_be_opened_is_tried_again_until_it_can(backend: Backend) {
    let host = Host::new(1);
    // Who hears all of 127.0.0.0/8 shares the port with nobody who does not share it.
    let builder = builder(backend).exclude_nic("lo");
    let server = host.server.echo(builder);
    // Another program is first at an address that comes.
    host.server.set("ipv4/ip_nonlocal_bind", "1");
    let holder = host.server.run(|| UdpSocket::bind(("10.201.7.1", PORT)).expect("unshared"));
    host.server.configure("address add 10.201.7.1/24 brd + dev s1");
    host.neighbour(1).configure("address add 10.201.7.2/24 brd + dev eth0");
    let names_it = || {
        let failures = failures(&server);
        failures.len() == 1 && failures[0].address == "10.201.7.1:5076".parse().unwrap()
    };
    wait_until("it is told", names_it);
    assert!(text(&failures(&server)).contains("another program holds the port"));
    let client = host.neighbour(1).client(Ipv4Addr::UNSPECIFIED);
    client.ask("the rest is heard", [10, 201, 7, 255], PORT);
    assert_eq!(server.next().text(), "the rest is heard");
    drop(holder);
    wait_until("all is heard", || failures(&server).is_empty());
    client.ask("now too", [10, 201, 7, 1], PORT);
    assert_eq!(server.next().text(), "now too");
}

fn an_address_that_another_program_holds_costs_only_itself(backend: Backend) {
    let host = Host::new(2);
    let holder = host.server.run(|| UdpSocket::bind(("10.201.2.1", PORT)).expect("unshared"));
    let server = host.server.echo(builder(backend));
    // As a plain server that is bound to 0.0.0.0, what hears the rest of lo cannot be bound.
    let failures = failures(&server);
    let addresses: Vec<_> = failures.iter().map(|failed| failed.address.ip().octets()).collect();
    assert_eq!(addresses, [[10, 201, 2, 1], [0, 0, 0, 0]], "{}", text(&failures));
    assert!(failures.iter().all(|failed| failed.error.kind() == io::ErrorKind::AddrInUse));
    let client = host.neighbour(1).client(Ipv4Addr::UNSPECIFIED);
    client.ask("heard", [10, 201, 1, 1], PORT);
    assert_eq!(server.next().text(), "heard");
    drop(server);
    // Who wants the port for itself alone does not get it.
    let error = host.server.run(|| refused(builder(backend).exclusive()));
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    drop(holder);
    // The sockets of a ring live on for some milliseconds after it.
    let mut holder = None;
    wait_until("the port is free", || {
        holder = host.server.run(|| UdpSocket::bind(("0.0.0.0", PORT))).ok();
        holder.is_some()
    });
    let error = host.server.run(|| refused(builder(backend)));
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "nothing would be heard: {error}");
    drop(holder);
}

fn unicasts_are_left_address_by_address(backend: Backend) {
    let host = Host::new(2);
    let other = host.server.run(|| Client::sharing_at([10, 201, 2, 1].into(), PORT));
    let filter = "10.201.2.1";
    let server = host.server.echo(builder(backend).leave_unicast(filter));
    let client = host.neighbour(1).client(Ipv4Addr::UNSPECIFIED);
    for round in 0..20 {
        let text = round.to_string();
        client.ask(&text, [10, 201, 2, 1], PORT);
        assert_eq!(other.receive().0, text.as_bytes());
        client.ask(&text, [10, 201, 1, 1], PORT);
        assert_eq!(server.next().text(), text);
    }
    client.ask("a broadcast", [10, 201, 2, 255], PORT);
    assert_eq!(server.next().text(), "a broadcast");
    server.stop_having_heard_all();
}

fn a_service_address_on_lo_that_is_left_stays_with_its_server(backend: Backend) {
    let host = Host::new(1);
    host.server.configure("address add 10.57.0.1/32 dev lo");
    let filter = || "10.57.0.1";
    for builder in
        [builder(backend).leave_unicast(filter()), builder(backend).exclude_nic(filter())]
    {
        let plain = host.plain_server(PORT);
        let server = host.server.echo(builder);
        host.server.client(Ipv4Addr::LOCALHOST).ask("left", [10, 57, 0, 1], PORT);
        plain.0.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        assert_eq!(plain.receive().0, b"left");
        let told = text(&server.handle.failed_nics());
        assert!(told.contains("127.0.0.0/8 is not heard") && told.contains("10.57.0.1"), "{told}");
        server.stop_having_heard_all();
    }
}

fn a_subnet_that_is_local_can_be_chosen(backend: Backend) {
    let host = Host::new(1);
    host.server.configure("route add local 203.0.113.0/24 dev lo");
    let chosen = "203.0.113.0/24";
    let s1 = "s1";
    let server = host.server.echo(builder(backend).nic(chosen).nic(s1));
    let client = host.neighbour(1).client(Ipv4Addr::UNSPECIFIED);
    client.ask("local", [203, 0, 113, 9], PORT);
    client.expect("local", "203.0.113.9:5076".parse().unwrap());
    assert_eq!(server.next().text(), "local");
    server.stop_having_heard_all();
}

fn an_exclusive_port_hears_what_a_shared_one_hears(backend: Backend) {
    let mut host = Host::new(2);
    host.server.configure("address add 10.201.2.1/32 dev s1\nroute add local 192.0.2.0/28 dev lo");
    host.neighbour_asks(1, ["10.201.1.1", "10.201.1.255", "10.201.2.255", "255.255.255.255"])
        .neighbour_asks(2, ["224.0.0.128", "192.0.2.5", "10.201.2.1"])
        .asks_itself("127.0.0.1", ["127.0.1.1", "127.0.0.1", "127.255.255.255"]);
    compare(&host, MODES[0], builder(backend).exclusive());
    let server = host.server.echo(builder(backend).exclusive());
    for address in ["0.0.0.0", "10.201.1.1", "127.0.1.1", "127.0.0.1", "192.0.2.5"] {
        let bound = host.server.run(|| shared_socket_at(address.parse().unwrap(), PORT));
        assert_eq!(bound.map(drop).unwrap_err().kind(), io::ErrorKind::AddrInUse, "{address}");
    }
    // An address that comes later is no exception.
    host.server.configure("address add 10.201.9.1/24 brd + dev s1");
    let is_heard = || {
        let sockets = server.handle.sockets();
        sockets.iter().any(|socket| *socket.address.ip() == Ipv4Addr::new(10, 201, 9, 1))
    };
    wait_until("the address is heard", is_heard);
    let bound = host.server.run(|| shared_socket_at([10, 201, 9, 1].into(), PORT));
    assert_eq!(bound.map(drop).unwrap_err().kind(), io::ErrorKind::AddrInUse);
}

fn a_nic_that_was_named_is_waited_for_if_asked(backend: Backend) {
    let host = Host::without_addresses(1);
    host.server.configure("link set s1 down");
    let named = || builder(backend).nic("s1");
    let error = host.server.run(|| refused(named()));
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    let text = error.to_string();
    assert!(text.contains("s1: no NIC") && text.contains("wait_for_nics"), "{text}");
    for unicast in [Unicast::Take, Unicast::Leave] {
        let server = host.server.echo(named().unicast(unicast).wait_for_nics());
        host.server.configure("link set s1 up\naddress add 10.201.1.1/24 brd + dev s1");
        let is_heard =
            || server.handle.sockets().iter().any(|socket| socket.hears != Hears::Nothing);
        wait_until("the NIC is heard", is_heard);
        host.wait_for_link("s1");
        let client = host.neighbour(1).client(Ipv4Addr::UNSPECIFIED);
        client.ask("there by now", [10, 201, 1, 255], PORT);
        client.expect("there by now", "10.201.1.1:5076".parse().unwrap());
        host.server.configure("link set s1 down\naddress flush dev s1");
        wait_until("the NIC is not heard", || !is_heard());
    }
}

/// A sandbox makes every receive fail. The sockets are opened again, and fail again.
fn a_socket_that_fails_for_good_is_told_and_opened_again(backend: Backend) {
    if backend == Backend::IoUring {
        return; // No sandbox sees what a ring receives: src/uring/tests has this case.
    }
    let host = Host::new(1);
    let engine = host.server.run(|| open(builder(backend)));
    let (handle, port) = (engine.handle(), engine.ports()[0]);
    let run = || {
        sandbox::deny(libc::SYS_recvmmsg, libc::EIO, false);
        engine.run(|_| std::ops::ControlFlow::Continue(())).expect("it ends when told to")
    };
    std::thread::scope(|scope| {
        let server = scope.spawn(|| host.server.run(run));
        let client = host.neighbour(1).client(Ipv4Addr::UNSPECIFIED);
        let asks = |count: u64| {
            client.ask("fails", [10, 201, 1, 1], port);
            let stats = handle.stats();
            stats.total().receive_error_count >= count
        };
        wait_until("it has failed for good", || asks(8));
        wait_until("it was opened again, and has failed again", || asks(16));
        handle.stop();
        server.join().expect("no panic");
    });
}
