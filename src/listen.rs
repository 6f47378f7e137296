//! Which sockets listen for a NIC, and with which options.
//!
//! [`plan`] is pure; [`ListenSocket::open`] does what it says. Why one socket a class a NIC:
//! [the guide](crate::guide#one-socket-a-class-a-nic).

#[cfg(all(target_os = "linux", feature = "udp-v4"))]
mod over;

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddrV4},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use socket2::Socket;

use crate::{
    drops::DropCount,
    error::{Error, Result},
    lock::lock,
    meta::Class,
    nics::{Nic, NicAddress, NicFilter, Nics},
    options,
    stats::{NicCounters, StatsTable},
};

/// Which sockets hear the datagrams of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Listen {
    /// [`Listen::Class`] where sockets may be bound to devices, else [`Listen::Wildcard`] for
    /// [`Unicast::Take`] and class sockets without devices for [`Unicast::Leave`].
    #[default]
    Auto,
    /// One socket a class a NIC: an address-bound one for unicast, device-bound ones for subnet
    /// broadcast, limited broadcast and each group. Binding to a device needs no privilege since
    /// Linux 5.7
    /// ([c427bfec18f2](https://git.kernel.org/torvalds/c/c427bfec18f2)), CAP_NET_RAW before.
    Class,
    /// One socket on 0.0.0.0 for everything, the NIC told by `IP_PKTINFO`.
    Wildcard,
}

/// Whether the engine hears datagrams to the unicast addresses of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unicast {
    /// Yes. A server on 0.0.0.0 of the same host and port then gets none of them any more.
    #[default]
    Take,
    /// No: they are left to the other servers of this host.
    Leave,
}

/// What to do about a NIC whose sockets cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailedNic {
    /// Opening the engine fails with an error that names the NIC.
    #[default]
    Fail,
    /// A warning is logged, the NIC stays unheard, and
    /// [`Handle::failed_nics`](crate::Handle::failed_nics) tells.
    Warn,
}

/// The settings that decide which sockets there are.
#[derive(Debug, Clone)]
pub(crate) struct ListenSettings {
    pub ports: Vec<u16>,
    pub groups: Vec<Ipv4Addr>,
    pub chosen: Vec<NicFilter>,
    pub excluded: Vec<NicFilter>,
    pub listen: Listen,
    pub unicast: Unicast,
    pub on_failed_nic: OnFailedNic,
    pub is_exclusive: bool,
    pub recv_buffer_bytes: usize,
    pub wants_kernel_time: bool,
}

impl ListenSettings {
    /// The NICs to listen on, each with the addresses to listen at.
    pub fn select(&self, nics: &Nics) -> Nics {
        let is_chosen = |nic: &Nic, own: &NicAddress| {
            let any = |filters: &[NicFilter]| filters.iter().any(|filter| filter.matches(nic, own));
            (self.chosen.is_empty() || any(&self.chosen)) && !any(&self.excluded)
        };
        let select = |nic: &Nic| {
            let mut selected = nic.clone();
            selected.addresses.retain(|own| is_chosen(nic, own));
            (nic.is_up && !selected.addresses.is_empty()).then_some(selected)
        };
        nics.iter().filter_map(select).collect()
    }
}

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Role {
    /// Hears one class.
    Hear(Class),
    /// Hears every class; the destination tells which.
    HearAll,
    /// Hears nothing; sends what leaves by the kernel's route.
    Send,
}

/// A socket that should exist, for one port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Wanted {
    pub role: Role,
    pub address: Ipv4Addr,
    /// Name and index of the NIC that it listens for; `None` for all of them.
    pub nic: Option<(String, u32)>,
    /// Whether it is bound to that NIC's device.
    pub is_device_bound: bool,
    /// The groups to join, and the indexes of the NICs to join them on.
    pub joins: Vec<(Ipv4Addr, u32)>,
}

impl Wanted {
    fn new(role: Role, address: Ipv4Addr) -> Self {
        Self { role, address, nic: None, is_device_bound: false, joins: Vec::new() }
    }

    /// Whether the same socket serves both, once it has joined what it has to.
    pub fn differs_at_most_in_joins(&self, other: &Self) -> bool {
        let key = |wanted: &Self| (wanted.role, wanted.address, wanted.is_device_bound);
        key(self) == key(other) && self.nic == other.nic
    }

