//! How a datagram leaves this host.

use std::net::Ipv4Addr;

/// How a datagram leaves this host: by which interface, from which source address and port.
///
/// ```
/// use nicring::Egress;
///
/// let by_route = Egress::by_route();
/// assert_eq!(by_route.ifindex, None);
/// let by_nic = Egress::by_nic(2).with_source([192, 0, 2, 7].into());
/// assert_eq!((by_nic.ifindex, by_nic.source), (Some(2), Some([192, 0, 2, 7].into())));
/// // An announcement of mDNS, which its own host need not hear.
/// let announcement = Egress::by_nic(2).with_port(5353).with_ttl(255).with_multicast_loop(false);
/// assert_eq!((announcement.port, announcement.ttl), (Some(5353), Some(255)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct Egress {
    /// The index of the interface that sends it. `None`: the kernel's route to the destination
    /// decides.
    pub ifindex: Option<u32>,
    /// The source address that it carries. `None`: the kernel chooses.
    pub source: Option<Ipv4Addr>,
    /// The source port, one of the engine's. `None`: the first.
    pub port: Option<u16>,
    /// How many routers may pass it on, and one more: the time to live of its IP header, 1 to 255.
    /// `None`: the system's default, or for a group
    /// [`Builder::multicast_ttl`](crate::Builder::multicast_ttl).
    pub ttl: Option<u8>,
    /// Whether programs of this host hear it too, if it goes to a group. `None`: as
    /// [`Builder::multicast_loop`](crate::Builder::multicast_loop) says.
    pub multicast_loop: Option<bool>,
}

impl Egress {
    const ANY: Self =
        Self { ifindex: None, source: None, port: None, ttl: None, multicast_loop: None };

    /// Leaves by the kernel's route to the destination. The kernel chooses the source address.
    #[must_use]
    pub const fn by_route() -> Self {
        Self::ANY
    }

    /// Leaves by the interface with this index. The kernel chooses the source address.
    #[must_use]
    pub const fn by_nic(ifindex: u32) -> Self {
        Self { ifindex: Some(ifindex), ..Self::ANY }
    }

    /// The same egress, with this address of the host as the source.
    #[must_use]
    pub const fn with_source(self, source: Ipv4Addr) -> Self {
        Self { source: Some(source), ..self }
    }

    /// The same egress, from this port, which must be one of the engine's.
    #[must_use]
    pub const fn with_port(self, port: u16) -> Self {
        Self { port: Some(port), ..self }
    }

    /// The same egress, with this time to live, 1 to 255. The kernel refuses 0, which is counted as
    /// an error of sending.
    #[must_use]
    pub const fn with_ttl(self, ttl: u8) -> Self {
        Self { ttl: Some(ttl), ..self }
    }

    /// The same egress, with or without the programs of this host among those that hear a group.
    #[must_use]
    pub const fn with_multicast_loop(self, is_heard_here: bool) -> Self {
        Self { multicast_loop: Some(is_heard_here), ..self }
    }
}
