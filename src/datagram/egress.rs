//! How a datagram leaves this host.

use std::net::Ipv4Addr;

/// How a datagram leaves this host: by which interface, and from which source address.
///
/// ```
/// use nicring::Egress;
///
/// let by_route = Egress::by_route();
/// assert_eq!(by_route.ifindex, None);
/// let by_nic = Egress::by_nic(2).with_source([192, 0, 2, 7].into());
/// assert_eq!((by_nic.ifindex, by_nic.source), (Some(2), Some([192, 0, 2, 7].into())));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct Egress {
    /// The index of the interface that sends it. `None`: the kernel's route to the destination
    /// decides.
    pub ifindex: Option<u32>,
    /// The source address that it carries. `None`: the kernel chooses.
    pub source: Option<Ipv4Addr>,
}

impl Egress {
    /// Leaves by the kernel's route to the destination. The kernel chooses the source address.
    #[must_use]
    pub const fn by_route() -> Self {
        Self { ifindex: None, source: None }
    }

    /// Leaves by the interface with this index. The kernel chooses the source address.
    #[must_use]
    pub const fn by_nic(ifindex: u32) -> Self {
        Self { ifindex: Some(ifindex), source: None }
    }

    /// The same egress, with this address of the host as the source.
    #[must_use]
    pub const fn with_source(self, source: Ipv4Addr) -> Self {
        Self { source: Some(source), ..self }
    }
}
