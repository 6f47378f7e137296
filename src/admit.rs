//! From what the kernel told of a datagram to a [`Record`]: guard, class, NIC, counters. Both
//! backends pass through here, so that they cannot differ.

#[cfg(all(test, target_os = "linux"))]
mod by_address;

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
    time::Duration,
};

use crate::{
    listen::{ListenSocket, Role},
    meta::{Class, Record, SocketKey},
    nics::Nics,
    options,
    outbox::Outgoing,
    route::Egress,
    stats::{NicCounters, StatsTable, add},
};

/// What the kernel told of one datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Message {
    /// Unspecified where the kernel told none.
    pub source: SocketAddrV4,
    /// Unspecified where the platform does not tell.
    pub destination: Ipv4Addr,
    /// 0 where the platform does not tell.
    pub ifindex: u32,
    /// Drops of the socket so far; 0 where there was none, the platform does not tell, or nobody
    /// asked to be told with each datagram.
    pub drop_count: u32,
    pub kernel_time: Option<Duration>,
    pub is_truncated: bool,
    /// Whether control messages were cut off.
    pub is_control_truncated: bool,
}

impl Message {
    pub fn from(source: SocketAddrV4) -> Self {
        Self {
            source,
            destination: Ipv4Addr::UNSPECIFIED,
            ifindex: 0,
            drop_count: 0,
            kernel_time: None,
            is_truncated: false,
            is_control_truncated: false,
        }
    }
}

/// Where the payload lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub buffer: u16,
    pub start: u32,
    pub len: u32,
}

/// The NICs that datagrams are attributed to.
#[derive(Debug)]
pub(crate) struct Admission {
    /// Whether what no answer to can be right is dropped, and each datagram told of its NIC.
    is_guarding: bool,
    /// All NICs of the host.
    pub nics: Arc<Nics>,
    /// Those that the engine listens on, with the addresses that it listens at.
    pub selected: Nics,
    /// Counters of each NIC that the engine listens on, by index.
    counters: Vec<Arc<NicCounters>>,
    /// Counters for what no NIC can be told of.
    nowhere: Arc<NicCounters>,
    /// For each slot the number of its socket, and the slot that sends in its place what leaves by
    /// the kernel's route.
    senders: Vec<Option<(u32, u16)>>,
    /// The one that sends what answers nothing: no address of its own becomes the source.
    first_slot: u16,
    /// Sockets that send from the address that they are bound to and from no other one.
    address_bound: Vec<AddressBound>,
}

/// A socket that sends from the address that it is bound to.
#[derive(Debug)]
struct AddressBound {
    slot: u16,
    port: u16,
    address: Ipv4Addr,
    /// Whether that is an address of a NIC, and no broadcast address or group.
    is_source: bool,
    nic: u32,
}

impl AddressBound {
    /// Whether what it sends leaves so.
    fn sends_so(&self, egress: Egress) -> bool {
        self.is_source
            && egress.source.is_none_or(|source| source == self.address)
            && (egress.source.is_some() || egress.ifindex.is_none_or(|index| index == self.nic))
    }
}

impl Admission {
    /// Drops nothing and attributes nothing: for owners of sockets who do that themselves.
    #[allow(dead_code, reason = "for the ring of udp_v4, which only Linux has")]
    pub fn unguarded(stats: &StatsTable) -> Self {
        let nobody = Self::new(Arc::default(), Nics::default(), &[], stats);
        Self { is_guarding: false, ..nobody }
    }

    /// `sockets` are the engine's, by slot.
    pub fn new(
        nics: Arc<Nics>,
        selected: Nics,
        sockets: &[Option<Arc<ListenSocket>>],
        stats: &StatsTable,
    ) -> Self {
        let counters = selected.iter().map(|nic| stats.nic(nic.index, &nic.name)).collect();
        Self {
            is_guarding: true,
            nics,
            selected,
            counters,
            nowhere: stats.nowhere(),
            senders: senders(sockets),
            first_slot: first_slot(sockets),
            address_bound: address_bound(sockets),
        }
    }

