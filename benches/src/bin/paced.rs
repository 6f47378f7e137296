//! How many system calls a receiver makes at a steady rate, counted by `perf` over all of them.
//!
//! `cargo run --release -p nicring-bench --bin paced -- --nics 4 --rate 200000 --duration-s 10`
//! exits with 0 if it stays below the limits on system calls a datagram and on loss.

#[cfg(target_os = "linux")]
#[path = "../paced.rs"]
mod paced;
#[cfg(target_os = "linux")]
use paced::main as run;

#[cfg(not(target_os = "linux"))]
fn run() -> std::process::ExitCode {
    eprintln!("paced: needs Linux: network namespaces and perf");
    std::process::ExitCode::FAILURE
}

fn main() -> std::process::ExitCode {
    run()
}
