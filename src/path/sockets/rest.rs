//! The sockets on 0.0.0.0 that hear whole subnets: unicasts to addresses that are too many to be
//! listed, such as 127.0.0.0/8.

use std::net::Ipv4Addr;

use super::plan::{Listeners, Role, SocketPlan};
use crate::nics::{Nic, NicAddress, NicId, Subnet};

impl Listeners<'_> {
    /// The subnets whose addresses are too many to be listed.
    fn rest(&self) -> Vec<(&Nic, Subnet)> {
        let of_nic = |nic| {
            let many = self.local_subnets(nic).filter(|subnet| subnet.prefix_len() < 32);
            many.map(move |subnet| (nic, subnet))
        };
        self.selected.iter().flat_map(of_nic).collect()
    }

    /// The sockets that hear them.
    pub(super) fn rest_sockets(&self) -> Vec<SocketPlan> {
        let rest = self.rest();
        let (role, unspecified) = (Role::HearRest, Ipv4Addr::UNSPECIFIED);
        let nics = self.nics_of_rest(&rest);
        let (free, others): (Vec<&Nic>, Vec<&Nic>) =
            nics.iter().partition(|nic| self.taken_with_rest(nic).is_none());
        let is_everything = others.is_empty() && self.nics.iter().eq(self.selected.iter());
        // A socket that hears only `lo` gets no copy of what others hear.
        let may_be_on_loopback = rest.iter().all(is_loopback) && self.has_devices();
        if is_everything && !may_be_on_loopback && !rest.is_empty() {
            return vec![SocketPlan::new(role, unspecified)];
        }
        free.into_iter().map(|nic| SocketPlan::on(nic, role, unspecified)).collect()
    }

    /// The NICs that what is sent to these subnets may come by. What is sent to 127.0.0.0/8 never
    /// leaves `lo`.
    fn nics_of_rest(&self, rest: &[(&Nic, Subnet)]) -> Vec<&Nic> {
        let on_loopback = rest.iter().all(is_loopback);
        let may_come = |nic: &&Nic| !rest.is_empty() && (nic.is_loopback || !on_loopback);
        self.up().filter(may_come).collect()
    }

    /// An address that is left to others, and that a socket for the rest on this NIC would take. It
    /// would hear every unicast that comes by the NIC and that no socket with an address of its own
    /// hears.
    fn taken_with_rest(&self, on: &Nic) -> Option<Ipv4Addr> {
        let may_come = |own: &NicAddress, nic: &Nic| {
            if on.is_loopback { nic.index == on.index } else { !own.address.is_loopback() }
        };
        let is_left = |nic: &Nic, own: &NicAddress| match self.selected.by_index(nic.index) {
            Some(selected) => {
                !selected.owns(own.address) || !self.settings.takes_unicasts_at(nic, own)
            }
            None => false, // nothing comes by it
        };
        let all = self.nics.iter().flat_map(|nic| nic.addresses.iter().map(move |own| (nic, own)));
        let mut left = all.filter(|(nic, own)| may_come(own, nic) && is_left(nic, own));
        left.next().map(|(_, own)| own.address)
    }

    /// Local subnets that are not heard on a NIC, each with an address that is left to others and
    /// that a socket for the subnet would take.
    pub fn unheard(&self) -> Vec<(NicId, Subnet, Ipv4Addr)> {
        let rest = self.rest();
        let nics = self.nics_of_rest(&rest).into_iter();
        let taken = nics.filter_map(|nic| Some((nic, self.taken_with_rest(nic)?)));
        let of_nic = |(nic, taken): (&Nic, _)| {
            let id = nic.id();
            rest.iter().map(move |(_, subnet)| (id.clone(), *subnet, taken))
        };
        taken.flat_map(of_nic).collect()
    }
}