    /// The slot of the socket that sends a datagram: the one that heard what it answers, unless
    /// that is bound to a device and the kernel is to choose the way. `None` if that has been closed.
    pub fn sending_slot(&self, outgoing: &Outgoing) -> Option<u16> {
        let Some(SocketKey { slot, number }) = outgoing.heard_by else {
            return Some(self.at_source(self.first_slot, outgoing.egress));
        };
        let (current, routed) = (*self.senders.get(usize::from(slot))?)?;
        let is_pinned = outgoing.egress.ifindex.is_some();
        let sender = if is_pinned { slot } else { routed };
        (current == number).then(|| self.at_source(sender, outgoing.egress))
    }

    /// Of the sockets that are bound to addresses the one that sends so, on the port of `slot`;
    /// else `slot`.
    fn at_source(&self, slot: u16, egress: Egress) -> u16 {
        let sockets = &self.address_bound;
        match sockets.iter().find(|own| own.slot == slot) {
            Some(own) if !own.sends_so(egress) => {
                let mut others = sockets.iter().filter(|other| other.port == own.port);
                others.find(|other| other.sends_so(egress)).map_or(slot, |other| other.slot)
            }
            _ => slot,
        }
    }

    /// The record of a datagram, or `None` if it is dropped; counts it either way.
    #[inline]
    pub fn admit(
        &self,
        socket: &ListenSocket,
        slot: u16,
        message: &Message,
        span: Span,
    ) -> Option<Record> {
        if message.drop_count != 0 {
            socket.note_drop_count(message.drop_count);
        }
        let class = match socket.wanted.role {
            Role::Hear(class) => class,
            Role::HearAll => self.classify(message),
            Role::Send => return None,
        };
        let (nic, counters) = self.attribute(socket, class, message);
        let hears_all = socket.wanted.role == Role::HearAll;
        let is_strange = hears_all
            && (class == Class::Group && !socket.wanted.joins(message.destination)
                || self.is_copy(socket, class, message.destination));
        let Some(counters) = counters.filter(|_| !is_strange) else {
            // Heard by a wildcard socket on a NIC, or at an address, that was not chosen, or in a
            // group that another program joined; or heard by another address of the NIC as well.
            add(&socket.counters.counters.guarded_count, 1);
            return None;
        };
        let counters = &counters.counters;
        if message.is_control_truncated {
            add(&counters.malformed_count, 1);
        }
        if self.is_guarding && !is_answerable(message.source) {
            add(&counters.guarded_count, 1);
            return None;
        }
        add(&counters.received_by_class[class as usize], 1);
        add(&counters.received_bytes, u64::from(span.len));
        if message.is_truncated {
            add(&counters.truncated_count, 1);
        }
        let (destination, ifindex) = match socket.wanted.tells_arrival() {
            Some(arrival) if message.ifindex == 0 => arrival,
            _ => (message.destination, message.ifindex),
        };
        Some(Record {
            source: message.source,
            destination,
            port: socket.port,
            class,
            is_truncated: message.is_truncated,
            nic,
            ifindex,
            kernel_time: message.kernel_time,
            drop_count: message.drop_count,
            heard_by: SocketKey { slot, number: socket.number },
            buffer: span.buffer,
            start: span.start,
            len: span.len,
        })
    }

    /// Whether a broadcast is handed out by the socket of another address of the same NIC, where
    /// each of them hears it.
    fn is_copy(&self, socket: &ListenSocket, class: Class, destination: Ipv4Addr) -> bool {
        let index = socket.wanted.nic.as_ref().map_or(0, |nic| nic.1);
        let Some(nic) = self.selected.by_index(index) else {
            return false;
        };
        let mut addresses = nic.addresses.iter();
        let addressed = match class {
            Class::Subnet => addresses.find(|own| own.broadcast == Some(destination)),
            Class::Limited => None,
            Class::Unicast | Class::Group => return false,
        };
        let speaker = addressed.map(|own| own.address).or_else(|| nic.primary());
        speaker.is_some_and(|speaker| speaker != socket.wanted.address)
    }

