//! Which NIC and which source address a reply leaves by. Pure functions over a snapshot of the
//! NICs.
//!
//! [The guide](crate::guide#the-way-of-a-reply) has the rules and the reasons.

use std::net::Ipv4Addr;

use crate::{
    datagram::{Class, Egress, ReplyPath},
    nics::Nics,
};

/// How an answer leaves to `destination`, which is the asker or an address that the asker named.
pub(crate) fn egress(nics: &Nics, path: &ReplyPath, destination: Ipv4Addr) -> Egress {
    let (ifindex, source) = (way(nics, path, destination), source(nics, path, destination));
    Egress { ifindex, source, ..Egress::by_route() }
}

/// Whether an answer leaves by a NIC although the address that it goes to is of none of the NIC's
/// subnets. The kernel then asks the link for it (ARP), whatever it is.
pub(crate) fn is_stranger(nics: &Nics, destination: Ipv4Addr, egress: &Egress) -> bool {
    let pinned_to = egress.ifindex.and_then(|index| nics.by_index(index));
    pinned_to.is_some_and(|nic| !nic.is_loopback && !nic.contains(destination))
}

fn way(nics: &Nics, path: &ReplyPath, destination: Ipv4Addr) -> Option<u32> {
    if nics.is_local(destination) {
        return nics.loopback().map(|lo| lo.index);
    }
    let arrival = nics.by_index(path.ifindex)?;
    let is_on_link = arrival.contains(destination)
        || destination.is_link_local()
        || (path.class == Class::Limited && destination == path.asker);
    (is_on_link && !arrival.is_loopback).then_some(arrival.index)
}

