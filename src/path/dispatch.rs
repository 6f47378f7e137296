//! Chooses the socket that sends a datagram, and counts what became of it. Both backends call this
//! code when they send, as they call [`admit`](super::admit) when they receive.

use std::{collections::HashMap, net::Ipv4Addr, sync::Arc};

use super::sockets::{ListenSocket, Role};
use crate::{
    datagram::{Class, Egress, Outgoing, SocketKey},
    nics::Nics,
    platform,
    stats::{NicCounters, StatsTable, add},
};

/// What must be known of an engine's sockets to send by them.
#[derive(Debug)]
pub(crate) struct Dispatch {
    /// By slot.
    senders: Vec<Option<Sender>>,
    /// The slot that sends what answers nothing. If the first port has a socket of [`Role::Send`],
    /// it is that one: it has no address that would become the source.
    first_slot: u16,
    /// Sockets that can send only from the address that they are bound to.
    address_bound: Vec<AddressBound>,
    /// Counters of each NIC that the engine listens on, by ascending index.
    counters: Vec<Arc<NicCounters>>,
    unattributed: Arc<NicCounters>,
}

/// What must be known of the socket in a slot. It does not keep the socket open.
#[derive(Debug)]
struct Sender {
    /// The number in its [`SocketKey`].
    number: u32,
    counters: Arc<NicCounters>,
    /// The slot that sends, in place of this one, what leaves by the kernel's route.
    routed_slot: u16,
}

/// A socket that can send only from the address that it is bound to.
#[derive(Debug)]
struct AddressBound {
    slot: u16,
    port: u16,
    address: Ipv4Addr,
    /// Whether `address` is an address of a NIC, and no broadcast address or group.
    is_source: bool,
    nic: u32,
}

impl AddressBound {
    /// Whether this socket can send by `egress`.
    fn can_carry(&self, egress: Egress) -> bool {
        self.is_source
            && egress.source.is_none_or(|source| source == self.address)
            && (egress.source.is_some() || egress.ifindex.is_none_or(|index| index == self.nic))
    }
}

/// What became of a datagram that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    Yes,
    WouldBlock,
    Failed,
}

impl Dispatch {
    /// `sockets` are the engine's, by slot, and `selected` the NICs that it listens on.
    pub fn new(sockets: &[Option<Arc<ListenSocket>>], selected: &Nics, stats: &StatsTable) -> Self {
        Self {
            senders: senders(sockets),
            first_slot: first_slot(sockets),
            address_bound: address_bound(sockets),
            counters: stats.of(selected),
            unattributed: stats.unattributed(),
        }
    }

    /// The slot that sends `outgoing`: the one that heard the question, or the port's unbound
    /// sender if the kernel's route is to be used. `None` if that socket has been closed.
    pub fn sending_slot(&self, outgoing: &Outgoing) -> Option<u16> {
        let Some(SocketKey { slot, number }) = outgoing.heard_by else {
            return Some(self.at_source(self.first_slot, outgoing.egress));
        };
        let sender = self.sender(slot)?;
        let is_pinned = outgoing.egress.ifindex.is_some();
        let sending = if is_pinned { slot } else { sender.routed_slot };
        (sender.number == number).then(|| self.at_source(sending, outgoing.egress))
    }

    fn sender(&self, slot: u16) -> Option<&Sender> {
        self.senders.get(usize::from(slot))?.as_ref()
    }

    /// `slot`, unless its socket is bound to an address and cannot send by `egress`. Then it is a
    /// socket of the same port that can, if there is one.
    fn at_source(&self, slot: u16, egress: Egress) -> u16 {
        let sockets = &self.address_bound;
        match sockets.iter().find(|own| own.slot == slot) {
            Some(own) if !own.can_carry(egress) => {
                let mut others = sockets.iter().filter(|other| other.port == own.port);
                others.find(|other| other.can_carry(egress)).map_or(slot, |other| other.slot)
            }
            _ => slot,
        }
    }

    /// Counts what became of `count` datagrams that were sent alike. They count for the NIC that
    /// their egress names, else for the NIC of the socket that sent them, else for no NIC.
    pub fn count_sent(&self, outgoing: &Outgoing, slot: Option<u16>, sent: Sent, count: usize) {
        let by_index = |index| {
            let found = self.counters.binary_search_by_key(&index, |counters| counters.index);
            found.ok().map(|position| &self.counters[position])
        };
        let of_nic = outgoing.egress.ifindex.and_then(by_index);
        let of_socket = || slot.and_then(|slot| self.sender(slot)).map(|sender| &sender.counters);
        let counters = of_nic.or_else(of_socket).unwrap_or(&self.unattributed);
        let counter = match sent {
            Sent::Yes => &counters.sent_count,
            Sent::WouldBlock => &counters.would_block_count,
            Sent::Failed => &counters.send_error_count,
        };
        add(counter, count as u64);
    }
}

fn senders(sockets: &[Option<Arc<ListenSocket>>]) -> Vec<Option<Sender>> {
    let by_port: HashMap<u16, u16> = by_role(sockets, Role::Send);
    let sender = |(slot, socket): (usize, &Option<Arc<ListenSocket>>)| {
        let socket = socket.as_ref()?;
        let other = by_port.get(&socket.port).filter(|_| socket.plan.is_device_bound);
        let routed_slot = other.copied().unwrap_or(slot as u16);
        let (number, counters) = (socket.number, Arc::clone(&socket.counters));
        Some(Sender { number, counters, routed_slot })
    };
    sockets.iter().enumerate().map(sender).collect()
}

/// The first slot with this role, for each port.
fn by_role(sockets: &[Option<Arc<ListenSocket>>], role: Role) -> HashMap<u16, u16> {
    let has_role = |(slot, socket): (usize, &Option<Arc<ListenSocket>>)| {
        let socket = socket.as_ref().filter(|socket| socket.plan.role == role)?;
        Some((socket.port, slot as u16))
    };
    // The later entries are replaced by the earlier ones.
    sockets.iter().enumerate().rev().filter_map(has_role).collect()
}

fn address_bound(sockets: &[Option<Arc<ListenSocket>>]) -> Vec<AddressBound> {
    let bound = |(slot, socket): (usize, &Option<Arc<ListenSocket>>)| {
        let socket = socket.as_ref()?;
        let plan = &socket.plan;
        let hears_nic = plan.role == Role::HearAll && plan.nic.is_some();
        let is_bound =
            hears_nic || !platform::SENDS_FROM_OTHER_ADDRESSES && !plan.address.is_unspecified();
        is_bound.then(|| AddressBound {
            slot: slot as u16,
            port: socket.port,
            address: plan.address,
            is_source: matches!(plan.role, Role::HearAll | Role::Hear(Class::Unicast)),
            nic: plan.nic_index(),
        })
    };
    sockets.iter().enumerate().filter_map(bound).collect()
}

fn first_slot(sockets: &[Option<Arc<ListenSocket>>]) -> u16 {
    let first_port = sockets.iter().flatten().map(|socket| socket.port).next();
    let sends = |socket: &Option<Arc<ListenSocket>>| {
        let socket = socket.as_ref().filter(|socket| Some(socket.port) == first_port);
        socket.is_some_and(|socket| socket.plan.role == Role::Send)
    };
    let sender = sockets.iter().position(sends);
    sender.or_else(|| sockets.iter().position(Option::is_some)).unwrap_or(0) as u16
}
