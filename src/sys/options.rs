//! Socket options, each as this system has it.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
};

use socket2::{Domain, InterfaceIndexOrAddress, Socket, Type};

use super::shard::Shard;
use crate::{filter::Filter, nics::Nics};

/// What a receive needs beside the socket to get a datagram's destination and interface: nothing.
#[cfg(not(windows))]
pub(crate) type PacketInfo = ();
/// A second handle of the socket, which knows the address of the system's WSARecvMsg.
#[cfg(windows)]
pub(crate) type PacketInfo = socket_pktinfo::PktInfoUdpSocket;

/// A socket for datagrams over IPv4.
#[cfg(not(windows))]
pub(crate) fn new_socket() -> io::Result<(Socket, PacketInfo)> {
    Ok((Socket::new(Domain::IPV4, Type::DGRAM, None)?, ()))
}

/// A socket for datagrams over IPv4.
#[cfg(windows)]
pub(crate) fn new_socket() -> io::Result<(Socket, PacketInfo)> {
    let packet_info = PacketInfo::new(Domain::IPV4)?;
    Ok((packet_info.try_clone_std()?.into(), packet_info))
}

/// Binds. The error is `AddrInUse` if another socket holds the port and does not share it.
pub(crate) fn bind(socket: &Socket, address: SocketAddrV4) -> io::Result<()> {
    socket.bind(&address.into()).map_err(|error| match error.kind() {
        // No port needs a privilege on Windows: WSAEACCES means a holder that does not share.
        io::ErrorKind::PermissionDenied if cfg!(windows) => {
            io::Error::new(io::ErrorKind::AddrInUse, error)
        }
        _ => error,
    })
}

/// Lets other programs bind the port too. Linux needs both options, because they must match those
/// of the first holder.
pub(crate) fn share_port(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    Ok(())
}

/// Control messages to request with each datagram.
#[derive(Debug, Clone, Copy, Default)]
#[allow(dead_code, reason = "only Linux leaves a choice")]
pub(crate) struct Requested {
    /// Destination and interface.
    pub arrival: bool,
    /// The time of receipt, where the system knows it.
    pub time: bool,
    /// The time to live, and the type of service, of its IP header.
    pub ttl: bool,
    pub tos: bool,
}

/// Requests control messages. Drop counts are requested only if the kernel has no `SO_MEMINFO`
/// (Linux 4.12). If it has, the socket is asked when somebody wants to know: drop counts with every
/// datagram cost a tenth of the time that receiving a burst takes.
#[cfg(target_os = "linux")]
pub(crate) fn request_control_messages(socket: &Socket, requested: Requested) -> io::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt};
    setsockopt(socket, sockopt::Ipv4PacketInfo, &requested.arrival)?;
    if kernel_drop_count(socket).is_none() {
        request_drop_counts(socket)?;
    }
    if requested.time {
        setsockopt(socket, sockopt::ReceiveTimestampns, &true)?;
    }
    if requested.ttl {
        setsockopt(socket, sockopt::Ipv4RecvTtl, &true)?;
    }
    if requested.tos {
        setsockopt(socket, sockopt::IpRecvTos, &true)?;
    }
    Ok(())
}

/// Requests that each datagram tells how many datagrams the socket has dropped before it.
#[cfg(target_os = "linux")]
pub(crate) fn request_drop_counts(socket: &impl std::os::fd::AsFd) -> io::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt};
    Ok(setsockopt(socket, sockopt::RxqOvfl, &1)?)
}

/// This system counts no drops.
#[cfg(not(target_os = "linux"))]
pub(crate) fn request_drop_counts<S>(_socket: &S) -> io::Result<()> {
    Ok(())
}

/// Makes the socket hear only the groups that it joined. Not for a wildcard socket that shares its
/// port: if one of several such sockets hears a group, Linux 6.18 hands the group's datagrams to
/// any of them (observed).
#[cfg(target_os = "linux")]
pub(crate) fn hear_own_groups_alone(socket: &Socket) -> io::Result<()> {
    socket.set_multicast_all_v4(false)
}

