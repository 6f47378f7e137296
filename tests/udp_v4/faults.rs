//! One test for each fault of epics-base-rs 0.18.3 that loopback can show. `namespaces` has the
//! others.

use std::{
    cell::Cell,
    io,
    net::{Ipv4Addr, UdpSocket as StdUdpSocket},
    rc::Rc,
};

use nicring::{Backend, Class, udp_v4::AsyncUdpV4};
use tokio::task::{self, LocalSet};

use crate::{
    at, block_on,
    common::{Client, LOCALHOST, for_each_backend, unused_port},
    on_loopback, over, receive, receive_nothing,
};

for_each_backend!(crate::common::on:
    a_flooded_socket_starves_no_other,
    a_flood_leaves_other_tasks_their_turn,
    a_task_that_has_had_its_turn_still_waits,
    whole_datagrams_come_through_and_what_is_cut_off_is_told,
    a_broadcast_on_loopback_is_heard_once_and_told_as_what_it_is,
    port_0_opens_no_sockets_for_broadcasts_and_shares_with_nobody,
    an_ephemeral_bundle_has_one_port_and_hears_broadcasts_at_it,
    an_ephemeral_bundle_never_lands_on_a_strangers_port,
    a_nic_that_failed_to_bind_is_reported,
    what_the_kernel_gave_for_a_receive_buffer_is_told,
    every_socket_is_heard_by_the_receive_with_a_drop_count,
);
#[cfg(target_os = "linux")]
mod linux {
    use super::{
        an_error_of_one_nic_fails_no_receive, drops_are_one_sum_a_nic_that_never_goes_back,
    };
    use crate::common::for_each_backend;

    for_each_backend!(crate::common::on:
        an_error_of_one_nic_fails_no_receive,
        drops_are_one_sum_a_nic_that_never_goes_back,
    );
}

const LOOPBACK_BROADCAST: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 255);

/// The flood goes on. By readiness, sockets take turns. The ring hands out datagrams in order of
/// arrival.
fn a_flooded_socket_starves_no_other(backend: Backend) {
    block_on(async {
        let port = unused_port();
        let server = over(backend, AsyncUdpV4::bind(port, true));
        let client = Client::on_loopback();
        // Afterwards both sockets are known to be empty.
        receive_nothing(&server).await;
        for _ in 0..150 {
            client.ask("flood", LOCALHOST, port);
        }
        client.ask("alone", LOOPBACK_BROADCAST, port);
        for _ in 0..150 {
            client.ask("flood", LOCALHOST, port);
        }
        let mut before_count = 0;
        while receive(&server).await.0 != "alone" {
            before_count += 1;
        }
        // The ring takes up to 32 datagrams at once from a socket.
        let before_max = if backend == Backend::IoUring { 150 + 64 } else { 32 };
        assert!(before_count <= before_max, "{before_count} of the flood came first");
    });
}

fn a_flood_leaves_other_tasks_their_turn(backend: Backend) {
    block_on(LocalSet::new().run_until(async {
        let server = on_loopback(backend, 0);
        server.set_recv_buffer_size(4 << 20).unwrap();
        let client = Client::on_loopback();
        const COUNT: usize = 1_000;
        for _ in 0..COUNT {
            client.0.send_to(b"flood", server.local_addrs()[0]).unwrap();
        }
        let turn_count = Rc::new(Cell::new(0));
        let counter = Rc::clone(&turn_count);
        let other = task::spawn_local(async move {
            loop {
                counter.set(counter.get() + 1);
                task::yield_now().await;
            }
        });
        // Like a server that gets only what it does not answer: the task awaits nothing else.
        let mut buf = [0; 8];
        let flood = task::spawn_local(async move {
            for _ in 0..COUNT {
                server.recv_with_meta_with_drops(&mut buf).await.unwrap();
            }
        });
        flood.await.unwrap();
        other.abort();
        assert!(turn_count.get() >= COUNT / 256, "{} turns", turn_count.get());
    }));
}

/// The runtime's budget ends exactly when a socket has to wait.
fn a_task_that_has_had_its_turn_still_waits(backend: Backend) {
    block_on(async {
        for spent_count in 120..136 {
            let server = on_loopback(backend, 0);
            task::yield_now().await;
            for _ in 0..spent_count {
                task::coop::consume_budget().await;
            }
            receive_nothing(&server).await;
        }
    });
}

