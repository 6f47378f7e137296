//! Receiving what already waits in the sockets of 4 and 16 NICs, by one thread that sends it to
//! itself. This is the cost of receiving alone, without wake-ups and without another CPU.
//!
//! Contestants alternate in slices of 40 ms. A disturbance of the machine lasts longer than that,
//! and so disturbs all of them. criterion cannot alternate, so this bench does without it. Ratios
//! are to the first contestant, with their 90 % interval. `cargo bench -p nicring-bench --bench
//! turn -- epoll nicring nicring+buffer_count=64` chooses other contestants.

#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    linux::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("turn: needs Linux: network namespaces");
}
