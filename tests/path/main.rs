//! The receive path against a real kernel, through the public API, on both backends: what happens
//! where buffers run out, datagrams have no bytes, and queues overflow. Rows of the same table that
//! need a short queue of completions, short buffers or a scripted kernel stand in
//! `src/uring/tests/`.
#![cfg(target_os = "linux")]

#[path = "../common/mod.rs"]
mod common;

mod buffers;
mod overflow;
mod stop;
mod thread_use;
mod zero_length;

use std::sync::{Mutex, PoisonError};

use nicring::Backend;

/// One test at a time: what the engine's thread uses is measured by the thread's name.
fn alone(backend: Backend, case: fn(Backend)) {
    static LOCK: Mutex<()> = Mutex::new(());
    let _guard = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    common::on(backend, case);
}