fn whole_datagrams_come_through_and_what_is_cut_off_is_told(backend: Backend) {
    block_on(async {
        let server = on_loopback(backend, 0);
        let client = Client::on_loopback();
        let to = server.local_addrs()[0];
        let longest: Vec<u8> = (0..65_507u32).map(|at| at as u8).collect();
        let mut buf = vec![0; 1 << 16];
        for _ in 0..40 {
            client.0.send_to(&longest, to).unwrap();
            let details = server.recv_with_details(&mut buf).await.unwrap();
            assert_eq!((details.meta.n, details.is_truncated), (65_507, false));
            assert!(buf[..65_507] == longest[..]);
        }
        client.0.send_to(b"too long", to).unwrap();
        let details = server.recv_with_details(&mut buf[..3]).await.unwrap();
        assert_eq!((details.meta.n, details.is_truncated), (3, true));
        assert_eq!(&buf[..3], b"too");
        client.0.send_to(b"", to).unwrap();
        assert_eq!(server.recv_from(&mut buf).await.unwrap().0, 0);
    });
}

#[cfg(target_os = "linux")]
fn an_error_of_one_nic_fails_no_receive(backend: Backend) {
    use nix::sys::socket::{setsockopt, sockopt};
    block_on(async {
        let port = unused_port();
        let server = over(backend, AsyncUdpV4::bind(port, true));
        let client = Client::on_loopback();
        let lo = server.ifaces().iter().find(|nic| nic.is_loopback).unwrap();
        // From now on, the next receive of this socket returns an ICMP error.
        setsockopt(&*lo.sock, sockopt::Ipv4RecvErr, &true).unwrap();
        receive_nothing(&server).await;
        for round in 0..20 {
            // This send may return the error of the previous datagram.
            let _ = lo.sock.send_to(b"to nobody", (LOCALHOST, 1)).await;
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            let to = if round % 2 == 0 { LOCALHOST } else { LOOPBACK_BROADCAST };
            client.ask("fine", to, port);
            assert_eq!(receive(&server).await.0, "fine");
        }
    });
}

fn a_broadcast_on_loopback_is_heard_once_and_told_as_what_it_is(backend: Backend) {
    block_on(async {
        let port = unused_port();
        let server = over(backend, AsyncUdpV4::bind(port, true));
        let client = Client::on_loopback();
        client.ask("broadcast", LOOPBACK_BROADCAST, port);
        let mut buf = [0; 16];
        let details = server.recv_with_details(&mut buf).await.unwrap();
        assert_eq!(details.meta.dst_ip, Some(LOOPBACK_BROADCAST));
        assert_eq!(details.class, Some(Class::Subnet));
        assert_eq!(details.meta.iface_ip, LOCALHOST);
        let sent = server.send_via(b"answer", details.meta.src, details.meta.iface_ip).await;
        assert_eq!(sent.unwrap(), 6);
        assert_eq!(client.receive().1.port(), port);
        receive_nothing(&server).await;
    });
}