/// Nothing to do: on other systems a socket hears no other groups.
#[cfg(not(target_os = "linux"))]
pub(crate) fn hear_own_groups_alone(_socket: &Socket) -> io::Result<()> {
    Ok(())
}

/// Requests destination and interface, always. These systems do not tell the rest that Linux tells.
#[cfg(any(target_vendor = "apple", target_os = "netbsd"))]
pub(crate) fn request_control_messages(socket: &Socket, _requested: Requested) -> io::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt};
    Ok(setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?)
}

/// Requests destination and interface, always. These systems do not tell the rest that Linux tells.
#[cfg(any(target_os = "freebsd", target_os = "openbsd", target_os = "dragonfly"))]
pub(crate) fn request_control_messages(socket: &Socket, _requested: Requested) -> io::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt};
    setsockopt(socket, sockopt::Ipv4RecvDstAddr, &true)?;
    Ok(setsockopt(socket, sockopt::Ipv4RecvIf, &true)?)
}

/// Nothing to do: [`new_socket`] has requested them.
#[cfg(windows)]
pub(crate) fn request_control_messages(_socket: &Socket, _requested: Requested) -> io::Result<()> {
    Ok(())
}

/// The interface to join a group on. On Windows it is named by the address that the socket is bound
/// to, because Wine knows no other way.
pub(crate) fn membership(index: u32, bound: Ipv4Addr) -> InterfaceIndexOrAddress {
    if cfg!(windows) {
        InterfaceIndexOrAddress::Address(bound)
    } else {
        InterfaceIndexOrAddress::Index(index)
    }
}

/// Sets the room for queued datagrams to `bytes`, or as near to it as the system allows.
/// [socket2::Socket::recv_buffer_size] tells what the kernel really gives.
pub(crate) fn resize_recv_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use nix::sys::socket::{setsockopt, sockopt};
        // This goes beyond net.core.rmem_max, if CAP_NET_ADMIN allows it.
        if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_ok() {
            return Ok(());
        }
    }
    resize(bytes, socket.recv_buffer_size()?, |bytes| socket.set_recv_buffer_size(bytes))
}

/// Sets the room for datagrams that are being sent to `bytes`, or as near to it as the system
/// allows.
pub(crate) fn resize_send_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use nix::sys::socket::{setsockopt, sockopt};
        // This goes beyond net.core.wmem_max, if CAP_NET_ADMIN allows it.
        if setsockopt(socket, sockopt::SndBufForce, &bytes).is_ok() {
            return Ok(());
        }
    }
    resize(bytes, socket.send_buffer_size()?, |bytes| socket.set_send_buffer_size(bytes))
}

/// A port that no other socket holds, until this one is dropped.
pub(crate) fn unused_port() -> io::Result<(u16, std::net::UdpSocket)> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    Ok((socket.local_addr()?.port(), socket))
}

/// Whether sockets get send buffers of this size. Only Linux charges them for datagrams that wait
/// for an answer to ARP.
pub(crate) fn grants_send_buffer(bytes: usize) -> bool {
    let granted_bytes = || {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        resize_send_buffer(&socket, bytes)?;
        socket.send_buffer_size()
    };
    !cfg!(target_os = "linux") || granted_bytes().is_ok_and(|granted| granted >= bytes)
}

/// macOS and the BSDs refuse more than kern.ipc.maxsockbuf. Linux gives what it can.
fn resize(
    bytes: usize,
    current_bytes: usize,
    set: impl Fn(usize) -> io::Result<()>,
) -> io::Result<()> {
    if set(bytes).is_err() {
        let mut tried_bytes = bytes / 2;
        while tried_bytes > current_bytes && set(tried_bytes).is_err() {
            tried_bytes /= 2;
        }
    }
    Ok(())
}

/// Makes room for the longest datagram. macOS sends none that is longer than the send buffer, which
/// has 9,216 bytes at first.
pub(crate) fn fit_send_buffer(socket: &Socket) -> io::Result<()> {
    const LONGEST_WITH_CONTROL_MESSAGES: usize = 68 << 10;
    if socket.send_buffer_size()? < LONGEST_WITH_CONTROL_MESSAGES {
        socket.set_send_buffer_size(LONGEST_WITH_CONTROL_MESSAGES)?;
    }
    Ok(())
}

