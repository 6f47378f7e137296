//! The engine, and how allocations are counted.

use std::{
    net::SocketAddrV4,
    ops::ControlFlow,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use nicring::{AsyncEngine, Backend, Builder};
use tokio::runtime::Runtime;

use crate::{
    allocations::{CountingAllocator, allocation_count},
    common::{self, Client, LOCALHOST, SETTLE, ask_steadily, for_each_backend, on_loopback, open},
};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

for_each_backend!(crate::cases::alone:
    run_allocates_nothing,
    run_that_waits_for_several_allocates_nothing,
    run_over_a_wildcard_socket_allocates_nothing,
    recv_batch_in_one_thread_allocates_nothing,
    recv_batch_in_many_threads_allocates_nothing,
    leases_of_several_tasks_allocate_nothing,
    short_of_buffers_and_of_room_for_replies_nothing_is_allocated,
);

const WARM_UP_COUNT: usize = 4_000;
const COUNT: usize = 20_000;
/// How many questions wait for their answers at once.
const WINDOW: usize = 32;

pub fn alone(backend: Backend, case: fn(Backend)) {
    let _guard = quiet();
    common::on(backend, case);
}

/// No other test runs until the guard is dropped.
pub fn quiet() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    let guard = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    thread::sleep(4 * SETTLE); // the runner prints, and starts its next thread
    guard
}

fn run_allocates_nothing(backend: Backend) {
    run(on_loopback(backend).delay_max(Duration::ZERO), ask);
}

fn run_that_waits_for_several_allocates_nothing(backend: Backend) {
    run(on_loopback(backend).delay_max(Duration::from_millis(1)), ask_steadily);
}

fn run_over_a_wildcard_socket_allocates_nothing(backend: Backend) {
    run(on_loopback(backend).listen(nicring::Listen::Wildcard), ask);
}

fn recv_batch_in_one_thread_allocates_nothing(backend: Backend) {
    recv_batch(on_loopback(backend), &current_thread());
}

fn recv_batch_in_many_threads_allocates_nothing(backend: Backend) {
    recv_batch(on_loopback(backend), &multi_thread());
}

fn leases_of_several_tasks_allocate_nothing(backend: Backend) {
    let engine = on_loopback(backend).batch_max(8).open_async().expect("an engine");
    let port = engine.ports()[0];
    let runtime = multi_thread();
    runtime.block_on(hold_every_batch(&engine));
    let engine = std::sync::Arc::new(engine);
    for _ in 0..3 {
        let engine = std::sync::Arc::clone(&engine);
        runtime.spawn(async move { answer(&engine).await });
    }
    measure(port, ask);
    engine.handle().stop();
}

/// Batches of 4, 8 buffers, 4 replies: the engine is starved, and its outboxes are full, all the
/// time.
fn short_of_buffers_and_of_room_for_replies_nothing_is_allocated(backend: Backend) {
    let builder = on_loopback(backend).batch_max(4).buffer_count(8).replies_max(4);
    recv_batch(builder, &current_thread());
}

/// Asks so many questions, and takes their answers.
type Ask = fn(&Client, SocketAddrV4, usize);

fn run(builder: Builder, ask: Ask) {
    let engine = open(builder);
    let (handle, port) = (engine.handle(), engine.ports()[0]);
    let client = thread::spawn(move || measure(port, ask));
    let stopper = thread::spawn(move || {
        let result = client.join();
        handle.stop();
        result
    });
    let stats = engine.run(|batch| {
        for datagram in batch {
            batch.reply_with(&datagram, 64, |buffer| {
                let len = datagram.payload().len();
                buffer[..len].copy_from_slice(datagram.payload());
                len
            });
        }
        ControlFlow::Continue(())
    });
    stopper.join().expect("the stopper").expect("nothing was allocated");
    assert!(stats.expect("a good end").total().sent_count >= (WARM_UP_COUNT + COUNT) as u64);
}

fn recv_batch(builder: Builder, runtime: &Runtime) {
    let engine = builder.open_async().expect("an engine");
    runtime.block_on(hold_every_batch(&engine));
    let port = engine.ports()[0];
    let handle = engine.handle();
    let client = thread::spawn(move || measure(port, ask));
    let stopper = thread::spawn(move || {
        let result = client.join();
        handle.stop();
        result
    });
    runtime.block_on(answer(&engine));
    stopper.join().expect("the stopper").expect("nothing was allocated");
}

/// Batches are made when they are first needed. Holding leases here makes the engine allocate those
/// that tasks need that keep few.
async fn hold_every_batch(engine: &AsyncEngine) {
    let (client, mut held) = (Client::on_loopback(), Vec::new());
    for _ in 0..8 {
        client.ask("hold", LOCALHOST, engine.ports()[0]);
        held.push(engine.recv_batch().await.expect("a batch").expect("it runs"));
    }
}

/// Answers until the engine is stopped.
async fn answer(engine: &AsyncEngine) {
    while let Ok(Some(batch)) = engine.recv_batch().await {
        for datagram in batch.iter() {
            batch.reply(&datagram, datagram.payload());
        }
    }
}

/// Asks and waits for the answers: first to warm everything up, then again, when nothing may be
/// allocated.
pub fn measure(port: u16, ask: Ask) {
    let client = Client::on_loopback();
    let to = SocketAddrV4::new(LOCALHOST, port);
    ask(&client, to, WARM_UP_COUNT);
    let before = allocation_count();
    ask(&client, to, COUNT);
    let count = allocation_count() - before;
    assert_eq!(count, 0, "allocations for {COUNT} datagrams and their answers");
}

pub fn ask(Client(socket): &Client, to: SocketAddrV4, count: usize) {
    let mut answer = [0; 64];
    for first in (0..count).step_by(WINDOW) {
        for number in first..first + WINDOW {
            let payload = (number as u64).to_be_bytes();
            socket.send_to(&payload, to).expect("loopback");
        }
        for _ in 0..WINDOW {
            let (len, source) = socket.recv_from(&mut answer).expect("an answer");
            assert_eq!((len, source), (8, to.into()));
        }
    }
}

fn current_thread() -> Runtime {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime")
}

fn multi_thread() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime")
}