fn port_0_opens_no_sockets_for_broadcasts_and_shares_with_nobody(backend: Backend) {
    block_on(async {
        let bundle = over(backend, AsyncUdpV4::bind(0, true));
        assert!(bundle.ifaces().iter().all(|nic| !nic.rx_only_bcast), "{bundle:?}");
        assert_eq!(bundle.local_addrs().len(), bundle.ifaces().len());
        let port = bundle.local_addrs()[0].port();
        let error = AsyncUdpV4::bind_single(LOCALHOST, port, false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    });
}

fn an_ephemeral_bundle_has_one_port_and_hears_broadcasts_at_it(backend: Backend) {
    block_on(async {
        let bundle = over(backend, AsyncUdpV4::bind_ephemeral_same_port(true));
        let port = bundle.local_addrs()[0].port();
        for nic in bundle.ifaces() {
            assert_eq!(nic.sock.local_addr().unwrap().port(), port);
        }
        Client::on_loopback().ask("broadcast", LOOPBACK_BROADCAST, port);
        assert_eq!(receive(&bundle).await.0, "broadcast");
        receive_nothing(&bundle).await;
    });
}

/// The strangers share their ports: with address reuse, the system may choose such a port again.
fn an_ephemeral_bundle_never_lands_on_a_strangers_port(backend: Backend) {
    block_on(async {
        let share = |_| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None);
            let socket = socket.unwrap();
            socket.set_reuse_address(true).unwrap();
            socket.bind(&at(LOCALHOST, 0).into()).unwrap();
            StdUdpSocket::from(socket)
        };
        let strangers: Vec<StdUdpSocket> = (0..500).map(share).collect();
        let port_of = |socket: &StdUdpSocket| socket.local_addr().unwrap().port();
        let ports: Vec<u16> = strangers.iter().map(port_of).collect();
        for _ in 0..100 {
            let bundle = over(backend, AsyncUdpV4::bind_ephemeral_same_port(true));
            assert!(!ports.contains(&bundle.local_addrs()[0].port()));
            assert!(bundle.failed_nics().is_empty(), "{bundle:?}");
        }
    });
}

fn a_nic_that_failed_to_bind_is_reported(backend: Backend) {
    block_on(async {
        let port = unused_port();
        let _holder = StdUdpSocket::bind((LOCALHOST, port)).unwrap();
        match AsyncUdpV4::bind(port, true) {
            Ok(bundle) => {
                let bundle = over(backend, Ok(bundle));
                let failed = bundle.failed_nics();
                assert!(
                    failed.iter().any(|failed| *failed.address.ip() == LOCALHOST),
                    "{failed:?}"
                );
                assert_eq!(failed[0].error.kind(), io::ErrorKind::AddrInUse);
            }
            // On a host that has no NIC but loopback.
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
                assert!(error.to_string().contains("127.0.0.1"), "{error}");
            }
        }
    });
}

fn what_the_kernel_gave_for_a_receive_buffer_is_told(backend: Backend) {
    block_on(async {
        let bundle = on_loopback(backend, 0);
        bundle.set_recv_buffer_size(300_000).unwrap();
        assert!(bundle.recv_buffer_sizes().unwrap()[0] >= 200_000);
    });
}

fn every_socket_is_heard_by_the_receive_with_a_drop_count(backend: Backend) {
    block_on(async {
        let port = unused_port();
        let bundle = over(backend, AsyncUdpV4::bind(port, true));
        bundle.enable_so_rxq_ovfl().unwrap();
        let client = Client::on_loopback();
        for to in [LOOPBACK_BROADCAST, LOCALHOST] {
            client.ask("x", to, port);
            let mut buf = [0; 8];
            let received = bundle.recv_from_with_drop_count(&mut buf).await.unwrap();
            assert_eq!(received, (1, client.address().into(), 0));
        }
    });
}

#[cfg(target_os = "linux")]
fn drops_are_one_sum_a_nic_that_never_goes_back(backend: Backend) {
    block_on(async {
        let port = unused_port();
        let server = over(backend, AsyncUdpV4::bind(port, true));
        server.enable_so_rxq_ovfl().unwrap();
        let client = Client::on_loopback();
        receive_nothing(&server).await;
        // More than either socket of the NIC can queue, with different counts.
        const COUNTS: [(Ipv4Addr, usize); 2] = [(LOCALHOST, 2_000), (LOOPBACK_BROADCAST, 1_000)];
        let payload = [b'x'; 1_000];
        for (to, count) in COUNTS {
            for _ in 0..count {
                client.0.send_to(&payload, at(to, port)).unwrap();
            }
        }
        let sent_count: usize = COUNTS.iter().map(|row| row.1).sum();
        let mut last = 0;
        let mut heard_count = 0;
        while heard_count + (last as usize) < sent_count {
            let (_, meta, drop_count) = receive(&server).await;
            assert_eq!(meta.iface_ip, LOCALHOST);
            assert!(drop_count >= last, "{drop_count} after {last}");
            last = drop_count;
            heard_count += 1;
        }
        assert_eq!(heard_count + last as usize, sent_count, "{last} dropped");
        receive_nothing(&server).await;
        assert!(last > 100, "{last}");
    });
}
