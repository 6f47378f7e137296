//! Opens sockets: the sockets of engines and of `AsyncUdpV4` are all opened here.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
};

use socket2::Socket;

use super::plan::{Role, SocketPlan};
use crate::{
    error::{Error, Result},
    filter::Filter,
    sys::{
        options::{self, PacketInfo, Requested},
        shard::Shard,
    },
};

/// What a socket is opened with beside its plan.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SocketOptions<'a> {
    /// Whether other programs may bind the port too.
    pub is_shared: bool,
    /// Whether it may send to broadcast addresses.
    pub may_broadcast: bool,
    /// The size of the receive buffer. `None` leaves it as the system made it.
    pub recv_buffer_bytes: Option<usize>,
    /// The size of the send buffer. `None` leaves it as the system made it, but makes it large
    /// enough for the longest datagram.
    pub send_buffer_bytes: Option<usize>,
    /// What the kernel is to tell of each datagram beside how it arrived.
    pub requested: Requested,
    /// For a socket that hears a part only: of what, and which part.
    pub part: Option<(Option<&'a Filter>, Shard)>,
    /// For a socket that sends to groups: the time to live, and whether this host hears it too.
    pub multicast: Option<(u8, bool)>,
    /// Whether the kernel tells the drop count with each datagram. Engines ask the socket instead.
    pub wants_drop_counts: bool,
}

/// A socket that is bound.
#[derive(Debug)]
pub(crate) struct OpenSocket {
    pub socket: Socket,
    #[allow(dead_code, reason = "nothing but on Windows")]
    pub packet_info: PacketInfo,
    pub port: u16,
    /// Whether the kernel drops what the filter does not keep.
    pub has_filter: bool,
}

impl OpenSocket {
    /// Joins the groups of its plan.
    #[allow(dead_code, reason = "for the feature udp-v4")]
    pub fn join_groups(&self, plan: &SocketPlan) -> Result<()> {
        let address = SocketAddrV4::new(plan.address, self.port);
        let failed = |source| Error::Socket {
            operation: "joining the group of",
            nic: plan.nic_name(),
            address,
            source,
        };
        let mut joins = plan.joins.iter();
        joins.try_for_each(|join| join_group(&self.socket, *join, plan.address)).map_err(failed)
    }
}

/// Opens a socket and binds it. It has joined no group yet. Port 0 asks for an unused port.
///
/// `beside` are sockets of the same owner. A port that is shared with nobody is shared with them.
///
/// # Errors
///
/// [`Error::Socket`], which names the step that failed.
pub(crate) fn open(
    plan: &SocketPlan,
    port: u16,
    with: &SocketOptions<'_>,
    beside: &[&Socket],
) -> Result<OpenSocket> {
    let address = SocketAddrV4::new(plan.address, port);
    let failed = |operation| {
        move |source| Error::Socket { operation, nic: plan.nic_name(), address, source }
    };
    let (socket, packet_info) = options::new_socket().map_err(failed("opening a socket for"))?;
    socket.set_nonblocking(true).map_err(failed("making non-blocking the socket for"))?;
    if with.is_shared {
        options::share_port(&socket).map_err(failed("sharing the port of"))?;
    }
    set_options(&socket, plan, with).map_err(failed("setting options for"))?;
    let has_filter = match with.part {
        None => false,
        Some((filter, shard)) => {
            options::hear_part(&socket, filter, shard).map_err(failed("setting the filter for"))?
        }
    };
    if let (Some(nic), true) = (&plan.nic, plan.is_device_bound) {
        options::bind_device(&socket, &nic.name, nic.index)
            .map_err(failed("binding to the device for"))?;
    }
    if plan.role == Role::Join {
        return Ok(OpenSocket { socket, packet_info, port, has_filter });
    }
    if with.is_shared || beside.is_empty() {
        options::bind(&socket, address).map_err(failed("binding"))?;
    } else {
        bind_beside(&socket, address, beside).map_err(failed("binding"))?;
    }
    if plan.role == Role::HearAll && !plan.address.is_unspecified() {
        // So that what it sends to a group leaves by its own NIC.
        socket
            .set_multicast_if_v4(&plan.address)
            .map_err(failed("choosing the NIC for groups of"))?;
    }
    let bound = socket.local_addr().map_err(failed("asking for the port of"))?;
    let port = bound.as_socket_ipv4().map_or(port, |bound| bound.port());
    Ok(OpenSocket { socket, packet_info, port, has_filter })
}

fn set_options(socket: &Socket, plan: &SocketPlan, with: &SocketOptions<'_>) -> io::Result<()> {
    socket.set_broadcast(with.may_broadcast)?;
    if plan.role != Role::HearAll {
        options::hear_own_groups_alone(socket)?;
    }
    if let Some((ttl, is_heard_here)) = with.multicast {
        socket.set_multicast_ttl_v4(ttl.into())?;
        socket.set_multicast_loop_v4(is_heard_here)?;
    }
    let arrival = plan.fixed_arrival().is_none();
    let requested = Requested { arrival, ..with.requested };
    options::request_control_messages(socket, requested)?;
    if with.wants_drop_counts {
        options::request_drop_counts(socket)?;
    }
    if let Some(bytes) = with.recv_buffer_bytes {
        options::resize_recv_buffer(socket, bytes)?;
    }
    if let Some(bytes) = with.send_buffer_bytes {
        options::resize_send_buffer(socket, bytes)?;
    }
    options::fit_send_buffer(socket)
}

/// Binds where `beside` would refuse: for the moment, all of them share.
fn bind_beside(socket: &Socket, address: SocketAddrV4, beside: &[&Socket]) -> io::Result<()> {
    let share = |is_shared| {
        let mut all = beside.iter().copied().chain([socket]);
        all.try_for_each(|socket| socket.set_reuse_address(is_shared))
    };
    let bound = share(true).and_then(|()| options::bind(socket, address));
    share(false)?;
    bound
}

/// Joins a group on the NIC with this index. `bound` is the address that the socket is bound to.
pub(super) fn join_group(
    socket: &Socket,
    (group, index): (Ipv4Addr, u32),
    bound: Ipv4Addr,
) -> io::Result<()> {
    socket.join_multicast_v4_n(&group, &options::membership(index, bound))
}
