//! The group over which the PVAccess servers of one host forward searches to each other.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use super::open::require_runtime;
use crate::{search::pva::FORWARD_GROUP, sys::options};

/// The group 224.0.0.128, which pvxs and its peers use on the loopback NIC.
pub const ORIGIN_TAG_MCAST_GROUP: Ipv4Addr = FORWARD_GROUP;

/// Opens a socket on 0.0.0.0 that shares `port`, and joins [`ORIGIN_TAG_MCAST_GROUP`] on the
/// loopback NIC. What it sends to the group stays on this host and reaches every member, itself
/// included.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use nicring::udp_v4::{ORIGIN_TAG_MCAST_GROUP, bind_loopback_mcast};
///
/// let socket = bind_loopback_mcast(0)?;
/// let port = socket.local_addr()?.port();
/// socket.send_to(b"to all of this host", (ORIGIN_TAG_MCAST_GROUP, port)).await?;
/// # Ok::<(), std::io::Error>(())
/// # }).map(drop)?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// The system's error from binding, joining or setting an option; `Other` outside a tokio runtime.
pub fn bind_loopback_mcast(port: u16) -> io::Result<UdpSocket> {
    require_runtime()?;
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // A port that the system chooses must not be one that other programs share.
    if port != 0 {
        options::share_port(&socket)?;
    }
    options::hear_own_groups_alone(&socket)?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into())?;
    if port == 0 {
        // From now on other programs may share the port. Windows allows that only before binding,
        // so there nobody may.
        let _ = options::share_port(&socket);
    }
    socket.join_multicast_v4(&ORIGIN_TAG_MCAST_GROUP, &Ipv4Addr::LOCALHOST)?;
    socket.set_multicast_loop_v4(true)?;
    socket.set_multicast_ttl_v4(1)?;
    socket.set_multicast_if_v4(&Ipv4Addr::LOCALHOST)?;
    UdpSocket::from_std(socket.into())
}
