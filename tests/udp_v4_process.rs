//! `AsyncUdpV4` and the ring that all bundles of a process share; each case has a process of its
//! own.
#![cfg(target_os = "linux")]

mod common;

use std::{
    fs,
    future::Future,
    net::{Ipv4Addr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use nicring::{Backend, udp_v4::AsyncUdpV4};
use tokio::{runtime, time};

use common::{
    Client, LOCALHOST, PATIENCE, assert_free, has_io_uring,
    netns::{Namespace, can_be_made},
    sandbox::{deny, is_child_of, sandboxed},
    wait_until,
};

const BY_RING: (&str, &str) = (Backend::ENVIRONMENT_VARIABLE, "io_uring");

fn block_on<F: Future>(case: F) -> F::Output {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(case)
}

fn on_loopback() -> AsyncUdpV4 {
    AsyncUdpV4::bind_single(LOCALHOST, 0, false).expect("loopback")
}

fn port(bundle: &AsyncUdpV4) -> u16 {
    bundle.local_addrs()[0].port()
}

async fn hear(bundle: &AsyncUdpV4, text: &str) {
    Client::on_loopback().ask(text, LOCALHOST, port(bundle));
    let mut buf = [0; 64];
    let received = time::timeout(PATIENCE, bundle.recv_from(&mut buf)).await;
    let (len, _) = received.expect("nothing was heard").expect("a datagram");
    assert_eq!(&buf[..len], text.as_bytes());
}

fn count(directory: &str) -> usize {
    fs::read_dir(directory).expect("/proc").count()
}

#[test]
fn no_thread_and_no_descriptor_stay_after_the_last_bundle() {
    let this = "no_thread_and_no_descriptor_stay_after_the_last_bundle";
    if !has_io_uring() || !is_child_of(this, &[BY_RING], |_| {}) {
        return;
    }
    let counts = || (count("/proc/self/task"), count("/proc/self/fd"));
    block_on(async {
        for _ in 0..2 {
            let before = counts();
            let bundles = [(); 3].map(|()| on_loopback());
            assert_eq!(counts().0, before.0, "no thread before the first receive");
            for bundle in &bundles {
                hear(bundle, "x").await;
                assert_eq!(bundle.backend(), Backend::IoUring);
            }
            wait_until("there is one thread for all", || counts().0 == before.0 + 1);
            let ports = bundles.each_ref().map(port);
            drop(bundles);
            ports.into_iter().for_each(assert_free);
            wait_until("the thread and the ring are gone", || counts() == before);
        }
    });
}

#[test]
fn where_io_uring_is_refused_bundles_receive_by_readiness() {
    let this = "where_io_uring_is_refused_bundles_receive_by_readiness";
    if !has_io_uring() || !is_child_of(this, &[BY_RING], |_| {}) {
        return;
    }
    for call in [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register] {
        sandboxed(call, libc::EPERM, || {
            block_on(async {
                let bundle = on_loopback();
                hear(&bundle, "heard all the same").await;
                assert_eq!(bundle.backend(), Backend::Portable);
                let forced = on_loopback().with_backend(Backend::IoUring);
                assert_eq!(forced.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
            });
        });
    }
}

/// A sandbox that is applied while the ring serves.
#[test]
fn bundles_outlive_a_ring_that_fails() {
    let this = "bundles_outlive_a_ring_that_fails";
    if !has_io_uring() || !is_child_of(this, &[BY_RING], |_| {}) {
        return;
    }
    block_on(async {
        let bundles = [(); 3].map(|()| on_loopback());
        for bundle in &bundles {
            hear(bundle, "by the ring").await;
        }
        deny(libc::SYS_io_uring_enter, libc::EPERM, true);
        // Ends the wait that was under way before.
        hear(&bundles[0], "the last").await;
        wait_until("they fall back", || {
            bundles.iter().all(|bundle| bundle.backend() == Backend::Portable)
        });
        // The kernel takes some time to end what a ring that was closed had under way.
        time::sleep(Duration::from_millis(200)).await;
        for bundle in &bundles {
            hear(bundle, "by readiness").await;
        }
        hear(&on_loopback(), "a new one").await;
        let ports = bundles.each_ref().map(port);
        drop(bundles);
        ports.into_iter().for_each(assert_free);
    });
}

/// Polls a receive, so that it waits, with a waker that does this.
fn wait_with(bundle: &AsyncUdpV4, on_wake: impl Fn() + Send + Sync + 'static) {
    struct OnWake<F>(F);
    impl<F: Fn() + Send + Sync + 'static> Wake for OnWake<F> {
        fn wake(self: Arc<Self>) {
            self.0();
        }
    }
    let waker = Waker::from(Arc::new(OnWake(on_wake)));
    let mut buf = [0; 8];
    // Never dropped, as a task that is never polled again.
    let mut receive = Box::pin(bundle.recv_from(&mut buf));
    assert!(receive.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    Client::on_loopback().ask("wake", LOCALHOST, port(bundle));
    thread::sleep(Duration::from_millis(100));
}

#[test]
fn a_waker_that_panics_or_blocks_ends_nothing() {
    let this = "a_waker_that_panics_or_blocks_ends_nothing";
    if !has_io_uring() || !is_child_of(this, &[BY_RING], |_| {}) {
        return;
    }
    block_on(async {
        let [panics, blocks, other] = [(); 3].map(|()| on_loopback());
        wait_with(&panics, || panic!("a test"));
        hear(&other, "still served").await;
        // Longer than a drop waits for the ring.
        wait_with(&blocks, || thread::sleep(Duration::from_millis(2_500)));
        let freed = port(&other);
        let start = Instant::now();
        drop(other);
        let took = start.elapsed();
        assert!(took > Duration::from_secs(1) && took < Duration::from_secs(3), "{took:?}");
        wait_until("the thread comes back", || common::is_free(freed));
        hear(&on_loopback(), "still served").await;
        assert!([panics, blocks].iter().all(|bundle| bundle.backend() == Backend::IoUring));
    });
}

/// What one bundle may hold, and the ring: the queue, what comes at once before it is let be, and
/// the buffers.
const MEMORY_MAX: usize = 12 << 20;
/// What may stay: the buffers.
const MEMORY_LEFT_MAX: usize = 6 << 20;

#[test]
fn a_flood_of_the_longest_datagrams_on_16_nics_stays_under_the_cap_by_the_ring() {
    let this = "a_flood_of_the_longest_datagrams_on_16_nics_stays_under_the_cap_by_the_ring";
    if has_io_uring() && can_be_made() && is_child_of(this, &[BY_RING], |_| {}) {
        flood(Backend::IoUring);
    }
}

#[test]
fn a_flood_of_the_longest_datagrams_on_16_nics_stays_under_the_cap_by_readiness() {
    let this = "a_flood_of_the_longest_datagrams_on_16_nics_stays_under_the_cap_by_readiness";
    if can_be_made() && is_child_of(this, &[], |_| {}) {
        flood(Backend::Portable);
    }
}

fn flood(backend: Backend) {
    let [host, peer] = ["flood", "peer"]
        .map(|label| Namespace::new(label).unwrap_or_else(|error| panic!("{error}")));
    for nic in 1..=16 {
        host.connect(&format!("nic{nic}"), &peer, &format!("eth{nic}")).expect("a NIC");
        host.configure(&format!("address add 10.79.{nic}.1/24 dev nic{nic}"));
    }
    let is_over = AtomicBool::new(false);
    host.run(|| {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let bundle = runtime.block_on(async { AsyncUdpV4::bind(5076, true) }).expect("16 NICs");
        let bundle = bundle.with_backend(backend).expect("a backend");
        let addresses: Vec<Ipv4Addr> = (1..=16).map(|nic| [10, 79, nic, 1].into()).collect();
        let payload = vec![7; 65_507];
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
        let mut buf = vec![0; 1 << 16];
        let before = resident_bytes();
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(SeqCst) {
                    for address in &addresses {
                        let _ = socket.send_to(&payload, (*address, 5076));
                    }
                }
            });
            runtime.block_on(async {
                bundle.recv_from(&mut buf).await.expect("a datagram");
                let (mut most, mut count) = (0, 0);
                let start = Instant::now();
                // First nobody takes anything, then as much as comes.
                while start.elapsed() < Duration::from_secs(1) {
                    if start.elapsed() > Duration::from_millis(500) {
                        assert_eq!(bundle.recv_from(&mut buf).await.expect("a datagram").0, 65_507);
                        count += 1;
                    } else {
                        time::sleep(Duration::from_millis(5)).await;
                    }
                    most = most.max(resident_bytes().saturating_sub(before));
                }
                is_over.store(true, SeqCst);
                eprintln!("{most} bytes at the most, {count} datagrams");
                assert!(most < MEMORY_MAX, "{most} bytes, {count} datagrams");
                let wait = Duration::from_millis(100);
                while time::timeout(wait, bundle.recv_from(&mut buf)).await.is_ok() {}
            });
        });
        let left = resident_bytes().saturating_sub(before);
        eprintln!("{left} bytes left");
        assert!(left < MEMORY_LEFT_MAX, "{left} bytes are left");
        assert_eq!(bundle.backend(), backend);
    });
}

fn resident_bytes() -> usize {
    const PAGE_BYTES: usize = 4096;
    let statm = fs::read_to_string("/proc/self/statm").expect("/proc");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("pages")
        * PAGE_BYTES
}
