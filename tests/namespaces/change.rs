//! NICs that come, go and come back while the engine runs.

use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use nicring::{Backend, Class, Listen};

use crate::{
    common::{self, OnDrop, Server, by_class, for_each_backend, is_on, wait_until},
    star::{GROUPS, PORT, Question, Star, broadcast, nic, on_every_nic, own},
};

for_each_backend!(crate::common::netns::on:
    a_nic_that_comes_goes_and_comes_back_is_heard_and_the_others_lose_nothing,
    a_wildcard_socket_follows_the_nics_too,
    a_nic_made_again_is_heard_after_one_rescan_though_the_port_is_shared_with_nobody,
    a_link_that_goes_down_and_up_is_heard_again,
    an_address_that_changes_is_followed,
    a_rescan_without_a_change_changes_nothing,
    what_a_nic_dropped_is_counted_though_it_has_gone,
);

fn a_nic_that_comes_goes_and_comes_back_is_heard_and_the_others_lose_nothing(backend: Backend) {
    nics_come_and_go(backend, Listen::Class);
}

fn a_wildcard_socket_follows_the_nics_too(backend: Backend) {
    nics_come_and_go(backend, Listen::Wildcard);
}

fn nics_come_and_go(backend: Backend, listen: Listen) {
    let star = Star::new(2);
    star.server.configure("link delete nic2");
    let builder = on_every_nic(backend).fixed_nics().listen(listen).recv_buffer_bytes(4 << 20);
    let server = star.server.echo(builder);
    let (sent_count, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let steady = star.client(1).client([0, 0, 0, 0]);
    let newcomers = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                for to in [own(1), broadcast(1)] {
                    steady.ask("steady", to, PORT);
                    sent_count.fetch_add(1, Ordering::SeqCst);
                }
                thread::sleep(Duration::from_micros(300));
            }
        });
        // Also on failure: the scope waits for its thread.
        let _end = OnDrop(|| is_over.store(true, Ordering::SeqCst));
        come_and_go(&star, &server)
    });
    // Meanwhile the steady client's NIC lost nothing.
    let sent_count = sent_count.load(Ordering::SeqCst);
    let of_nic1 = || {
        let stats = server.handle.stats();
        let nic1 = stats.nics.iter().find(|nic| nic.name == "nic1").expect("it was there first");
        nic1.counts.received_count()
    };
    wait_until("all that was sent to nic1 is heard", || of_nic1() >= sent_count);
    let (stats, heard) = server.stop();
    let steady_count = heard.iter().filter(|heard| heard.text() == "steady").count() as u64;
    assert_eq!(steady_count, sent_count, "{stats}");
    assert_eq!(heard.len() as u64, sent_count + newcomers, "{stats}");
    assert_eq!(stats.total().kernel_drop_count(), Some(0), "{stats}");
}

/// Creates and deletes nic2 three times, each time with a new index. Returns how many datagrams it
/// heard.
fn come_and_go(star: &Star, server: &Server) -> u64 {
    let has_nic2 = || server.handle.nics().by_name("nic2").is_some();
    let mut indexes = Vec::new();
    for round in 0..3 {
        star.connect(2);
        let index = star.index(2);
        assert!(!indexes.contains(&index), "a NIC made again has a new index");
        indexes.push(index);
        server.handle.rescan();
        wait_until("the engine knows the NIC", has_nic2);
        let client = star.client(2).client([0, 0, 0, 0]);
        for to in [own(2), broadcast(2), Ipv4Addr::BROADCAST, GROUPS[0], GROUPS[1]] {
            let text = format!("{round} {to}");
            client.ask(&text, to, PORT);
            client.expect(&text, std::net::SocketAddrV4::new(own(2), PORT));
        }
        let counts = server.handle.stats();
        let counts = counts.nics.iter().find(|nic| nic.index == index).expect("its counts");
        assert_eq!(by_class(&counts.counts), [1, 1, 1, 2]);
        star.server.configure("link delete nic2");
        server.handle.rescan();
        wait_until("the engine has forgotten the NIC", || !has_nic2());
        assert!(!server.handle.sockets().iter().any(|socket| is_on(socket, "nic2")));
    }
    15
}

fn a_nic_made_again_is_heard_after_one_rescan_though_the_port_is_shared_with_nobody(
    backend: Backend,
) {
    let unused = nicring::Engine::builder().backend(backend).port(0);
    for builder in [on_every_nic(backend).fixed_nics().exclusive(), unused] {
        let star = Star::new(2);
        let server = star.server.echo(builder);
        let first_index = star.index(2);
        let of_nic2 = || {
            let sockets = server.handle.sockets();
            sockets.iter().filter(|socket| is_on(socket, "nic2")).count()
        };
        let socket_count = of_nic2();
        star.server.configure("link delete nic2");
        star.connect(2);
        server.handle.rescan();
        let is_followed = || {
            let nics = server.handle.nics();
            let is_new = nics.by_name("nic2").is_some_and(|nic| nic.index != first_index);
            is_new && of_nic2() == socket_count
        };
        wait_until("the engine listens on the new NIC", is_followed);
        assert!(server.handle.failed_nics().is_empty());
        let client = star.client(2).client([0, 0, 0, 0]);
        for to in [own(2), broadcast(2), Ipv4Addr::BROADCAST] {
            client.ask("made again", to, server.port);
            client.expect("made again", std::net::SocketAddrV4::new(own(2), server.port));
        }
        drop(server);
    }
}

