//! An IPv4 subnet.

use std::{fmt, net::Ipv4Addr, str::FromStr};

/// An IPv4 subnet, as `192.0.2.0/24`.
///
/// ```
/// use nicring::Subnet;
///
/// let subnet: Subnet = "192.0.2.7/24".parse()?;
/// assert_eq!(subnet.to_string(), "192.0.2.0/24");
/// assert!(subnet.contains_host("192.0.2.99".parse()?));
/// assert!(!subnet.contains_host("192.0.2.255".parse()?), "its broadcast address is no host");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subnet {
    network: u32,
    mask: u32,
}

impl Subnet {
    /// The subnet of `address` with the first `prefix_len` bits fixed; `None` if that is over 32.
    #[must_use]
    pub fn new(address: Ipv4Addr, prefix_len: u8) -> Option<Self> {
        let host_bits = 32u32.checked_sub(u32::from(prefix_len))?;
        let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
        Some(Self { network: address.to_bits() & mask, mask })
    }

    /// The subnet that has only this address.
    #[must_use]
    pub fn of_host(address: Ipv4Addr) -> Self {
        Self { network: address.to_bits(), mask: u32::MAX }
    }

    /// Whether it contains all of `other`.
    #[must_use]
    pub fn covers(&self, other: Self) -> bool {
        self.prefix_len() <= other.prefix_len() && self.contains(other.network())
    }

    /// Its lowest address.
    #[must_use]
    pub fn network(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network)
    }

    /// Whether it is in 127.0.0.0/8.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.prefix_len() >= 8 && self.network().is_loopback()
    }

    /// How many bits are fixed.
    #[must_use]
    pub fn prefix_len(&self) -> u8 {
        self.mask.leading_ones() as u8
    }

    /// Whether `address` is in the subnet.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask == self.network
    }

    /// Whether `address` is in the subnet and can be that of one host. In a subnet of up to /30 the
    /// subnet's own address and its broadcast address cannot.
    #[must_use]
    pub fn contains_host(&self, address: Ipv4Addr) -> bool {
        let host = address.to_bits() & !self.mask;
        let has_broadcast = self.prefix_len() < 31;
        self.contains(address) && !(has_broadcast && (host == 0 || host == !self.mask))
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.prefix_len())
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let (address, prefix_len) = text.split_once('/').ok_or(SubnetError)?;
        let address = address.parse().map_err(|_| SubnetError)?;
        let prefix_len = prefix_len.parse().map_err(|_| SubnetError)?;
        Self::new(address, prefix_len).ok_or(SubnetError)
    }
}

/// The error for a text that is no subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubnetError;

impl fmt::Display for SubnetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an IPv4 subnet: write ADDRESS/PREFIX, 192.0.2.0/24 for example")
    }
}

impl std::error::Error for SubnetError {}
