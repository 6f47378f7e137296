//! The engine as async tasks see it, in every kind of runtime.

#[path = "../common/mod.rs"]
mod common;

mod ends;
mod lease;
mod runtimes;
mod wakers;

#[cfg(target_os = "linux")]
mod inside_tokio_uring;

use std::{future::Future, time::Duration};

use nicring::{AsyncEngine, BatchLease, Builder};
use tokio::time::timeout;

use common::PATIENCE;

fn main() -> std::process::ExitCode {
    common::main()
}

fn open(builder: Builder) -> AsyncEngine {
    builder.open_async().unwrap_or_else(|error| panic!("open: {error}"))
}

/// The next batch; fails if none comes.
async fn next(engine: &AsyncEngine) -> BatchLease {
    let batch = within(engine.recv_batch()).await;
    batch.unwrap_or_else(|error| panic!("recv_batch: {error}")).expect("it runs")
}

/// Awaits a future; fails if it does not end in time.
async fn within<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("it takes too long")
}

/// Answers `count` datagrams with their own payloads, and returns the payloads.
async fn echo(engine: &AsyncEngine, count: usize) -> Vec<String> {
    let mut heard = Vec::new();
    while heard.len() < count {
        let batch = next(engine).await;
        for datagram in batch.iter() {
            heard.push(text(datagram.payload()));
            assert!(batch.reply(&datagram, datagram.payload()).is_queued());
        }
    }
    heard
}

fn text(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload).into_owned()
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

/// A pause that lets the engine's thread work.
const PAUSE: Duration = Duration::from_millis(30);
