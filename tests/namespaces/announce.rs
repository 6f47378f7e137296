//! What answers nothing: beacons and announcements, by NIC, port, time to live and loop-back; and
//! what protocols of discovery need to know of what they hear.

use std::{
    io::IoSliceMut,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::AsRawFd,
};

use nicring::{Backend, Class, Egress, Engine, Queued};
use nix::{
    cmsg_space,
    sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt},
};
use socket2::{InterfaceIndexOrAddress, SockRef};

use crate::{
    common::{Client, Server, for_each_backend, netns::Namespace},
    star::{GROUPS, PORT, Star, at_port, broadcast, on_every_nic, own, peer},
};

const OTHER_PORT: u16 = 5064;
const GROUP: Ipv4Addr = GROUPS[1];

for_each_backend!(crate::common::netns::on:
    a_beacon_leaves_from_the_port_that_it_names,
    a_beacon_has_the_time_to_live_that_it_names,
    a_group_is_heard_by_its_own_host_unless_told_otherwise,
    a_fan_out_leaves_once_by_each_nic_that_is_listened_on,
    a_fan_out_that_does_not_fit_leaves_by_no_nic,
    the_nics_that_are_listened_on_are_known,
    the_time_to_live_and_the_type_of_service_are_told_if_asked,
    a_host_without_an_address_is_heard_if_asked,
);

/// A socket that has joined the group on the NIC with this index.
#[track_caller]
fn listener(at: &Namespace, nic: &str) -> Client {
    let index = InterfaceIndexOrAddress::Index(at.index_of(nic));
    let client = at.client([0, 0, 0, 0]);
    SockRef::from(&client.0).join_multicast_v4_n(&GROUP, &index).expect("a group");
    client
}

fn to_group(listener: &Client) -> SocketAddrV4 {
    SocketAddrV4::new(GROUP, listener.address().port())
}

#[track_caller]
fn send(server: &Server, egress: Egress, to: SocketAddrV4, text: &str) {
    assert_eq!(server.handle.send(egress, to, text.as_bytes()), Queued::Yes);
}

fn a_beacon_leaves_from_the_port_that_it_names(backend: Backend) {
    let star = Star::new(1);
    let server = star.server.echo(on_every_nic(backend).port(OTHER_PORT));
    let client = star.client(1).client(peer(1));
    let by_nic = Egress::by_nic(star.index(1));
    for (egress, port) in [
        (Egress::by_route(), PORT),
        (by_nic.with_port(OTHER_PORT), OTHER_PORT),
        (by_nic.with_port(PORT).with_multicast_loop(false), PORT),
        (Egress::by_route().with_port(OTHER_PORT).with_source(own(1)), OTHER_PORT),
    ] {
        send(&server, egress, client.address(), "from");
        client.expect("from", SocketAddrV4::new(own(1), port));
    }
    let stray = server.handle.send(by_nic.with_port(9), client.address(), b"never");
    assert_eq!(stray, Queued::NoPort);
    client.expect_nothing();
    assert_eq!(server.stop_having_heard_all().total().sent_count, 4);
}

/// The time to live with which the next datagram comes.
#[track_caller]
fn ttl_of_next(client: &Client) -> i32 {
    let mut controls = cmsg_space!(i32);
    let mut payload = [0; 64];
    let mut pieces = [IoSliceMut::new(&mut payload)];
    let descriptor = client.0.as_raw_fd();
    let received =
        recvmsg::<SockaddrIn>(descriptor, &mut pieces, Some(&mut controls), MsgFlags::empty());
    let received = received.expect("a datagram");
    let ttl = received.cmsgs().expect("control messages").find_map(|control| match control {
        ControlMessageOwned::Ipv4Ttl(ttl) => Some(ttl),
        _ => None,
    });
    ttl.expect("IP_TTL")
}

