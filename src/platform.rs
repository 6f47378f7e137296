//! What this system can do, as constants. The rest of the crate asks these instead of `cfg`.

use std::{io, time::Duration};

/// Whether a socket can be bound to a broadcast address, and hears broadcasts only if it is.
/// Windows refuses such a binding, and delivers broadcasts to sockets that are bound to the NIC's
/// addresses.
pub(crate) const BINDS_BROADCAST_ADDRESSES: bool = cfg!(not(windows));

/// Whether a wildcard socket hears the groups that other sockets have joined (`IP_MULTICAST_ALL`,
/// ip(7)).
pub(crate) const HEARS_GROUPS_JOINED_BY_OTHER_SOCKETS: bool = cfg!(target_os = "linux");

/// Whether a socket that is bound to one address can send from another one.
pub(crate) const SENDS_FROM_OTHER_ADDRESSES: bool =
    cfg!(any(target_os = "linux", target_vendor = "apple", target_os = "netbsd"));

/// Whether answers leave by sockets that only send, bound to an address that hears nothing. macOS
/// sends from no address that no interface has.
pub(crate) const HAS_SENDERS: bool = cfg!(target_os = "linux");

/// Whether the unicast addresses of a NIC that is down stay addresses of the host, which datagrams
/// may reach by another NIC.
pub(crate) const HEARS_AT_NICS_THAT_ARE_DOWN: bool = cfg!(target_os = "linux");

/// Whether a socket can have the kernel drop what it is not to hear.
pub(crate) const HAS_SOCKET_FILTERS: bool = cfg!(target_os = "linux");

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

/// How much longer than asked for a sleep may take: the timer slack of Linux (prctl(2)), the tick
/// of the systems that count time in ticks.
pub(crate) const SLEEP_EXCESS: Duration = if cfg!(windows) {
    Duration::from_micros(15_625)
} else if cfg!(any(target_os = "netbsd", target_os = "openbsd")) {
    Duration::from_millis(20)
} else {
    Duration::from_micros(50)
};

/// Whether the system tells when the NICs change. If not, they are listed again and again.
pub(crate) const TELLS_NEWS_OF_NICS: bool = cfg!(target_os = "linux");

/// Whether this process, or the whole system, may open no more descriptors.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    #[cfg(unix)]
    let codes = [nix::errno::Errno::EMFILE as i32, nix::errno::Errno::ENFILE as i32];
    #[cfg(windows)]
    let codes = [10_024]; // WSAEMFILE
    is_one_of(error, &codes)
}

/// Whether this is what sandboxes say to a kind of socket that they forbid.
pub(crate) fn is_forbidden_by_sandboxes(error: &io::Error) -> bool {
    #[cfg(unix)]
    let codes = [nix::errno::Errno::EAFNOSUPPORT as i32];
    #[cfg(windows)]
    let codes = [10_047]; // WSAEAFNOSUPPORT
    error.kind() == io::ErrorKind::PermissionDenied || is_one_of(error, &codes)
}

/// Whether a socket, or the host, can be in no more groups.
pub(crate) fn is_out_of_memberships(error: &io::Error) -> bool {
    #[cfg(unix)]
    let codes = [nix::errno::Errno::ENOBUFS as i32, nix::errno::Errno::ETOOMANYREFS as i32];
    #[cfg(windows)]
    let codes = [10_055]; // WSAENOBUFS
    is_one_of(error, &codes)
}

fn is_one_of(error: &io::Error, codes: &[i32]) -> bool {
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

/// Whether a datagram was received, of which only a part fitted the buffer. Only Windows has an
/// error for that (WSAEMSGSIZE).
pub(crate) fn is_longer_than_the_buffer(error: &io::Error) -> bool {
    cfg!(windows) && error.raw_os_error() == Some(10_040)
}