fn source(nics: &Nics, path: &ReplyPath, destination: Ipv4Addr) -> Option<Ipv4Addr> {
    if path.class == Class::Unicast {
        return (!path.destination.is_unspecified()).then_some(path.destination);
    }
    let arrival = nics.by_index(path.nic).or_else(|| nics.by_index(path.ifindex))?;
    if arrival.is_loopback && !nics.is_local(destination) {
        // Another server of this host passed it on over lo. No address of lo may leave the host.
        return None;
    }
    arrival.source_for(destination, path.destination)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nics::samples::nic;

    /// lo, two NICs on one subnet, and a NIC with addresses on two subnets.
    fn host() -> Nics {
        Nics::from_iter([
            nic("lo", 1, &[("127.0.0.1", 8)]),
            nic("a", 2, &[("10.1.0.1", 24)]),
            nic("b", 3, &[("10.1.0.2", 24)]),
            nic("c", 4, &[("10.2.0.1", 24), ("10.3.0.1", 24)]),
        ])
    }

    fn path(
        destination: Ipv4Addr,
        class: Class,
        asker: Ipv4Addr,
        (ifindex, nic): (u32, u32),
    ) -> ReplyPath {
        ReplyPath { port: 5064, destination, class, asker, ifindex, nic }
    }

    #[test]
    fn replies_leave_by_the_table() {
        use Class::{Group, Limited, Subnet, Unicast};
        let rows = [
            // asked, class, arrival, NIC, asker => way, source
            // On the link that the question came by.
            ("10.1.0.1", Unicast, 2, 2, "10.1.0.9", Some(2), "10.1.0.1"),
            ("10.1.0.255", Subnet, 2, 2, "10.1.0.9", Some(2), "10.1.0.1"),
            ("10.1.0.255", Subnet, 3, 3, "10.1.0.9", Some(3), "10.1.0.2"),
            ("255.255.255.255", Limited, 3, 3, "10.1.0.9", Some(3), "10.1.0.2"),
            ("224.0.0.128", Group, 4, 4, "10.3.0.9", Some(4), "10.3.0.1"),
            // An address of b, asked over a (the weak host model): the source is what was asked.
            ("10.1.0.2", Unicast, 2, 3, "10.1.0.9", Some(2), "10.1.0.2"),
            // The second address of a NIC.
            ("10.2.0.255", Subnet, 4, 4, "10.3.0.9", Some(4), "10.3.0.1"),
            ("10.3.0.255", Subnet, 4, 4, "172.16.0.9", None, "10.3.0.1"),
            ("10.3.0.1", Unicast, 4, 4, "10.2.0.9", Some(4), "10.3.0.1"),
            // Behind a router: the kernel knows the way back, which may be another NIC.
            ("10.1.0.1", Unicast, 2, 2, "172.16.0.9", None, "10.1.0.1"),
            ("10.1.0.255", Subnet, 2, 2, "172.16.0.9", None, "10.1.0.1"),
            ("224.0.0.128", Group, 4, 4, "172.16.0.9", None, "10.2.0.1"),
            // A limited broadcast is never routed: its sender is on the link, whatever its address.
            ("255.255.255.255", Limited, 4, 4, "172.16.0.9", Some(4), "10.2.0.1"),
            // Link-local addresses mean nothing without the link.
            ("10.1.0.1", Unicast, 2, 2, "169.254.3.4", Some(2), "10.1.0.1"),
            // The asker is on this host: by lo, whichever NIC was asked.
            ("10.2.0.1", Unicast, 1, 4, "10.1.0.1", Some(1), "10.2.0.1"),
            ("10.1.0.255", Subnet, 2, 2, "10.1.0.1", Some(1), "10.1.0.1"),
            ("10.1.0.255", Subnet, 2, 2, "10.2.0.1", Some(1), "10.1.0.1"),
            ("127.255.255.255", Subnet, 1, 1, "127.0.0.1", Some(1), "127.0.0.1"),
            ("224.0.0.128", Group, 1, 1, "10.1.0.1", Some(1), "127.0.0.1"),
        ];
        let nics = host();
        for row in rows {
            let (destination, class, ifindex, nic, asker, way, source) = row;
            let destination = destination.parse().unwrap();
            let asker = asker.parse().unwrap();
            let path = path(destination, class, asker, (ifindex, nic));
            let egress = egress(&nics, &path, asker);
            assert_eq!(egress.ifindex, way, "way of {row:?}");
            assert_eq!(egress.source, Some(source.parse().unwrap()), "source of {row:?}");
        }
    }

    #[test]
    fn a_broadcast_is_answered_from_the_address_with_the_longest_prefix_that_holds_the_asker() {
        let nics = Nics::from_iter([nic("a", 2, &[("10.0.0.1", 8), ("10.1.0.1", 24)])]);
        let asker = [10, 1, 0, 9].into();
        for (destination, class) in [
            (Ipv4Addr::BROADCAST, Class::Limited),
            ([10, 1, 0, 255].into(), Class::Subnet),
            ([10, 255, 255, 255].into(), Class::Subnet),
            ([224, 0, 0, 128].into(), Class::Group),
        ] {
            let egress = egress(&nics, &path(destination, class, asker, (2, 2)), asker);
            assert_eq!(egress.source, Some([10, 1, 0, 1].into()), "{destination}");
        }
    }

    #[test]
    fn no_address_of_lo_leaves_the_host() {
        let group = Ipv4Addr::new(224, 0, 0, 128);
        for asker in [[127, 0, 0, 1], [10, 1, 0, 9]] {
            let (class, asker) = (Class::Group, asker.into());
            let path = path(group, class, asker, (1, 1));
            assert_eq!(egress(&host(), &path, [10, 1, 0, 9].into()), Egress::default());
        }
    }

    #[test]
    fn an_address_that_a_limited_broadcast_names_may_be_behind_a_router() {
        let (class, asker) = (Class::Limited, [10, 1, 0, 9].into());
        let path = path(Ipv4Addr::BROADCAST, class, asker, (2, 2));
        assert_eq!(egress(&host(), &path, [172, 16, 0, 9].into()).ifindex, None);
    }

    #[test]
    fn what_is_unknown_is_left_to_the_kernel() {
        let asker = [10, 1, 0, 9].into();
        let destination = Ipv4Addr::UNSPECIFIED;
        let path = path(destination, Class::Unicast, asker, (0, 0));
        let egress = egress(&host(), &path, asker);
        assert_eq!(egress, Egress::default());
    }
}
