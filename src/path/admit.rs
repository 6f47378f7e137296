//! Turns an arrival into a [`Record`], or drops it. Finds its class and its NIC, and counts it.
//! Both backends call this code, so they cannot differ.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
};

use super::sockets::{ListenSocket, Role};
use crate::{
    datagram::{Arrival, Class, Record, SocketKey, Span},
    filter::Filter,
    nics::{Nic, Nics},
    stats::{NicCounters, StatsTable, add},
};

/// Admits datagrams, and attributes them to NICs.
#[derive(Debug)]
pub(crate) struct Admission {
    /// All NICs of the host.
    pub nics: Arc<Nics>,
    /// The NICs that the engine listens on, each with what of it the engine listens at.
    selected: Arc<Nics>,
    /// Counters of each NIC that the engine listens on, by ascending index.
    counters: Vec<Arc<NicCounters>>,
    /// The groups that are heard: the port, the group, the index of the NIC. Sorted.
    groups: Vec<(u16, Ipv4Addr, u32)>,
    /// What is of interest at all.
    filter: Option<Arc<Filter>>,
    /// Whether datagrams from 0.0.0.0 are handed out.
    allows_unspecified_source: bool,
    /// Whether NICs that the engine listens on share an address.
    has_shared_addresses: bool,
}

/// The index and the counters of the NIC that a datagram counts for.
type Attribution<'a> = (u32, &'a Arc<NicCounters>);

impl Admission {
    /// `groups` are those that are heard: the port, the group, the index of the NIC.
    pub fn new(
        nics: Arc<Nics>,
        selected: Arc<Nics>,
        mut groups: Vec<(u16, Ipv4Addr, u32)>,
        stats: &StatsTable,
    ) -> Self {
        groups.sort();
        let has_shared_addresses = selected.has_shared_addresses();
        Self {
            nics,
            counters: stats.of(&selected),
            selected,
            groups,
            filter: None,
            allows_unspecified_source: false,
            has_shared_addresses,
        }
    }

    /// The same, which hands out datagrams from 0.0.0.0 too, or not.
    pub fn with_unspecified_source(self, allows_unspecified_source: bool) -> Self {
        Self { allows_unspecified_source, ..self }
    }

    /// The same, which hands out only what the filter keeps.
    pub fn with_filter(self, filter: Option<Arc<Filter>>) -> Self {
        Self { filter, ..self }
    }

    /// Whether no answer to this source can be right.
    #[inline]
    fn is_guarded(&self, source: SocketAddrV4) -> bool {
        let is_unspecified = || source.ip().is_unspecified() && source.port() != 0;
        let is_allowed =
            self.nics.is_host(source) || (self.allows_unspecified_source && is_unspecified());
        !is_allowed
    }

    /// The record of a datagram, or `None` if it is dropped. Counts it either way, except on
    /// sockets that hear nothing, and on those of [`Role::Unjudged`].
    #[inline]
    pub fn admit(
        &self,
        socket: &ListenSocket,
        slot: u16,
        mut arrival: Arrival,
        span: Span,
        payload: &[u8],
    ) -> Option<Record> {
        let heard_by = SocketKey { slot, number: socket.number };
        socket.note_received();
        if arrival.drop_count != 0 {
            socket.note_drop_count(arrival.drop_count);
        }
        let class = match socket.plan.role {
            Role::Hear(class) => class,
            Role::HearAll | Role::HearRest => self.classify(&arrival),
            Role::Send { .. } | Role::Reply | Role::Spare(_) | Role::Join => return None,
            Role::Unjudged => {
                let class = Class::Unicast;
                return Some(Record { arrival, span, heard_by, port: 0, class, nic: 0 });
            }
        };
        let Some((nic, counters)) = self.attribute(socket, class, &arrival) else {
            add(&socket.counters.unchosen_count, 1);
            return None;
        };
        if self.is_copy(socket, class, arrival.destination) {
            add(&counters.copy_count, 1);
            return None;
        }
        if let Some(filter) = self.filter.as_ref().filter(|_| !socket.has_filter) {
            if !filter.keeps(*arrival.source.ip(), payload) {
                add(&counters.filtered_count, 1);
                return None;
            }
        }
        if arrival.is_control_truncated {
            add(&counters.malformed_count, 1);
        }
        if self.is_guarded(arrival.source) {
            add(&counters.guarded_count, 1);
            return None;
        }
        add(&counters.received_by_class[class as usize], 1);
        add(&counters.received_bytes, u64::from(span.len));
        if arrival.is_truncated {
            add(&counters.truncated_count, 1);
        }
        if let (0, Some(fixed)) = (arrival.ifindex, socket.plan.fixed_arrival()) {
            (arrival.destination, arrival.ifindex) = fixed;
        }
        Some(Record { arrival, span, heard_by, port: socket.port, class, nic })
    }

