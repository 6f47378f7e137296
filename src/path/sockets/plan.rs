//! Which sockets there should be. Pure functions over a snapshot of the NICs.

use std::net::Ipv4Addr;

use super::settings::{Listen, Unicast};
use crate::{
    datagram::Class,
    error::{Error, Result},
    nics::{Nic, NicAddress, NicId, Nics},
    platform,
    sys::options,
};

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Role {
    /// Hears one class.
    Hear(Class),
    /// Hears every class. The destination of a datagram tells its class.
    HearAll,
    /// Hears nothing; sends what leaves by the kernel's route.
    Send,
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

    fn of(nic: &Nic, role: Role, address: Ipv4Addr) -> Self {
        Self { nic: Some(nic.id()), ..Self::new(role, address) }
    }

    /// Whether one socket can serve both plans, once it has joined the groups that it needs.
    pub fn is_same_socket_as(&self, other: &Self) -> bool {
        let key = |plan: &Self| (plan.role, plan.address, plan.is_device_bound);
        key(self) == key(other) && self.nic == other.nic
    }

    /// Destination and interface if the bindings fix both; the kernel then need not report them.
    pub fn fixed_arrival(&self) -> Option<(Ipv4Addr, u32)> {
        self.is_device_bound.then_some((self.address, self.nic_index()))
    }

    /// Whether it joins this group on some NIC.
    pub fn joins(&self, group: Ipv4Addr) -> bool {
        self.joins.iter().any(|(joined, _)| *joined == group)
    }

    /// Whether it hears anything.
    pub fn hears(&self) -> bool {
        self.role != Role::Send
    }

    /// The index of its NIC; 0 if it is for all of them.
    pub fn nic_index(&self) -> u32 {
        self.nic.as_ref().map_or(0, |nic| nic.index)
    }

    /// The name of its NIC, for texts.
    pub fn nic_name(&self) -> &str {
        self.nic.as_ref().map_or("all NICs", |nic| &nic.name)
    }
}

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
    /// The layout for this system with these NICs.
    pub fn of_system(listen: Listen, unicast: Unicast, nics: &Nics) -> Result<Self> {
        if platform::SENDS_FROM_OTHER_ADDRESSES {
            return Self::choose(listen, unicast, options::can_bind_device(nics));
        }
        match (listen, unicast) {
            (Listen::Wildcard, Unicast::Leave) => Self::choose(listen, unicast, false),
            (_, Unicast::Leave) => Err(Error::setting(
                "unicast",
                "this system answers from sockets that take unicasts: use Unicast::Take",
            )),
            _ if platform::BINDS_BROADCAST_ADDRESSES => Self::choose(listen, unicast, false),
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

    /// What the user calls this layout.
    pub fn listen(self) -> Listen {
        match self {
            Self::ClassByDevice | Self::ClassWithoutDevice | Self::ByAddress => Listen::Class,
            Self::Wildcard => Listen::Wildcard,
        }
    }
}

/// An address that no group ever has (RFC 1112, section 4). A socket that is bound to it hears
/// nothing, takes nothing from other sockets, is bound to no device, and still sends from the port.
const NO_GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 0);

/// The sockets for one port.
pub(crate) fn plan(
    selected: &Nics,
    groups: &[Ipv4Addr],
    unicast: Unicast,
    layout: SocketLayout,
) -> Vec<SocketPlan> {
    if layout == SocketLayout::Wildcard {
        let mut wildcard = SocketPlan::new(Role::HearAll, Ipv4Addr::UNSPECIFIED);
        wildcard.joins = joins(selected, groups);
        return vec![wildcard];
    }
    if layout == SocketLayout::ByAddress {
        return selected.iter().flat_map(|nic| by_address(nic, groups)).collect();
    }
    let mut plans = vec![SocketPlan::new(Role::Send, NO_GROUP)];
    for nic in selected {
        if unicast == Unicast::Take {
            let unicast =
                |own: &NicAddress| SocketPlan::of(nic, Role::Hear(Class::Unicast), own.address);
            plans.extend(nic.addresses.iter().map(unicast));
        }
        let by_class = |class, address| match layout {
            SocketLayout::ClassByDevice => SocketPlan {
                is_device_bound: true,
                ..SocketPlan::of(nic, Role::Hear(class), address)
            },
            _ => SocketPlan::new(Role::Hear(class), address),
        };
        plans.extend(broadcasts(nic).map(|(class, address)| by_class(class, address)));
        for &group in groups {
            let mut plan = by_class(Class::Group, group);
            plan.joins = match layout {
                SocketLayout::ClassByDevice => vec![(group, nic.index)],
                _ => joins(selected, &[group]),
            };
            plans.push(plan);
        }
    }
    // Without devices several NICs plan the same socket. With aliases one NIC plans it twice.
    plans.sort();
    plans.dedup();
    plans
}

