//! The way out.

use std::net::Ipv4Addr;

/// The way a datagram leaves this host.
///
/// ```
/// use nicring::Egress;
///
/// let by_route = Egress::default();
/// assert_eq!(by_route.ifindex, None);
/// let by_nic = Egress { ifindex: Some(2), source: Some([192, 0, 2, 7].into()) };
/// # let _ = by_nic;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Egress {
    /// The index of the interface it leaves by; `None` for the kernel's route to the destination.
    pub ifindex: Option<u32>,
    /// The source address it carries; `None` for the kernel's choice.
    pub source: Option<Ipv4Addr>,
}
