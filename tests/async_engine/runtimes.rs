//! Batches in each flavour of tokio, shared among tasks and cancelled.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use nicring::{Backend, Egress};
use tokio::{
    runtime::{Builder, Runtime},
    task::{LocalSet, yield_now},
    time::timeout,
};

use crate::{
    PAUSE,
    common::{Client, LOCALHOST, for_each_backend, on_loopback},
    echo, next, numbers, open, text, within,
};

for_each_backend!(crate::common::on:
    a_current_thread_runtime_serves,
    a_multi_thread_runtime_serves_from_several_tasks,
    a_local_set_serves,
    a_future_without_a_runtime_serves,
    a_future_dropped_by_a_timeout_loses_nothing,
    a_future_dropped_by_select_loses_nothing,
    a_waiter_that_is_dropped_leaves_the_batch_to_another,
    a_task_that_always_receives_lets_others_run,
    a_stop_is_no_error_to_any_waiter,
    what_was_received_before_the_stop_is_still_handed_out,
    a_beacon_leaves_at_any_time,
);

pub fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_time().build().expect("a runtime")
}

fn multi_thread() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_time().build().expect("a runtime")
}

fn a_current_thread_runtime_serves(backend: Backend) {
    current_thread().block_on(async {
        let engine = open(on_loopback(backend));
        let (client, port) = (Client::on_loopback(), engine.ports()[0]);
        for round in numbers(20) {
            client.ask(&round, LOCALHOST, port);
            assert_eq!(echo(&engine, 1).await, [round.as_str()]);
            client.expect(&round, std::net::SocketAddrV4::new(LOCALHOST, port));
        }
        assert_eq!(engine.handle().stats().total().received_count(), 20);
    });
}

fn a_multi_thread_runtime_serves_from_several_tasks(backend: Backend) {
    const COUNT: usize = 600;
    multi_thread().block_on(async {
        let engine = Arc::new(open(on_loopback(backend).batch_max(8)));
        let port = engine.ports()[0];
        let serve = |engine: Arc<nicring::AsyncEngine>| async move {
            let mut heard = Vec::new();
            while let Ok(Some(batch)) = engine.recv_batch().await {
                for datagram in batch.iter() {
                    heard.push(text(datagram.payload()));
                    batch.reply(&datagram, datagram.payload());
                }
            }
            heard
        };
        let tasks: Vec<_> = (0..4).map(|_| tokio::spawn(serve(Arc::clone(&engine)))).collect();
        let client = Client::on_loopback();
        let exchange = move || {
            for text in numbers(COUNT) {
                client.ask(&text, LOCALHOST, port);
                client.expect(&text, std::net::SocketAddrV4::new(LOCALHOST, port));
            }
        };
        tokio::task::spawn_blocking(exchange).await.expect("every question is answered");
        engine.handle().stop();
        let mut heard = Vec::new();
        for task in tasks {
            heard.extend(within(task).await.expect("no panic"));
        }
        let mut expected = numbers(COUNT);
        expected.sort();
        heard.sort();
        assert_eq!(heard, expected, "each datagram went to exactly one task");
    });
}

fn a_local_set_serves(backend: Backend) {
    let client = Client::on_loopback();
    LocalSet::new().block_on(&current_thread(), async {
        let engine = open(on_loopback(backend));
        let port = engine.ports()[0];
        let server = tokio::task::spawn_local(async move {
            // A value that is not Send lives across the await.
            let local = std::rc::Rc::new(());
            let heard = echo(&engine, 10).await;
            drop(local);
            (heard, engine)
        });
        numbers(10).iter().for_each(|text| client.ask(text, LOCALHOST, port));
        let (heard, engine) = within(server).await.expect("no panic");
        assert_eq!(heard, numbers(10));
        for text in numbers(10) {
            client.expect(text, std::net::SocketAddrV4::new(LOCALHOST, port));
        }
        drop(engine);
    });
}

/// The futures need nothing of tokio: a waker that unparks the thread is enough.
fn a_future_without_a_runtime_serves(backend: Backend) {
    struct Unpark(thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let engine = open(on_loopback(backend));
    let (client, port) = (Client::on_loopback(), engine.ports()[0]);
    let sender = thread::spawn(move || {
        thread::sleep(PAUSE);
        client.ask("by hand", LOCALHOST, port);
        client.expect("by hand", std::net::SocketAddrV4::new(LOCALHOST, port));
    });
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = Box::pin(engine.recv_batch());
    let batch = loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(batch) => break batch.expect("a batch").expect("it runs"),
            std::task::Poll::Pending => thread::park(),
        }
    };
    let datagram = batch.iter().next().expect("no batch is empty");
    assert!(batch.reply(&datagram, datagram.payload()).is_queued());
    drop(batch);
    sender.join().expect("the answer came");
}

fn a_future_dropped_by_a_timeout_loses_nothing(backend: Backend) {
    const COUNT: usize = 500;
    current_thread().block_on(async {
        let engine = open(on_loopback(backend).batch_max(4).recv_buffer_bytes(4 << 20));
        // This one is dropped for certain: nothing has been sent yet.
        let early = timeout(Duration::from_millis(1), engine.recv_batch()).await;
        assert!(early.is_err(), "nothing was sent");
        let sender = send_paced(engine.ports()[0], COUNT);
        let mut heard = Vec::new();
        let serve = async {
            while heard.len() < COUNT {
                // These are dropped in the middle of traffic, as often as the sender's pace and the
                // machine bring about.
                if let Ok(batch) = timeout(Duration::from_micros(200), engine.recv_batch()).await {
                    let batch = batch.expect("a batch").expect("it runs");
                    heard.extend(batch.iter().map(|datagram| text(datagram.payload())));
                }
            }
        };
        within(serve).await;
        assert_eq!(heard, numbers(COUNT));
        sender.join().expect("the sender");
    });
}

