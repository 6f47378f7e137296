//! What callers of `AsyncUdpV4` rely on.

use std::{
    collections::HashSet,
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket as StdUdpSocket},
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
    time::{Duration, Instant, SystemTime},
};

use nicring::{
    Backend,
    udp_v4::{
        AsyncUdpV4, IfaceMap, NicSocket, ORIGIN_TAG_MCAST_GROUP, RecvBatch, RecvMeta,
        bind_loopback_mcast, enable_so_rxq_ovfl_for_socket, recv_from_with_drop_count_socket,
    },
};
use tokio::{net::UdpSocket, runtime, sync::Semaphore, task::LocalSet, time};

use crate::{
    Bundle, at, block_on,
    common::{Client, LOCALHOST, PATIENCE, assert_free, cases, for_each_backend, unused_port},
    on_loopback, over, receive, receive_nothing,
};

for_each_backend!(crate::common::on:
    the_types_can_be_shared_and_their_futures_sent,
    it_works_in_a_runtime_with_one_thread_with_several_and_in_a_local_set,
    a_bundle_of_one_unused_port_on_every_nic_is_answered_there,
    a_runtime_that_is_gone_leaves_no_wait_without_end,
    a_dropped_receive_loses_nothing,
    many_tasks_receive_and_send_at_once,
    what_one_receiver_leaves_wakes_another,
    drop_frees_the_ports_before_it_returns,
    a_receive_made_again_costs_the_same_however_many_sockets_there_are,
    a_clone_of_a_socket_holds_its_port_alone,
    the_kinds_of_errors_that_callers_branch_on,
    a_bundle_bound_anew_starts_empty,
    the_backend_is_chosen_before_the_first_receive,
    the_kernel_tells_when_it_received,
    each_datagram_is_told_of_its_destination_and_interface,
    the_longest_datagrams_pass_both_ways,
    a_port_that_is_held_is_told_as_such,
    a_batch_brings_what_is_there_and_no_more_than_was_asked_for,
    a_dropped_receive_of_a_batch_loses_nothing,
);

cases!(
    outside_a_runtime_it_is_an_error,
    the_free_functions_keep_nothing_and_read_ipv6_too,
    the_loopback_group_reaches_all_who_share_the_port,
);

fn the_types_can_be_shared_and_their_futures_sent(backend: Backend) {
    fn can_be_shared<T: Send + Sync + 'static>() {}
    can_be_shared::<AsyncUdpV4>();
    can_be_shared::<IfaceMap>();
    can_be_shared::<NicSocket>();
    fn can_be_sent<T: Send>(_: T) {}
    block_on(async {
        let bundle = on_loopback(backend, 0);
        let mut buf = [0; 8];
        can_be_sent(bundle.recv_with_meta(&mut buf));
        can_be_sent(bundle.fanout_to(b"", at(LOCALHOST, 9)));
        let RecvMeta { n: _, src: _, dst_ip: _, ifindex: _, iface_ip: _ } = {
            bundle.send_to(b"x", bundle.local_addrs()[0]).await.unwrap();
            bundle.recv_with_meta(&mut buf).await.unwrap()
        };
    });
}

async fn question_and_answer(backend: Backend) {
    ask(on_loopback(backend, 0), on_loopback(backend, 0)).await;
}

async fn ask(server: Bundle, client: Bundle) {
    client.send_to(b"question", server.local_addrs()[0]).await.unwrap();
    let (text, meta, drop_count) = receive(&server).await;
    assert_eq!((text.as_str(), meta.iface_ip, drop_count), ("question", LOCALHOST, 0));
    server.send_via(b"answer", meta.src, meta.iface_ip).await.unwrap();
    assert_eq!(receive(&client).await.0, "answer");
    assert_eq!(meta.src, at(LOCALHOST, client.local_addrs()[0].port()));
}

fn it_works_in_a_runtime_with_one_thread_with_several_and_in_a_local_set(backend: Backend) {
    block_on(question_and_answer(backend));
    let threads = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    threads.unwrap().block_on(async { tokio::spawn(question_and_answer(backend)).await.unwrap() });
    block_on(LocalSet::new().run_until(question_and_answer(backend)));
}

