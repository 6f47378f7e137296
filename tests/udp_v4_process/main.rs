//! `AsyncUdpV4` and the ring that all bundles of a process share. Each case runs in its own
//! process.

#[cfg(target_os = "linux")]
mod cases;
#[path = "../common/mod.rs"]
mod common;

fn main() -> std::process::ExitCode {
    common::main()
}
