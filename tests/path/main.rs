//! The receive path against a real kernel, through the public API, on both backends: buffers run
//! out, datagrams have no bytes, and queues overflow. Cases that need a short completion queue,
//! short buffers or a scripted kernel are in `src/uring/tests/`.

#[path = "../common/mod.rs"]
mod common;

#[cfg(target_os = "linux")]
mod buffers;
#[cfg(target_os = "linux")]
mod left;
#[cfg(target_os = "linux")]
mod overflow;
#[cfg(target_os = "linux")]
mod stop;
#[cfg(target_os = "linux")]
mod thread_use;
#[cfg(target_os = "linux")]
mod zero_length;

use std::sync::{Mutex, PoisonError};

use nicring::Backend;

fn main() -> std::process::ExitCode {
    common::main()
}

/// Runs one test at a time: the tests find the engine's thread by its name and measure what it
/// uses.
#[allow(dead_code, reason = "the cases are for Linux")]
fn alone(backend: Backend, case: fn(Backend)) {
    static LOCK: Mutex<()> = Mutex::new(());
    let _guard = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    common::on(backend, case);
}
