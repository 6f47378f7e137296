//! What this system can do, as constants. The rest of the crate asks these instead of `cfg`.

/// Whether a socket can be bound to a broadcast address, and hears broadcasts only if it is.
/// Windows refuses such a binding, and delivers broadcasts to sockets that are bound to the NIC's
/// addresses.
pub(crate) const BINDS_BROADCAST_ADDRESSES: bool = cfg!(not(windows));

/// Whether a socket that is bound to one address can send from another one.
pub(crate) const SENDS_FROM_OTHER_ADDRESSES: bool =
    cfg!(any(target_os = "linux", target_vendor = "apple", target_os = "netbsd"));

/// Whether the kernel counts what it drops because a socket's receive buffer is full.
pub(crate) const COUNTS_KERNEL_DROPS: bool = cfg!(target_os = "linux");

/// The command that lists the holders of a port.
pub(crate) const HOLDERS_COMMAND: &str = if cfg!(windows) {
    "netstat -ano -p udp"
} else if cfg!(target_os = "linux") {
    "ss -ulpn"
} else {
    "lsof -i UDP"
};
