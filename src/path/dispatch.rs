//! Chooses the socket that sends a datagram, and counts what became of it. Both backends call this
//! code when they send, as they call [`admit`](super::admit) when they receive.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use super::sockets::{ListenSocket, Role};
use crate::{
    datagram::{Class, Egress, Origin, Outgoing},
    nics::Nics,
    platform,
    stats::{NicCounters, StatsTable, add},
};

/// What must be known of an engine's sockets to send by them.
///
/// Each NIC has a sender of its own for the answers to what came in by it. So answers that pile up
/// at a NIC that is slow, or for hosts that are gone, take no room from those of another NIC.
#[derive(Debug)]
pub(crate) struct Dispatch {
    /// Ascending.
    senders: Vec<Sender>,
    /// By port: the senders for what a sender has no room for.
    spare: BTreeMap<u16, Vec<u16>>,
    /// What answers nothing is sent by these.
    plain: Vec<PlainSender>,
    /// Sockets that can send only from the address that they are bound to.
    address_bound: Vec<AddressBound>,
    /// Counters of each NIC that the engine listens on, by ascending index.
    counters: Vec<Arc<NicCounters>>,
    unattributed: Arc<NicCounters>,
}

/// The slot that sends what answers the questions of one port and NIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Sender {
    port: u16,
    /// 0: for every NIC that has no other sender.
    nic: u32,
    slot: u16,
}

/// A socket that sends what answers nothing.
#[derive(Debug)]
struct PlainSender {
    port: u16,
    /// Whether this host hears what it sends to groups; `None` where each datagram decides.
    multicast_loop: Option<bool>,
    slot: u16,
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
            spare: spare(sockets),
            plain: plain(sockets),
            address_bound: address_bound(sockets),
            counters: stats.of(selected),
            unattributed: stats.unattributed(),
        }
    }

    /// The slot that sends `outgoing`. `None` if the port that was asked has no socket any more.
    #[inline]
    pub fn sending_slot(&self, outgoing: &Outgoing) -> Option<u16> {
        let slot = match outgoing.origin {
            Some(origin) => self.sender(origin)?,
            None => self.plain_sender(outgoing.egress)?,
        };
        Some(self.at_source(slot, outgoing.egress))
    }

    /// One of the port. Where there is a choice, this host hears its groups or not, as wanted.
    fn plain_sender(&self, egress: Egress) -> Option<u16> {
        let is_of_port = |sender: &&PlainSender| egress.port.is_none_or(|port| sender.port == port);
        let mut of_port = self.plain.iter().filter(is_of_port);
        let loops = |sender: &&PlainSender| sender.multicast_loop == egress.multicast_loop;
        of_port.clone().find(loops).or_else(|| of_port.next()).map(|sender| sender.slot)
    }

    fn sender(&self, origin: Origin) -> Option<u16> {
        let Origin { port, ifindex } = origin;
        let found =
            self.senders.partition_point(|sender| (sender.port, sender.nic) < (port, ifindex));
        let of_nic = self.senders.get(found);
        if let Some(sender) = of_nic.filter(|sender| (sender.port, sender.nic) == (port, ifindex)) {
            return Some(sender.slot);
        }
        let first = self.senders.partition_point(|sender| sender.port < port);
        self.senders.get(first).filter(|sender| sender.port == port).map(|sender| sender.slot)
    }

    /// Another slot for what the sending slot has no room for, if there is one. Which one it is
    /// depends on the destination: one that takes nothing fills no more than its own.
    pub fn spare_slot(&self, outgoing: &Outgoing) -> Option<u16> {
        let spare = self.spare.get(&outgoing.origin?.port)?;
        // Fibonacci hashing: addresses of one subnet spread evenly.
        let hash = outgoing.destination.ip().to_bits().wrapping_mul(0x9E37_79B9);
        spare.get(((u64::from(hash) * spare.len() as u64) >> 32) as usize).copied()
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
    /// their egress names, else for the NIC that the question came in by, else for no NIC.
    pub fn count_sent(&self, outgoing: &Outgoing, sent: Sent, count: usize) {
        let by_index = |index| {
            let found = self.counters.binary_search_by_key(&index, |counters| counters.index);
            found.ok().map(|position| &self.counters[position])
        };
        let of_egress = outgoing.egress.ifindex.and_then(by_index);
        let of_origin = || by_index(outgoing.origin?.ifindex);
        let counters = of_egress.or_else(of_origin).unwrap_or(&self.unattributed);
        let counter = match sent {
            Sent::Yes => &counters.sent_count,
            Sent::WouldBlock => &counters.would_block_count,
            Sent::Failed => &counters.send_error_count,
        };
        add(counter, count as u64);
    }
}

fn open_slots(
    sockets: &[Option<Arc<ListenSocket>>],
) -> impl Iterator<Item = (u16, &Arc<ListenSocket>)> {
    let numbered = sockets.iter().enumerate();
    numbered.filter_map(|(slot, socket)| Some((slot as u16, socket.as_ref()?)))
}

/// The sockets of [`Role::Reply`]. A port that has none, because this system answers from the
/// sockets that hear, has those.
fn senders(sockets: &[Option<Arc<ListenSocket>>]) -> Vec<Sender> {
    let of_role = |may_send: fn(&ListenSocket) -> bool| {
        let may_send = move |(_, socket): &(u16, &Arc<ListenSocket>)| may_send(socket);
        open_slots(sockets).filter(may_send).map(|(slot, socket)| Sender {
            port: socket.port,
            nic: socket.plan.nic_index(),
            slot,
        })
    };
    let mut senders: Vec<_> = of_role(|socket| socket.plan.role == Role::Reply).collect();
    let has_senders = senders.clone();
    senders.extend(
        of_role(|socket| socket.plan.hears())
            .filter(|hearing| has_senders.iter().all(|sender| sender.port != hearing.port)),
    );
    senders.sort();
    senders.dedup_by_key(|sender| (sender.port, sender.nic));
    senders
}

fn spare(sockets: &[Option<Arc<ListenSocket>>]) -> BTreeMap<u16, Vec<u16>> {
    let mut spare: BTreeMap<u16, Vec<u16>> = BTreeMap::new();
    for (slot, socket) in open_slots(sockets) {
        if let Role::Spare(_) = socket.plan.role {
            spare.entry(socket.port).or_default().push(slot);
        }
    }
    spare
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

/// The sockets of [`Role::Send`]. A port that has none has those that hear.
fn plain(sockets: &[Option<Arc<ListenSocket>>]) -> Vec<PlainSender> {
    let sender = |(slot, socket): (u16, &Arc<ListenSocket>)| {
        let multicast_loop = match socket.plan.role {
            Role::Send { multicast_loop } => Some(multicast_loop),
            _ => None,
        };
        (socket.plan.hears() || multicast_loop.is_some()).then_some(PlainSender {
            port: socket.port,
            multicast_loop,
            slot,
        })
    };
    let mut plain: Vec<_> = open_slots(sockets).filter_map(sender).collect();
    // Of each port those first that are for it.
    let first_ports: Vec<u16> = plain.iter().map(|sender| sender.port).collect();
    let rank = |port| first_ports.iter().position(|first| *first == port);
    plain.sort_by_key(|sender| (rank(sender.port), sender.multicast_loop.is_none()));
    plain
}
