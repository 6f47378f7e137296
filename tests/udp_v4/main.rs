//! `udp_v4`: what its callers rely on, and each fault of epics-base-rs 0.18.3 that it does not
//! have.

#[path = "../common/mod.rs"]
mod common;

mod contract;
mod faults;
#[cfg(target_os = "linux")]
mod flood;
#[cfg(target_os = "linux")]
mod namespaces;
#[cfg(target_os = "linux")]
mod ring;

use std::{
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr},
    ops::Deref,
    thread,
    time::Duration,
};

use nicring::{
    Backend,
    udp_v4::{AsyncUdpV4, RecvMeta},
};
use tokio::{runtime, time};

use common::{LOCALHOST, PATIENCE};

fn main() -> std::process::ExitCode {
    common::main_with_namespaces()
}

/// Runs a case on a runtime with one thread.
fn block_on<F: Future>(case: F) -> F::Output {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(case)
}

/// The next datagram with its metadata and drop count.
async fn receive(bundle: &AsyncUdpV4) -> (String, RecvMeta, u32) {
    let mut buf = vec![0; 1 << 16];
    let received = time::timeout(PATIENCE, bundle.recv_with_meta_with_drops(&mut buf)).await;
    let (meta, drop_count) = received.expect("nothing was heard").expect("a receive");
    (String::from_utf8_lossy(&buf[..meta.n]).into_owned(), meta, drop_count)
}

async fn receive_nothing(bundle: &AsyncUdpV4) {
    let mut buf = [0; 64];
    let received = time::timeout(Duration::from_millis(50), bundle.recv_from(&mut buf)).await;
    assert!(received.is_err(), "heard besides: {received:?} {:?}", &buf[..16]);
}

/// A bundle that must receive by the same backend until it is dropped.
#[derive(Debug)]
struct Bundle {
    bundle: AsyncUdpV4,
    backend: Backend,
}

impl Deref for Bundle {
    type Target = AsyncUdpV4;

    fn deref(&self) -> &AsyncUdpV4 {
        &self.bundle
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        if !thread::panicking() {
            assert_eq!(self.bundle.backend(), self.backend, "it has fallen back");
        }
    }
}

#[track_caller]
fn over(backend: Backend, bundle: io::Result<AsyncUdpV4>) -> Bundle {
    let bundle = bundle.and_then(|bundle| bundle.with_backend(backend));
    let bundle = bundle.unwrap_or_else(|error| panic!("{error}"));
    Bundle { bundle, backend }
}

#[track_caller]
fn on_loopback(backend: Backend, port: u16) -> Bundle {
    over(backend, AsyncUdpV4::bind_single(LOCALHOST, port, true))
}

fn at(address: impl Into<Ipv4Addr>, port: u16) -> SocketAddr {
    (address.into(), port).into()
}