fn a_link_that_goes_down_and_up_is_heard_again(backend: Backend) {
    let star = Star::new(2);
    let server = star.server.echo(on_every_nic(backend).fixed_nics());
    for with_rescan in [true, false] {
        let of_nic2 = || {
            let sockets = server.handle.sockets();
            sockets.iter().filter(|socket| is_on(socket, "nic2")).count()
        };
        let socket_count = of_nic2();
        star.server.configure("link set nic2 down");
        if with_rescan {
            server.handle.rescan();
            // Its address is still one of the host.
            wait_until("all but one are closed", || of_nic2() == 1);
        }
        star.server.configure("link set nic2 up");
        if with_rescan {
            server.handle.rescan();
            wait_until("the sockets are open again", || of_nic2() == socket_count);
        }
        wait_for_link(&star, 2);
        for number in 1..=2 {
            let client = star.client(number).client([0, 0, 0, 0]);
            for to in [own(number), broadcast(number), Ipv4Addr::BROADCAST, GROUPS[0], GROUPS[1]] {
                client.ask("again", to, PORT);
                client.expect("again", std::net::SocketAddrV4::new(own(number), PORT));
                assert_eq!(server.next().ifindex, Some(star.index(number)));
            }
        }
    }
    server.stop_having_heard_all();
}

/// A veth carries packets only when both ends are up.
fn wait_for_link(star: &Star, number: u8) {
    let mut command = std::process::Command::new("ip");
    command.args(["-n", &star.server.name, "-o", "link", "show", &nic(number)]);
    let command = std::sync::Mutex::new(command);
    wait_until("the link is up", || {
        let mut command = command.lock().expect("no panic while held");
        crate::common::netns::run(&mut command, "").is_ok_and(|line| line.contains("LOWER_UP"))
    });
}

fn an_address_that_changes_is_followed(backend: Backend) {
    let star = Star::new(1);
    let server = star.server.echo(on_every_nic(backend).fixed_nics());
    let index = star.index(1);
    star.server.configure("address flush dev nic1\naddress add 10.88.1.1/16 brd + dev nic1");
    star.client(1).configure("address add 10.88.1.2/16 brd + dev eth0");
    server.handle.rescan();
    wait_until("the address is known", || {
        server.handle.nics().owner([10, 88, 1, 1].into()).is_some()
    });
    let client = star.client(1).client([10, 88, 1, 2]);
    let rows = [
        (Ipv4Addr::new(10, 88, 1, 1), Class::Unicast),
        (Ipv4Addr::new(10, 88, 255, 255), Class::Subnet),
        (Ipv4Addr::BROADCAST, Class::Limited),
        (GROUPS[0], Class::Group),
    ];
    for (to, class) in rows {
        let answered_from = [10, 88, 1, 1].into();
        Question { to, class, nic: index, ifindex: index, answered_from }.ask(&client, &server);
    }
    server.stop_having_heard_all();
}

fn a_rescan_without_a_change_changes_nothing(backend: Backend) {
    let star = Star::new(1);
    let server = star.server.echo(on_every_nic(backend).fixed_nics());
    let sockets = server.handle.sockets();
    let client = star.client(1).client([0, 0, 0, 0]);
    for round in 0..50 {
        server.handle.rescan();
        let to = [own(1), broadcast(1)][round % 2];
        client.ask("still", to, PORT);
        client.expect("still", std::net::SocketAddrV4::new(own(1), PORT));
    }
    assert_eq!(server.handle.sockets(), sockets);
    server.take(50);
    let stats = server.stop_having_heard_all();
    assert_eq!(stats.total().rearmed_count, 0, "{stats}");
}

fn what_a_nic_dropped_is_counted_though_it_has_gone(backend: Backend) {
    const COUNT: u64 = 300;
    let star = Star::new(2);
    let builder = on_every_nic(backend).fixed_nics().recv_buffer_bytes(1);
    let engine = star.server.run(|| common::open(builder));
    let client = star.client(2).client([0, 0, 0, 0]);
    (0..COUNT).for_each(|_| client.ask("queued or dropped", Ipv4Addr::BROADCAST, PORT));
    star.server.configure("link delete nic2");
    engine.handle().rescan();
    // The only turn that is left begins with the rescan.
    engine.handle().stop();
    let run = || engine.run(|batch| panic!("heard on a NIC that has gone: {batch:?}"));
    let stats = star.server.run(run).expect("it ends at once");
    let dropped = stats.total().kernel_drop_count().expect("Linux counts them");
    assert!((COUNT - 20..COUNT).contains(&dropped), "{stats}");
    // The rest was in the sockets when they closed.
    assert_eq!(dropped + stats.total().left_count, COUNT, "{stats}");
}