fn a_bundle_of_one_unused_port_on_every_nic_is_answered_there(backend: Backend) {
    block_on(async {
        let client = over(backend, AsyncUdpV4::bind_ephemeral_same_port(true));
        let ports: Vec<_> = client.local_addrs().iter().map(SocketAddr::port).collect();
        assert!(ports.iter().all(|port| *port == ports[0]), "{ports:?}");
        ask(on_loopback(backend, 0), client).await;
    });
}

#[cfg(target_os = "linux")]
mod linux {
    use super::*;

    for_each_backend!(crate::common::on: it_works_beside_a_ring_of_tokio_uring);

    fn it_works_beside_a_ring_of_tokio_uring(backend: Backend) {
        crate::common::need_io_uring();
        tokio_uring::start(question_and_answer(backend));
    }
}

/// By readiness this is an error. The ring needs no runtime.
fn a_runtime_that_is_gone_leaves_no_wait_without_end(backend: Backend) {
    let bundle = block_on(async { on_loopback(backend, 0) });
    Client::on_loopback().ask("x", LOCALHOST, bundle.local_addrs()[0].port());
    let mut buf = [0; 8];
    let received = block_on(bundle.recv_from(&mut buf));
    match backend {
        Backend::IoUring => assert_eq!(received.unwrap().0, 1),
        _ => assert_eq!(received.unwrap_err().kind(), io::ErrorKind::Other),
    }
}

fn the_backend_is_chosen_before_the_first_receive(backend: Backend) {
    block_on(async {
        let bundle = AsyncUdpV4::bind_single(LOCALHOST, 0, false).unwrap();
        let bundle = bundle.with_backend(backend).unwrap();
        assert_eq!(bundle.backend(), backend);
        bundle.send_to(b"x", bundle.local_addrs()[0]).await.unwrap();
        bundle.recv_from(&mut [0; 8]).await.unwrap();
        assert_eq!(bundle.backend(), backend);
        let too_late = bundle.with_backend(Backend::Portable).unwrap_err();
        assert_eq!(too_late.kind(), io::ErrorKind::InvalidInput);
    });
}

fn the_kernel_tells_when_it_received(backend: Backend) {
    block_on(async {
        let bundle = on_loopback(backend, 0);
        bundle.enable_kernel_time().unwrap();
        let start = SystemTime::now();
        bundle.send_to(b"x", bundle.local_addrs()[0]).await.unwrap();
        let details = bundle.recv_with_details(&mut [0; 8]).await.unwrap();
        if cfg!(target_os = "linux") {
            let time = details.kernel_time.expect("it was asked for");
            // The kernel's clock is coarse.
            assert!(time >= start - Duration::from_secs(1) && time <= SystemTime::now());
        } else {
            assert_eq!((details.kernel_time, details.drop_count), (None, 0));
        }
    });
}

fn each_datagram_is_told_of_its_destination_and_interface(backend: Backend) {
    block_on(async {
        let bundle = on_loopback(backend, 0);
        bundle.send_to(b"x", bundle.local_addrs()[0]).await.unwrap();
        let (_, meta, _) = receive(&bundle).await;
        let index = bundle.ifaces()[0].ifindex;
        assert_eq!((meta.dst_ip, meta.ifindex), (Some(LOCALHOST), Some(index)));
    });
}

fn the_longest_datagrams_pass_both_ways(backend: Backend) {
    block_on(async {
        let (server, client) = (on_loopback(backend, 0), on_loopback(backend, 0));
        let longest = vec![b'q'; 65_507];
        client.send_to(&longest, server.local_addrs()[0]).await.unwrap();
        let (question, meta, _) = receive(&server).await;
        assert_eq!(question.len(), longest.len());
        server.send_via(question.as_bytes(), meta.src, meta.iface_ip).await.unwrap();
        assert_eq!(receive(&client).await.0.as_bytes(), longest);
    });
}

