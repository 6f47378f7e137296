//! What askers that are gone, and NICs that are slow, cost those who are there.
//!
//! `cargo run --release -p nicring-bench --bin gone` exits with 0 if nicring answered 99 % of what
//! each healthy client asked.

#[cfg(target_os = "linux")]
mod linux;

fn main() -> std::process::ExitCode {
    #[cfg(target_os = "linux")]
    return linux::main();
    #[cfg(not(target_os = "linux"))]
    {
        eprintln!("gone: needs Linux: network namespaces");
        std::process::ExitCode::FAILURE
    }
}
