//! The cases, for Linux.

use std::{
    future::Future,
    ops::ControlFlow,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Waker},
    thread::{self, JoinHandle},
    time::Duration,
};

use nicring::{Backend, Builder};
use nix::{
    sys::resource::{Resource, getrlimit},
    unistd::geteuid,
};

use crate::common::{
    self, Client, LOCALHOST, PATIENCE, SETTLE, assert_free, for_each_backend, memory::resident,
    open,
};

for_each_backend!(crate::cases::alone:
    when_run_returns,
    when_the_handler_breaks,
    when_the_handler_panics,
    when_an_engine_is_dropped_that_never_ran,
    when_the_thread_that_opened_it_has_ended,
    when_an_async_engine_is_dropped,
    when_a_receive_future_is_dropped_midway,
    when_the_runtime_is_shut_down,
    when_leases_outlive_the_engine,
);

/// Each case runs in spans of this many rounds: two spans if memory does not grow from one to the
/// next.
const SPAN_ROUND_COUNT: usize = 500;
const SPAN_COUNT_MAX: usize = 6;
/// In how many of the last rounds of a span memory is measured.
const LOOK_COUNT: usize = 100;
/// How much more memory may be resident at the end of a span than at the end of the previous span.
const GROWTH_MAX_BYTES: usize = 64 << 10;
/// Enough for the rings of one case. The usual limit of 8 MiB is not.
const LOCKED_BYTES_MIN: u64 = 256 << 20;

/// Runs one test at a time: the tests of this file count descriptors, threads and memory of the
/// process.
fn alone(backend: Backend, case: fn(Backend)) {
    static LOCK: Mutex<()> = Mutex::new(());
    let _guard: MutexGuard<'_, ()> = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    thread::sleep(4 * SETTLE); // the runner starts its next thread, which waits for the lock
    common::on(backend, |backend| {
        if backend == Backend::IoUring {
            need_locked_memory();
        }
        case(backend);
    });
}

/// The kernel frees the memory of a ring some time after it was closed. Until then it counts
/// against the user's limit of locked memory, if there is one.
fn need_locked_memory() {
    let (limit, _) = getrlimit(Resource::RLIMIT_MEMLOCK).expect("a limit");
    if !geteuid().is_root() && limit < LOCKED_BYTES_MIN {
        let reason = format!("RLIMIT_MEMLOCK is {limit} bytes: too little for so many rings");
        common::skip("io_uring", &reason);
    }
}

/// Opens and ends an engine many times while a client floods its port, and checks after each time.
fn many_times(backend: Backend, mut live: impl FnMut(Builder)) {
    // From its first runtime on, tokio keeps a pair of sockets for signals.
    drop(tokio::runtime::Builder::new_current_thread().enable_all().build());
    let port = common::unused_port();
    let flood = Flood::start(port);
    let mut before = None;
    let mut round = || {
        let builder = common::on_loopback_without_port(backend).port(port).exclusive();
        live(builder.buffer_count(64).replies_max(64).batch_max(16));
        assert_free(port);
        if let Some(before) = before {
            // A joined thread may take a moment to leave /proc.
            let is_gone = || Left::now().is_within(before);
            if !is_gone() {
                let what = format!("nothing but {before:?} stays, now {:?}", descriptors());
                common::wait_until(&what, is_gone);
            }
        }
        before.get_or_insert_with(Left::now);
    };
    if let Some(round_count) = sanitized_round_count() {
        (0..round_count).for_each(|_| round());
        flood.stop();
        return;
    }
    let mut resident_bytes = vec![least_resident(&mut round)];
    loop {
        resident_bytes.push(least_resident(&mut round));
        let count = resident_bytes.len();
        let is_growing = resident_bytes[count - 1] >= resident_bytes[count - 2] + GROWTH_MAX_BYTES;
        if !is_growing {
            break;
        }
        // Memory that the allocator keeps stops growing. A leak does not.
        assert!(count < SPAN_COUNT_MAX, "resident memory grows: {resident_bytes:?}");
    }
    flood.stop();
}

/// How many rounds to run under a sanitizer: `NICRING_SANITIZED_ROUNDS`. Memory is not measured
/// then: a sanitizer looks for leaks itself, and keeps memory of its own for every thread.
fn sanitized_round_count() -> Option<usize> {
    let text = std::env::var("NICRING_SANITIZED_ROUNDS").ok()?;
    Some(text.parse().expect("NICRING_SANITIZED_ROUNDS is a number"))
}

/// Runs [`SPAN_ROUND_COUNT`] rounds and measures memory after each of the last [`LOOK_COUNT`]. The
/// smallest value is what stays.
fn least_resident(mut round: impl FnMut()) -> usize {
    (0..SPAN_ROUND_COUNT - LOOK_COUNT).for_each(|_| round());
    let looks = (0..LOOK_COUNT).map(|_| {
        round();
        resident()
    });
    looks.min().expect("some looks")
}