fn a_beacon_has_the_time_to_live_that_it_names(backend: Backend) {
    let star = Star::new(1);
    let by_nic = Egress::by_nic(star.index(1));
    let listener = listener(star.client(1), "eth0");
    setsockopt(&listener.0, sockopt::Ipv4RecvTtl, &true).expect("IP_RECVTTL");
    let (group, host) =
        (to_group(&listener), SocketAddrV4::new(peer(1), listener.address().port()));
    for (of_engine, rows) in [
        (None, [(by_nic, 1), (by_nic.with_ttl(255), 255)]),
        (Some(4), [(by_nic, 4), (by_nic.with_ttl(9).with_multicast_loop(false), 9)]),
    ] {
        let builder = on_every_nic(backend);
        let builder = of_engine.into_iter().fold(builder, nicring::Builder::multicast_ttl);
        let server = star.server.echo(builder);
        for (egress, ttl) in rows {
            send(&server, egress, group, "to the group");
            assert_eq!(ttl_of_next(&listener), ttl, "{egress:?}, of the engine: {of_engine:?}");
        }
        // To one host the system's own, unless it is named; several leave as segments.
        send(&server, by_nic, host, "to a host");
        assert_eq!(ttl_of_next(&listener), 64);
        for _ in 0..5 {
            send(&server, by_nic.with_ttl(3), host, "to a host");
        }
        (0..5).for_each(|_| assert_eq!(ttl_of_next(&listener), 3));
        assert_eq!(server.stop_having_heard_all().total().send_error_count, 0);
    }
}

fn a_group_is_heard_by_its_own_host_unless_told_otherwise(backend: Backend) {
    let star = Star::new(1);
    let by_nic = Egress::by_nic(star.index(1));
    let (near, far) = (listener(&star.server, "nic1"), listener(star.client(1), "eth0"));
    for of_engine in [true, false] {
        let server = star.server.echo(on_every_nic(backend).multicast_loop(of_engine));
        for named in [None, Some(true), Some(false)] {
            let egress = named.into_iter().fold(by_nic, Egress::with_multicast_loop);
            for listener in [&near, &far] {
                let text = format!("{of_engine} {named:?}");
                send(&server, egress, to_group(listener), &text);
                if named.unwrap_or(of_engine) || std::ptr::eq(listener, &far) {
                    listener.expect(&text, at_port(own(1)));
                }
            }
        }
        // To the port of the engine, which has joined the group too: it hears itself, or not.
        let text = "to its own port";
        send(&server, by_nic, at_port(GROUP), text);
        send(&server, by_nic.with_multicast_loop(true), at_port(GROUP), text);
        // What it heard of itself it answers, to itself, perhaps before it hears the second.
        let (mut of_group_count, mut echo_count) = (0, 0);
        while of_group_count < if of_engine { 2 } else { 1 } || echo_count == 0 {
            let heard = server.next();
            assert_eq!(heard.text(), text);
            match heard.class {
                Class::Group => of_group_count += 1,
                class => {
                    assert_eq!(class, Class::Unicast);
                    echo_count += 1;
                }
            }
        }
        drop(server);
        near.expect_nothing();
    }
}

fn a_fan_out_leaves_once_by_each_nic_that_is_listened_on(backend: Backend) {
    let star = Star::new(3);
    let server = star.server.echo(on_every_nic(backend).port(OTHER_PORT).exclude_nic("nic2"));
    let everyone = star.client(2).run(|| Client::bind((Ipv4Addr::UNSPECIFIED, 0)));
    let port = everyone.address().port();
    let at_same_port =
        |number: u8| star.client(number).run(|| Client::bind((Ipv4Addr::UNSPECIFIED, port)));
    let clients = [at_same_port(1), at_same_port(3)];
    let egress = Egress::by_route().with_port(OTHER_PORT);
    for number in 0..3 {
        let text = format!("beacon {number}");
        let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, port);
        assert_eq!(server.handle.fan_out(egress, to, text.as_bytes()), Queued::Yes);
        for (client, number) in clients.iter().zip([1, 3]) {
            client.expect(&text, SocketAddrV4::new(own(number), OTHER_PORT));
        }
    }
    assert_eq!(server.handle.fan_out(egress.with_port(9), at_port(GROUP), b"x"), Queued::NoPort);
    for client in clients.iter().chain([&everyone]) {
        client.expect_nothing();
    }
    let total = server.stop_having_heard_all().total();
    assert_eq!((total.sent_count, total.send_error_count), (6, 0));
}

fn a_fan_out_that_does_not_fit_leaves_by_no_nic(backend: Backend) {
    let star = Star::new(3);
    let engine = star.server.run(|| on_every_nic(backend).replies_max(5).open()).expect("opens");
    let handle = engine.handle();
    let listeners =
        [1, 2, 3].map(|number| star.client(number).run(|| Client::bind("0.0.0.0:4444")));
    let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, 4444);
    let fan_out = |text: &[u8]| handle.fan_out(Egress::by_route(), to, text);
    assert_eq!([fan_out(b"first"), fan_out(b"second")], [Queued::Yes, Queued::Full]);
    let server = star.server.run(|| Server::over(engine, |_| std::ops::ControlFlow::Continue(())));
    for (listener, number) in listeners.iter().zip(1..) {
        listener.expect("first", at_port(own(number)));
        listener.expect_nothing();
    }
    let stats = server.stop_having_heard_all();
    assert_eq!((stats.total().sent_count, stats.outbox_full_count), (3, 1));
}

