//! The datagrams: as they were received, and as they wait to be sent.
//!
//! In reading order:
//!
//! 1. [`Class`]: the class of the destination.
//! 2. [`record`]: what a batch keeps of a datagram beside its payload.
//! 3. [`payloads`]: the memory that the payload lies in.
//! 4. [`Datagram`] and [`ReplyPath`]: what the handler sees of both.
//! 5. [`Egress`]: how a datagram leaves.
//! 6. [`outbox`]: the datagrams that wait to be sent.

mod class;
mod egress;
mod outbox;
mod payloads;
mod record;

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddrV4},
    time::SystemTime,
};

pub use class::Class;
pub use egress::Egress;
pub use outbox::Queued;
pub(crate) use outbox::{Outbox, Outgoing, PAYLOAD_LEN_MAX, Refusals};
pub(crate) use payloads::Payloads;
pub(crate) use record::{Arrival, Origin, Record, SocketKey, Span};
#[allow(unused_imports, reason = "for what only Linux has")]
pub(crate) use {payloads::LentBuffers, record::KernelTime};

/// One received datagram: its payload, and what the kernel told about it.
///
/// It borrows from its [`Batch`](crate::Batch). What the platform does not tell is `None`.
///
/// ```
/// # fn heard(datagram: &nicring::Datagram<'_>) {
/// println!("{} bytes from {} by interface {:?}, {}",
///     datagram.payload().len(), datagram.source(), datagram.ifindex(), datagram.class());
/// # }
/// ```
#[derive(Clone, Copy)]
pub struct Datagram<'a> {
    pub(crate) record: &'a Record,
    pub(crate) payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// The payload: all bytes that were sent, or as many as fit a buffer
    /// (see [`Datagram::is_truncated`]).
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The address and port of the sender.
    #[must_use]
    pub fn source(&self) -> SocketAddrV4 {
        self.record.arrival.source
    }

    /// The address that it was sent to, as its IP header says.
    #[must_use]
    pub fn destination(&self) -> Option<Ipv4Addr> {
        let destination = self.record.arrival.destination;
        (!destination.is_unspecified()).then_some(destination)
    }

    /// The local port that it was sent to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.record.port
    }

    /// The class of the destination.
    #[must_use]
    pub fn class(&self) -> Class {
        self.record.class
    }

    /// The index of the NIC that heard it. For unicast that is the NIC that has the destination
    /// address, for every other class the NIC that the datagram arrived on. `None` if the NIC is
    /// not known.
    #[must_use]
    pub fn nic(&self) -> Option<u32> {
        (self.record.nic != 0).then_some(self.record.nic)
    }

    /// The index of the interface that it arrived on.
    ///
    /// The kernel tells it by `IP_PKTINFO`
    /// ([ip(7)](https://man7.org/linux/man-pages/man7/ip.7.html)). On a socket that is bound to a
    /// device it is that device. When this host sends to one of its own addresses, Linux names the
    /// NIC that has the address.
    #[must_use]
    pub fn ifindex(&self) -> Option<u32> {
        (self.record.arrival.ifindex != 0).then_some(self.record.arrival.ifindex)
    }

    /// How a reply to it leaves.
    #[must_use]
    pub fn reply_path(&self) -> ReplyPath {
        let Record { arrival, port, class, nic, .. } = *self.record;
        ReplyPath {
            port,
            destination: arrival.destination,
            class,
            asker: *arrival.source.ip(),
            ifindex: arrival.ifindex,
            nic,
        }
    }

    /// Whether it was longer than a buffer. Then [`Datagram::payload`] is only its beginning.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.record.arrival.is_truncated
    }

    /// When the kernel received it; `None` unless [`Builder::kernel_time`] asked for it.
    ///
    /// [`Builder::kernel_time`]: crate::Builder::kernel_time
    #[must_use]
    pub fn kernel_time(&self) -> Option<SystemTime> {
        let kernel_time = self.record.arrival.kernel_time?;
        Some(SystemTime::UNIX_EPOCH + kernel_time.since_epoch())
    }

    /// The time to live of its IP header; `None` unless [`Builder::recv_ttl`] asked for it.
    ///
    /// [`Builder::recv_ttl`]: crate::Builder::recv_ttl
    #[must_use]
    pub fn ttl(&self) -> Option<u8> {
        self.record.arrival.ttl
    }

    /// The type of service of its IP header: DSCP in the upper six bits, ECN in the lower two
    /// (RFC 2474, RFC 3168); `None` unless [`Builder::recv_tos`] asked for it.
    ///
    /// [`Builder::recv_tos`]: crate::Builder::recv_tos
    #[must_use]
    pub fn tos(&self) -> Option<u8> {
        self.record.arrival.tos
    }
}

impl fmt::Debug for Datagram<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datagram")
            .field("source", &self.source())
            .field("destination", &self.destination())
            .field("port", &self.port())
            .field("class", &self.class())
            .field("nic", &self.nic())
            .field("ifindex", &self.ifindex())
            .field("is_truncated", &self.is_truncated())
            .field("payload_len", &self.payload.len())
            .finish()
    }
}

/// How a datagram came, which decides how a reply to it leaves.
///
/// Datagrams with equal reply paths can be answered together, by
/// [`Batch::reply_by`](crate::Batch::reply_by): to one destination, a reply to any of them leaves
/// by the same NIC, from the same source address and port.
///
/// ```
/// # fn heard(one: &nicring::Datagram<'_>, other: &nicring::Datagram<'_>) {
/// let same_asker = one.source() == other.source();
/// let can_share_a_reply = same_asker && one.reply_path() == other.reply_path();
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplyPath {
    /// The port that was asked.
    pub(crate) port: u16,
    /// The address that was asked; unspecified where unknown.
    pub(crate) destination: Ipv4Addr,
    pub(crate) class: Class,
    /// The address that asked.
    pub(crate) asker: Ipv4Addr,
    /// The arrival interface, 0 where unknown.
    pub(crate) ifindex: u32,
    /// The NIC that heard it, 0 where unknown.
    pub(crate) nic: u32,
}

impl ReplyPath {
    /// The index of the NIC that heard the datagram, as [`Datagram::nic`] tells it.
    #[must_use]
    pub fn nic(&self) -> Option<u32> {
        (self.nic != 0).then_some(self.nic)
    }

    pub(crate) fn origin(&self) -> Origin {
        Origin { port: self.port, ifindex: self.ifindex }
    }
}
