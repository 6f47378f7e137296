//! Turns an arrival into a [`Record`], or drops it. Finds its class and its NIC, and counts it.
//! Both backends call this code, so they cannot differ.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
};

use super::sockets::{ListenSocket, Role};
use crate::{
    datagram::{Arrival, Class, Record, SocketKey, Span},
    nics::{Nic, Nics},
    stats::{NicCounters, StatsTable, add},
};

/// Admits datagrams, and attributes them to NICs.
#[derive(Debug)]
pub(crate) struct Admission {
    /// All NICs of the host.
    pub nics: Arc<Nics>,
    /// The NICs that the engine listens on, each with the addresses that it listens at.
    selected: Nics,
    /// Counters of each NIC that the engine listens on.
    counters: Vec<Arc<NicCounters>>,
}

impl Admission {
    pub fn new(nics: Arc<Nics>, selected: Nics, stats: &StatsTable) -> Self {
        Self { nics, counters: stats.of(&selected), selected }
    }

    /// The record of a datagram, or `None` if it is dropped. Counts it either way, except on
    /// sockets whose role is [`Role::Send`] or [`Role::Unjudged`].
    #[inline]
    pub fn admit(
        &self,
        socket: &ListenSocket,
        slot: u16,
        mut arrival: Arrival,
        span: Span,
    ) -> Option<Record> {
        let heard_by = SocketKey { slot, number: socket.number };
        if arrival.drop_count != 0 {
            socket.note_drop_count(arrival.drop_count);
        }
        let class = match socket.plan.role {
            Role::Hear(class) => class,
            Role::HearAll => self.classify(&arrival),
            Role::Send => return None,
            Role::Unjudged => {
                let class = Class::Unicast;
                return Some(Record { arrival, span, heard_by, port: 0, class, nic: 0 });
            }
        };
        let (nic, counters) = self.attribute(socket, class, &arrival);
        let is_strange = socket.plan.role == Role::HearAll
            && (class == Class::Group && !socket.plan.joins(arrival.destination)
                || self.is_copy(socket, class, arrival.destination));
        let Some(counters) = counters.filter(|_| !is_strange) else {
            // A wildcard socket also hears on NICs and at addresses that were not chosen, and in
            // groups that only another program joined. Where each address of a NIC has a socket,
            // each hears a broadcast, and only one hands it out.
            add(&socket.counters.guarded_count, 1);
            return None;
        };
        if arrival.is_control_truncated {
            add(&counters.malformed_count, 1);
        }
        if !is_answerable(arrival.source) {
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

    /// Whether the socket of another address of the same NIC hands out this broadcast. Where each
    /// address of a NIC has a socket, each of them hears it.
    fn is_copy(&self, socket: &ListenSocket, class: Class, destination: Ipv4Addr) -> bool {
        let Some(nic) = self.selected.by_index(socket.plan.nic_index()) else {
            return false;
        };
        let mut addresses = nic.addresses.iter();
        let addressed = match class {
            Class::Subnet => addresses.find(|own| own.broadcast == Some(destination)),
            Class::Limited => None,
            Class::Unicast | Class::Group => return false,
        };
        let speaker = addressed.map(|own| own.address).or_else(|| nic.primary());
        speaker.is_some_and(|speaker| speaker != socket.plan.address)
    }

    fn classify(&self, arrival: &Arrival) -> Class {
        let destination = arrival.destination;
        if destination.is_broadcast() {
            return Class::Limited;
        }
        if destination.is_multicast() {
            return Class::Group;
        }
        let is_broadcast_of =
            |nic: &Nic| nic.addresses.iter().any(|own| own.broadcast == Some(destination));
        let arrived_on = self.nics.by_index(arrival.ifindex);
        if arrived_on.is_some_and(is_broadcast_of) || self.nics.iter().any(is_broadcast_of) {
            return Class::Subnet;
        }
        Class::Unicast
    }

    /// The index and the counters of the NIC that heard a datagram; no counters if the engine
    /// does not listen there.
    fn attribute<'a>(
        &'a self,
        socket: &'a ListenSocket,
        class: Class,
        arrival: &Arrival,
    ) -> (u32, Option<&'a Arc<NicCounters>>) {
        if let Some(nic) = &socket.plan.nic {
            return (nic.index, Some(&socket.counters));
        }
        let index = match class {
            Class::Unicast if !arrival.destination.is_unspecified() => {
                let owner = self.selected.owner(arrival.destination);
                let loopback = || {
                    let is_loopback = arrival.destination.is_loopback();
                    is_loopback.then(|| self.selected.loopback()).flatten()
                };
                owner.or_else(loopback).map_or(0, |nic| nic.index)
            }
            _ => arrival.ifindex,
        };
        if index == 0 && arrival.ifindex == 0 {
            // Neither destination nor interface tells the NIC: better heard than lost.
            return (0, Some(&socket.counters));
        }
        let position = self.counters.iter().position(|counters| counters.index == index);
        (index, position.map(|position| &self.counters[position]))
    }
}

/// Whether an answer to this source can be right: its port is not 0, and its address is no
/// multicast, broadcast or unspecified one.
fn is_answerable(source: SocketAddrV4) -> bool {
    let address = source.ip();
    source.port() != 0
        && !address.is_multicast()
        && !address.is_broadcast()
        && !address.is_unspecified()
}
