//! Opens sockets: the sockets of engines and of `AsyncUdpV4` are all opened here.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
};

use socket2::Socket;

use super::plan::{Role, SocketPlan};
use crate::{
    error::{Error, Result},
    sys::options::{self, PacketInfo, Requested},
};

/// What a socket is opened with beside its plan.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SocketOptions {
    /// Whether other programs may bind the port too.
    pub is_shared: bool,
    /// Whether it may send to broadcast addresses.
    pub may_broadcast: bool,
    /// The size of the receive buffer. `None` leaves it as the system made it.
    pub recv_buffer_bytes: Option<usize>,
    pub wants_kernel_time: bool,
    /// Whether the kernel tells the drop count with each datagram. Engines ask the socket instead.
    pub wants_drop_counts: bool,
}

/// A socket that is bound and has joined its groups.
#[derive(Debug)]
pub(crate) struct OpenSocket {
    pub socket: Socket,
    #[allow(dead_code, reason = "nothing but on Windows")]
    pub packet_info: PacketInfo,
    pub port: u16,
}

/// Opens a socket, binds it, and joins its groups. Port 0 asks for an unused port.
///
/// # Errors
///
/// [`Error::Socket`], which names the step that failed.
pub(crate) fn open(plan: &SocketPlan, port: u16, with: &SocketOptions) -> Result<OpenSocket> {
    let address = SocketAddrV4::new(plan.address, port);
    let failed = |operation| {
        move |source| Error::Socket { operation, nic: plan.nic_name().to_owned(), address, source }
    };
    let (socket, packet_info) = options::new_socket().map_err(failed("opening a socket for"))?;
    socket.set_nonblocking(true).map_err(failed("making non-blocking the socket for"))?;
    if with.is_shared {
        options::share_port(&socket).map_err(failed("sharing the port of"))?;
    }
    set_options(&socket, plan, with).map_err(failed("setting options for"))?;
    if let (Some(nic), true) = (&plan.nic, plan.is_device_bound) {
        options::bind_device(&socket, &nic.name, nic.index)
            .map_err(failed("binding to the device for"))?;
    }
    options::bind(&socket, address).map_err(failed("binding"))?;
    for &join in &plan.joins {
        join_group(&socket, join, plan.address).map_err(failed("joining the group of"))?;
    }
    if plan.role == Role::HearAll && !plan.address.is_unspecified() {
        // So that what it sends to a group leaves by its own NIC.
        socket
            .set_multicast_if_v4(&plan.address)
            .map_err(failed("choosing the NIC for groups of"))?;
    }
    let bound = socket.local_addr().map_err(failed("asking for the port of"))?;
    let port = bound.as_socket_ipv4().map_or(port, |bound| bound.port());
    Ok(OpenSocket { socket, packet_info, port })
}

fn set_options(socket: &Socket, plan: &SocketPlan, with: &SocketOptions) -> io::Result<()> {
    socket.set_broadcast(with.may_broadcast)?;
    if plan.role != Role::HearAll {
        options::hear_own_groups_alone(socket)?;
    }
    let arrival = plan.fixed_arrival().is_none();
    let requested = Requested { arrival, time: with.wants_kernel_time };
    options::request_control_messages(socket, requested)?;
    if with.wants_drop_counts {
        options::request_drop_counts(socket)?;
    }
    if let Some(bytes) = with.recv_buffer_bytes {
        options::grow_recv_buffer(socket, bytes)?;
    }
    options::fit_send_buffer(socket)
}

/// Joins a group on the NIC with this index. `bound` is the address that the socket is bound to.
pub(super) fn join_group(
    socket: &Socket,
    (group, index): (Ipv4Addr, u32),
    bound: Ipv4Addr,
) -> io::Result<()> {
    socket.join_multicast_v4_n(&group, &options::membership(index, bound))
}