    /// Whether another socket of the engine hands this datagram out. A socket for one class gets no
    /// copies.
    fn is_copy(&self, socket: &ListenSocket, class: Class, destination: Ipv4Addr) -> bool {
        match socket.plan.role {
            // It hears broadcasts, because it is bound to no address.
            Role::HearRest => class != Class::Unicast,
            // Where each address of a NIC has a socket, each of them hears the NIC's broadcasts.
            Role::HearAll => {
                let nic = self.selected.by_index(socket.plan.nic_index());
                nic.is_some_and(|nic| is_copy_on(nic, socket.plan.address, class, destination))
            }
            _ => false,
        }
    }

    fn classify(&self, arrival: &Arrival) -> Class {
        let destination = arrival.destination;
        if destination.is_broadcast() {
            Class::Limited
        } else if destination.is_multicast() {
            Class::Group
        } else if self.nics.is_broadcast(destination) {
            Class::Subnet
        } else {
            Class::Unicast
        }
    }

    /// The NIC that a datagram counts for; `None` if it came to a place that was not chosen.
    #[inline]
    fn attribute<'a>(
        &'a self,
        socket: &'a ListenSocket,
        class: Class,
        arrival: &Arrival,
    ) -> Option<Attribution<'a>> {
        let Some(nic) = &socket.plan.nic else {
            return self.attribute_by_arrival(socket, class, arrival);
        };
        let plan = &socket.plan;
        if plan.role == Role::HearAll && class == Class::Group && !plan.joins(arrival.destination) {
            return None;
        }
        if class == Class::Unicast && (self.has_shared_addresses || plan.role == Role::HearRest) {
            return self.owner(arrival).or(Some((nic.index, &socket.counters)));
        }
        Some((nic.index, &socket.counters))
    }

    /// As [`Admission::attribute`], for a socket that hears several NICs.
    fn attribute_by_arrival<'a>(
        &'a self,
        socket: &'a ListenSocket,
        class: Class,
        arrival: &Arrival,
    ) -> Option<Attribution<'a>> {
        let (destination, role) = (arrival.destination, socket.plan.role);
        if destination.is_unspecified() && arrival.ifindex == 0 {
            // Neither destination nor interface tells the NIC: better heard than lost.
            return Some((0, &socket.counters));
        }
        let by_arrival = || self.counters_of(arrival.ifindex);
        match class {
            Class::Unicast => self.owner(arrival).or_else(|| {
                // An address that nobody knew a moment ago is heard where it came in. One that
                // is known was not chosen. But what hears the rest takes it from others.
                let is_known = self.nics.owner(destination).is_some();
                if is_known && role == Role::HearAll { None } else { by_arrival() }
            }),
            // Sockets for broadcasts are bound to chosen addresses. A wildcard socket is not.
            Class::Subnet if role == Role::HearAll && !self.selected.is_broadcast(destination) => {
                None
            }
            Class::Group if role == Role::HearAll && !self.has_joined(socket.port, arrival) => None,
            Class::Subnet | Class::Limited | Class::Group => by_arrival(),
        }
    }

    /// Whether a group was joined at a port, on the NIC that its datagram came by.
    fn has_joined(&self, port: u16, arrival: &Arrival) -> bool {
        let Arrival { destination, ifindex, .. } = *arrival;
        let found = self.groups.partition_point(|&at| at < (port, destination, ifindex));
        // An interface of 0 is unknown: better heard than lost.
        self.groups.get(found).is_some_and(|&(at, group, nic)| {
            (at, group) == (port, destination) && (nic == ifindex || ifindex == 0)
        })
    }

    /// The NIC whose address was asked. If several have it, the one where the datagram came in.
    fn owner(&self, arrival: &Arrival) -> Option<Attribution<'_>> {
        let arrived_on = self.selected.by_index(arrival.ifindex);
        let owns = |nic: &&Nic| self.has_shared_addresses && nic.owns(arrival.destination);
        let owner = arrived_on.filter(owns).or_else(|| self.selected.owner(arrival.destination));
        self.counters_of(owner?.index)
    }

    fn counters_of(&self, index: u32) -> Option<Attribution<'_>> {
        let position = self.counters.binary_search_by_key(&index, |counters| counters.index);
        Some((index, &self.counters[position.ok()?]))
    }
}

/// Whether the socket of another address of the same NIC hands out this broadcast.
fn is_copy_on(nic: &Nic, address: Ipv4Addr, class: Class, destination: Ipv4Addr) -> bool {
    let mut addresses = nic.addresses.iter();
    let addressed = match class {
        Class::Subnet => addresses.find(|own| own.has_broadcast(destination)),
        Class::Limited => None,
        Class::Unicast | Class::Group => return false,
    };
    let speaker = addressed.map(|own| own.address).or_else(|| nic.primary());
    speaker.is_some_and(|speaker| speaker != address)
}