    /// The destination and the interface of all that it hears, where its bindings leave no other:
    /// what the kernel need not tell with each datagram.
    pub fn tells_arrival(&self) -> Option<(Ipv4Addr, u32)> {
        let (_, index) = self.nic.as_ref().filter(|_| self.is_device_bound)?;
        Some((self.address, *index))
    }

    /// Whether it joins this group on some NIC.
    pub fn joins(&self, group: Ipv4Addr) -> bool {
        self.joins.iter().any(|(joined, _)| *joined == group)
    }

    fn nic_name(&self) -> &str {
        self.nic.as_ref().map_or("all NICs", |nic| &nic.0)
    }
}

/// How the sockets are laid out once [`Listen::Auto`] has been decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One socket a class a NIC.
    ClassByDevice,
    /// One socket a class, for all NICs.
    ClassWithoutDevice,
    /// One socket an address, which hears broadcasts too, as on Windows.
    ByAddress,
    Wildcard,
}

impl Layout {
    /// The layout for this system.
    pub fn of_system(listen: Listen, unicast: Unicast) -> Result<Self> {
        if options::SENDS_FROM_OTHER_ADDRESSES {
            return Self::choose(listen, unicast, options::can_bind_device());
        }
        match (listen, unicast) {
            (Listen::Wildcard, Unicast::Leave) => Self::choose(listen, unicast, false),
            (_, Unicast::Leave) => Err(Error::setting(
                "unicast",
                "this system answers from sockets that take unicasts: use Unicast::Take",
            )),
            _ if options::BINDS_BROADCAST_ADDRESSES => Self::choose(listen, unicast, false),
            (Listen::Wildcard, _) => Err(Error::setting(
                "listen",
                "a wildcard socket of this system does not say which address it answers from: use \
                 Listen::Class",
            )),
            _ => Ok(Self::ByAddress),
        }
    }

    fn choose(listen: Listen, unicast: Unicast, can_bind_device: bool) -> Result<Self> {
        match (listen, unicast, can_bind_device) {
            (Listen::Auto | Listen::Class, _, true) => Ok(Self::ClassByDevice),
            (Listen::Auto, Unicast::Leave, false) | (Listen::Class, _, false) => {
                Ok(Self::ClassWithoutDevice)
            }
            (Listen::Auto, Unicast::Take, false) | (Listen::Wildcard, Unicast::Take, _) => {
                Ok(Self::Wildcard)
            }
            (Listen::Wildcard, Unicast::Leave, _) => Err(Error::setting(
                "listen",
                "a wildcard socket takes unicasts: use Listen::Class to leave them to others",
            )),
        }
    }

    /// What the user calls it.
    pub fn listen(self) -> Listen {
        match self {
            Self::ClassByDevice | Self::ClassWithoutDevice | Self::ByAddress => Listen::Class,
            Self::Wildcard => Listen::Wildcard,
        }
    }
}

/// An address that no group ever has (RFC 1112, section 4): a socket bound to it hears nothing,
/// takes nothing from anyone, is bound to no device, and still sends from the port.
const NO_GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 0);

/// The sockets for one port.
pub(crate) fn plan(
    selected: &Nics,
    groups: &[Ipv4Addr],
    unicast: Unicast,
    layout: Layout,
) -> Vec<Wanted> {
    if layout == Layout::Wildcard {
        let mut wildcard = Wanted::new(Role::HearAll, Ipv4Addr::UNSPECIFIED);
        wildcard.joins = joins(selected, groups);
        return vec![wildcard];
    }
    if layout == Layout::ByAddress {
        return selected.iter().flat_map(|nic| by_address(nic, groups)).collect();
    }
    let mut wanted = vec![Wanted::new(Role::Send, NO_GROUP)];
    for nic in selected {
        if unicast == Unicast::Take {
            for own in &nic.addresses {
                let mut socket = Wanted::new(Role::Hear(Class::Unicast), own.address);
                socket.nic = Some((nic.name.clone(), nic.index));
                wanted.push(socket);
            }
        }
        for (class, address) in broadcasts(nic) {
            let mut socket = Wanted::new(Role::Hear(class), address);
            if layout == Layout::ClassByDevice {
                socket.nic = Some((nic.name.clone(), nic.index));
                socket.is_device_bound = true;
            }
            wanted.push(socket);
        }
        for &group in groups {
            let mut socket = Wanted::new(Role::Hear(Class::Group), group);
            if layout == Layout::ClassByDevice {
                socket.nic = Some((nic.name.clone(), nic.index));
                socket.is_device_bound = true;
                socket.joins = vec![(group, nic.index)];
            } else {
                socket.joins = joins(selected, &[group]);
            }
            wanted.push(socket);
        }
    }
    // Without devices several NICs want the same socket; with aliases one NIC does.
    wanted.sort();
    wanted.dedup();
    wanted
}