fn a_future_dropped_by_select_loses_nothing(backend: Backend) {
    const COUNT: usize = 500;
    current_thread().block_on(async {
        let engine = open(on_loopback(backend).batch_max(4).recv_buffer_bytes(4 << 20));
        let sender = send_paced(engine.ports()[0], COUNT);
        let (mut heard, mut dropped_count) = (Vec::new(), 0);
        let serve = async {
            while heard.len() < COUNT {
                tokio::select! {
                    biased;
                    batch = engine.recv_batch() => {
                        let batch = batch.expect("a batch").expect("it runs");
                        heard.extend(batch.iter().map(|datagram| text(datagram.payload())));
                    }
                    () = yield_now() => dropped_count += 1,
                }
            }
        };
        within(serve).await;
        assert_eq!(heard, numbers(COUNT));
        assert!(dropped_count > 0, "no future was dropped");
        sender.join().expect("the sender");
    });
}

fn send_paced(port: u16, count: usize) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let client = Client::on_loopback();
        for (number, text) in numbers(count).iter().enumerate() {
            client.ask(text, LOCALHOST, port);
            if number % 10 == 0 {
                thread::sleep(Duration::from_millis(1));
            }
        }
    })
}

fn a_waiter_that_is_dropped_leaves_the_batch_to_another(backend: Backend) {
    current_thread().block_on(async {
        let engine = open(on_loopback(backend));
        let port = engine.ports()[0];
        // The first future has waited longest, and is dropped before its datagram is handed out.
        let mut first = Box::pin(engine.recv_batch());
        let mut second = Box::pin(engine.recv_batch());
        assert!(timeout(PAUSE, &mut first).await.is_err());
        assert!(timeout(PAUSE, &mut second).await.is_err());
        Client::on_loopback().ask("for whoever is left", LOCALHOST, port);
        drop(first);
        let batch = within(second).await.expect("a batch").expect("it runs");
        assert_eq!(batch.len(), 1);
    });
}

fn a_task_that_always_receives_lets_others_run(backend: Backend) {
    let is_over = Arc::new(AtomicBool::new(false));
    current_thread().block_on(async {
        let engine = Arc::new(open(on_loopback(backend).batch_max(1).recv_buffer_bytes(4 << 20)));
        let port = engine.ports()[0];
        let turn_count = Arc::new(AtomicU64::new(0));
        let other = tokio::spawn({
            let turn_count = Arc::clone(&turn_count);
            async move {
                loop {
                    turn_count.fetch_add(1, Ordering::Relaxed);
                    yield_now().await;
                }
            }
        });
        let flood = thread::spawn({
            let is_over = Arc::clone(&is_over);
            move || {
                let client = Client::on_loopback();
                while !is_over.load(Ordering::Relaxed) {
                    client.ask("flood", LOCALHOST, port);
                }
            }
        });
        let (mut most_in_a_row, mut in_a_row, mut before) = (0, 0, 0);
        for _ in 0..5000 {
            drop(next(&engine).await);
            let turns = turn_count.load(Ordering::Relaxed);
            in_a_row = if turns == before { in_a_row + 1 } else { 0 };
            most_in_a_row = in_a_row.max(most_in_a_row);
            before = turns;
        }
        is_over.store(true, Ordering::Relaxed);
        other.abort();
        flood.join().expect("the flood");
        assert!(most_in_a_row <= 128, "{most_in_a_row} batches in a row without another's turn");
    });
}

fn a_stop_is_no_error_to_any_waiter(backend: Backend) {
    multi_thread().block_on(async {
        let engine = Arc::new(open(on_loopback(backend)));
        let wait = |engine: Arc<nicring::AsyncEngine>| async move {
            engine.recv_batch().await.map(|batch| batch.map(|batch| batch.len()))
        };
        let waiters: Vec<_> = (0..3).map(|_| tokio::spawn(wait(Arc::clone(&engine)))).collect();
        tokio::time::sleep(PAUSE).await;
        engine.handle().stop();
        for waiter in waiters {
            let ended = within(waiter).await.expect("no panic");
            assert!(matches!(ended, Ok(None)), "{ended:?}");
        }
        let again = within(engine.recv_batch()).await;
        assert!(matches!(again, Ok(None)), "{again:?}");
        crate::common::assert_free(engine.ports()[0]);
    });
}

fn what_was_received_before_the_stop_is_still_handed_out(backend: Backend) {
    current_thread().block_on(async {
        let engine = open(on_loopback(backend));
        let (client, port) = (Client::on_loopback(), engine.ports()[0]);
        numbers(30).iter().for_each(|text| client.ask(text, LOCALHOST, port));
        engine.handle().stop();
        let mut heard = Vec::new();
        while let Some(batch) = within(engine.recv_batch()).await.expect("a good end") {
            heard.extend(batch.iter().map(|datagram| text(datagram.payload())));
        }
        assert_eq!(heard, numbers(30));
    });
}

fn a_beacon_leaves_at_any_time(backend: Backend) {
    let engine = open(on_loopback(backend));
    let listener = Client::on_loopback();
    for text in numbers(10) {
        // No task and no datagram drives the engine here.
        let queued = engine.handle().send(Egress::default(), listener.address(), text.as_bytes());
        assert!(queued.is_queued());
        listener.expect(text, std::net::SocketAddrV4::new(LOCALHOST, engine.ports()[0]));
    }
}
