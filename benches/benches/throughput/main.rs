//! Datagrams per second of wall time, received and answered, over 1, 4, 16 and 64 NICs: nicring's
//! faces and backends against epoll, and its `AsyncUdpV4` against the one of epics-base-rs.
//!
//! The receiver is stopped while the datagrams are put into its sockets. The clock runs from when
//! it goes on until it has received the last one, or until the client has the last answer. One
//! element is one datagram.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
#[path = "../quick.rs"]
mod quick;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    linux::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("throughput: needs Linux: network namespaces");
}
