//! The same as `echo`, inside tokio-uring: nicring has a ring of its own and disturbs nothing.
//!
//! `cargo run --example echo_tokio_uring -- 5999`, then `nc -u 127.0.0.1 5999`.

#[cfg(target_os = "linux")]
#[path = "echo_tokio_uring/linux.rs"]
mod linux;
#[cfg(target_os = "linux")]
use linux::main as run;

#[cfg(not(target_os = "linux"))]
fn run() -> Result<(), Box<dyn std::error::Error>> {
    Err("tokio-uring needs Linux".into())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    run()
}