fn by_address(nic: &Nic, groups: &[Ipv4Addr]) -> impl Iterator<Item = Wanted> {
    nic.addresses.iter().enumerate().map(|(position, own)| {
        let mut socket = Wanted::new(Role::HearAll, own.address);
        socket.nic = Some((nic.name.clone(), nic.index));
        if position == 0 {
            socket.joins = groups.iter().map(|group| (*group, nic.index)).collect();
        }
        socket
    })
}

fn joins(selected: &Nics, groups: &[Ipv4Addr]) -> Vec<(Ipv4Addr, u32)> {
    let on_every_nic = |&group: &Ipv4Addr| selected.iter().map(move |nic| (group, nic.index));
    groups.iter().flat_map(on_every_nic).collect()
}

fn broadcasts(nic: &Nic) -> impl Iterator<Item = (Class, Ipv4Addr)> {
    let subnets = nic.addresses.iter().filter_map(|own| own.broadcast);
    subnets
        .map(|broadcast| (Class::Subnet, broadcast))
        .chain([(Class::Limited, Ipv4Addr::BROADCAST)])
}

static OPENED_COUNT: AtomicU32 = AtomicU32::new(0);

/// An open socket of an engine.
#[derive(Debug)]
pub(crate) struct ListenSocket {
    pub socket: Socket,
    #[allow(dead_code, reason = "nothing but on Windows")]
    pub packet_info: options::PacketInfo,
    pub wanted: Wanted,
    pub port: u16,
    pub counters: Arc<NicCounters>,
    /// No other socket of this process has it.
    pub number: u32,
    /// What it has joined by now.
    joins: Mutex<Vec<(Ipv4Addr, u32)>>,
    drops: DropCount,
}

impl ListenSocket {
    /// Opens, binds and joins. Port 0 asks for an unused one, shared with nobody.
    pub fn open(
        wanted: &Wanted,
        port: u16,
        settings: &ListenSettings,
        is_exclusive: bool,
        stats: &StatsTable,
    ) -> Result<Self> {
        let address = SocketAddrV4::new(wanted.address, port);
        let failed = |operation| {
            move |source| Error::Socket {
                operation,
                nic: wanted.nic_name().to_owned(),
                address,
                source,
            }
        };
        let (socket, packet_info) =
            options::new_socket().map_err(failed("opening a socket for"))?;
        socket.set_nonblocking(true).map_err(failed("making non-blocking the socket for"))?;
        if !is_exclusive {
            options::share_port(&socket).map_err(failed("sharing the port of"))?;
        }
        let set_options = || -> io::Result<()> {
            socket.set_broadcast(true)?;
            if wanted.role != Role::HearAll {
                options::hear_own_groups_alone(&socket)?;
            }
            let arrival = wanted.tells_arrival().is_none();
            let asked = options::Asked { arrival, time: settings.wants_kernel_time };
            options::ask_for_control_messages(&socket, asked)?;
            options::grow_recv_buffer(&socket, settings.recv_buffer_bytes)?;
            options::fit_send_buffer(&socket)
        };
        set_options().map_err(failed("setting options for"))?;
        if let (Some((name, index)), true) = (&wanted.nic, wanted.is_device_bound) {
            options::bind_device(&socket, name, *index)
                .map_err(failed("binding to the device for"))?;
        }
        options::bind(&socket, address).map_err(failed("binding"))?;
        for &join in &wanted.joins {
            join_group(&socket, join, wanted.address).map_err(failed("joining the group of"))?;
        }
        if wanted.role == Role::HearAll && !wanted.address.is_unspecified() {
            // What it sends to a group leaves by its own NIC.
            socket
                .set_multicast_if_v4(&wanted.address)
                .map_err(failed("choosing the NIC for groups of"))?;
        }
        let bound = socket.local_addr().map_err(failed("asking for the port of"))?;
        Ok(Self {
            socket,
            packet_info,
            wanted: wanted.clone(),
            port: bound.as_socket_ipv4().map_or(port, |bound| bound.port()),
            counters: match &wanted.nic {
                Some((name, index)) => stats.nic(*index, name),
                None => stats.nowhere(),
            },
            number: OPENED_COUNT.fetch_add(1, Relaxed),
            joins: Mutex::new(wanted.joins.clone()),
            drops: DropCount::default(),
        })
    }