fn when_run_returns(backend: Backend) {
    many_times(backend, |builder| {
        let engine = open(builder);
        let handle = engine.handle();
        let server = thread::spawn(move || {
            engine.run(|batch| {
                for datagram in batch {
                    batch.reply(&datagram, datagram.payload());
                }
                ControlFlow::Continue(())
            })
        });
        common::wait_until("it serves", || handle.stats().total().received_count() > 0);
        handle.stop();
        server.join().expect("no panic").expect("a good end");
    });
}

fn when_the_handler_breaks(backend: Backend) {
    many_times(backend, |builder| {
        let stats = open(builder).run(|_| ControlFlow::Break(())).expect("a good end");
        assert!(stats.total().received_count() > 0);
    });
}

fn when_the_handler_panics(backend: Backend) {
    many_times(backend, |builder| {
        let engine = open(builder);
        let run = move || engine.run(|_| std::panic::resume_unwind(Box::new("meant to")));
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        assert!(panic.is_err());
    });
}

fn when_an_engine_is_dropped_that_never_ran(backend: Backend) {
    many_times(backend, |builder| drop(open(builder)));
}

fn when_the_thread_that_opened_it_has_ended(backend: Backend) {
    many_times(backend, |builder| {
        let engine = thread::spawn(move || open(builder)).join().expect("it opens");
        let engine = thread::spawn(move || engine).join().expect("it moves");
        engine.run(|_| ControlFlow::Break(())).expect("a good end");
    });
}

fn when_an_async_engine_is_dropped(backend: Backend) {
    let mut round = 0;
    many_times(backend, |builder| {
        let engine = builder.open_async().expect("an engine");
        round += 1;
        if round % 2 == 0 {
            let batch = block_on(engine.recv_batch()).expect("a batch").expect("it runs");
            batch.iter().for_each(|datagram| _ = batch.reply(&datagram, b"answer"));
        }
        drop(engine);
    });
}

fn when_a_receive_future_is_dropped_midway(backend: Backend) {
    many_times(backend, |builder| {
        let engine = builder.open_async().expect("an engine");
        {
            let mut future = pin!(engine.recv_batch());
            // Mostly nothing has come yet, so the waker stays registered.
            let _ = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }
        drop(engine);
    });
}

fn when_the_runtime_is_shut_down(backend: Backend) {
    let mut round = 0;
    many_times(backend, |builder| {
        round += 1;
        let runtime = match round % 2 {
            0 => tokio::runtime::Builder::new_current_thread().enable_all().build(),
            _ => tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build(),
        };
        let runtime = runtime.expect("a runtime");
        let engine = builder.open_async().expect("an engine");
        // The task owns the engine, and is in the middle of receiving when the runtime ends.
        let task = async move {
            while let Ok(Some(batch)) = engine.recv_batch().await {
                batch.iter().for_each(|datagram| _ = batch.reply(&datagram, b"answer"));
                tokio::task::yield_now().await;
            }
        };
        runtime.spawn(task);
        runtime.block_on(async { tokio::time::sleep(Duration::from_millis(2)).await });
        drop(runtime);
    });
}

fn when_leases_outlive_the_engine(backend: Backend) {
    let mut kept = Vec::new();
    many_times(backend, |builder| {
        let engine = builder.open_async().expect("an engine");
        let batch = block_on(engine.recv_batch()).expect("a batch").expect("it runs");
        drop(engine);
        // One lease of an earlier engine is kept at all times: its memory must still be there.
        kept.push(batch);
        if kept.len() > 1 {
            drop(kept.remove(0));
        }
        for datagram in kept.iter().flat_map(|batch| batch.iter()) {
            assert_eq!(datagram.payload(), FLOOD);
        }
    });
}

const FLOOD: &[u8] = b"flood";

/// A thread that sends to a loopback port all the time, whether or not anyone listens.
struct Flood {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Flood {
    fn start(port: u16) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&is_over);
        let client = Client::on_loopback();
        let send = move || {
            while !stop.load(Ordering::Relaxed) {
                for _ in 0..16 {
                    // Refused while nobody listens.
                    let _ = client.0.send_to(FLOOD, (LOCALHOST, port));
                }
                thread::sleep(Duration::from_micros(100));
            }
        };
        Self { is_over, thread: thread::spawn(send) }
    }

    fn stop(self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().expect("the sender");
    }
}

/// What an engine could leave behind.
#[derive(Debug, Clone, Copy)]
struct Left {
    descriptor_count: usize,
    thread_count: usize,
}

impl Left {
    fn now() -> Self {
        Self {
            descriptor_count: entry_count("/proc/self/fd"),
            thread_count: entry_count("/proc/self/task"),
        }
    }

    fn is_within(self, before: Self) -> bool {
        self.descriptor_count <= before.descriptor_count && self.thread_count <= before.thread_count
    }
}

/// What each descriptor is open for.
fn descriptors() -> Vec<String> {
    let entries = std::fs::read_dir("/proc/self/fd").expect("/proc").flatten();
    let target = |entry: std::fs::DirEntry| std::fs::read_link(entry.path());
    entries.map(|entry| format!("{:?}", target(entry))).collect()
}

fn entry_count(directory: &str) -> usize {
    std::fs::read_dir(directory).expect("/proc").count()
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
    })
}
