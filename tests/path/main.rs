//! The receive path against a real kernel, through the public API, on both backends: buffers run
//! out, datagrams have no bytes, and queues overflow. Cases that need a short completion queue,
//! short buffers or a scripted kernel are in `src/uring/tests/`.
#![cfg(target_os = "linux")]

#[path = "../common/mod.rs"]
mod common;

mod buffers;
mod left;
mod overflow;
mod stop;
mod thread_use;
mod zero_length;

use std::sync::{Mutex, PoisonError};

use nicring::Backend;

/// Runs one test at a time: the tests find the engine's thread by its name and measure what it
/// uses.
fn alone(backend: Backend, case: fn(Backend)) {
    static LOCK: Mutex<()> = Mutex::new(());
    let _guard = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    common::on(backend, case);
}
