//! All buffers are held: nothing spins, nothing is lost, and reception goes on when they return.

use std::{ops::ControlFlow, sync::mpsc, time::Duration};

use nicring::{AsyncEngine, Backend, BatchLease};

use crate::{
    common::{Client, LOCALHOST, PATIENCE, Server, for_each_backend, on_loopback},
    thread_use,
};

/// How many batches an engine lends out at once.
const BATCH_COUNT: usize = 64;

for_each_backend!(crate::alone:
    a_handler_that_sits_on_all_buffers_loses_nothing,
    leases_that_hold_all_buffers_lose_nothing_and_do_not_spin,
    no_more_than_so_many_batches_are_lent_at_once,
    many_sockets_that_wait_for_buffers_do_not_spin_and_are_all_served,
    one_buffer_is_enough_for_every_datagram,
    an_idle_engine_rests,
);

fn a_handler_that_sits_on_all_buffers_loses_nothing(backend: Backend) {
    const COUNT: usize = 500;
    let builder = on_loopback(backend).buffer_count(4).batch_max(4).recv_buffer_bytes(4 << 20);
    let (sit, sits) = mpsc::channel();
    let (go, goes) = mpsc::channel::<()>();
    let mut is_first = true;
    let server = Server::start(builder, move |_| {
        if std::mem::take(&mut is_first) {
            sit.send(()).expect("the test waits");
            goes.recv().expect("the test goes on");
        }
        ControlFlow::Continue(())
    });
    let client = Client::on_loopback();
    client.send("0", server.address());
    sits.recv_timeout(PATIENCE).expect("the handler is called");
    (1..COUNT).for_each(|number| client.send(number.to_string(), server.address()));
    thread_use::assert_rest("server");
    go.send(()).expect("the handler waits");
    for (number, heard) in server.take(COUNT).iter().enumerate() {
        assert_eq!(heard.text(), number.to_string());
    }
    // Once everything is heard the thread rests, whatever state its receives are in.
    thread_use::assert_rest("server");
    let stats = server.stop_having_heard_all();
    assert_eq!(stats.total().kernel_drop_count(), Some(0));
    // At most one turn per datagram receives something. The others found nothing.
    assert!(stats.turn_count <= 2 * COUNT as u64, "{} turns", stats.turn_count);
}

fn leases_that_hold_all_buffers_lose_nothing_and_do_not_spin(backend: Backend) {
    const COUNT: usize = 300;
    let builder = on_loopback(backend).buffer_count(8).batch_max(1).recv_buffer_bytes(4 << 20);
    let engine = builder.open_async().expect("an engine");
    let (client, port) = (Client::on_loopback(), engine.ports()[0]);
    (0..COUNT).for_each(|number| client.ask(&number.to_string(), LOCALHOST, port));
    let mut texts = Vec::new();
    for round in 0..3 {
        let held = hold_all(&engine);
        assert!(!held.is_empty() && texts.len() < COUNT, "round {round}");
        thread_use::assert_rest("nicring");
        // Another datagram comes while nothing can be received.
        client.ask("more", LOCALHOST, port);
        thread_use::assert_rest("nicring");
        texts.extend(held.iter().flat_map(texts_of));
    }
    while texts.len() < COUNT + 3 {
        texts.extend(texts_of(&next(&engine)));
    }
    let numbers = (0..COUNT).map(|number| number.to_string());
    let expected: Vec<String> = numbers.chain(["more"; 3].map(str::to_owned)).collect();
    assert_eq!(texts, expected);
    assert_eq!(engine.handle().stats().total().kernel_drop_count(), Some(0));
    thread_use::assert_rest("nicring");
}

