//! Which sockets there should be. Pure functions over a snapshot of the NICs.

use std::net::Ipv4Addr;

use super::settings::{Listen, ListenSettings};
use crate::{
    datagram::Class,
    error::{Error, Result},
    nics::{Nic, NicAddress, NicId, Nics, Subnet},
    platform,
    sys::options,
};

/// How texts name what is for no NIC alone.
pub(super) const ALL_NICS: &str = "all NICs";

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Role {
    /// Hears one class.
    Hear(Class),
    /// Hears every class. The destination of a datagram tells its class.
    HearAll,
    /// Hears nothing; sends what answers nothing. It alone may send to broadcast addresses.
    Send {
        /// Whether this host hears what is sent to groups.
        multicast_loop: bool,
    },
    /// Hears nothing; sends the answers to what came in by its NIC.
    Reply,
    /// Hears nothing; sends what another sender has no room for, to some of the destinations.
    Spare(u8),
    /// Hears the unicasts that no socket with an address of its own hears. A plan has it last:
    /// where ports are not shared, it needs the consent of the sockets that are bound before.
    HearRest,
    /// Hears nothing, and is bound to nothing: it keeps the host in groups.
    Join,
    /// Hears for an owner that decides by itself: nothing is dropped, classified or counted here.
    #[allow(dead_code, reason = "for sockets that were adopted, which only Linux has")]
    Unjudged,
}

/// A socket that should exist, for one port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SocketPlan {
    pub role: Role,
    pub address: Ipv4Addr,
    /// The NIC that it listens for; `None` for all of them.
    pub nic: Option<NicId>,
    /// Whether it is bound to that NIC's device.
    pub is_device_bound: bool,
    /// The groups to join, and the indexes of the NICs to join them on.
    pub joins: Vec<(Ipv4Addr, u32)>,
}

impl SocketPlan {
    pub fn new(role: Role, address: Ipv4Addr) -> Self {
        Self { role, address, nic: None, is_device_bound: false, joins: Vec::new() }
    }

    pub(super) fn of(nic: &Nic, role: Role, address: Ipv4Addr) -> Self {
        Self { nic: Some(nic.id()), ..Self::new(role, address) }
    }

    /// Bound to the device of the NIC.
    pub(super) fn on(nic: &Nic, role: Role, address: Ipv4Addr) -> Self {
        Self { is_device_bound: true, ..Self::of(nic, role, address) }
    }

    /// What tells it from other plans for the same port. A socket serves every plan with its key,
    /// once it has joined the groups that it needs: a NIC that has another name is still the same.
    pub fn key(&self) -> SocketPlanKey {
        let nic = self.nic.as_ref().map(|nic| (nic.index, nic.predecessor_count));
        (self.role, self.address, nic, self.is_device_bound)
    }

    /// Destination and interface if the bindings fix both; the kernel then need not report them.
    pub fn fixed_arrival(&self) -> Option<(Ipv4Addr, u32)> {
        let is_fixed = self.is_device_bound && !self.address.is_unspecified();
        is_fixed.then_some((self.address, self.nic_index()))
    }

    /// Whether it joins this group on some NIC.
    pub fn joins(&self, group: Ipv4Addr) -> bool {
        self.joins.iter().any(|(joined, _)| *joined == group)
    }

    /// Whether it hears anything.
    pub fn hears(&self) -> bool {
        !matches!(self.role, Role::Send { .. } | Role::Reply | Role::Spare(_) | Role::Join)
    }

    /// Whether it hears broadcasts or a group, which every socket at the address gets a copy of.
    pub fn is_broadcast(&self) -> bool {
        matches!(self.role, Role::Hear(class) if class != Class::Unicast)
    }

    /// Whether the engine sends by it.
    pub fn sends(&self) -> bool {
        let is_sender = matches!(self.role, Role::Send { .. } | Role::Reply | Role::Spare(_));
        is_sender || !platform::HAS_SENDERS && self.hears()
    }

