//! The batches of an engine as a stream.

#[path = "../common/mod.rs"]
mod common;

use futures_util::{StreamExt, TryStreamExt};
use nicring::Backend;

use common::{Client, LOCALHOST, for_each_backend, on_loopback};

fn main() -> std::process::ExitCode {
    common::main()
}

for_each_backend!(crate::common::on:
    a_stream_yields_every_batch_and_ends_with_the_engine,
    a_stream_that_is_dropped_leaves_the_batches_to_another,
);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn a_stream_yields_every_batch_and_ends_with_the_engine(backend: Backend) {
    runtime().block_on(async {
        let engine = on_loopback(backend).open_async().expect("an engine");
        let (client, port) = (Client::on_loopback(), engine.ports()[0]);
        let mut batches = engine.batches();
        for number in 0..50 {
            client.ask(&number.to_string(), LOCALHOST, port);
            let batch = batches.try_next().await.expect("no error").expect("a batch");
            let heard: Vec<_> = batch.iter().map(|datagram| datagram.payload().to_vec()).collect();
            assert_eq!(heard, [number.to_string().into_bytes()]);
        }
        engine.handle().stop();
        assert!(batches.next().await.is_none() && batches.next().await.is_none());
    });
}

fn a_stream_that_is_dropped_leaves_the_batches_to_another(backend: Backend) {
    runtime().block_on(async {
        let engine = on_loopback(backend).open_async().expect("an engine");
        let (mut first, mut second) = (engine.batches(), engine.batches());
        assert!(futures_util::poll!(first.next()).is_pending());
        assert!(futures_util::poll!(second.next()).is_pending());
        Client::on_loopback().ask("for whoever is left", LOCALHOST, engine.ports()[0]);
        drop(first);
        let batch = second.try_next().await.expect("no error").expect("a batch");
        assert_eq!(batch.len(), 1);
    });
}
