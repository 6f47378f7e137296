//! Contestants side by side: see the package's README.
//!
//! `cargo run --release -p nicring-bench --bin compare` races nicring with its peers, and prints a
//! table.

#[cfg(target_os = "linux")]
#[path = "../compare/mod.rs"]
mod compare;
#[cfg(target_os = "linux")]
use compare::main as run;

#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: nicring_bench::allocations::CountingAllocator =
    nicring_bench::allocations::CountingAllocator;

#[cfg(not(target_os = "linux"))]
fn run() -> std::process::ExitCode {
    eprintln!("compare: needs Linux: network namespaces and perf");
    std::process::ExitCode::FAILURE
}

fn main() -> std::process::ExitCode {
    run()
}
