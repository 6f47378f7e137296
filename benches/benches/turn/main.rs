//! Receiving what already waits in the sockets of 4 and 16 NICs, by one thread that sends it to
//! itself: the cost of receiving alone, without waking up and without another CPU.
//!
//! Contestants alternate in slices of 40 ms, which a disturbance of the machine spans, so that it
//! disturbs all of them; that is why this is no bench of criterion's. Ratios are to the first one,
//! with their 90 % interval. `cargo bench -p nicring-bench --bench turn -- epoll run
//! run+buffer_count=64` names others.

#[cfg(target_os = "linux")]
mod linux;

fn main() {
    #[cfg(target_os = "linux")]
    linux::main();
    #[cfg(not(target_os = "linux"))]
    println!("turn: needs Linux: network namespaces");
}
