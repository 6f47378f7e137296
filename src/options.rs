//! Socket options, and the one file that tells platforms apart by `cfg`.

use std::io;

use socket2::Socket;

/// What the platform can tell and do, for the choice of sockets.
#[cfg(not(windows))]
pub(crate) const HEARS_BROADCAST_BY_ADDRESS: bool = true;
/// Windows delivers broadcasts to address-bound sockets and refuses to bind a broadcast address.
#[cfg(windows)]
pub(crate) const HEARS_BROADCAST_BY_ADDRESS: bool = false;

/// Lets other programs bind the port too: both options are needed on Linux, where the first
/// holder's options must match.
pub(crate) fn share_port(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    Ok(())
}

/// Asks for destination and interface, the drop count, and optionally the time of receipt.
#[cfg(target_os = "linux")]
pub(crate) fn ask_for_control_messages(socket: &Socket, wants_time: bool) -> io::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt};
    setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?;
    setsockopt(socket, sockopt::RxqOvfl, &1)?;
    if wants_time {
        setsockopt(socket, sockopt::ReceiveTimestampns, &true)?;
    }
    Ok(())
}

/// Hears only the groups that this socket joined. Not for a wildcard socket that shares its port:
/// where one of several takes a group, Linux 6.18 hands it to any of them [observed].
#[cfg(target_os = "linux")]
pub(crate) fn hear_own_groups_alone(socket: &Socket) -> io::Result<()> {
    socket.set_multicast_all_v4(false)
}

/// Other systems know no other way.
#[cfg(not(target_os = "linux"))]
pub(crate) fn hear_own_groups_alone(_socket: &Socket) -> io::Result<()> {
    Ok(())
}

/// As on Linux, less what these systems do not tell.
#[cfg(any(target_vendor = "apple", target_os = "netbsd"))]
pub(crate) fn ask_for_control_messages(socket: &Socket, _wants_time: bool) -> io::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt};
    Ok(setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?)
}

/// As on Linux, less what these systems do not tell.
#[cfg(any(target_os = "freebsd", target_os = "openbsd", target_os = "dragonfly"))]
pub(crate) fn ask_for_control_messages(socket: &Socket, _wants_time: bool) -> io::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt};
    setsockopt(socket, sockopt::Ipv4RecvDstAddr, &true)?;
    Ok(setsockopt(socket, sockopt::Ipv4RecvIf, &true)?)
}

/// The receiver of the portable backend asks where it wraps the socket.
#[cfg(windows)]
pub(crate) fn ask_for_control_messages(_socket: &Socket, _wants_time: bool) -> io::Result<()> {
    Ok(())
}

/// Makes room for `bytes` of queued datagrams where that is more than there is. What the kernel
/// really gives, [socket2::Socket::recv_buffer_size] tells.
pub(crate) fn grow_recv_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use nix::sys::socket::{setsockopt, sockopt};
        // Beyond net.core.rmem_max, where CAP_NET_ADMIN allows it.
        if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_ok() {
            return Ok(());
        }
    }
    // macOS refuses more than kern.ipc.maxsockbuf where Linux gives what it can.
    match socket.set_recv_buffer_size(bytes) {
        Err(error) if error.raw_os_error().is_some() => Ok(()),
        result => result,
    }
}

/// Binds to a device, so that the socket hears and sends on it alone.
#[cfg(target_os = "linux")]
pub(crate) fn bind_device(socket: &Socket, name: &str, _index: u32) -> io::Result<()> {
    socket.bind_device(Some(name.as_bytes()))
}

/// Binds to a device, so that the socket hears and sends on it alone.
#[cfg(target_vendor = "apple")]
pub(crate) fn bind_device(socket: &Socket, _name: &str, index: u32) -> io::Result<()> {
    socket.bind_device_by_index_v4(std::num::NonZeroU32::new(index))
}

/// This system cannot.
#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
pub(crate) fn bind_device(_socket: &Socket, _name: &str, _index: u32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The drop count of the socket as of now.
#[cfg(target_os = "linux")]
pub(crate) fn kernel_drop_count(socket: &Socket) -> Option<u32> {
    crate::uring::meminfo::drop_count(socket)
}

/// This system has none.
#[cfg(not(target_os = "linux"))]
pub(crate) fn kernel_drop_count(_socket: &Socket) -> Option<u32> {
    None
}

/// Whether this process may bind sockets to devices.
pub(crate) fn can_bind_device() -> bool {
    let Ok(nics) = crate::Nics::enumerate() else {
        return false;
    };
    let socket = Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None);
    let probe = |socket: Socket| {
        nics.iter().any(|nic| nic.is_up && bind_device(&socket, &nic.name, nic.index).is_ok())
    };
    socket.is_ok_and(probe)
}
