//! What was delivered and is not handed out is counted, by reason.

use std::{net::Ipv4Addr, ops::ControlFlow};

use nicring::{Backend, Listen};

use crate::common::{self, Client, LOCALHOST, builder, for_each_backend, on_loopback, wait_until};

for_each_backend!(crate::alone:
    what_was_not_received_when_the_handler_broke_off_is_counted,
    what_came_to_a_place_that_was_not_chosen_is_counted,
);

fn what_was_not_received_when_the_handler_broke_off_is_counted(backend: Backend) {
    const COUNT: u64 = 50;
    let engine = common::open(on_loopback(backend).buffer_count(4).batch_max(2));
    let client = Client::on_loopback();
    (0..COUNT).for_each(|_| client.ask("queued", LOCALHOST, engine.ports()[0]));
    let stats = engine.run(|_| ControlFlow::Break(())).expect("it ends");
    let total = stats.total();
    assert!((1..COUNT).contains(&total.received_count()), "{stats}");
    assert_eq!(total.received_count() + total.left_count, COUNT, "{stats}: {total:?}");
}

/// A wildcard socket hears all addresses of the host.
fn what_came_to_a_place_that_was_not_chosen_is_counted(backend: Backend) {
    let port = common::unused_port();
    let builder = builder(backend).port(port).listen(Listen::Wildcard);
    let builder = builder.nic("127.0.0.1");
    let server = common::Server::echo(builder);
    let client = Client::on_loopback();
    for (to, is_heard) in [(LOCALHOST, true), (Ipv4Addr::new(127, 9, 9, 9), false)] {
        client.ask("asked", to, port);
        if is_heard {
            assert_eq!(server.next().destination, Some(to));
        }
    }
    wait_until("it is counted", || server.handle.stats().total().unchosen_count == 1);
    let stats = server.stop_having_heard_all();
    assert_eq!((stats.total().guarded_count, stats.total().copy_count), (0, 0), "{stats}");
}
