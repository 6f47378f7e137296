//! What travels: a datagram as it was heard, and as it waits to be sent.
//!
//! In this order: [`Class`], to whom it was sent; [`record`], what is kept of it; [`payloads`],
//! where its bytes lie; [`Datagram`] and [`ReplyPath`], what the handler sees of both; [`Egress`],
//! the way out; [`outbox`], what waits to be sent.

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
pub(crate) use outbox::{Outbox, Outgoing, PAYLOAD_LEN_MAX};
pub(crate) use payloads::Payloads;
pub(crate) use record::{Arrival, Record, SocketKey, Span};
#[allow(unused_imports, reason = "for what only Linux has")]
pub(crate) use {payloads::LentBuffers, record::KernelTime};

/// One received datagram: its payload, and what the kernel told about it.
///
/// Borrowed from its [`Batch`](crate::Batch); what the platform cannot tell is `None`.
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
    /// The bytes that were sent, as far as they fit a buffer (see [`Datagram::is_truncated`]).
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Who sent it.
    #[must_use]
    pub fn source(&self) -> SocketAddrV4 {
        self.record.arrival.source
    }

    /// The address on the wire that it was sent to.
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

    /// The index of the NIC that heard it: for unicast the NIC that has the destination address,
    /// for every other class the one it arrived on. `None` where an unknown interface delivered
    /// it.
    #[must_use]
    pub fn nic(&self) -> Option<u32> {
        (self.record.nic != 0).then_some(self.record.nic)
    }

    /// The index of the interface on which it arrived, by the kernel's word (`IP_PKTINFO`,
    /// [ip(7)](https://man7.org/linux/man-pages/man7/ip.7.html); of a socket that is bound to a
    /// device, that device). For a datagram of this host to one of its own addresses Linux names
    /// the NIC that has the address.
    #[must_use]
    pub fn ifindex(&self) -> Option<u32> {
        (self.record.arrival.ifindex != 0).then_some(self.record.arrival.ifindex)
    }

    /// How a reply to it leaves.
    #[must_use]
    pub fn reply_path(&self) -> ReplyPath {
        let Record { arrival, heard_by, class, nic, .. } = *self.record;
        ReplyPath {
            heard_by,
            destination: arrival.destination,
            class,
            asker: *arrival.source.ip(),
            ifindex: arrival.ifindex,
            nic,
        }
    }

    /// Whether it was longer than a buffer, so that [`Datagram::payload`] is its beginning only.
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

/// How a datagram came, and hence how a reply to it leaves: see
/// [`Batch::reply_by`](crate::Batch::reply_by).
///
/// Datagrams that have the same one can be answered together: what is sent to one address leaves
/// from the same source address and port, by the same NIC.
///
/// ```
/// # fn heard(one: &nicring::Datagram<'_>, other: &nicring::Datagram<'_>) {
/// let same_asker = one.source() == other.source();
/// let can_share_a_reply = same_asker && one.reply_path() == other.reply_path();
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplyPath {
    pub(crate) heard_by: SocketKey,
    /// The address that was asked, unspecified where unknown.
    pub(crate) destination: Ipv4Addr,
    pub(crate) class: Class,
    /// Who asked.
    pub(crate) asker: Ipv4Addr,
    /// The arrival interface, 0 where unknown.
    pub(crate) ifindex: u32,
    /// The NIC that heard it, 0 where unknown.
    pub(crate) nic: u32,
}
