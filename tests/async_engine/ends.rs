//! How an engine for async tasks ends.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use nicring::Backend;

use crate::{
    PAUSE,
    common::{Client, LOCALHOST, assert_free, for_each_backend, on_loopback, wait_until},
    next, open, within,
};

for_each_backend!(crate::common::on:
    a_shutdown_sends_what_tasks_still_answer_and_frees_the_port,
    a_shutdown_blocks_no_other_task,
    a_shutdown_discards_what_nobody_took,
);

fn current_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn a_shutdown_sends_what_tasks_still_answer_and_frees_the_port(backend: Backend) {
    current_thread().block_on(async {
        let engine = open(on_loopback(backend));
        let (client, port) = (Client::on_loopback(), engine.ports()[0]);
        client.ask("answer me", LOCALHOST, port);
        let batch = next(&engine).await;
        let answer = async {
            tokio::time::sleep(PAUSE).await;
            let datagram = batch.iter().next().expect("no batch is empty");
            assert!(batch.reply(&datagram, b"late, but in time").is_queued());
            drop(batch);
        };
        let mut events = engine.handle().events();
        let (stats, (), over) = tokio::join!(within(engine.shutdown()), answer, events.recv());
        assert!(over.is_none(), "the engine has closed");
        let total = stats.expect("a good end").total();
        client.expect("late, but in time", std::net::SocketAddrV4::new(LOCALHOST, port));
        assert_eq!((total.received_count(), total.sent_count), (1, 1));
        assert_free(port);
    });
}

fn a_shutdown_blocks_no_other_task(backend: Backend) {
    current_thread().block_on(async {
        let engine = open(on_loopback(backend));
        Client::on_loopback().ask("kept", LOCALHOST, engine.ports()[0]);
        let kept = next(&engine).await; // for this the engine waits
        let (tick_count, is_over) = (Cell::new(0), Cell::new(false));
        let ticks = async {
            while !is_over.get() {
                tick_count.set(tick_count.get() + 1);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let shutdown = async {
            let start = Instant::now();
            within(engine.shutdown()).await.expect("a good end");
            is_over.set(true);
            start.elapsed()
        };
        let (time, ()) = tokio::join!(shutdown, ticks);
        assert!(time >= Duration::from_millis(200), "it had that long to come back: {time:?}");
        assert!(tick_count.get() > 2, "{} ticks in {time:?}", tick_count.get());
        drop(kept);
    });
}

fn a_shutdown_discards_what_nobody_took(backend: Backend) {
    current_thread().block_on(async {
        let engine = open(on_loopback(backend).batch_max(1));
        let (client, port) = (Client::on_loopback(), engine.ports()[0]);
        (0..20).for_each(|_| client.ask("nobody takes this", LOCALHOST, port));
        let handle = engine.handle();
        wait_until("some are there", || handle.stats().total().received_count() >= 4);
        let stats = within(engine.shutdown()).await.expect("a good end");
        let total = stats.total();
        assert_eq!(total.received_count() + total.left_count, 20, "{stats}");
        assert_free(port);
    });
}