    /// The index of its NIC; 0 if it is for all of them.
    pub fn nic_index(&self) -> u32 {
        self.nic.as_ref().map_or(0, |nic| nic.index)
    }

    /// The name of its NIC, for texts.
    pub fn nic_name(&self) -> String {
        self.nic.as_ref().map_or_else(|| ALL_NICS.to_owned(), NicId::to_string)
    }
}

/// See [`SocketPlan::key`].
pub(crate) type SocketPlanKey = (Role, Ipv4Addr, Option<(u32, u32)>, bool);

/// How the sockets are laid out, after [`Listen::Auto`] has been decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SocketLayout {
    /// One socket per class and NIC.
    ClassByDevice,
    /// One socket per class, for all NICs.
    ClassWithoutDevice,
    /// One socket per address, which hears broadcasts too, as on Windows.
    ByAddress,
    /// One socket for everything.
    Wildcard,
}

impl SocketLayout {
    /// The layout for this system with these NICs. `leaves` says whether any unicasts are to be
    /// left to others.
    pub fn of_system(listen: Listen, leaves: bool, nics: &Nics) -> Result<Self> {
        if platform::SENDS_FROM_OTHER_ADDRESSES {
            return Self::choose(listen, leaves, options::can_bind_device(nics));
        }
        match (listen, leaves) {
            (Listen::Wildcard, true) => Self::choose(listen, leaves, false),
            (_, true) => Err(Error::setting(
                "unicast",
                "this system answers from sockets that take unicasts: use Unicast::Take, and no \
                 Builder::leave_unicast",
            )),
            _ if platform::BINDS_BROADCAST_ADDRESSES => Self::choose(listen, leaves, false),
            (Listen::Wildcard, _) => Err(Error::setting(
                "listen",
                "a wildcard socket of this system does not say which address it answers from: use \
                 Listen::Class",
            )),
            _ => Ok(Self::ByAddress),
        }
    }

    fn choose(listen: Listen, leaves: bool, can_bind_device: bool) -> Result<Self> {
        match (listen, leaves, can_bind_device) {
            (Listen::Auto | Listen::Class, _, true) => Ok(Self::ClassByDevice),
            (Listen::Auto, true, false) | (Listen::Class, _, false) => Ok(Self::ClassWithoutDevice),
            (Listen::Auto, false, false) | (Listen::Wildcard, false, _) => Ok(Self::Wildcard),
            (Listen::Wildcard, true, _) => Err(Error::setting(
                "listen",
                "a wildcard socket takes unicasts: use Listen::Class to leave them to others",
            )),
        }
    }

    /// The layout for one of several shards. A socket that hears every class cannot have a filter
    /// for broadcasts: it would drop unicasts, which the kernel gives to one socket only.
    pub fn for_shards(self, listen: Listen) -> Result<Self> {
        match (self, listen) {
            (Self::Wildcard, Listen::Wildcard) => Err(Error::setting(
                "listen",
                "a wildcard socket hears all that is for other shards: use Listen::Class",
            )),
            (Self::Wildcard, _) => Ok(Self::ClassWithoutDevice),
            (other, _) => Ok(other),
        }
    }

    /// What the user calls this layout.
    pub fn listen(self) -> Listen {
        match self {
            Self::ClassByDevice | Self::ClassWithoutDevice | Self::ByAddress => Listen::Class,
            Self::Wildcard => Listen::Wildcard,
        }
    }
}

/// What to plan for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listeners<'a> {
    pub settings: &'a ListenSettings,
    pub layout: SocketLayout,
    /// All NICs of the host.
    pub nics: &'a Nics,
    /// The NICs to listen on, each with what of it to listen at.
    pub selected: &'a Nics,
    pub subnet_sockets: SubnetSockets,
    /// How many spare senders each port has.
    pub spare_sender_count: usize,
}