    fn classify(&self, message: &Message) -> Class {
        let destination = message.destination;
        if destination.is_broadcast() {
            return Class::Limited;
        }
        if destination.is_multicast() {
            return Class::Group;
        }
        let is_broadcast_of =
            |nic: &crate::Nic| nic.addresses.iter().any(|own| own.broadcast == Some(destination));
        let arrival = self.nics.by_index(message.ifindex);
        if arrival.is_some_and(is_broadcast_of) || self.nics.iter().any(is_broadcast_of) {
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
        message: &Message,
    ) -> (u32, Option<&'a Arc<NicCounters>>) {
        if !self.is_guarding {
            return (0, Some(&socket.counters));
        }
        if let Some((_, index)) = socket.wanted.nic {
            return (index, Some(&socket.counters));
        }
        let index = match class {
            Class::Unicast if !message.destination.is_unspecified() => {
                let owner = self.selected.owner(message.destination);
                let loopback = || {
                    let is_loopback = message.destination.is_loopback();
                    is_loopback.then(|| self.selected.loopback()).flatten()
                };
                owner.or_else(loopback).map_or(0, |nic| nic.index)
            }
            _ => message.ifindex,
        };
        if index == 0 && message.ifindex == 0 {
            // The platform tells neither: better heard than lost.
            return (0, Some(&socket.counters));
        }
        let position = self.counters.iter().position(|counters| counters.index == index);
        (index, position.map(|position| &self.counters[position]))
    }

    /// Counts what became of datagrams that were sent alike: on the NIC by which they were sent,
    /// else on that of the socket that sent them, if there was one.
    pub fn count_sent(
        &self,
        outgoing: &Outgoing,
        socket: Option<&ListenSocket>,
        sent: Sent,
        count: usize,
    ) {
        let by_index = |index| self.counters.iter().find(|counters| counters.index == index);
        let of_socket = || socket.map_or(&self.nowhere, |socket| &socket.counters);
        let counters =
            &outgoing.egress.ifindex.and_then(by_index).unwrap_or_else(of_socket).counters;
        let counter = match sent {
            Sent::Yes => &counters.sent_count,
            Sent::WouldBlock => &counters.would_block_count,
            Sent::Failed => &counters.send_error_count,
        };
        add(counter, count as u64);
    }
}

fn senders(sockets: &[Option<Arc<ListenSocket>>]) -> Vec<Option<(u32, u16)>> {
    let sender_of = |port| {
        let sends = |socket: &Option<Arc<ListenSocket>>| {
            let socket = socket.as_ref();
            socket.is_some_and(|socket| socket.port == port && socket.wanted.role == Role::Send)
        };
        sockets.iter().position(sends)
    };
    let sender = |(slot, socket): (usize, &Option<Arc<ListenSocket>>)| {
        let socket = socket.as_ref()?;
        let other = socket.wanted.is_device_bound.then(|| sender_of(socket.port)).flatten();
        Some((socket.number, other.unwrap_or(slot) as u16))
    };
    sockets.iter().enumerate().map(sender).collect()
}

fn address_bound(sockets: &[Option<Arc<ListenSocket>>]) -> Vec<AddressBound> {
    let bound = |(slot, socket): (usize, &Option<Arc<ListenSocket>>)| {
        let wanted = &socket.as_ref()?.wanted;
        let hears_nic = wanted.role == Role::HearAll && wanted.nic.is_some();
        let is_bound =
            hears_nic || !options::SENDS_FROM_OTHER_ADDRESSES && !wanted.address.is_unspecified();
        is_bound.then(|| AddressBound {
            slot: slot as u16,
            port: socket.as_ref().map_or(0, |socket| socket.port),
            address: wanted.address,
            is_source: matches!(wanted.role, Role::HearAll | Role::Hear(Class::Unicast)),
            nic: wanted.nic.as_ref().map_or(0, |nic| nic.1),
        })
    };
    sockets.iter().enumerate().filter_map(bound).collect()
}

fn first_slot(sockets: &[Option<Arc<ListenSocket>>]) -> u16 {
    let first_port = sockets.iter().flatten().map(|socket| socket.port).next();
    let sends = |socket: &Option<Arc<ListenSocket>>| {
        let socket = socket.as_ref().filter(|socket| Some(socket.port) == first_port);
        socket.is_some_and(|socket| socket.wanted.role == Role::Send)
    };
    let sender = sockets.iter().position(sends);
    sender.or_else(|| sockets.iter().position(Option::is_some)).unwrap_or(0) as u16
}

/// Whether an answer to this source can be right: no multicast, broadcast or unspecified address,
/// and a port.
fn is_answerable(source: SocketAddrV4) -> bool {
    let address = source.ip();
    source.port() != 0
        && !address.is_multicast()
        && !address.is_broadcast()
        && !address.is_unspecified()
}

/// What became of a datagram that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    Yes,
    WouldBlock,
    Failed,
}
