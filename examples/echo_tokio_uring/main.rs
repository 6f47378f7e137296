//! The same as `echo`, inside tokio-uring. nicring has its own ring and does not disturb
//! tokio-uring's.
//!
//! `cargo run --example echo_tokio_uring -- 5999`, then `nc -u 127.0.0.1 5999`.

#[cfg(target_os = "linux")]
mod linux;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    #[cfg(target_os = "linux")]
    return linux::main();
    #[cfg(not(target_os = "linux"))]
    Err("tokio-uring needs Linux".into())
}
