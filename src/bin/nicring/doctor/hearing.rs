//! What is heard, by which socket, and what is not, and why.

use std::{collections::BTreeMap, net::Ipv4Addr};

use nicring::{Class, FailedNic, Handle, Hears, Nic, SocketInfo, Subnet, search::Protocol};

use crate::cli::{
    listen::ListenPlan,
    text::{printable, wrapped},
};

/// Lines about what an engine hears. All its ports hear alike, but for groups and what failed.
pub fn lines(handle: &Handle, plans: &[ListenPlan]) -> Vec<String> {
    let (nics, mut sockets, plan) = (handle.nics(), handle.sockets(), &plans[0]);
    // An unused port was asked for: that of the first socket.
    let port = match plan.port {
        0 => sockets.first().map_or(0, |socket| socket.address.port()),
        port => port,
    };
    let is_for_group = |socket: &SocketInfo| socket.hears == Hears::Class(Class::Group);
    sockets.retain(|socket| socket.address.port() == port || is_for_group(socket));
    let hearing = Hearing { plans, plan, sockets, failed: handle.failed_nics() };
    let mut lines: Vec<String> = nics.iter().flat_map(|nic| hearing.of_nic(nic)).collect();
    if !hearing.failed.is_empty() {
        lines.push("  Not heard, and tried again until it is:".to_owned());
    }
    lines.extend(hearing.failed.iter().flat_map(|failed| wrapped("    ", &failed.to_string())));
    lines
}

struct Hearing<'a> {
    plans: &'a [ListenPlan],
    /// The first of them.
    plan: &'a ListenPlan,
    /// For its port; those for groups for every port.
    sockets: Vec<SocketInfo>,
    failed: Vec<FailedNic>,
}

