//! A receive queue that overflows: sent = received + counted drops. `src/uring/tests/overflow.rs`
//! has the same with the drop counts of datagrams alone, and with those of the socket alone.

use std::{ops::ControlFlow, panic::resume_unwind, thread, time::Duration};

use nicring::{Backend, Stats};

use crate::common::{self, Client, LOCALHOST, Server, for_each_backend, on_loopback, sandbox};

for_each_backend!(crate::alone:
    what_overflowed_before_run_is_known_before_and_after_it,
    sent_is_received_and_dropped_over_many_overflows,
    each_port_has_its_own_queue_and_the_sum_is_right,
    what_overflowed_is_counted_though_the_handler_panics,
    a_short_queue_is_short_for_an_ordinary_user_too,
);

fn sum(stats: &Stats) -> u64 {
    stats.total().received_count() + drop_count(stats)
}

fn drop_count(stats: &Stats) -> u64 {
    stats.total().kernel_drop_count().expect("Linux counts them")
}

fn what_overflowed_before_run_is_known_before_and_after_it(backend: Backend) {
    const COUNT: u64 = 500;
    let engine = common::open(on_loopback(backend).recv_buffer_bytes(1));
    let (client, port) = (Client::on_loopback(), engine.ports()[0]);
    (0..COUNT).for_each(|_| client.ask("queued or dropped", LOCALHOST, port));
    let dropped = drop_count(&engine.handle().stats());
    assert!(0 < dropped && dropped < COUNT, "{dropped} drops");
    let server = Server::over(engine, |_| ControlFlow::Continue(()));
    common::wait_until("all is received", || sum(&server.handle.stats()) == COUNT);
    // A closing datagram adds nothing.
    client.ask("closing", LOCALHOST, port);
    common::wait_until("it is received", || sum(&server.handle.stats()) == COUNT + 1);
    let (stats, heard) = server.stop();
    assert_eq!(drop_count(&stats), dropped);
    assert_eq!(heard.len() as u64, COUNT + 1 - dropped);
    assert_eq!(sum(&stats), COUNT + 1);
}

fn sent_is_received_and_dropped_over_many_overflows(backend: Backend) {
    let builder = on_loopback(backend).recv_buffer_bytes(1).buffer_count(8).batch_max(8);
    let server = Server::start(builder, |_| {
        thread::sleep(Duration::from_micros(200));
        ControlFlow::Continue(())
    });
    let client = Client::on_loopback();
    let mut sent_count = 0;
    for len in [1, 100, 1400, 0, 1] {
        for _ in 0..400 {
            client.send(vec![7; len], server.address());
            sent_count += 1;
        }
        common::wait_until("received and dropped make up what was sent", || {
            sum(&server.handle.stats()) == sent_count
        });
    }
    let (stats, heard) = server.stop();
    assert_eq!(sum(&stats), sent_count);
    assert_eq!(stats.total().received_count(), heard.len() as u64);
    assert!(drop_count(&stats) > 0, "the queue was too large for this test");
}

fn each_port_has_its_own_queue_and_the_sum_is_right(backend: Backend) {
    let engine = common::open(on_loopback(backend).port(0).port(0).recv_buffer_bytes(1));
    let ports = engine.ports().to_vec();
    let client = Client::on_loopback();
    for (port, count) in ports.iter().zip([300, 20, 500]) {
        (0..count).for_each(|_| client.ask("x", LOCALHOST, *port));
    }
    let server = Server::over(engine, |_| ControlFlow::Continue(()));
    common::wait_until("the sum is right", || sum(&server.handle.stats()) == 820);
    let (stats, heard) = server.stop();
    assert_eq!(sum(&stats), 820);
    assert_eq!(stats.total().received_count(), heard.len() as u64);
}

fn what_overflowed_is_counted_though_the_handler_panics(backend: Backend) {
    const COUNT: u64 = 500;
    let engine = common::open(on_loopback(backend).recv_buffer_bytes(1));
    let (client, port, handle) = (Client::on_loopback(), engine.ports()[0], engine.handle());
    (0..COUNT).for_each(|_| client.ask("queued or dropped", LOCALHOST, port));
    let server =
        thread::spawn(move || engine.run(|_| resume_unwind(Box::new("as this test wants it"))));
    server.join().expect_err("the handler's panic");
    let dropped = drop_count(&handle.stats());
    assert!((COUNT - 20..COUNT).contains(&dropped), "{dropped} drops");
}

fn a_short_queue_is_short_for_an_ordinary_user_too(backend: Backend) {
    const COUNT: u64 = 100;
    let builder = on_loopback(backend).recv_buffer_bytes(1);
    let engine = sandbox::with_ordinary_buffers(|| common::open(builder));
    let (client, port) = (Client::on_loopback(), engine.ports()[0]);
    (0..COUNT).for_each(|_| client.ask("queued or dropped", LOCALHOST, port));
    let dropped = drop_count(&engine.handle().stats());
    assert!((COUNT - 20..COUNT).contains(&dropped), "{dropped} drops");
}
