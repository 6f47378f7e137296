//! Opens the sockets of a bundle, by the same socket plan as the engines of this crate.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
};

use tokio::net::UdpSocket;

use super::{NicSocket, iface_map::broadcast_of};
use crate::{
    datagram::Class,
    error::{Error, Result},
    nics::{Nic, NicAddress, Nics},
    path::{
        self, FailedNic, Listen, ListenSettings, Listeners, Role, SocketLayout, SocketOptions,
        SocketPlan, SubnetSockets, Unicast,
    },
    sys::options::{PacketInfo, Requested},
};

/// How many unused ports are tried for a bundle.
const ATTEMPT_COUNT_MAX: usize = 8;

/// Which ports the sockets of a bundle have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ports {
    /// This one, shared with other programs.
    Shared(u16),
    /// An unused one per address, for unicast only: nobody could know the port to broadcast to.
    UnusedEach,
    /// The same unused one for all.
    UnusedSame,
}

impl Ports {
    pub fn of(port: u16) -> Self {
        if port == 0 { Self::UnusedEach } else { Self::Shared(port) }
    }
}

/// An open socket and what it hears.
#[derive(Debug)]
pub(super) struct Opened {
    pub nic: NicSocket,
    pub packet_info: PacketInfo,
    pub bound: SocketAddrV4,
    pub class: Option<Class>,
}

/// # Errors
///
/// `Other` where tokio would panic.
pub(super) fn require_runtime() -> io::Result<()> {
    tokio::runtime::Handle::try_current().map(drop).map_err(|_| {
        io::Error::other("no tokio runtime here: call this from one that has I/O enabled")
    })
}

/// Opens all sockets for these NICs. Returns them and the NICs that failed.
///
/// # Errors
///
/// `AddrNotAvailable` if no NIC could be bound, or for [`Ports::UnusedSame`] only loopback although
/// there are other NICs.
pub(super) fn open_all(
    nics: &Nics,
    ports: Ports,
    broadcast: bool,
) -> io::Result<(Vec<Opened>, Vec<FailedNic>)> {
    require_runtime()?;
    let plans = plans(nics, ports)?;
    let mut parked = Vec::new();
    let mut attempt_count = 0;
    let (opened, failed) = loop {
        attempt_count += 1;
        let (opened, failed) = open_once(nics, &plans, ports, broadcast);
        let met_stranger = ports == Ports::UnusedSame
            && failed.iter().any(|failed| failed.error.kind() == io::ErrorKind::AddrInUse);
        if !met_stranger || attempt_count == ATTEMPT_COUNT_MAX {
            break (opened, failed);
        }
        // Kept open: otherwise the system could choose the same port again.
        parked.push(opened);
    };
    for failed in &failed {
        tracing::warn!(error = %failed.error, "a NIC is not heard");
    }
    let is_unicast = |opened: &&Opened| !opened.nic.rx_only_bcast;
    let needs_nic = ports == Ports::UnusedSame && nics.iter().any(|nic| !nic.is_loopback);
    let is_bound = |opened: &Opened| !needs_nic || !opened.nic.is_loopback;
    if opened.iter().filter(is_unicast).any(is_bound) {
        return Ok((opened, failed));
    }
    let causes: Vec<String> = failed.iter().map(ToString::to_string).collect();
    let text = format!("no NIC that is up could be bound: {}", causes.join("; "));
    Err(io::Error::new(io::ErrorKind::AddrNotAvailable, text))
}

/// The sockets to open, NIC by NIC, for each NIC its unicast addresses first.
fn plans(nics: &Nics, ports: Ports) -> Result<Vec<SocketPlan>> {
    let mut plans = plan(nics, &ListenSettings::default(), 0)?;
    plans.retain(|plan| match plan.role {
        Role::Send { .. } | Role::Reply | Role::Spare(_) => false,
        Role::HearRest | Role::Join | Role::Unjudged => false,
        Role::HearAll | Role::Hear(Class::Unicast) => true,
        Role::Hear(_) => ports != Ports::UnusedEach,
    });
    let position = |plan: &SocketPlan| {
        let index = plan.nic.as_ref().map_or(u32::MAX, |nic| nic.index);
        let nic = nics.by_index(index);
        let own =
            nic.and_then(|nic| nic.addresses.iter().position(|own| own.address == plan.address));
        // The first socket chooses the port of all. It must not be loopback's.
        let is_late = ports == Ports::UnusedSame && nic.is_some_and(|nic| nic.is_loopback);
        (is_late, index, plan.role, own)
    };
    plans.sort_by_key(position);
    Ok(plans)
}

fn plan(nics: &Nics, settings: &ListenSettings, port: u16) -> Result<Vec<SocketPlan>> {
    let layout = SocketLayout::of_system(Listen::Class, false, nics)?;
    let subnet_sockets = SubnetSockets::AtHome;
    let spare_sender_count = 0;
    Ok(Listeners { settings, layout, nics, selected: nics, subnet_sockets, spare_sender_count }
        .plan(port))
}