fn the_nics_that_are_listened_on_are_known(backend: Backend) {
    let star = Star::new(3);
    let server = star.server.echo(on_every_nic(backend).exclude_nic("nic1").exclude_nic("lo"));
    let names = || {
        let nics = server.handle.heard_nics();
        nics.iter().map(|nic| nic.name.clone()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(), "nic2 nic3");
    assert_eq!(server.handle.nics().len(), 4);
    star.server.configure("link del nic3");
    crate::common::wait_until("it has gone", || names() == "nic2");
    server.stop_having_heard_all();
    let builder = Engine::builder().backend(backend).port(PORT).nic(own(2));
    let engine = star.server.run(|| builder.open()).expect("it opens");
    let heard = engine.handle().heard_nics();
    let addresses: Vec<_> = heard.iter().flat_map(|nic| &nic.addresses).collect();
    assert_eq!(addresses.iter().map(|own| own.address).collect::<Vec<_>>(), [own(2)]);
}

fn the_time_to_live_and_the_type_of_service_are_told_if_asked(backend: Backend) {
    let star = Star::new(1);
    for is_asked in [true, false] {
        let builder = on_every_nic(backend);
        let builder = if is_asked { builder.recv_ttl().recv_tos().kernel_time() } else { builder };
        let (sender, told) = std::sync::mpsc::channel();
        let server = star.server.run(|| {
            Server::start(builder, move |batch| {
                for datagram in batch {
                    sender.send((datagram.ttl(), datagram.tos())).expect("the test waits");
                }
                std::ops::ControlFlow::Continue(())
            })
        });
        let client = star.client(1).client(peer(1));
        let socket = SockRef::from(&client.0);
        socket.set_tos_v4(0xb8).expect("IP_TOS");
        socket.set_ttl_v4(33).expect("IP_TTL");
        socket.set_multicast_ttl_v4(7).expect("IP_MULTICAST_TTL");
        for (to, ttl) in [(own(1), 33), (broadcast(1), 33), (Ipv4Addr::BROADCAST, 33), (GROUP, 7)] {
            client.ask("told", to, PORT);
            let told = told.recv_timeout(crate::common::PATIENCE).expect("it is heard");
            let expected = if is_asked { (Some(ttl), Some(0xb8)) } else { (None, None) };
            assert_eq!(told, expected, "{to}");
        }
        assert_eq!(
            server.take(4).iter().filter(|one| one.kernel_time.is_some()).count() == 4,
            is_asked
        );
        let stats = server.stop_having_heard_all();
        assert_eq!(stats.total().malformed_count, 0, "control messages have room: {stats}");
    }
}

/// As DHCP asks: from 0.0.0.0, which a socket on a NIC without an address sends from.
fn a_host_without_an_address_is_heard_if_asked(backend: Backend) {
    let star = Star::new(1);
    star.client(1).configure("address flush dev eth0");
    let client = star.client(1).run(|| {
        let client = Client::bind((Ipv4Addr::UNSPECIFIED, 68));
        SockRef::from(&client.0).bind_device(Some(b"eth0")).expect("a device");
        client
    });
    for is_asked in [true, false] {
        let builder = on_every_nic(backend);
        let builder = if is_asked { builder.allow_unspecified_source() } else { builder };
        let server = star.server.echo(builder);
        client.ask("who am I", Ipv4Addr::BROADCAST, PORT);
        if is_asked {
            let heard = server.next();
            assert_eq!(heard.source, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68));
            let by_nic = Egress::by_nic(heard.ifindex.expect("the NIC")).with_source(own(1));
            send(&server, by_nic, SocketAddrV4::new(Ipv4Addr::BROADCAST, 68), "you are 10.77.1.2");
            client.expect("you are 10.77.1.2", at_port(own(1)));
        }
        crate::common::wait_until("it is counted", || {
            let stats = server.handle.stats();
            let (guarded, refused) = (stats.total().guarded_count, stats.no_host_count);
            (guarded, refused) == if is_asked { (0, 1) } else { (1, 0) }
        });
        server.stop_having_heard_all();
    }
}
