//! Compares contestants: see the package's README.
//!
//! `cargo run --release -p nicring-bench --bin compare` races nicring against its peers and prints
//! tables.

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