fn by_address(nic: &Nic, groups: &[Ipv4Addr]) -> impl Iterator<Item = SocketPlan> {
    nic.addresses.iter().enumerate().map(|(position, own)| {
        let mut plan = SocketPlan::of(nic, Role::HearAll, own.address);
        if position == 0 {
            plan.joins = groups.iter().map(|group| (*group, nic.index)).collect();
        }
        plan
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nics::samples::nic;

    fn summary(plans: &[SocketPlan]) -> Vec<String> {
        let one = |plan: &SocketPlan| {
            let device = if plan.is_device_bound { plan.nic_name() } else { "-" };
            format!("{:?} {} {device}", plan.role, plan.address)
        };
        plans.iter().map(one).collect()
    }

    #[test]
    fn an_alias_shares_the_sockets_of_its_nic() {
        let nics = Nics::from_iter([nic("a", 2, &[("10.1.0.1", 24), ("10.1.0.2", 24)])]);
        let plans = plan(&nics, &[], Unicast::Take, SocketLayout::ClassByDevice);
        assert_eq!(
            summary(&plans),
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
        let plans = plan(&nics, &[group], Unicast::Leave, SocketLayout::ClassByDevice);
        assert_eq!(
            summary(&plans),
            ["Hear(Limited) 255.255.255.255 p", "Hear(Group) 224.0.0.128 p", "Send 224.0.0.0 -",]
        );
        assert_eq!(plans[1].joins, [(group, 3)]);
    }

    #[test]
    fn without_devices_nics_on_one_subnet_share_the_broadcast_sockets() {
        let nics =
            Nics::from_iter([nic("a", 2, &[("10.1.0.1", 24)]), nic("b", 3, &[("10.1.0.2", 24)])]);
        let group = Ipv4Addr::new(239, 1, 1, 1);
        let plans = plan(&nics, &[group], Unicast::Leave, SocketLayout::ClassWithoutDevice);
        assert_eq!(
            summary(&plans),
            [
                "Hear(Subnet) 10.1.0.255 -",
                "Hear(Limited) 255.255.255.255 -",
                "Hear(Group) 239.1.1.1 -",
                "Send 224.0.0.0 -",
            ]
        );
        assert_eq!(plans[2].joins, [(group, 2), (group, 3)]);
    }

    #[test]
    fn where_addresses_hear_broadcasts_each_has_one_socket_and_groups_are_joined_once() {
        let nics = Nics::from_iter([nic("a", 2, &[("10.1.0.1", 24), ("10.1.0.2", 24)])]);
        let group = Ipv4Addr::new(239, 1, 1, 1);
        let plans = plan(&nics, &[group], Unicast::Take, SocketLayout::ByAddress);
        assert_eq!(summary(&plans), ["HearAll 10.1.0.1 -", "HearAll 10.1.0.2 -"]);
        assert_eq!((plans[0].joins.len(), plans[1].joins.len()), (1, 0));
    }

    #[test]
    fn auto_never_takes_unicasts_that_were_to_be_left() {
        use {SocketLayout::*, Unicast::*};
        let choose = |listen, unicast, device| SocketLayout::choose(listen, unicast, device).ok();
        assert_eq!(choose(Listen::Auto, Take, true), Some(ClassByDevice));
        assert_eq!(choose(Listen::Auto, Leave, true), Some(ClassByDevice));
        assert_eq!(choose(Listen::Auto, Take, false), Some(Wildcard));
        assert_eq!(choose(Listen::Auto, Leave, false), Some(ClassWithoutDevice));
        assert_eq!(choose(Listen::Wildcard, Take, true), Some(Wildcard));
        assert_eq!(choose(Listen::Wildcard, Leave, true), None);
    }
}