impl Hearing<'_> {
    fn of_nic(&self, nic: &Nic) -> Vec<String> {
        let row = |what: &str, class: &str, how: &str| {
            format!("  {:<10} {what:<19}{class:<11}{how}", printable(&nic.name))
        };
        if !nic.is_up {
            return vec![row("everything", "", "not heard: the NIC is down")];
        }
        if !self.listens_on(nic) {
            return vec![row("everything", "", "not heard: it was not chosen")];
        }
        let mut rows = Vec::new();
        for own in &nic.addresses {
            rows.push(row(&own.address.to_string(), "unicast", &self.unicast(nic, own.address)));
        }
        for subnet in &nic.local_subnets {
            let how = self.subnet(nic, *subnet);
            rows.push(row(&subnet.to_string(), "unicast", &how));
        }
        for broadcast in &nic.broadcasts {
            let how = self.broadcast(nic, *broadcast, Class::Subnet);
            rows.push(row(&broadcast.to_string(), "broadcast", &how));
        }
        let how = self.broadcast(nic, Ipv4Addr::BROADCAST, Class::Limited);
        rows.push(row("255.255.255.255", "broadcast", &how));
        for (group, protocols) in self.groups_on(nic) {
            let how = self.broadcast(nic, group, Class::Group);
            let is_for_all = protocols.len() == self.plans.len();
            let names: Vec<_> = protocols.iter().map(|protocol| protocol.name()).collect();
            let whom =
                if is_for_all { String::new() } else { format!(", for {}", names.join(" and ")) };
            rows.push(row(&group.to_string(), "group", &format!("{how}{whom}")));
        }
        rows
    }

    /// The groups that are heard on a NIC, each with its protocols.
    fn groups_on(&self, nic: &Nic) -> BTreeMap<Ipv4Addr, Vec<Protocol>> {
        let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for plan in self.plans {
            for group in plan.groups_on(nic) {
                groups.entry(group).or_default().push(plan.protocol);
            }
        }
        groups
    }

    fn listens_on(&self, nic: &Nic) -> bool {
        let is_of = |socket: &SocketInfo| {
            socket.nic.as_ref().is_some_and(|own| own.index == nic.index)
                || socket.hears == Hears::EveryClass && socket.nic.is_none()
        };
        let has_failed =
            |failed: &FailedNic| failed.nic.as_ref().is_some_and(|own| own.index == nic.index);
        self.sockets.iter().any(is_of) || self.failed.iter().any(has_failed)
    }

    fn unicast(&self, nic: &Nic, address: Ipv4Addr) -> String {
        let is_at = |at: Ipv4Addr| {
            move |socket: &&SocketInfo| {
                *socket.address.ip() == at
                    && matches!(socket.hears, Hears::Class(Class::Unicast) | Hears::EveryClass)
            }
        };
        if self.sockets.iter().any(|socket| is_at(address)(&socket)) {
            return "a socket of its own".to_owned();
        }
        if self.has_failed(nic, address) || self.plan.leaves(address) {
            return self.not_heard(nic, address);
        }
        self.rest(nic).unwrap_or_else(|| self.not_heard(nic, address))
    }

    fn subnet(&self, nic: &Nic, subnet: Subnet) -> String {
        let failed = self.failed.iter().find(|failed| *failed.address.ip() == subnet.network());
        let left = self.plan.way.left.iter().find(|left| subnet.contains(**left));
        match (failed, left) {
            (Some(_), _) => "NOT HEARD: see below".to_owned(),
            (None, Some(left)) => format!("left to other servers, as {left} is"),
            (None, None) => self.unicast(nic, subnet.network()),
        }
    }

    /// The socket for whole subnets, if there is one for this NIC.
    fn rest(&self, nic: &Nic) -> Option<String> {
        let is_it = |socket: &&SocketInfo| {
            let device = socket.nic.as_ref().filter(|_| socket.is_device_bound);
            socket.address.ip().is_unspecified()
                && matches!(socket.hears, Hears::Class(Class::Unicast) | Hears::EveryClass)
                && device.is_none_or(|own| own.index == nic.index)
        };
        let rest = self.sockets.iter().find(is_it)?;
        let device = rest.nic.as_ref().filter(|_| rest.is_device_bound);
        let on = device.map_or_else(String::new, |own| format!(" on {own}"));
        Some(format!("the socket on 0.0.0.0{on}"))
    }

    fn broadcast(&self, nic: &Nic, address: Ipv4Addr, class: Class) -> String {
        let hears = |socket: &&SocketInfo| match socket.hears {
            Hears::Class(of) => of == class && *socket.address.ip() == address,
            Hears::EveryClass => socket.nic.as_ref().is_none_or(|own| own.index == nic.index),
            _ => false,
        };
        let hearing: Vec<_> = self.sockets.iter().filter(hears).collect();
        let is_own =
            |socket: &&&SocketInfo| socket.nic.as_ref().is_some_and(|own| own.index == nic.index);
        let is_shared = hearing.iter().any(|socket| socket.nic.is_none());
        match hearing.iter().filter(is_own).count() {
            0 if is_shared => "one socket for all NICs".to_owned(),
            0 => self.not_heard(nic, address),
            _ if self.has_failed(nic, address) => "NOT HEARD BY ALL: see below".to_owned(),
            _ if class == Class::Subnet && hearing.len() > 1 => "a socket on each NIC".to_owned(),
            _ => "a socket on the NIC".to_owned(),
        }
    }

    fn has_failed(&self, nic: &Nic, address: Ipv4Addr) -> bool {
        let is_it = |failed: &FailedNic| {
            *failed.address.ip() == address
                && failed.nic.as_ref().is_none_or(|own| own.index == nic.index)
        };
        self.failed.iter().any(is_it)
    }

    fn not_heard(&self, nic: &Nic, address: Ipv4Addr) -> String {
        let text = if self.has_failed(nic, address) {
            "NOT HEARD: see below"
        } else if self.plan.leaves(address) {
            "left to other servers"
        } else {
            "not heard: it was not chosen"
        };
        text.to_owned()
    }
}
