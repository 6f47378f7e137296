//! What is known about a received datagram.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, SystemTime},
};

use crate::route::Asked;

/// The class of a datagram's destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// An address of this host.
    Unicast,
    /// The broadcast address of a subnet, such as 192.0.2.255.
    Subnet,
    /// 255.255.255.255.
    Limited,
    /// A multicast group.
    Group,
}

impl Class {
    /// Every class, in the order of their discriminants.
    pub const ALL: [Self; 4] = [Self::Unicast, Self::Subnet, Self::Limited, Self::Group];
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unicast => "unicast",
            Self::Subnet => "subnet broadcast",
            Self::Limited => "limited broadcast",
            Self::Group => "group",
        })
    }
}

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
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Who sent it.
    pub fn source(&self) -> SocketAddrV4 {
        self.record.source
    }

    /// The address on the wire that it was sent to.
    pub fn destination(&self) -> Option<Ipv4Addr> {
        let destination = self.record.destination;
        (!destination.is_unspecified()).then_some(destination)
    }

    /// The local port that it was sent to.
    pub fn port(&self) -> u16 {
        self.record.port
    }

    /// The class of the destination.
    pub fn class(&self) -> Class {
        self.record.class
    }

    /// The index of the NIC that heard it: for unicast the NIC that has the destination address,
    /// for every other class the one it arrived on. `None` where an unknown interface delivered
    /// it.
    pub fn nic(&self) -> Option<u32> {
        (self.record.nic != 0).then_some(self.record.nic)
    }

    /// The index of the interface on which it arrived, by the kernel's word (`IP_PKTINFO`,
    /// [ip(7)](https://man7.org/linux/man-pages/man7/ip.7.html); of a socket that is bound to a
    /// device, that device). For a datagram of this host to one of its own addresses Linux names the
    /// NIC that has the address.
    pub fn ifindex(&self) -> Option<u32> {
        (self.record.ifindex != 0).then_some(self.record.ifindex)
    }

    /// How a reply to it leaves.
    pub fn reply_path(&self) -> ReplyPath {
        let record = self.record;
        let asked = Asked {
            destination: record.destination,
            class: record.class,
            asker: *record.source.ip(),
            ifindex: record.ifindex,
            nic: record.nic,
        };
        ReplyPath { heard_by: record.heard_by, asked }
    }

    /// Whether it was longer than a buffer, so that [`Datagram::payload`] is its beginning only.
    pub fn is_truncated(&self) -> bool {
        self.record.is_truncated
    }

    /// When the kernel received it; `None` unless [`Builder::kernel_time`] asked for it.
    ///
    /// [`Builder::kernel_time`]: crate::Builder::kernel_time
    pub fn kernel_time(&self) -> Option<SystemTime> {
        self.record.kernel_time.map(|since_epoch| SystemTime::UNIX_EPOCH + since_epoch)
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
    pub(crate) asked: Asked,
}

/// Which socket of an engine: after a rescan another one may be in its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SocketKey {
    pub slot: u16,
    /// That of [`ListenSocket::number`](crate::listen::ListenSocket::number).
    pub number: u32,
}

/// A [`Datagram`] without its payload, as a batch keeps it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record {
    pub source: SocketAddrV4,
    /// Unspecified where the platform does not tell.
    pub destination: Ipv4Addr,
    pub port: u16,
    pub class: Class,
    pub is_truncated: bool,
    /// 0 where unknown, as `ifindex`.
    pub nic: u32,
    pub ifindex: u32,
    pub kernel_time: Option<Duration>,
    /// See [`Message::drop_count`](crate::admit::Message::drop_count).
    #[allow(dead_code, reason = "for the ring of udp_v4, which only Linux has")]
    pub drop_count: u32,
    pub heard_by: SocketKey,
    /// Where the payload lies: a buffer's number, and the bytes in it.
    #[allow(dead_code, reason = "for io_uring, which only Linux has")]
    pub buffer: u16,
    pub start: u32,
    pub len: u32,
}