fn open_once(
    nics: &Nics,
    plans: &[SocketPlan],
    ports: Ports,
    broadcast: bool,
) -> (Vec<Opened>, Vec<FailedNic>) {
    let (mut opened, mut failed) = (Vec::<Opened>::new(), Vec::new());
    for plan in plans {
        let port = match (ports, opened.first()) {
            (Ports::Shared(port), _) => port,
            (Ports::UnusedSame, Some(first)) => first.bound.port(),
            _ => 0,
        };
        let is_shared = matches!(ports, Ports::Shared(_));
        match open(nics, plan, port, is_shared, broadcast) {
            Ok(socket) => opened.push(socket),
            Err(error) => {
                let address = SocketAddrV4::new(plan.address, port);
                failed.push(FailedNic::new(plan.nic.clone(), address, error));
            }
        }
    }
    (opened, failed)
}

/// Opens the socket for unicast to one address.
pub(super) fn open_single(
    nics: &Nics,
    address: Ipv4Addr,
    port: u16,
    broadcast: bool,
) -> io::Result<Opened> {
    require_runtime()?;
    let mut plans = plans(nics, Ports::UnusedEach)?;
    plans.retain(|plan| plan.address == address);
    Ok(open(nics, &plans[0], port, port != 0, broadcast)?)
}

/// Opens the sockets that hear a group at `port`.
pub(super) fn open_group(
    nics: &Nics,
    group: Ipv4Addr,
    port: u16,
    is_shared: bool,
) -> Result<Vec<Result<Opened>>> {
    let settings = ListenSettings {
        joins: vec![group.into()],
        unicast: Unicast::Leave,
        ..ListenSettings::default()
    };
    let mut plans = plan(nics, &settings, port)?;
    plans.retain(|plan| plan.joins(group));
    Ok(plans.iter().map(|plan| open(nics, plan, port, is_shared, false)).collect())
}

fn open(
    nics: &Nics,
    plan: &SocketPlan,
    port: u16,
    is_shared: bool,
    broadcast: bool,
) -> Result<Opened> {
    let with = SocketOptions {
        is_shared,
        may_broadcast: broadcast,
        recv_buffer_bytes: None,
        send_buffer_bytes: None,
        requested: Requested::default(),
        multicast: None,
        part: None,
        wants_drop_counts: true,
    };
    let open = path::open(plan, port, &with, &[])?;
    open.join_groups(plan)?;
    let bound = SocketAddrV4::new(plan.address, open.port);
    let watched = UdpSocket::from_std(open.socket.into()).map_err(|source| Error::Socket {
        operation: "having tokio watch",
        nic: plan.nic_name(),
        address: bound,
        source,
    })?;
    Ok(Opened {
        nic: nic_socket(nics, plan, Arc::new(watched)),
        packet_info: open.packet_info,
        bound,
        class: match plan.role {
            Role::Hear(class) => Some(class),
            _ => None,
        },
    })
}

fn nic_socket(nics: &Nics, plan: &SocketPlan, sock: Arc<UdpSocket>) -> NicSocket {
    let hears_broadcast = |nic: &&Nic| nic.broadcasts.contains(&plan.address);
    let ifindex = plan.nic_index();
    // A socket that is not bound to a device hears for several NICs. One of them stands for all.
    let nic = (nics.iter().find(|nic| plan.nic.is_some() && nic.index == ifindex))
        .or_else(|| nics.iter().find(hears_broadcast))
        .or_else(|| nics.iter().find(|nic| !nic.is_loopback))
        .or_else(|| nics.iter().next());
    let own = nic.and_then(|nic| {
        let addressed =
            |own: &&NicAddress| own.address == plan.address || own.has_broadcast(plan.address);
        nic.addresses.iter().find(addressed).or(nic.addresses.first())
    });
    let is_loopback = nic.is_some_and(|nic| nic.is_loopback);
    NicSocket {
        sock,
        iface_ip: own.map_or(plan.address, |own| own.address),
        ifindex,
        netmask: own.map_or(Ipv4Addr::BROADCAST, |own| own.netmask),
        broadcast: nic.zip(own).and_then(|(nic, own)| broadcast_of(nic, own)),
        is_loopback,
        rx_only_bcast: !matches!(plan.role, Role::HearAll | Role::Hear(Class::Unicast)),
    }
}

/// The addresses of `nics` that the bundle can answer from.
pub(super) fn own_addresses(nics: &Nics, opened: &[Opened]) -> Nics {
    let is_open = |nic: &Nic, own: &NicAddress| {
        let mut unicast = opened.iter().filter(|opened| !opened.nic.rx_only_bcast);
        unicast.any(|opened| opened.nic.ifindex == nic.index && opened.nic.iface_ip == own.address)
    };
    let open = |nic: &Nic| {
        let mut open = nic.clone();
        open.addresses.retain(|own| is_open(nic, own));
        open
    };
    nics.iter().map(open).collect()
}
