//! The way out.

use std::net::Ipv4Addr;

/// The way a datagram leaves this host.
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
    /// The index of the interface it leaves by; `None` for the kernel's route to the destination.
    pub ifindex: Option<u32>,
    /// The source address it carries; `None` for the kernel's choice.
    pub source: Option<Ipv4Addr>,
}

impl Egress {
    /// By the kernel's route to the destination, from the address that it chooses.
    #[must_use]
    pub const fn by_route() -> Self {
        Self { ifindex: None, source: None }
    }

    /// By the interface with this index, from the address that the kernel chooses.
    #[must_use]
    pub const fn by_nic(ifindex: u32) -> Self {
        Self { ifindex: Some(ifindex), source: None }
    }

    /// The same way, from this address of the host.
    #[must_use]
    pub const fn with_source(self, source: Ipv4Addr) -> Self {
        Self { source: Some(source), ..self }
    }
}
