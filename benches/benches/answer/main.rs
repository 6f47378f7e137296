//! Replying to each datagram at 100,000 datagrams per second, and sending each out of all of 4 NICs
//! at 20,000 per second: nicring's backends against epoll with sendmmsg and sendto.
//!
//! Measured is the CPU time of the receiving thread per datagram received.

#[cfg(target_os = "linux")]
mod linux;

fn main() {
    #[cfg(target_os = "linux")]
    linux::main();
    #[cfg(not(target_os = "linux"))]
    println!("answer: needs Linux: network namespaces");
}
