//! The cases, for Linux.

use std::{
    fs,
    future::Future,
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

use crate::common::{
    self, Client, LOCALHOST, PATIENCE, assert_free, cases, need_io_uring,
    sandbox::{deny, is_child_of, sandboxed},
    wait_until,
};

cases!(
    no_thread_and_no_descriptor_stay_after_the_last_bundle,
    where_io_uring_is_refused_bundles_receive_by_readiness,
    bundles_outlive_a_ring_that_fails,
    a_waker_that_panics_or_blocks_ends_nothing,
);

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

fn no_thread_and_no_descriptor_stay_after_the_last_bundle() {
    let this = "no_thread_and_no_descriptor_stay_after_the_last_bundle";
    need_io_uring();
    if !is_child_of(this, &[BY_RING], |_| {}) {
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

fn where_io_uring_is_refused_bundles_receive_by_readiness() {
    let this = "where_io_uring_is_refused_bundles_receive_by_readiness";
    need_io_uring();
    if !is_child_of(this, &[BY_RING], |_| {}) {
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

/// The sandbox is applied while the ring serves.
fn bundles_outlive_a_ring_that_fails() {
    let this = "bundles_outlive_a_ring_that_fails";
    need_io_uring();
    if !is_child_of(this, &[BY_RING], |_| {}) {
        return;
    }
    block_on(async {
        let bundles = [(); 3].map(|()| on_loopback());
        for bundle in &bundles {
            hear(bundle, "by the ring").await;
        }
        deny(libc::SYS_io_uring_enter, libc::EPERM, true);
        // This datagram ends the wait that was allowed before.
        hear(&bundles[0], "the last").await;
        wait_until("they fall back", || {
            bundles.iter().all(|bundle| bundle.backend() == Backend::Portable)
        });
        // The kernel takes some time to end the pending receives of a closed ring.
        time::sleep(Duration::from_secs(1)).await;
        for bundle in &bundles {
            hear(bundle, "by readiness").await;
        }
        hear(&on_loopback(), "a new one").await;
        let ports = bundles.each_ref().map(port);
        drop(bundles);
        ports.into_iter().for_each(assert_free);
    });
}

/// Makes a receive wait, with a waker that calls `on_wake`, and wakes it.
fn wait_with(bundle: &AsyncUdpV4, on_wake: impl Fn() + Send + Sync + 'static) {
    struct OnWake<F>(F);
    impl<F: Fn() + Send + Sync + 'static> Wake for OnWake<F> {
        fn wake(self: Arc<Self>) {
            self.0();
        }
    }
    let is_woken = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&is_woken);
    let waker = Waker::from(Arc::new(OnWake(move || {
        tell.store(true, SeqCst);
        on_wake();
    })));
    let mut buf = [0; 8];
    // Polled only once, like the receive of a task that is never polled again.
    let mut receive = Box::pin(bundle.recv_from(&mut buf));
    assert!(receive.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    Client::on_loopback().ask("wake", LOCALHOST, port(bundle));
    wait_until("it is woken", || is_woken.load(SeqCst));
}

fn a_waker_that_panics_or_blocks_ends_nothing() {
    let this = "a_waker_that_panics_or_blocks_ends_nothing";
    need_io_uring();
    if !is_child_of(this, &[BY_RING], |_| {}) {
        return;
    }
    block_on(async {
        let [panics, blocks, other] = [(); 3].map(|()| on_loopback());
        wait_with(&panics, || std::panic::resume_unwind(Box::new("a test")));
        hear(&other, "still served").await;
        // Longer than the 2 s for which a drop waits for the ring.
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
