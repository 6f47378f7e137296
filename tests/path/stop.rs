//! The end of an async engine, with and without leases.

use std::{
    thread,
    time::{Duration, Instant},
};

use nicring::{AsyncEngine, Backend, BatchLease};

use crate::{
    buffers::next,
    common::{self, Client, LOCALHOST, for_each_backend, on_loopback},
};

for_each_backend!(crate::alone:
    without_leases_an_engine_stops_at_once,
    an_engine_that_is_dropped_waits_for_no_lease,
    what_was_queued_before_the_stop_is_handed_out,
    a_lease_that_comes_back_soon_after_the_stop_still_answers,
);

/// Less than the 200 ms for which a stopped engine waits for leases.
const AT_ONCE: Duration = Duration::from_millis(100);

fn asked(backend: Backend) -> (AsyncEngine, Client, BatchLease) {
    let engine = on_loopback(backend).open_async().expect("an engine");
    let client = Client::on_loopback();
    client.ask("asked", LOCALHOST, engine.ports()[0]);
    let lease = next(&engine);
    (engine, client, lease)
}

/// The shortest of five measurements: the machine may be busy with something else.
fn shortest(time: impl FnMut() -> Duration) -> Duration {
    std::iter::repeat_with(time).take(5).min().expect("some")
}

fn without_leases_an_engine_stops_at_once(backend: Backend) {
    let elapsed = shortest(|| {
        let (engine, _client, lease) = asked(backend);
        drop(lease);
        let start = Instant::now();
        engine.handle().stop();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let ended = runtime.block_on(engine.recv_batch()).expect("a stop is no error");
        assert!(ended.is_none(), "nobody asks");
        start.elapsed()
    });
    assert!(elapsed < AT_ONCE, "{elapsed:?}");
}

fn an_engine_that_is_dropped_waits_for_no_lease(backend: Backend) {
    let elapsed = shortest(|| {
        let (engine, _client, lease) = asked(backend);
        let (start, port) = (Instant::now(), engine.ports()[0]);
        drop(engine);
        let elapsed = start.elapsed();
        common::assert_free(port);
        drop(lease);
        elapsed
    });
    assert!(elapsed < AT_ONCE, "{elapsed:?}");
}

fn what_was_queued_before_the_stop_is_handed_out(backend: Backend) {
    const COUNT: usize = 60;
    let builder = on_loopback(backend).batch_max(2).buffer_count(16).recv_buffer_bytes(4 << 20);
    let engine = builder.open_async().expect("an engine");
    let (client, port) = (Client::on_loopback(), engine.ports()[0]);
    let held: Vec<BatchLease> = (0..8)
        .map(|_| {
            client.ask("hold", LOCALHOST, port);
            next(&engine)
        })
        .collect();
    (0..COUNT).for_each(|number| client.ask(&number.to_string(), LOCALHOST, port));
    engine.handle().stop();
    drop(held);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut heard_count = 0;
    runtime.block_on(async {
        while let Ok(Some(batch)) = engine.recv_batch().await {
            for datagram in batch.iter() {
                assert_eq!(datagram.payload(), heard_count.to_string().as_bytes());
                heard_count += 1;
            }
        }
    });
    assert_eq!(heard_count, COUNT);
}

fn a_lease_that_comes_back_soon_after_the_stop_still_answers(backend: Backend) {
    let (engine, client, lease) = asked(backend);
    engine.handle().stop();
    thread::sleep(Duration::from_millis(30));
    let datagram = lease.iter().next().expect("no batch is empty");
    assert!(lease.reply(&datagram, b"answered").is_queued());
    drop(lease);
    client.expect("answered", std::net::SocketAddrV4::new(LOCALHOST, engine.ports()[0]));
}
