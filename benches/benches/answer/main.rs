//! Replying to each datagram, and sending each out of all of 4 NICs, at 100,000 and 20,000 a
//! second: nicring's backends against epoll with sendmmsg and sendto.
//!
//! What is measured is the CPU time of the receiving thread a datagram that it received.

#[cfg(target_os = "linux")]
mod linux;

fn main() {
    #[cfg(target_os = "linux")]
    linux::main();
    #[cfg(not(target_os = "linux"))]
    println!("answer: needs Linux: network namespaces");
}
