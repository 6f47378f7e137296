//! The class of a destination: unicast, subnet, limited or group.

use std::fmt;

/// The class of a datagram's destination.
///
/// ```
/// use nicring::Class;
///
/// assert_eq!(Class::Subnet.to_string(), "subnet broadcast");
/// assert_eq!(Class::ALL.len(), 4);
/// ```
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

    /// One word for it, for logs and exports.
    ///
    /// ```
    /// assert_eq!(nicring::Class::Subnet.name(), "subnet");
    /// ```
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unicast => "unicast",
            Self::Subnet => "subnet",
            Self::Limited => "limited",
            Self::Group => "group",
        }
    }
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
