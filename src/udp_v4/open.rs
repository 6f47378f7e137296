//! Opens the sockets of a bundle, by the plan that every engine of this crate follows.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
};

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use super::{FailedNic, NicSocket, inbox::Home, platform};
use crate::{
    listen::{Layout, Listen, Role, Unicast, Wanted, plan},
    meta::Class,
    nics::{Nic, Nics},
    options,
};

/// How often a bundle is tried on another unused port.
const ATTEMPT_COUNT_MAX: usize = 8;

/// Which ports the sockets of a bundle have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ports {
    /// This one, shared with other programs.
    Shared(u16),
    /// An unused one for each address, for unicast alone: nobody knows where to broadcast to.
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

/// All sockets for these NICs, and those that failed.
///
/// # Errors
///
/// `AddrNotAvailable` if no NIC is left, or none but loopback where there are others.
pub(super) fn open_all(
    nics: &Nics,
    ports: Ports,
    broadcast: bool,
) -> io::Result<(Vec<Opened>, Vec<FailedNic>)> {
    require_runtime()?;
    let wanted = wanted(nics, ports)?;
    let mut parked = Vec::new();
    let mut attempt_count = 0;
    let (opened, failed) = loop {
        attempt_count += 1;
        let (opened, failed) = open_once(nics, &wanted, ports, broadcast);
        let met_stranger = ports == Ports::UnusedSame
            && failed.iter().any(|failed| failed.error.kind() == io::ErrorKind::AddrInUse);
        if !met_stranger || attempt_count == ATTEMPT_COUNT_MAX {
            break (opened, failed);
        }
        // Kept open, lest the system chooses the same port again.
        parked.push(opened);
    };
    for failed in &failed {
        tracing::warn!(nic = failed.name, address = %failed.address, error = %failed.error,
            "a NIC is not heard");
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

/// What to open, NIC by NIC, each with its unicast addresses first.
fn wanted(nics: &Nics, ports: Ports) -> io::Result<Vec<Wanted>> {
    let layout = Layout::of_system(Listen::Class, Unicast::Take)?;
    let mut wanted = plan(nics, &[], Unicast::Take, layout);
    wanted.retain(|wanted| match wanted.role {
        Role::Send => false,
        Role::HearAll | Role::Hear(Class::Unicast) => true,
        Role::Hear(_) => ports != Ports::UnusedEach,
    });
    let position = |wanted: &Wanted| {
        let index = wanted.nic.as_ref().map_or(u32::MAX, |nic| nic.1);
        let addresses = nics.by_index(index).map(|nic| nic.addresses.iter());
        let own = addresses.and_then(|mut own| own.position(|own| own.address == wanted.address));
        // The port of all is chosen by a NIC, not by loopback.
        let is_late =
            ports == Ports::UnusedSame && nics.by_index(index).is_some_and(|nic| nic.is_loopback);
        (is_late, index, wanted.role, own)
    };
    wanted.sort_by_key(position);
    Ok(wanted)
}

fn open_once(
    nics: &Nics,
    wanted: &[Wanted],
    ports: Ports,
    broadcast: bool,
) -> (Vec<Opened>, Vec<FailedNic>) {
    let (mut opened, mut failed) = (Vec::<Opened>::new(), Vec::new());
    for wanted in wanted {
        let port = match (ports, opened.first()) {
            (Ports::Shared(port), _) => port,
            (Ports::UnusedSame, Some(first)) => first.bound.port(),
            _ => 0,
        };
        let is_shared = matches!(ports, Ports::Shared(_));
        match open(nics, wanted, port, is_shared, broadcast) {
            Ok(socket) => opened.push(socket),
            Err(error) => failed.push(FailedNic {
                name: wanted.nic.as_ref().map_or("all NICs", |nic| &nic.0).to_owned(),
                address: wanted.address,
                error,
            }),
        }
    }
    (opened, failed)
}

/// The socket for unicast to one address.
pub(super) fn open_single(
    nics: &Nics,
    address: Ipv4Addr,
    port: u16,
    broadcast: bool,
) -> io::Result<Opened> {
    require_runtime()?;
    let mut wanted = wanted(nics, Ports::UnusedEach)?;
    wanted.retain(|wanted| wanted.address == address);
    open(nics, &wanted[0], port, port != 0, broadcast)
}

/// The sockets that hear a group at `port`.
pub(super) fn open_group(
    nics: &Nics,
    group: Ipv4Addr,
    port: u16,
    is_shared: bool,
) -> io::Result<Vec<io::Result<Opened>>> {
    let layout = Layout::of_system(Listen::Class, Unicast::Take)?;
    let mut wanted = plan(nics, &[group], Unicast::Leave, layout);
    wanted.retain(|wanted| wanted.joins(group));
    Ok(wanted.iter().map(|wanted| open(nics, wanted, port, is_shared, false)).collect())
}

fn open(
    nics: &Nics,
    wanted: &Wanted,
    port: u16,
    is_shared: bool,
    broadcast: bool,
) -> io::Result<Opened> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if is_shared {
        options::share_port(&socket)?;
    }
    socket.set_broadcast(broadcast)?;
    options::hear_own_groups_alone(&socket)?;
    let asked = options::Asked { arrival: wanted.tells_arrival().is_none(), time: false };
    options::ask_for_control_messages(&socket, asked)?;
    platform::tell_drops(&socket)?;
    if let (Some((name, index)), true) = (&wanted.nic, wanted.is_device_bound) {
        options::bind_device(&socket, name, *index)?;
    }
    socket.bind(&SocketAddrV4::new(wanted.address, port).into())?;
    for (group, index) in &wanted.joins {
        socket.join_multicast_v4_n(group, &InterfaceIndexOrAddress::Index(*index))?;
    }
    let bound = socket.local_addr()?.as_socket_ipv4();
    let class = match wanted.role {
        Role::Hear(class) => Some(class),
        Role::HearAll | Role::Send => None,
    };
    let sock = Arc::new(UdpSocket::from_std(socket.into())?);
    Ok(Opened {
        nic: nic_socket(nics, wanted, sock),
        bound: bound.unwrap_or(SocketAddrV4::new(wanted.address, port)),
        class,
    })
}

fn nic_socket(nics: &Nics, wanted: &Wanted, sock: Arc<UdpSocket>) -> NicSocket {
    let hears_broadcast =
        |nic: &&Nic| nic.addresses.iter().any(|own| own.broadcast == Some(wanted.address));
    let ifindex = wanted.nic.as_ref().map_or(0, |nic| nic.1);
    // Without devices a socket hears for several; then one of them stands for all.
    let nic = (nics.iter().find(|nic| wanted.nic.is_some() && nic.index == ifindex))
        .or_else(|| nics.iter().find(hears_broadcast))
        .or_else(|| nics.iter().find(|nic| !nic.is_loopback))
        .or_else(|| nics.iter().next());
    let own = nic.and_then(|nic| {
        let addressed = |own: &&crate::NicAddress| {
            own.address == wanted.address || own.broadcast == Some(wanted.address)
        };
        nic.addresses.iter().find(addressed).or(nic.addresses.first())
    });
    let is_loopback = nic.is_some_and(|nic| nic.is_loopback);
    NicSocket {
        sock,
        iface_ip: own.map_or(wanted.address, |own| own.address),
        ifindex,
        netmask: own.map_or(Ipv4Addr::BROADCAST, |own| own.netmask),
        broadcast: own.and_then(|own| own.broadcast).filter(|_| !is_loopback),
        is_loopback,
        rx_only_bcast: !matches!(wanted.role, Role::HearAll | Role::Hear(Class::Unicast)),
    }
}

/// Where the bundle can answer from.
pub(super) fn homes(opened: &[Opened]) -> Vec<Home> {
    let unicast = opened.iter().filter(|opened| !opened.nic.rx_only_bcast);
    let home = |opened: &Opened| Home {
        iface_ip: opened.nic.iface_ip,
        netmask: opened.nic.netmask,
        broadcast: opened.nic.broadcast,
        ifindex: opened.nic.ifindex,
    };
    unicast.map(home).collect()
}
