//! Wakers are code of the caller. Whatever they do, others are served.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, mpsc},
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use nicring::{Backend, BatchLease};

use crate::{
    common::{self, Client, LOCALHOST, PATIENCE, for_each_backend, on_loopback},
    next, open,
    runtimes::current_thread,
    text, within,
};

for_each_backend!(crate::common::on:
    receives_that_were_cancelled_keep_nothing,
    a_waker_that_panics_harms_nobody_else,
    a_waker_may_drop_a_lease_whenever_it_is_called,
);

/// Counts those who hold it.
struct Silent;

impl Wake for Silent {
    fn wake(self: Arc<Self>) {}
}

fn receives_that_were_cancelled_keep_nothing(backend: Backend) {
    let engine = open(on_loopback(backend));
    let silent = Arc::new(Silent);
    let waker = Waker::from(Arc::clone(&silent));
    for _ in 0..1_000 {
        let mut receive = pin!(engine.recv_batch());
        for _ in 0..2 {
            let polled = receive.as_mut().poll(&mut Context::from_waker(&waker));
            assert!(matches!(polled, Poll::Pending));
        }
    }
    assert_eq!(Arc::strong_count(&silent), 2, "the waker here, and its owner");
    current_thread().block_on(async {
        Client::on_loopback().ask("still there", LOCALHOST, engine.ports()[0]);
        let batch = next(&engine).await;
        assert_eq!(text(batch.iter().next().expect("one").payload()), "still there");
    });
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        std::panic::resume_unwind(Box::new("a bug in an executor"));
    }
}

fn a_waker_that_panics_harms_nobody_else(backend: Backend) {
    let engine = open(on_loopback(backend));
    let panics = Waker::from(Arc::new(Panics));
    let mut receive = Box::pin(engine.recv_batch());
    assert!(matches!(receive.as_mut().poll(&mut Context::from_waker(&panics)), Poll::Pending));
    current_thread().block_on(async {
        let client = Client::on_loopback();
        for round in ["first", "second"] {
            let other = async {
                let batch = next(&engine).await;
                text(batch.iter().next().expect("one").payload())
            };
            let ask = async { client.ask(round, LOCALHOST, engine.ports()[0]) };
            let (heard, ()) = within(async { tokio::join!(other, ask) }).await;
            assert_eq!(heard, round);
        }
    });
}

/// Drops what it holds when it is called.
struct Drops {
    held: Mutex<Option<BatchLease>>,
    is_called: Mutex<mpsc::Sender<()>>,
}

impl Wake for Drops {
    fn wake(self: Arc<Self>) {
        drop(self.held.lock().expect("no panic").take());
        let _ = self.is_called.lock().expect("no panic").send(());
    }
}

/// After some batches without a pause a task is woken at once, so that others have their turn.
fn a_waker_may_drop_a_lease_whenever_it_is_called(backend: Backend) {
    let engine = Arc::new(open(on_loopback(backend).batch_max(1)));
    let (sender, is_called) = mpsc::channel();
    let dropped = thread::spawn(move || {
        let client = Client::on_loopback();
        let held = current_thread().block_on(async {
            client.ask("held", LOCALHOST, engine.ports()[0]);
            next(&engine).await
        });
        let drops = Arc::new(Drops { held: Mutex::new(Some(held)), is_called: sender.into() });
        let waker = Waker::from(Arc::clone(&drops));
        while drops.held.lock().expect("no panic").is_some() {
            client.ask("more", LOCALHOST, engine.ports()[0]);
            // Many batches in a row have to be there when they are asked for.
            thread::sleep(Duration::from_millis(1));
            let receive = pin!(engine.recv_batch());
            let _ = receive.poll(&mut Context::from_waker(&waker));
        }
    });
    is_called.recv_timeout(6 * PATIENCE).expect("no deadlock");
    common::wait_until("the task goes on", || dropped.is_finished());
}
