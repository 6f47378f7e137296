//! Whatever users do to engines, at random and all at once: leases that outlive engines, handlers
//! and writers that panic, rescans, receives that are cancelled, leases that are forgotten. After
//! each round the ports are free and no descriptor is left.
//!
//! It takes as many seconds as `NICRING_STRESS_S` says, 2 unless it is set. `.ci/extended` runs it
//! for longer under AddressSanitizer.
#![cfg(target_os = "linux")]

#[path = "../common/mod.rs"]
mod common;

use std::{
    env,
    future::Future,
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use nicring::{AsyncEngine, Backend, Batch, BatchLease, Builder, Datagram, Egress, Engine};

use common::{Client, LOCALHOST, OnDrop, assert_free, has_io_uring, on_loopback_without_port};

/// How many descriptors the test itself may have.
const DESCRIPTOR_COUNT_MAX: usize = 20;
/// How long a round lasts.
const ROUND: Duration = Duration::from_millis(20);

#[test]
fn whatever_users_do_engines_end_and_leave_nothing_behind() {
    let seconds = env::var("NICRING_STRESS_S").map_or(2, |text| text.parse().expect("seconds"));
    let (end, mut random) = (Instant::now() + Duration::from_secs(seconds), Random(0x9E37_79B9));
    let mut kept: Vec<(BatchLease, Vec<Vec<u8>>)> = Vec::new();
    let mut round_count = 0;
    while Instant::now() < end {
        let port = common::unused_port();
        let is_over = Arc::new(AtomicBool::new(false));
        let flood = thread::spawn({
            let (is_over, seed) = (Arc::clone(&is_over), random.next());
            move || flood(port, Random(seed), &is_over)
        });
        {
            let _over = OnDrop(|| is_over.store(true, Ordering::SeqCst));
            let builder = builder(&mut random, port);
            match random.below(3) {
                0 => run(builder.open().expect("an engine"), &mut random),
                _ => lend(builder.open_async().expect("an engine"), &mut random, &mut kept),
            }
        }
        flood.join().expect("no panic");
        assert_free(port);
        // What outlives its engine stays as it was.
        for (lease, payloads) in &kept {
            assert!(lease.iter().map(|one| one.payload().to_vec()).eq(payloads.iter().cloned()));
        }
        while kept.len() > random.below(8) {
            kept.swap_remove(random.below(kept.len()));
        }
        round_count += 1;
        // A lease keeps what wakes its engine, also when that has ended.
        let of_leases = kept.len() + FORGOTTEN.lock().expect("no panic").len();
        let descriptors = std::fs::read_dir("/proc/self/fd").expect("descriptors").count();
        assert!(descriptors <= of_leases + DESCRIPTOR_COUNT_MAX, "{descriptors}, {of_leases}");
    }
    println!("{round_count} rounds");
}

/// xorshift: the rounds differ, and are the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// True once in so many times.
    fn once_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

fn builder(random: &mut Random, port: u16) -> Builder {
    let backends = [Backend::Portable, Backend::IoUring];
    let backend = backends[random.below(if has_io_uring() { 2 } else { 1 })];
    on_loopback_without_port(backend)
        .port(port)
        .batch_max(1 + random.below(64))
        .buffer_count(1 + random.below(1024))
        .buffer_bytes(64 + random.below(2_000))
        .replies_max(1 + random.below(64))
        .tick(Duration::from_millis(5))
}

/// Sends datagrams of any length until it is over, and hears no answer.
fn flood(port: u16, mut random: Random, is_over: &AtomicBool) {
    let client = Client::on_loopback();
    let payload = vec![7; 4_000];
    while !is_over.load(Ordering::SeqCst) {
        let len_max = if random.once_in(20) { 4_000 } else { 100 };
        let payload = &payload[..random.below(len_max)];
        let _ = client.0.send_to(payload, (LOCALHOST, port));
        if random.once_in(8) {
            thread::yield_now();
        }
    }
}

/// Runs an engine whose handler answers, panics or breaks.
fn run(engine: Engine, random: &mut Random) {
    let (handle, end) = (engine.handle(), Instant::now() + ROUND);
    let _ = catch_unwind(AssertUnwindSafe(|| {
        let _ = engine.run(|batch| {
            disturb(&handle, random);
            answer(batch, random);
            if random.once_in(500) {
                quietly_panic();
            }
            if Instant::now() > end && random.once_in(2) {
                return ControlFlow::Break(());
            }
            if Instant::now() > end {
                handle.stop();
            }
            ControlFlow::Continue(())
        });
    }));
}

/// Takes leases, answers, keeps some, forgets some, and cancels receives.
fn lend(engine: AsyncEngine, random: &mut Random, kept: &mut Vec<(BatchLease, Vec<Vec<u8>>)>) {
    let (handle, end) = (engine.handle(), Instant::now() + ROUND);
    let mut context = Context::from_waker(Waker::noop());
    let mut held_count = 0;
    while Instant::now() < end {
        disturb(&handle, random);
        let polled = pin!(engine.recv_batch()).poll(&mut context);
        let Poll::Ready(Ok(Some(lease))) = polled else {
            thread::yield_now();
            continue;
        };
        answer(&lease, random);
        if held_count < 7 && random.once_in(50) {
            held_count += 1;
            let payloads = lease.iter().map(|one| one.payload().to_vec()).collect();
            kept.push((lease, payloads));
        } else if held_count < 7 && random.once_in(400) {
            held_count += 1;
            forget(lease);
        }
    }
    if random.once_in(2) {
        handle.stop();
    }
}

/// Leases that nobody ever drops. Here they are reachable, so that no checker calls them leaks.
static FORGOTTEN: Mutex<Vec<BatchLease>> = Mutex::new(Vec::new());
/// Each keeps the buffers of its engine.
const FORGOTTEN_COUNT_MAX: usize = 50;

fn forget(lease: BatchLease) {
    let mut forgotten = FORGOTTEN.lock().expect("no panic");
    if forgotten.len() < FORGOTTEN_COUNT_MAX {
        forgotten.push(lease);
    }
}

fn disturb(handle: &nicring::Handle, random: &mut Random) {
    match random.below(200) {
        0 => handle.rescan(),
        1 => drop(handle.stats()),
        2 => drop(handle.sockets()),
        3 => {
            let to = std::net::SocketAddrV4::new(LOCALHOST, 9);
            let _ = handle.send(Egress::default(), to, b"beacon");
        }
        _ => {}
    }
}

fn answer(batch: &Batch, random: &mut Random) {
    for datagram in batch {
        match random.below(40) {
            0 => {}
            1 => answer_with_a_panic(batch, &datagram),
            2 => {
                let _ = batch.reply_with(&datagram, 64, |buffer| {
                    // Within a writer another answer may be queued.
                    let _ = batch.reply(&datagram, b"within");
                    buffer.len()
                });
            }
            _ => {
                let _ = batch.reply(&datagram, datagram.payload());
            }
        }
    }
}

fn answer_with_a_panic(batch: &Batch, datagram: &Datagram<'_>) {
    let answer = || batch.reply_with(datagram, 64, |_| quietly_panic());
    let _ = catch_unwind(AssertUnwindSafe(answer)); // it is not called if there is no room
}

/// Panics without a message on stderr.
fn quietly_panic() -> usize {
    std::panic::resume_unwind(Box::new("on purpose"));
}
