//! How many system calls a receiver makes at a steady rate. `perf` counts all of them.
//!
//! `cargo run --release -p nicring-bench --bin paced -- --nics 4 --rate 200000 --duration-s 10`
//! exits with 0 if the receiver stays below the limits on system calls per datagram and on loss.

#[cfg(target_os = "linux")]
mod linux;

fn main() -> std::process::ExitCode {
    #[cfg(target_os = "linux")]
    return linux::main();
    #[cfg(not(target_os = "linux"))]
    {
        eprintln!("paced: needs Linux: network namespaces and perf");
        std::process::ExitCode::FAILURE
    }
}