fn no_more_than_so_many_batches_are_lent_at_once(backend: Backend) {
    let engine = on_loopback(backend).buffer_count(128).batch_max(1).open_async();
    let engine = engine.expect("an engine");
    let (client, port) = (Client::on_loopback(), engine.ports()[0]);
    (0..BATCH_COUNT + 12).for_each(|number| client.ask(&number.to_string(), LOCALHOST, port));
    let mut held = hold_all(&engine);
    assert_eq!(held.len(), BATCH_COUNT);
    thread_use::assert_rest("nicring");
    // A batch that comes back is lent again.
    for number in BATCH_COUNT..BATCH_COUNT + 12 {
        drop(held.remove(0));
        held.push(next(&engine));
        assert_eq!(texts_of(held.last().expect("all")), [number.to_string()]);
    }
}

fn many_sockets_that_wait_for_buffers_do_not_spin_and_are_all_served(backend: Backend) {
    const PORT_COUNT: usize = 12;
    let builder = on_loopback(backend).buffer_count(4).batch_max(2);
    let builder = (1..PORT_COUNT).fold(builder, |builder, _| builder.port(0));
    let engine = builder.open_async().expect("an engine");
    let (client, ports) = (Client::on_loopback(), engine.ports().to_vec());
    for number in 0..20 {
        ports.iter().for_each(|port| client.ask(&number.to_string(), LOCALHOST, *port));
    }
    let held = hold_all(&engine);
    thread_use::assert_rest("nicring");
    let mut heard_counts = [0; PORT_COUNT];
    let mut count = |batch: &BatchLease| {
        for datagram in batch.iter() {
            let position = ports.iter().position(|port| *port == datagram.port());
            let heard_count = &mut heard_counts[position.expect("one of the ports")];
            assert_eq!(datagram.payload(), heard_count.to_string().as_bytes());
            *heard_count += 1;
        }
        batch.len()
    };
    let mut sum: usize = held.iter().map(&mut count).sum();
    drop(held);
    while sum < 20 * PORT_COUNT {
        sum += count(&next(&engine));
    }
    assert_eq!(heard_counts, [20; PORT_COUNT]);
    thread_use::assert_rest("nicring");
}

fn one_buffer_is_enough_for_every_datagram(backend: Backend) {
    let builder = on_loopback(backend).buffer_count(1).recv_buffer_bytes(4 << 20);
    let server = Server::echo(builder);
    let client = Client::on_loopback();
    for round in 0..10 {
        (0..50).for_each(|number| client.send(format!("{round}.{number}"), server.address()));
        for number in 0..50 {
            client.expect(format!("{round}.{number}"), server.address());
        }
    }
    server.take(500);
    let stats = server.stop_having_heard_all();
    assert!(stats.turn_count <= 1500, "{} turns for 500 datagrams", stats.turn_count);
}

fn an_idle_engine_rests(backend: Backend) {
    let server = Server::echo(on_loopback(backend));
    let client = Client::on_loopback();
    client.send("once", server.address());
    client.expect("once", server.address());
    thread_use::assert_rest("server");
    drop(server);
    let engine = on_loopback(backend).open_async().expect("an engine");
    client.ask("once", LOCALHOST, engine.ports()[0]);
    drop(next(&engine));
    thread_use::assert_rest("nicring");
}

/// Takes and holds batches until no more come.
fn hold_all(engine: &AsyncEngine) -> Vec<BatchLease> {
    let mut held = Vec::new();
    let runtime = runtime();
    runtime.block_on(async {
        let pause = Duration::from_millis(100);
        while let Ok(batch) = tokio::time::timeout(pause, engine.recv_batch()).await {
            held.push(batch.expect("a batch").expect("it runs"));
        }
    });
    held
}

pub fn next(engine: &AsyncEngine) -> BatchLease {
    runtime().block_on(async {
        let batch = tokio::time::timeout(PATIENCE, engine.recv_batch()).await;
        batch.expect("it takes too long").expect("a batch").expect("it runs")
    })
}

fn texts_of(batch: &BatchLease) -> Vec<String> {
    let text =
        |datagram: nicring::Datagram<'_>| String::from_utf8_lossy(datagram.payload()).into_owned();
    batch.iter().map(text).collect()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}