    /// Joins and leaves groups until they are those of `wanted`; loses nothing meanwhile.
    pub fn follow(&self, wanted: &[(Ipv4Addr, u32)]) -> io::Result<()> {
        let mut joins = lock(&self.joins);
        joins.retain(|join| {
            let stays = wanted.contains(join);
            if !stays {
                // A NIC that is gone took the membership along.
                let nic = options::membership(join.1, self.wanted.address);
                let _ = self.socket.leave_multicast_v4_n(&join.0, &nic);
            }
            stays
        });
        for &join in wanted {
            if !joins.contains(&join) {
                join_group(&self.socket, join, self.wanted.address)?;
                joins.push(join);
            }
        }
        Ok(())
    }

    /// Notes the kernel's cumulative drop count of this socket, as a control message or
    /// `SO_MEMINFO` told it.
    pub fn note_drop_count(&self, drop_count: u32) {
        let added_count = self.drops.note(drop_count);
        if added_count > 0 {
            let counter = &self.counters.counters.kernel_drop_count;
            counter.fetch_add(u64::from(added_count), Relaxed);
        }
    }

    /// Asks the kernel for drops that no datagram has told of yet.
    pub fn refresh_drop_count(&self) {
        if let Some(drop_count) = options::kernel_drop_count(&self.socket) {
            self.note_drop_count(drop_count);
        }
    }
}

impl fmt::Display for ListenSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hears = match self.wanted.role {
            Role::Hear(class) => class.to_string(),
            Role::HearAll => "every class".to_owned(),
            Role::Send => "nothing (sends by route)".to_owned(),
        };
        let (nic, address, port) = (self.wanted.nic_name(), self.wanted.address, self.port);
        let device = if self.wanted.is_device_bound { ", bound to the device" } else { "" };
        write!(f, "{nic}: {address}:{port}{device}: {hears}")
    }
}

fn join_group(socket: &Socket, (group, index): (Ipv4Addr, u32), bound: Ipv4Addr) -> io::Result<()> {
    socket.join_multicast_v4_n(&group, &options::membership(index, bound))
}

/// How often a set of sockets is tried again on another unused port.
const UNUSED_PORT_ATTEMPT_MAX: usize = 8;

/// Opens the sockets for one port; returns those that failed on a NIC beside the open ones.
///
/// # Errors
///
/// The first failure, unless the settings say that a NIC may fail. It is an error too when no
/// socket that hears is left.
pub(crate) fn open_port(
    wanted: &[Wanted],
    port: u16,
    settings: &ListenSettings,
    stats: &StatsTable,
) -> Result<(Vec<ListenSocket>, Vec<Error>)> {
    let mut attempt_count = 0;
    loop {
        attempt_count += 1;
        match open_all(wanted, port, settings, stats) {
            // Port 0: another socket of this set met a stranger on the port of the first.
            Err(error)
                if port == 0
                    && error.kind() == io::ErrorKind::AddrInUse
                    && attempt_count < UNUSED_PORT_ATTEMPT_MAX => {}
            result => return result,
        }
    }
}

