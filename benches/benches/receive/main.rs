//! Receiving over 4 NICs while a sender floods them: nicring's backends against epoll with
//! recvmmsg.
//!
//! Measured is the CPU time of the receiving thread per datagram. How many datagrams arrive per
//! second depends as much on the sender, which has the other CPU, as on the receiver.

#[cfg(target_os = "linux")]
mod linux;

fn main() {
    #[cfg(target_os = "linux")]
    linux::main();
    #[cfg(not(target_os = "linux"))]
    println!("receive: needs Linux: network namespaces");
}