fn is_loopback((nic, subnet): &(&Nic, Subnet)) -> bool {
    nic.is_loopback && subnet.is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        datagram::Class,
        nics::{Nics, samples::nic},
        path::sockets::{ListenSettings, SocketLayout, SubnetSockets, settings::Unicast},
    };

    fn settings(unicast: Unicast) -> ListenSettings {
        ListenSettings { unicast, ..ListenSettings::default() }
    }

    fn plan(nics: &Nics, settings: &ListenSettings, layout: SocketLayout) -> Vec<SocketPlan> {
        listeners(nics, settings, &settings.select(nics), layout).plan(5064)
    }

    fn listeners<'a>(
        nics: &'a Nics,
        settings: &'a ListenSettings,
        selected: &'a Nics,
        layout: SocketLayout,
    ) -> Listeners<'a> {
        let subnet_sockets = SubnetSockets::Paired;
        Listeners { settings, layout, nics, selected, subnet_sockets, spare_sender_count: 0 }
    }

    /// lo with 127.0.0.0/8, and a NIC.
    fn host(local_subnets: &[&str]) -> Nics {
        let mut lo = nic("lo", 1, &[("127.0.0.1", 8)]);
        lo.local_subnets = local_subnets.iter().map(|text| text.parse().unwrap()).collect();
        Nics::from_iter([lo, nic("a", 2, &[("10.1.0.1", 24)])])
    }

    fn rest(nics: &Nics, settings: &ListenSettings, layout: SocketLayout) -> Vec<String> {
        let mut plans = plan(nics, settings, layout);
        let last = plans.last().map(|plan| plan.role);
        plans.retain(|plan| plan.role == Role::HearRest);
        assert!(plans.is_empty() || last == Some(Role::HearRest), "the rest is bound last");
        let one = |plan: &SocketPlan| {
            let device = if plan.is_device_bound { plan.nic_name() } else { "-".into() };
            format!("{:?} {} {device}", plan.role, plan.address)
        };
        plans.iter().map(one).collect()
    }

    #[test]
    fn local_subnets_are_heard_by_a_socket_for_the_rest_and_left_where_unicasts_are() {
        use SocketLayout::{ClassByDevice, ClassWithoutDevice};
        let take = settings(Unicast::Take);
        let leave = settings(Unicast::Leave);
        let loopback = host(&["127.0.0.0/8"]);
        assert_eq!(rest(&loopback, &take, ClassByDevice), ["HearRest 0.0.0.0 lo"]);
        assert_eq!(rest(&loopback, &take, ClassWithoutDevice), ["HearRest 0.0.0.0 -"]);
        let other = host(&["127.0.0.0/8", "10.78.0.0/24"]);
        assert_eq!(rest(&other, &take, ClassByDevice), ["HearRest 0.0.0.0 -"]);
        let single = host(&["10.78.0.9/32"]);
        let none: [&str; 0] = [];
        assert_eq!(rest(&single, &take, ClassByDevice), none);
        assert!(plan(&single, &take, ClassByDevice).iter().any(|plan| {
            plan.role == Role::Hear(Class::Unicast) && plan.address == Ipv4Addr::new(10, 78, 0, 9)
        }));
        for nics in [&loopback, &other] {
            assert_eq!(rest(nics, &leave, ClassByDevice), none);
        }
    }

    #[test]
    fn what_was_not_chosen_is_not_taken_with_the_rest() {
        let nics = host(&["127.0.0.0/8", "10.78.0.0/24"]);
        let mut some = settings(Unicast::Take);
        some.chosen = vec!["lo".parse().unwrap()];
        assert_eq!(rest(&nics, &some, SocketLayout::ClassByDevice), ["HearRest 0.0.0.0 lo"]);
        let mut left = settings(Unicast::Take);
        left.left = vec!["10.1.0.1".parse().unwrap()];
        let by_device = SocketLayout::ClassByDevice;
        assert_eq!(rest(&nics, &left, by_device), ["HearRest 0.0.0.0 lo"]);
        let subnets = |nics: &Nics, settings: &ListenSettings| {
            let selected = settings.select(nics);
            let listeners = listeners(nics, settings, &selected, SocketLayout::ClassByDevice);
            let text = |(nic, subnet, taken)| format!("{nic} {subnet} for {taken}");
            listeners.unheard().into_iter().map(text).collect::<Vec<_>>().join(", ")
        };
        let unheard = "a 127.0.0.0/8 for 10.1.0.1, a 10.78.0.0/24 for 10.1.0.1";
        assert_eq!(subnets(&nics, &left), unheard);
        // What is only ever asked on `lo` takes nothing from other NICs.
        assert_eq!(subnets(&host(&["127.0.0.0/8"]), &left), "");
        let plans = plan(&nics, &left, SocketLayout::ClassByDevice);
        let unicast = plans.iter().filter(|plan| plan.role == Role::Hear(Class::Unicast));
        assert_eq!(unicast.map(SocketPlan::nic_name).collect::<Vec<_>>(), ["lo"]);
    }
}