fn open_all(
    wanted: &[Wanted],
    port: u16,
    settings: &ListenSettings,
    stats: &StatsTable,
) -> Result<(Vec<ListenSocket>, Vec<Error>)> {
    let is_exclusive = settings.is_exclusive || port == 0;
    let mut bound_port = port;
    let mut sockets: Vec<ListenSocket> = Vec::with_capacity(wanted.len());
    let mut failures = Vec::new();
    for wanted in wanted {
        match ListenSocket::open(wanted, bound_port, settings, is_exclusive, stats) {
            Ok(socket) => {
                bound_port = socket.port;
                sockets.push(socket);
            }
            Err(error) if settings.on_failed_nic == OnFailedNic::Warn && port != 0 => {
                tracing::warn!(%error, "a NIC stays unheard");
                failures.push(error);
            }
            Err(error) => return Err(error),
        }
    }
    let hears = sockets.iter().any(|socket| socket.wanted.role != Role::Send);
    match failures.pop() {
        Some(last) if !hears => Err(last),
        last => {
            failures.extend(last);
            Ok((sockets, failures))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nics::samples::nic;

    fn summary(wanted: &[Wanted]) -> Vec<String> {
        let one = |wanted: &Wanted| {
            let device = if wanted.is_device_bound { wanted.nic_name() } else { "-" };
            format!("{:?} {} {device}", wanted.role, wanted.address)
        };
        wanted.iter().map(one).collect()
    }

    #[test]
    fn an_alias_shares_the_sockets_of_its_nic() {
        let nics = Nics::from_iter([nic("a", 2, &[("10.1.0.1", 24), ("10.1.0.2", 24)])]);
        let wanted = plan(&nics, &[], Unicast::Take, Layout::ClassByDevice);
        assert_eq!(
            summary(&wanted),
            [
                "Hear(Unicast) 10.1.0.1 -",
                "Hear(Unicast) 10.1.0.2 -",
                "Hear(Subnet) 10.1.0.255 a",
                "Hear(Limited) 255.255.255.255 a",
                "Send 224.0.0.0 -",
            ]
        );
    }

    #[test]
    fn a_nic_without_a_broadcast_address_still_hears_the_limited_one_and_groups() {
        let nics = Nics::from_iter([nic("p", 3, &[("10.9.0.1", 32)])]);
        let group = Ipv4Addr::new(224, 0, 0, 128);
        let wanted = plan(&nics, &[group], Unicast::Leave, Layout::ClassByDevice);
        assert_eq!(
            summary(&wanted),
            ["Hear(Limited) 255.255.255.255 p", "Hear(Group) 224.0.0.128 p", "Send 224.0.0.0 -",]
        );
        assert_eq!(wanted[1].joins, [(group, 3)]);
    }

    #[test]
    fn without_devices_nics_on_one_subnet_share_the_broadcast_sockets() {
        let nics =
            Nics::from_iter([nic("a", 2, &[("10.1.0.1", 24)]), nic("b", 3, &[("10.1.0.2", 24)])]);
        let group = Ipv4Addr::new(239, 1, 1, 1);
        let wanted = plan(&nics, &[group], Unicast::Leave, Layout::ClassWithoutDevice);
        assert_eq!(
            summary(&wanted),
            [
                "Hear(Subnet) 10.1.0.255 -",
                "Hear(Limited) 255.255.255.255 -",
                "Hear(Group) 239.1.1.1 -",
                "Send 224.0.0.0 -",
            ]
        );
        assert_eq!(wanted[2].joins, [(group, 2), (group, 3)]);
    }

    #[test]
    fn where_addresses_hear_broadcasts_each_has_one_socket_and_groups_are_joined_once() {
        let nics = Nics::from_iter([nic("a", 2, &[("10.1.0.1", 24), ("10.1.0.2", 24)])]);
        let group = Ipv4Addr::new(239, 1, 1, 1);
        let wanted = plan(&nics, &[group], Unicast::Take, Layout::ByAddress);
        assert_eq!(summary(&wanted), ["HearAll 10.1.0.1 -", "HearAll 10.1.0.2 -"]);
        assert_eq!((wanted[0].joins.len(), wanted[1].joins.len()), (1, 0));
    }

    #[test]
    fn auto_never_takes_unicasts_that_were_to_be_left() {
        use {Layout::*, Unicast::*};
        let choose = |listen, unicast, device| Layout::choose(listen, unicast, device).ok();
        assert_eq!(choose(Listen::Auto, Take, true), Some(ClassByDevice));
        assert_eq!(choose(Listen::Auto, Leave, true), Some(ClassByDevice));
        assert_eq!(choose(Listen::Auto, Take, false), Some(Wildcard));
        assert_eq!(choose(Listen::Auto, Leave, false), Some(ClassWithoutDevice));
        assert_eq!(choose(Listen::Wildcard, Take, true), Some(Wildcard));
        assert_eq!(choose(Listen::Wildcard, Leave, true), None);
    }
}
