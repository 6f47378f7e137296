//! Contestants side by side: see the package's README.
//!
//! `cargo run --release -p nicring-bench --bin compare` races nicring with its peers, and prints a
//! table.

#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: nicring_bench::allocations::CountingAllocator =
    nicring_bench::allocations::CountingAllocator;

fn main() -> std::process::ExitCode {
    #[cfg(target_os = "linux")]
    return linux::main();
    #[cfg(not(target_os = "linux"))]
    {
        eprintln!("compare: needs Linux: network namespaces and perf");
        std::process::ExitCode::FAILURE
    }
}