fn a_port_that_is_held_is_told_as_such(_: Backend) {
    block_on(async {
        let holder = StdUdpSocket::bind((LOCALHOST, 0)).unwrap();
        let port = holder.local_addr().unwrap().port();
        let error = AsyncUdpV4::bind_single(LOCALHOST, port, false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{error}");
    });
}

fn outside_a_runtime_it_is_an_error() {
    assert_eq!(AsyncUdpV4::bind(0, false).unwrap_err().kind(), io::ErrorKind::Other);
    assert_eq!(bind_loopback_mcast(0).unwrap_err().kind(), io::ErrorKind::Other);
}

fn a_dropped_receive_loses_nothing(backend: Backend) {
    block_on(async {
        let server = on_loopback(backend, 0);
        let client = UdpSocket::bind((LOCALHOST, 0)).await.unwrap();
        const COUNT: u32 = 2_000;
        let address = server.local_addrs()[0];
        // No more than the socket has room for, whoever takes them from it and when.
        let under_way = Arc::new(Semaphore::new(100));
        let permits = Arc::clone(&under_way);
        tokio::spawn(async move {
            for number in 0..COUNT {
                permits.acquire().await.unwrap().forget();
                client.send_to(&number.to_ne_bytes(), address).await.unwrap();
                if number % 10 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        });
        let mut expected = 0;
        while expected < COUNT {
            let mut buf = [0; 4];
            tokio::select! {
                biased;
                () = tokio::task::yield_now() => {}
                received = server.recv_from(&mut buf) => {
                    received.unwrap();
                    assert_eq!(u32::from_ne_bytes(buf), expected);
                    expected += 1;
                    under_way.add_permits(1);
                }
            }
        }
    });
}

fn many_tasks_receive_and_send_at_once(backend: Backend) {
    const RECEIVER_COUNT: usize = 4;
    const COUNT: usize = 2_000;
    let threads = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    threads.unwrap().block_on(async {
        let server = Arc::new(on_loopback(backend, 0));
        server.set_recv_buffer_size(8 << 20).unwrap();
        let address = server.local_addrs()[0];
        let receivers = [(); RECEIVER_COUNT].map(|()| {
            let server = Arc::clone(&server);
            tokio::spawn(async move {
                let mut heard = Vec::new();
                let mut buf = [0; 8];
                while let Ok(received) =
                    time::timeout(Duration::from_millis(500), server.recv_from(&mut buf)).await
                {
                    received.unwrap();
                    heard.push(usize::from_ne_bytes(buf));
                }
                heard
            })
        });
        let senders = [0, 1].map(|first| {
            let server = Arc::clone(&server);
            tokio::spawn(async move {
                for number in (first..COUNT).step_by(2) {
                    server.send_to(&number.to_ne_bytes(), address).await.unwrap();
                    if number % 32 == first {
                        time::sleep(Duration::from_micros(100)).await;
                    }
                }
            })
        });
        for sender in senders {
            sender.await.unwrap();
        }
        let mut heard = Vec::new();
        for receiver in receivers {
            heard.extend(receiver.await.unwrap());
        }
        assert_eq!(heard.len(), COUNT);
        assert_eq!(heard.iter().collect::<HashSet<_>>().len(), COUNT);
    });
}

/// Several tasks wait. If one drains more datagrams than its own, the others are woken for them,
/// even if the first never receives again.
fn what_one_receiver_leaves_wakes_another(backend: Backend) {
    block_on(async {
        let server = Arc::new(on_loopback(backend, 0));
        let address = server.local_addrs()[0];
        let receivers = [(); 3].map(|()| {
            let server = Arc::clone(&server);
            tokio::spawn(async move { receive(&server).await.0 })
        });
        tokio::task::yield_now().await;
        let client = Client::on_loopback();
        for text in ["a", "b", "c"] {
            client.0.send_to(text.as_bytes(), address).unwrap();
        }
        let mut heard = Vec::new();
        for receiver in receivers {
            heard.push(time::timeout(PATIENCE, receiver).await.unwrap().unwrap());
        }
        heard.sort();
        assert_eq!(heard, ["a", "b", "c"]);
    });
}

fn drop_frees_the_ports_before_it_returns(backend: Backend) {
    block_on(async {
        for _ in 0..20 {
            let bundle = over(backend, AsyncUdpV4::bind_ephemeral_same_port(true));
            let port = bundle.local_addrs()[0].port();
            receive_none_yet(&bundle);
            assert!(StdUdpSocket::bind((LOCALHOST, port)).is_err());
            drop(bundle);
            assert_free(port);
        }
    });
}

/// Polls a receive once and drops it. The runtime's driver then knows the sockets.
fn receive_none_yet(bundle: &AsyncUdpV4) {
    let mut buf = [0; 8];
    let receive = pin!(bundle.recv_from(&mut buf));
    assert!(receive.poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

/// A release build has to stay below 200 ns. This test detects only a cost that grows with the
/// number of sockets.
fn a_receive_made_again_costs_the_same_however_many_sockets_there_are(backend: Backend) {
    const COUNT: u32 = 4_000;
    block_on(tokio::task::unconstrained(async {
        let bundle = over(backend, AsyncUdpV4::bind(unused_port(), true));
        time::sleep(Duration::from_millis(10)).await;
        receive_none_yet(&bundle);
        let rounds = (0..5).map(|_| {
            let start = Instant::now();
            (0..COUNT).for_each(|_| receive_none_yet(&bundle));
            start.elapsed() / COUNT
        });
        let each = rounds.min().expect("five");
        // The limit allows for a build without optimization and for other tests that run meanwhile.
        assert!(each < Duration::from_micros(20), "{each:?}");
    }));
}

fn a_clone_of_a_socket_holds_its_port_alone(backend: Backend) {
    block_on(async {
        let bundle = over(backend, AsyncUdpV4::bind(0, true));
        let addresses = bundle.local_addrs();
        let clone = Arc::clone(&bundle.ifaces()[0].sock);
        drop(bundle);
        assert!(StdUdpSocket::bind(addresses[0]).is_err());
        for address in &addresses[1..] {
            StdUdpSocket::bind(address).unwrap();
        }
        drop(clone);
        StdUdpSocket::bind(addresses[0]).unwrap();
    });
}

fn the_kinds_of_errors_that_callers_branch_on(backend: Backend) {
    block_on(async {
        let bundle = on_loopback(backend, 0);
        let nobody = Ipv4Addr::new(203, 0, 113, 99);
        let kind = |result: io::Result<usize>| result.unwrap_err().kind();
        let to = at(LOCALHOST, 9);
        let unavailable = io::ErrorKind::AddrNotAvailable;
        assert_eq!(kind(bundle.send_via(b"x", to, nobody).await), unavailable);
        assert_eq!(kind(bundle.send_via_ifindex(b"x", to, u32::MAX).await), unavailable);
        assert_eq!(kind(bundle.send_via_ifindex(b"x", to, 0).await), unavailable);
        let to_v6 = "[::1]:9".parse().unwrap();
        assert_eq!(kind(bundle.send_to(b"x", to_v6).await), io::ErrorKind::InvalidInput);
        assert_eq!(AsyncUdpV4::bind_single(nobody, 0, false).unwrap_err().kind(), unavailable);
        let not_a_group = bundle.join_multicast_v4(nobody).unwrap_err();
        assert_eq!(not_a_group.kind(), io::ErrorKind::InvalidInput);
        let none_but_loopback = bundle.fanout_to(b"x", to).await;
        assert_eq!(kind(none_but_loopback), io::ErrorKind::Other);
        let is_other = |error: io::Error| error.kind() == io::ErrorKind::Other;
        assert!(bundle.join_multicast_v4([239, 1, 2, 3].into()).is_err_and(is_other));
    });
}

fn the_free_functions_keep_nothing_and_read_ipv6_too() {
    block_on(async {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(socket) = UdpSocket::bind(host).await else {
                eprintln!("{host} is not to be had here");
                continue;
            };
            enable_so_rxq_ovfl_for_socket(&socket).unwrap();
            let own = socket.local_addr().unwrap();
            for text in ["one", "two", "three"] {
                socket.send_to(text.as_bytes(), own).await.unwrap();
            }
            let mut buf = [0; 64];
            let first = recv_from_with_drop_count_socket(&socket, &mut buf).await.unwrap();
            assert_eq!((first, &buf[..3]), ((3, own, 0), &b"one"[..]));
            assert_eq!(socket.try_recv_from(&mut buf).unwrap(), (3, own));
            let cut = recv_from_with_drop_count_socket(&socket, &mut buf[..2]).await.unwrap();
            assert_eq!((cut, &buf[..2]), ((2, own, 0), &b"th"[..]));
            let none = recv_from_with_drop_count_socket(&socket, &mut buf);
            assert!(time::timeout(Duration::from_millis(20), none).await.is_err());
        }
    });
}

fn the_loopback_group_reaches_all_who_share_the_port() {
    block_on(async {
        let first = bind_loopback_mcast(0).unwrap();
        let port = first.local_addr().unwrap().port();
        let second = bind_loopback_mcast(port).unwrap();
        first.send_to(b"shared", (ORIGIN_TAG_MCAST_GROUP, port)).await.unwrap();
        for socket in [&first, &second] {
            let mut buf = [0; 16];
            let received = time::timeout(PATIENCE, socket.recv_from(&mut buf)).await;
            assert_eq!(received.unwrap().unwrap().0, 6);
        }
    });
}

/// What came before a bundle was dropped never reaches the next bundle at the port.
fn a_bundle_bound_anew_starts_empty(backend: Backend) {
    block_on(async {
        let port = unused_port();
        let first = on_loopback(backend, port);
        first.send_to(b"old", at(LOCALHOST, port)).await.unwrap();
        drop(first);
        receive_nothing(&on_loopback(backend, port)).await;
    });
}

/// Receives batches until `count` datagrams came, and returns their payloads.
async fn receive_batches(server: &AsyncUdpV4, count: usize, count_max: usize) -> Vec<Vec<u8>> {
    let mut batch = RecvBatch::default();
    let mut payloads = Vec::new();
    while payloads.len() < count {
        let received = time::timeout(PATIENCE, server.recv_batch(&mut batch, count_max)).await;
        let received_count = received.expect("nothing came").expect("a batch");
        assert!((1..=count_max).contains(&received_count), "{received_count}");
        assert_eq!(received_count, batch.iter().count());
        for (details, payload) in batch.iter() {
            assert_eq!(details.meta.n, payload.len());
            assert!(!details.is_truncated);
            payloads.push(payload.to_vec());
        }
    }
    payloads
}

fn a_batch_brings_what_is_there_and_no_more_than_was_asked_for(backend: Backend) {
    block_on(async {
        let server = on_loopback(backend, 0);
        let refused = server.recv_batch(&mut RecvBatch::default(), 0).await;
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let client = StdUdpSocket::bind((LOCALHOST, 0)).unwrap();
        // No bytes, one byte, the longest payload, and usual lengths.
        let lens = [0, 1, 65_507, 80, 0, 300, 80, 80, 80, 80];
        let sent: Vec<_> = (0u8..).zip(lens).map(|(number, len)| vec![number; len]).collect();
        for payload in &sent {
            client.send_to(payload, server.local_addrs()[0]).unwrap();
        }
        assert_eq!(receive_batches(&server, sent.len(), 3).await, sent);
        receive_nothing(&server).await;
    });
}

fn a_dropped_receive_of_a_batch_loses_nothing(backend: Backend) {
    block_on(async {
        let server = on_loopback(backend, 0);
        let client = StdUdpSocket::bind((LOCALHOST, 0)).unwrap();
        let mut batch = RecvBatch::default();
        let mut heard = Vec::new();
        for number in 0..200u8 {
            client.send_to(&[number], server.local_addrs()[0]).unwrap();
            let is_ready = {
                let receive = pin!(server.recv_batch(&mut batch, 64));
                receive.poll(&mut Context::from_waker(Waker::noop())).is_ready()
            };
            if is_ready {
                heard.extend(batch.iter().flat_map(|(_, payload)| payload.to_vec()));
            }
        }
        let left = receive_batches(&server, 200 - heard.len(), 64).await;
        heard.extend(left.concat());
        assert_eq!(heard, (0..200).collect::<Vec<u8>>());
    });
}