/// Which sockets hear subnet broadcasts, where sockets can be bound to devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SubnetSockets {
    /// Each NIC has one for each broadcast address of its own.
    #[allow(dead_code, reason = "for the feature udp-v4")]
    AtHome,
    /// Each NIC has one for each broadcast address of all NICs; see [`Listeners::can_pair`].
    Paired,
    /// Each broadcast address has one, for all NICs.
    Shared,
}

/// How many pairs of a broadcast address and a NIC there may be for each port.
///
/// A broadcast to one NIC's subnet may arrive by another NIC, where the host is a router. A socket
/// for each pair tells the NIC of arrival by itself. One socket for each broadcast address asks the
/// kernel for it (`IP_PKTINFO`). The former took, with 4 and 16 NICs of one broadcast address each:
///
/// | per broadcast received | 4 NICs | 16 NICs |
/// |---|---|---|
/// | a socket for its own NIC only (deaf to the others) | 1 | 1 |
/// | a socket for each pair | 1.00 | 1.02 |
/// | one socket, `IP_PKTINFO`: the receiver's time | 1.09 | 1.09 |
/// | one socket, `IP_PKTINFO`: with the time to deliver | 1.04 | 1.04 |
/// | its own NIC's socket, and another for the rest by a filter, with the time to deliver | 1.07 | 1.03 |
///
/// So pairs are best, but their number is the square of the number of NICs.
const PAIR_COUNT_MAX: usize = 100;

