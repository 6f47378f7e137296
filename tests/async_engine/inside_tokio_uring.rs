//! The engine inside a runtime that has its own ring.

use std::net::SocketAddrV4;

use nicring::Backend;

use crate::{
    common::{Client, LOCALHOST, for_each_backend, need_io_uring, on_loopback},
    echo, numbers, open, within,
};

for_each_backend!(crate::common::on:
    an_engine_serves_inside_tokio_uring,
    an_engine_and_tokio_uring_receive_side_by_side,
);

fn an_engine_serves_inside_tokio_uring(backend: Backend) {
    need_io_uring();
    tokio_uring::start(async {
        let engine = open(on_loopback(backend));
        let (client, port) = (Client::on_loopback(), engine.ports()[0]);
        for text in numbers(50) {
            client.ask(&text, LOCALHOST, port);
            assert_eq!(echo(&engine, 1).await, [text.as_str()]);
            client.expect(&text, SocketAddrV4::new(LOCALHOST, port));
        }
    });
}

/// tokio-uring's own socket is the client here.
fn an_engine_and_tokio_uring_receive_side_by_side(backend: Backend) {
    need_io_uring();
    tokio_uring::start(async {
        let engine = open(on_loopback(backend));
        let address = SocketAddrV4::new(LOCALHOST, engine.ports()[0]);
        let client = tokio_uring::net::UdpSocket::bind((LOCALHOST, 0).into()).await;
        let client = client.expect("a socket");
        let server = tokio_uring::spawn(async move {
            let heard = echo(&engine, 50).await;
            (heard, engine)
        });
        for text in numbers(50) {
            let (sent, _) = client.send_to(text.clone().into_bytes(), address.into()).await;
            sent.expect("loopback");
            let (received, buffer) = within(client.recv_from(vec![0; 100])).await;
            let (len, source) = received.expect("an answer");
            assert_eq!((&buffer[..len], source), (text.as_bytes(), address.into()));
        }
        let (heard, _engine) = within(server).await.expect("no panic");
        assert_eq!(heard, numbers(50));
    });
}
