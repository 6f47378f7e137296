//! Receiving over 4 NICs while a sender floods them: nicring's backends against epoll with
//! recvmmsg.
//!
//! What is measured is the CPU time of the receiving thread a datagram: how much it can receive a
//! second depends on the sender, which has the other CPU, as much as on the receiver.

#[cfg(target_os = "linux")]
mod linux;

fn main() {
    #[cfg(target_os = "linux")]
    linux::main();
    #[cfg(not(target_os = "linux"))]
    println!("receive: needs Linux: network namespaces");
}
