//! What only Linux offers: every class on `lo`, the time of receipt, and drop counts.

use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
    ops::ControlFlow,
    thread,
    time::{Duration, SystemTime},
};

use nicring::{Backend, Class, Hears, Listen, SocketInfo};
use socket2::{Domain, Socket, Type};

use crate::common::{self, Client, LOCALHOST, Server, by_class, for_each_backend, on_loopback};

for_each_backend!(crate::common::on:
    class_sockets_hear_every_class_on_lo,
    a_wildcard_socket_hears_every_class_on_lo,
    what_was_not_asked_for_is_not_heard,
    the_kernel_tells_when_it_received_if_asked,
    every_drop_of_the_kernel_is_counted,
    two_engines_on_one_port_each_get_a_part_of_the_unicasts,
    a_port_is_shared_with_a_server_that_sets_either_option,
    opening_does_not_interrupt_what_the_caller_waits_for_next,
);

/// PVAccess searches at this group where it cannot broadcast.
const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 128);

fn class_sockets_hear_every_class_on_lo(backend: Backend) {
    every_class_is_heard_on_lo(backend, Listen::Class);
}

fn a_wildcard_socket_hears_every_class_on_lo(backend: Backend) {
    every_class_is_heard_on_lo(backend, Listen::Wildcard);
}

fn every_class_is_heard_on_lo(backend: Backend, listen: Listen) {
    let server = Server::echo(on_loopback(backend).listen(listen).join(GROUP));
    let sockets = server.handle.sockets();
    assert_eq!(server.handle.listen(), listen);
    let hears = |socket: &&SocketInfo| socket.hears != Hears::Nothing;
    let hearing_count = sockets.iter().filter(hears).count();
    assert_eq!(hearing_count == 1, listen == Listen::Wildcard, "{sockets:#?}");
    let client = Client::on_loopback();
    let lo = server.handle.nics().loopback().map(|lo| lo.index);
    let rows = [
        (LOCALHOST, Class::Unicast),
        (Ipv4Addr::new(127, 255, 255, 255), Class::Subnet),
        (Ipv4Addr::BROADCAST, Class::Limited),
        (GROUP, Class::Group),
    ];
    for (destination, class) in rows {
        client.ask("class", destination, server.port);
        let heard = server.next();
        assert_eq!((heard.class, heard.destination), (class, Some(destination)));
        assert_eq!((heard.nic, heard.ifindex), (lo, lo), "{class}");
        assert_eq!(heard.source, client.address());
        client.expect("class", server.address());
    }
    let stats = server.stop_having_heard_all();
    assert_eq!(by_class(&stats.total()), [1; 4]);
    client.expect_nothing();
}

fn what_was_not_asked_for_is_not_heard(backend: Backend) {
    let server = Server::echo(on_loopback(backend).listen(Listen::Class));
    let client = Client::on_loopback();
    // Another address of lo, and a group that was not joined.
    client.ask("elsewhere", [127, 0, 0, 9], server.port);
    client.ask("elsewhere", GROUP, server.port);
    client.ask("here", LOCALHOST, server.port);
    assert_eq!(server.next().text(), "here");
    server.stop_having_heard_all();
}

fn the_kernel_tells_when_it_received_if_asked(backend: Backend) {
    let server = Server::echo(on_loopback(backend));
    let client = Client::on_loopback();
    client.send("no time", server.address());
    assert_eq!(server.next().kernel_time, None);
    drop(server);

    // The kernel begins to take times a while after the first socket asks for them, and goes on as
    // long as one does. Until then it takes the time when the datagram is read.
    let _asks = common::open(on_loopback(backend).kernel_time());
    let is_time_of_receipt = || {
        thread::sleep(Duration::from_millis(50));
        let engine = common::open(on_loopback(backend).kernel_time());
        let before = SystemTime::now();
        client.ask("time", LOCALHOST, engine.ports()[0]);
        let after = SystemTime::now();
        thread::sleep(Duration::from_millis(100));
        let server = Server::over(engine, |_| ControlFlow::Continue(()));
        let time = server.next().kernel_time.expect("it was asked for");
        let slack = Duration::from_millis(20);
        time + slack > before && time < after + slack
    };
    // The time at which the datagram is handed out would be too late in every attempt.
    assert!((0..5).any(|_| is_time_of_receipt()));
}

fn every_drop_of_the_kernel_is_counted(backend: Backend) {
    const SENT_COUNT: u64 = 3000;
    let builder = on_loopback(backend).recv_buffer_bytes(4096).buffer_count(8).batch_max(8);
    let server = Server::start(builder, |_| {
        thread::sleep(Duration::from_millis(1));
        ControlFlow::Continue(())
    });
    let client = Client::on_loopback();
    (0..SENT_COUNT).for_each(|_| client.send([7; 100], server.address()));
    let sum = || {
        let total = server.handle.stats().total();
        total.received_count() + total.kernel_drop_count().expect("Linux counts them")
    };
    // The handle must also know drops that no later datagram reports.
    common::wait_until("received and dropped make up what was sent", || sum() >= SENT_COUNT);
    server.take(server.handle.stats().total().received_count() as usize);
    assert_eq!(sum(), SENT_COUNT);
    let total = server.stop_having_heard_all().total();
    assert!(total.kernel_drop_count() > Some(0), "the buffer was too large for this test");
}

fn two_engines_on_one_port_each_get_a_part_of_the_unicasts(backend: Backend) {
    let port = common::unused_port();
    let echo = || Server::echo(common::on_loopback_without_port(backend).port(port));
    let servers = [echo(), echo()];
    for number in 0..64 {
        let client = Client::on_loopback();
        client.ask(&number.to_string(), LOCALHOST, port);
        client.expect(number.to_string(), servers[0].address());
    }
    let counts = servers.map(|server| server.stop().1.len());
    assert_eq!(counts[0] + counts[1], 64);
    assert!(counts[0] > 0 && counts[1] > 0, "{counts:?}");
}

fn a_port_is_shared_with_a_server_that_sets_either_option(backend: Backend) {
    let port = common::unused_port();
    type Set = fn(&Socket) -> io::Result<()>;
    let options: [Set; 2] =
        [|socket| socket.set_reuse_address(true), |socket| socket.set_reuse_port(true)];
    for set in options {
        let other = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
        set(&other).expect("an option");
        let any = std::net::SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        other.bind(&any.into()).expect("an unused port");
        let server = Server::echo(common::on_loopback_without_port(backend).port(port));
        let client = Client::on_loopback();
        client.ask("the address wins", LOCALHOST, port);
        client.expect("the address wins", server.address());
        drop(server);
    }
}

/// Closing a ring interrupts, some time later, the threads that used it. The caller of `open` must
/// not notice.
fn opening_does_not_interrupt_what_the_caller_waits_for_next(backend: Backend) {
    let socket = UdpSocket::bind((LOCALHOST, 0)).expect("loopback");
    socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
    let engine = common::open(on_loopback(backend));
    let error = socket.recv(&mut [0; 16]).expect_err("nobody sends");
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "after opening: {error}");
    drop(engine);
}
