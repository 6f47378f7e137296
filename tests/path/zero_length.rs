//! Datagrams of no bytes. Each ends a multishot receive, and anyone can send them.

use std::ops::ControlFlow;

use nicring::Backend;

use crate::{
    common::{self, Client, Server, for_each_backend, on_loopback},
    thread_use,
};

for_each_backend!(crate::alone:
    a_flood_of_datagrams_of_no_bytes_loses_nothing,
    a_flood_of_datagrams_of_no_bytes_holds_no_other_port_up,
);

fn a_flood_of_datagrams_of_no_bytes_loses_nothing(backend: Backend) {
    const COUNT: usize = 3000;
    let server = Server::echo(on_loopback(backend).recv_buffer_bytes(8 << 20).replies_max(4096));
    let client = Client::on_loopback();
    for number in 0..COUNT {
        let text = if number % 10 == 9 { number.to_string() } else { String::new() };
        client.send(text, server.address());
    }
    for (number, heard) in server.take(COUNT).iter().enumerate() {
        let text = if number % 10 == 9 { number.to_string() } else { String::new() };
        assert_eq!(heard.text(), text, "datagram {number}");
        assert_eq!((heard.source, heard.is_truncated), (client.address(), false));
    }
    // Each ends its receive. None is counted as an error, and there are no needless turns.
    thread_use::assert_rest("server");
    let stats = server.stop_having_heard_all();
    let total = stats.total();
    assert_eq!((total.received_count(), total.kernel_drop_count()), (COUNT as u64, Some(0)));
    assert_eq!((total.receive_error_count, total.malformed_count), (0, 0));
    assert!(stats.turn_count <= 2 * COUNT as u64, "{} turns", stats.turn_count);
    if backend == Backend::IoUring {
        assert!(total.rearmed_count >= (COUNT / 10) as u64, "{} times", total.rearmed_count);
    }
}

fn a_flood_of_datagrams_of_no_bytes_holds_no_other_port_up(backend: Backend) {
    const COUNT: usize = 2000;
    let engine = common::open(on_loopback(backend).port(0).recv_buffer_bytes(8 << 20));
    let ports = engine.ports().to_vec();
    let client = Client::on_loopback();
    (0..COUNT).for_each(|_| client.ask("", common::LOCALHOST, ports[0]));
    client.ask("other", common::LOCALHOST, ports[1]);
    let server = Server::over(engine, |_| ControlFlow::Continue(()));
    let heard = server.take(COUNT + 1);
    let position = heard.iter().position(|heard| heard.port == ports[1]).expect("it is heard");
    assert!(position <= 64, "heard as number {position}");
    assert_eq!(server.stop_having_heard_all().total().kernel_drop_count(), Some(0));
}