impl Listeners<'_> {
    /// Whether there are few enough pairs of a broadcast address and a NIC to give each a socket.
    pub fn can_pair(&self) -> bool {
        self.broadcasts().len() * self.up().count() <= PAIR_COUNT_MAX
    }

    /// The sockets for one port, as the settings name it: 0 for an unused one.
    pub fn plan(&self, port: u16) -> Vec<SocketPlan> {
        let mut plans = match self.layout {
            SocketLayout::Wildcard => self.wildcard(port),
            SocketLayout::ByAddress => self.by_address(port),
            SocketLayout::ClassByDevice | SocketLayout::ClassWithoutDevice => self.by_class(port),
        };
        plans.extend(self.senders());
        plans.sort();
        plans
    }

    fn wildcard(&self, port: u16) -> Vec<SocketPlan> {
        let wildcard = SocketPlan::new(Role::HearAll, Ipv4Addr::UNSPECIFIED);
        if !platform::HEARS_GROUPS_JOINED_BY_OTHER_SOCKETS {
            let joins = self.up().flat_map(|nic| self.joins(nic, port)).collect();
            return vec![SocketPlan { joins, ..wildcard }];
        }
        // The kernel limits the memberships of a socket. So each has a socket of its own.
        let joins = self.up().flat_map(|nic| {
            let plan = |group| SocketPlan::of(nic, Role::Join, group);
            self.joins(nic, port)
                .into_iter()
                .map(move |join| SocketPlan { joins: vec![join], ..plan(join.0) })
        });
        joins.chain([wildcard]).collect()
    }

    fn by_address(&self, port: u16) -> Vec<SocketPlan> {
        let of_nic = |nic: &Nic| {
            let plan = |own: &NicAddress| SocketPlan::of(nic, Role::HearAll, own.address);
            let mut plans: Vec<_> = nic.addresses.iter().map(plan).collect();
            if let Some(first) = plans.first_mut() {
                first.joins = self.joins(nic, port);
            }
            plans
        };
        self.selected.iter().flat_map(of_nic).collect()
    }

    fn by_class(&self, port: u16) -> Vec<SocketPlan> {
        let mut plans = self.unicast_sockets();
        plans.extend(self.subnet_sockets());
        let (limited, has_devices) = (Role::Hear(Class::Limited), self.has_devices());
        if !has_devices {
            plans.push(SocketPlan::new(limited, Ipv4Addr::BROADCAST));
        }
        for nic in self.up() {
            if has_devices {
                plans.push(SocketPlan::on(nic, limited, Ipv4Addr::BROADCAST));
            }
            // A socket that has joined a group on one NIC hears no other NIC. It needs no device.
            plans.extend(self.joins(nic, port).into_iter().map(|join| SocketPlan {
                joins: vec![join],
                is_device_bound: has_devices,
                ..SocketPlan::of(nic, Role::Hear(Class::Group), join.0)
            }));
        }
        plans
    }

    /// A socket for each address; one on 0.0.0.0 where addresses are too many to be listed.
    fn unicast_sockets(&self) -> Vec<SocketPlan> {
        let mut plans: Vec<SocketPlan> = Vec::new();
        for nic in self.selected {
            let addresses = nic.addresses.iter();
            let taken = addresses.filter(|own| self.settings.takes_unicasts_at(nic, own));
            let single = self.local_subnets(nic).filter(|subnet| subnet.prefix_len() == 32);
            let all = taken.map(|own| own.address).chain(single.map(|subnet| subnet.network()));
            plans.extend(all.map(|own| SocketPlan::of(nic, Role::Hear(Class::Unicast), own)));
        }
        // NICs may share an address. Then the first one stands for all.
        plans.sort_by_key(|plan| (plan.address, plan.nic_index()));
        plans.dedup_by_key(|plan| plan.address);
        plans.extend(self.rest_sockets());
        plans
    }

    /// The local subnets of a NIC whose unicasts are to be heard.
    pub(super) fn local_subnets(&self, nic: &Nic) -> impl Iterator<Item = Subnet> {
        let subnets = nic.local_subnets.iter().copied();
        subnets.filter(|subnet| self.settings.takes_unicasts_of(nic, *subnet))
    }

    fn subnet_sockets(&self) -> Vec<SocketPlan> {
        let (role, broadcasts) = (Role::Hear(Class::Subnet), self.broadcasts());
        if self.subnet_sockets == SubnetSockets::Shared || !self.has_devices() {
            return broadcasts.into_iter().map(|address| SocketPlan::new(role, address)).collect();
        }
        let of_nic = |nic: &Nic| {
            let may_arrive = |address: &&Ipv4Addr| match self.subnet_sockets {
                SubnetSockets::AtHome => nic.broadcasts.contains(address),
                // What is sent to 127.255.255.255 never leaves `lo`.
                _ => nic.is_loopback || !address.is_loopback(),
            };
            let addresses = broadcasts.iter().filter(may_arrive);
            addresses.map(|address| SocketPlan::on(nic, role, *address)).collect::<Vec<_>>()
        };
        self.up().flat_map(of_nic).collect()
    }

    /// The broadcast addresses of all subnets.
    fn broadcasts(&self) -> Vec<Ipv4Addr> {
        let all = self.up().flat_map(|nic| nic.broadcasts.iter().copied());
        let mut broadcasts: Vec<_> = all.filter(|address| !address.is_broadcast()).collect();
        broadcasts.sort();
        broadcasts.dedup();
        broadcasts
    }

    fn joins(&self, nic: &Nic, port: u16) -> Vec<(Ipv4Addr, u32)> {
        let groups = self.settings.groups_on(nic, port).into_iter();
        groups.map(|group| (group, nic.index)).collect()
    }

    /// The groups that are heard at a port, each with the index of the NIC.
    pub fn groups(&self, port: u16) -> Vec<(Ipv4Addr, u32)> {
        self.up().flat_map(|nic| self.joins(nic, port)).collect()
    }

    /// The NICs that broadcasts and groups come by.
    pub(super) fn up(&self) -> impl Iterator<Item = &Nic> {
        self.selected.iter().filter(|nic| nic.is_up)
    }

    pub(super) fn has_devices(&self) -> bool {
        self.layout == SocketLayout::ClassByDevice
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        nics::samples::nic,
        path::sockets::{join::Join, settings::Unicast},
    };

    /// All but the senders.
    fn summary(plans: &[SocketPlan]) -> Vec<String> {
        let one = |plan: &SocketPlan| {
            let device = if plan.is_device_bound { plan.nic_name() } else { "-".into() };
            format!("{:?} {} {device}", plan.role, plan.address)
        };
        plans.iter().filter(|plan| !plan.sends() || plan.hears()).map(one).collect()
    }

    fn plan(nics: &Nics, settings: &ListenSettings, layout: SocketLayout) -> Vec<SocketPlan> {
        let selected = &settings.select(nics);
        let subnet_sockets = SubnetSockets::Paired;
        let listeners =
            Listeners { settings, layout, nics, selected, subnet_sockets, spare_sender_count: 0 };
        listeners.plan(5064)
    }

    fn settings(groups: &[Ipv4Addr], unicast: Unicast) -> ListenSettings {
        let joins = groups.iter().copied().map(Join::from).collect();
        ListenSettings { joins, unicast, ..ListenSettings::default() }
    }

    #[test]
    fn an_alias_shares_the_sockets_of_its_nic() {
        let nics = Nics::from_iter([nic("a", 2, &[("10.1.0.1", 24), ("10.1.0.2", 24)])]);
        let plans = plan(&nics, &settings(&[], Unicast::Take), SocketLayout::ClassByDevice);
        assert_eq!(
            summary(&plans),
            [
                "Hear(Unicast) 10.1.0.1 -",
                "Hear(Unicast) 10.1.0.2 -",
                "Hear(Subnet) 10.1.0.255 a",
                "Hear(Limited) 255.255.255.255 a",
            ]
        );
    }

    #[test]
    fn a_nic_without_a_broadcast_address_still_hears_the_limited_one_and_groups() {
        let nics = Nics::from_iter([nic("p", 3, &[("10.9.0.1", 32)])]);
        let group = Ipv4Addr::new(224, 0, 0, 128);
        let plans = plan(&nics, &settings(&[group], Unicast::Leave), SocketLayout::ClassByDevice);
        assert_eq!(
            summary(&plans),
            ["Hear(Limited) 255.255.255.255 p", "Hear(Group) 224.0.0.128 p"]
        );
        assert_eq!(plans[1].joins, [(group, 3)]);
    }

    #[test]
    fn without_devices_a_group_still_has_a_socket_for_each_nic() {
        let nics =
            Nics::from_iter([nic("a", 2, &[("10.1.0.1", 24)]), nic("b", 3, &[("10.1.0.2", 24)])]);
        let group = Ipv4Addr::new(239, 1, 1, 1);
        let settings = settings(&[group], Unicast::Leave);
        let plans = plan(&nics, &settings, SocketLayout::ClassWithoutDevice);
        assert_eq!(
            summary(&plans),
            [
                "Hear(Subnet) 10.1.0.255 -",
                "Hear(Limited) 255.255.255.255 -",
                "Hear(Group) 239.1.1.1 -",
                "Hear(Group) 239.1.1.1 -",
            ]
        );
        assert_eq!(
            (&plans[2].joins[..], &plans[3].joins[..]),
            (&[(group, 2)][..], &[(group, 3)][..])
        );
    }

    #[test]
    fn a_broadcast_of_one_nic_is_heard_on_the_others_and_loopback_s_only_on_lo() {
        let nics = Nics::from_iter([
            nic("lo", 1, &[("127.0.0.1", 8)]),
            nic("a", 2, &[("10.1.0.1", 24)]),
            nic("b", 3, &[("10.2.0.1", 24)]),
        ]);
        let settings = settings(&[], Unicast::Leave);
        let mut listeners = Listeners {
            spare_sender_count: 0,
            settings: &settings,
            layout: SocketLayout::ClassByDevice,
            nics: &nics,
            selected: &nics,
            subnet_sockets: SubnetSockets::Paired,
        };
        let subnets = |listeners: Listeners<'_>| {
            let mut plans = listeners.plan(5064);
            plans.retain(|plan| plan.role == Role::Hear(Class::Subnet));
            let texts = summary(&plans);
            texts.iter().map(|text| text.replace("Hear(Subnet) ", "")).collect::<Vec<_>>()
        };
        assert!(listeners.can_pair());
        let pairs = [
            "10.1.0.255 a",
            "10.1.0.255 b",
            "10.1.0.255 lo",
            "10.2.0.255 a",
            "10.2.0.255 b",
            "10.2.0.255 lo",
            "127.255.255.255 lo",
        ];
        assert_eq!(subnets(listeners), pairs);
        listeners.subnet_sockets = SubnetSockets::AtHome;
        assert_eq!(subnets(listeners), ["10.1.0.255 a", "10.2.0.255 b", "127.255.255.255 lo"]);
        listeners.subnet_sockets = SubnetSockets::Shared;
        let single = ["10.1.0.255 -", "10.2.0.255 -", "127.255.255.255 -"];
        assert_eq!(subnets(listeners), single);
        let name = |index: u32| format!("nic{index}");
        let address = |index: u32| format!("10.{index}.0.1");
        let many = |index| nic(&name(index), index, &[(&address(index), 24)]);
        let nics = (1..12).map(many).collect();
        listeners.selected = &nics;
        assert!(!listeners.can_pair());
    }

    #[test]
    fn an_address_of_two_nics_has_one_socket() {
        let nics =
            Nics::from_iter([nic("a", 2, &[("10.8.0.1", 32)]), nic("b", 3, &[("10.8.0.1", 32)])]);
        let plans = plan(&nics, &settings(&[], Unicast::Take), SocketLayout::ClassByDevice);
        let unicast = plans.iter().filter(|plan| plan.role == Role::Hear(Class::Unicast));
        assert_eq!(unicast.map(SocketPlan::nic_name).collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn a_wildcard_socket_leaves_memberships_to_others_where_it_hears_their_groups() {
        let nics =
            Nics::from_iter([nic("a", 2, &[("10.1.0.1", 24)]), nic("b", 3, &[("10.2.0.1", 24)])]);
        let group = Ipv4Addr::new(239, 1, 1, 1);
        let plans = plan(&nics, &settings(&[group], Unicast::Take), SocketLayout::Wildcard);
        let joins: Vec<_> = plans.iter().flat_map(|plan| plan.joins.clone()).collect();
        assert_eq!(joins, [(group, 2), (group, 3)]);
        let of_wildcard = plans.iter().find(|plan| plan.role == Role::HearAll).unwrap().joins.len();
        assert_eq!(of_wildcard == 0, platform::HEARS_GROUPS_JOINED_BY_OTHER_SOCKETS);
    }

    #[test]
    fn where_addresses_hear_broadcasts_each_has_one_socket_and_groups_are_joined_once() {
        let nics = Nics::from_iter([nic("a", 2, &[("10.1.0.1", 24), ("10.1.0.2", 24)])]);
        let group = Ipv4Addr::new(239, 1, 1, 1);
        let plans = plan(&nics, &settings(&[group], Unicast::Take), SocketLayout::ByAddress);
        assert_eq!(summary(&plans), ["HearAll 10.1.0.1 -", "HearAll 10.1.0.2 -"]);
        assert_eq!((plans[0].joins.len(), plans[1].joins.len()), (1, 0));
    }

    #[test]
    fn auto_never_takes_unicasts_that_were_to_be_left() {
        use SocketLayout::*;
        let choose = |listen, leaves, device| SocketLayout::choose(listen, leaves, device).ok();
        assert_eq!(choose(Listen::Auto, false, true), Some(ClassByDevice));
        assert_eq!(choose(Listen::Auto, true, true), Some(ClassByDevice));
        assert_eq!(choose(Listen::Auto, false, false), Some(Wildcard));
        assert_eq!(choose(Listen::Auto, true, false), Some(ClassWithoutDevice));
        assert_eq!(choose(Listen::Wildcard, false, true), Some(Wildcard));
        assert_eq!(choose(Listen::Wildcard, true, true), None);
    }
}