/// Calls `send` while the socket has the time to live, and the loop-back of groups, that the egress
/// names. Only for the thread that sends by the socket.
#[cfg(not(target_os = "linux"))]
pub(crate) fn with_travel<T>(
    socket: &Socket,
    outgoing: &crate::datagram::Outgoing,
    send: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let (egress, is_to_group) = (outgoing.egress, outgoing.destination.ip().is_multicast());
    let (ttl, multicast_loop) = (egress.ttl, egress.multicast_loop.filter(|_| is_to_group));
    if ttl.is_none() && multicast_loop.is_none() {
        return send();
    }
    let set = |ttl: Option<u32>, multicast_loop: Option<bool>| {
        multicast_loop.map_or(Ok(()), |is_heard| socket.set_multicast_loop_v4(is_heard))?;
        match ttl {
            Some(ttl) if is_to_group => socket.set_multicast_ttl_v4(ttl),
            Some(ttl) => socket.set_ttl_v4(ttl),
            None => Ok(()),
        }
    };
    let ttl_before = if is_to_group { socket.multicast_ttl_v4()? } else { socket.ttl_v4()? };
    let loop_before = socket.multicast_loop_v4()?;
    let sent = set(ttl.map(u32::from), multicast_loop).and_then(|()| send());
    // It was sent, or not, whatever becomes of this.
    let _ = set(ttl.and(Some(ttl_before)), multicast_loop.and(Some(loop_before)));
    sent
}

/// Has the kernel drop what the filter does not keep, and what another shard is to hear. Before the
/// socket is bound. Returns whether the filter is in force: one that is too long is not, nor one
/// that takes more memory than the system allows (net.core.optmem_max).
#[cfg(target_os = "linux")]
pub(crate) fn hear_part(
    socket: &Socket,
    filter: Option<&Filter>,
    shard: Shard,
) -> io::Result<bool> {
    use super::linux::socket_filter::{attach, program};
    if let Some(program) = filter.and_then(|filter| program(Some(filter), shard)) {
        match attach(socket, &program) {
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => {}
            attached => return attached.map(|()| true),
        }
    }
    if shard != Shard::ONLY {
        let part = program(None, shard).expect("of the shard alone it is never too long");
        attach(socket, &part)?;
    }
    Ok(false)
}

/// This system has no filters, and so only one shard.
#[cfg(not(target_os = "linux"))]
pub(crate) fn hear_part(
    _socket: &Socket,
    _filter: Option<&Filter>,
    _shard: Shard,
) -> io::Result<bool> {
    Ok(false)
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

/// This system cannot bind to a device: the error is `Unsupported`.
#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
pub(crate) fn bind_device(_socket: &Socket, _name: &str, _index: u32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The cumulative drop count of the socket as of now, if the system tells it.
#[cfg(target_os = "linux")]
pub(crate) fn kernel_drop_count(socket: &Socket) -> Option<u32> {
    Some(kernel_drops(socket)?.0)
}

/// The cumulative drop count of the socket, and whether datagrams are queued in it.
#[cfg(target_os = "linux")]
pub(crate) fn kernel_drops(socket: &Socket) -> Option<(u32, bool)> {
    super::linux::meminfo::drop_count(socket)
}

/// This system counts no drops.
#[cfg(not(target_os = "linux"))]
pub(crate) fn kernel_drops(_socket: &Socket) -> Option<(u32, bool)> {
    None
}

/// This system counts no drops.
#[cfg(not(target_os = "linux"))]
#[allow(dead_code, reason = "for the feature udp-v4")]
pub(crate) fn kernel_drop_count(_socket: &Socket) -> Option<u32> {
    None
}

/// Whether this process may bind sockets to devices. It is tried on these NICs.
pub(crate) fn can_bind_device(nics: &Nics) -> bool {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None);
    let probe = |socket: Socket| {
        nics.iter().any(|nic| nic.is_up && bind_device(&socket, &nic.name, nic.index).is_ok())
    };
    socket.is_ok_and(probe)
}
