//! The interfaces that have IPv4 addresses. No other file uses the crate that enumerates them.

use std::{fmt, net::Ipv4Addr};

use getifaddrs::{Address, InterfaceFilter, InterfaceFlags};

use crate::error::{Error, Result};

/// An interface that has an IPv4 address.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Nic {
    /// The system's name for it, such as `eth0`.
    pub name: String,
    /// The system's index, 1 or more. A NIC that is made again under its name has another index.
    pub index: u32,
    /// Whether it is administratively up.
    pub is_up: bool,
    /// Whether it is a loopback interface.
    pub is_loopback: bool,
    /// Whether it is a point-to-point link. Such a NIC has no broadcast address.
    pub is_point_to_point: bool,
    /// Its IPv4 addresses, in the system's order: the first is the primary one.
    pub addresses: Vec<NicAddress>,
}

/// The identity of a NIC: its name and its index.
///
/// ```
/// # let engine = nicring::Engine::builder().port(0).nic("127.0.0.1".parse()?).open()?;
/// for socket in engine.handle().sockets() {
///     if let Some(nic) = &socket.nic {
///         println!("{nic}, interface {}", nic.index);
///     }
/// }
/// # Ok::<(), nicring::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct NicId {
    /// The system's name for it, such as `eth0`.
    pub name: String,
    /// The system's index, 1 or more. A NIC that is made again under its name has another index.
    pub index: u32,
}

impl fmt::Display for NicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name)
    }
}

/// One IPv4 address of a [`Nic`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct NicAddress {
    /// The address.
    pub address: Ipv4Addr,
    /// The mask of its subnet.
    pub netmask: Ipv4Addr,
    /// The broadcast address of its subnet; `None` for /31, /32 and point-to-point NICs.
    pub broadcast: Option<Ipv4Addr>,
}

impl NicAddress {
    /// An address with the broadcast address that follows from its mask.
    ///
    /// ```
    /// # use nicring::NicAddress;
    /// let address = NicAddress::new([192, 0, 2, 9].into(), [255, 255, 255, 0].into());
    /// assert_eq!(address.broadcast, Some([192, 0, 2, 255].into()));
    /// assert!(address.contains([192, 0, 2, 200].into()));
    /// ```
    #[must_use]
    pub fn new(address: Ipv4Addr, netmask: Ipv4Addr) -> Self {
        let host_bits = !netmask.to_bits();
        let has_broadcast = host_bits > 1 && host_bits != u32::MAX;
        Self {
            address,
            netmask,
            broadcast: has_broadcast.then(|| Ipv4Addr::from_bits(address.to_bits() | host_bits)),
        }
    }

    /// Whether `other` is in the subnet of this address. With a mask of /0 only the address itself
    /// is: such a mask does not say who is on the link.
    #[must_use]
    pub fn contains(&self, other: Ipv4Addr) -> bool {
        let mask = self.netmask.to_bits();
        if mask == 0 {
            return self.address == other;
        }
        (self.address.to_bits() ^ other.to_bits()) & mask == 0
    }
}

impl Nic {
    /// Its name and index.
    #[must_use]
    pub fn id(&self) -> NicId {
        NicId { name: self.name.clone(), index: self.index }
    }

    /// The first address. The NIC sends from it unless another one is chosen.
    #[must_use]
    pub fn primary(&self) -> Option<Ipv4Addr> {
        self.addresses.first().map(|address| address.address)
    }

    /// Whether `other` is in one of the NIC's subnets.
    #[must_use]
    pub fn contains(&self, other: Ipv4Addr) -> bool {
        self.addresses.iter().any(|own| own.contains(other))
    }

    /// The address from which to answer a broadcast or a group datagram. The first choice is the
    /// address with the longest prefix that contains the asker, as the kernel's route to the asker
    /// would choose. The second is the address whose broadcast address was asked. The third is the
    /// primary address.
    pub(crate) fn source_for(&self, asker: Ipv4Addr, asked: Ipv4Addr) -> Option<Ipv4Addr> {
        longest_prefix(self.addresses.iter(), asker, |own| (own.address, own.netmask))
            .or_else(|| self.addresses.iter().find(|own| own.broadcast == Some(asked)))
            .map(|own| own.address)
            .or_else(|| self.primary())
    }

    /// Whether the NIC has this address.
    #[must_use]
    pub fn owns(&self, address: Ipv4Addr) -> bool {
        self.addresses.iter().any(|own| own.address == address)
    }
}

/// Of the subnets that contain `address`, the one with the longest prefix; of equal ones the first.
/// A mask of /0 does not count: it does not say who is on the link.
pub(crate) fn longest_prefix<T>(
    subnets: impl Iterator<Item = T>,
    address: Ipv4Addr,
    subnet: impl Fn(&T) -> (Ipv4Addr, Ipv4Addr),
) -> Option<T> {
    let mut best: Option<(u32, T)> = None;
    for candidate in subnets {
        let (own, netmask) = subnet(&candidate);
        let mask = netmask.to_bits();
        let holds = mask != 0 && (own.to_bits() ^ address.to_bits()) & mask == 0;
        if holds && best.as_ref().is_none_or(|(longest, _)| mask.count_ones() > *longest) {
            best = Some((mask.count_ones(), candidate));
        }
    }
    best.map(|(_, found)| found)
}

/// A snapshot of the NICs of this host, ordered by index.
///
/// ```
/// let nics = nicring::Nics::enumerate()?;
/// for nic in nics.iter() {
///     println!("{} {:?}", nic.name, nic.addresses);
/// }
/// # Ok::<(), nicring::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nics {
    nics: Vec<Nic>,
    /// Every address of this host with the position of its NIC, sorted.
    owners: Vec<(Ipv4Addr, usize)>,
}

impl Nics {
    /// Lists the NICs of this host. Interfaces without an IPv4 address are left out. Interfaces
    /// that are down are included.
    ///
    /// # Errors
    ///
    /// [`Error::Enumerate`] if the system cannot list them. A failure never gives an empty
    /// snapshot.
    pub fn enumerate() -> Result<Self> {
        let enumerate_error = |source| Error::Enumerate { source };
        let interfaces = InterfaceFilter::new().v4().get().map_err(enumerate_error)?;
        let mut nics: Vec<Nic> = Vec::new();
        for interface in interfaces {
            let (Some(index), Address::V4(address)) = (interface.index, interface.address) else {
                continue;
            };
            let is_point_to_point = interface.flags.contains(InterfaceFlags::POINTTOPOINT);
            let netmask = address.netmask.unwrap_or(Ipv4Addr::BROADCAST);
            let mut own = NicAddress::new(address.address, netmask);
            if is_point_to_point {
                own.broadcast = None;
            }
            match nics.iter_mut().find(|nic| nic.index == index) {
                Some(nic) => nic.addresses.push(own),
                None => nics.push(Nic {
                    // An alias such as `eth0:1` is a label of an address, not an interface.
                    name: interface.name.split(':').next().unwrap_or_default().to_owned(),
                    index,
                    is_up: interface.flags.contains(InterfaceFlags::UP),
                    is_loopback: interface.flags.contains(InterfaceFlags::LOOPBACK),
                    is_point_to_point,
                    addresses: vec![own],
                }),
            }
        }
        Ok(Self::from_iter(nics))
    }

    /// All NICs, by ascending index.
    pub fn iter(&self) -> std::slice::Iter<'_, Nic> {
        self.nics.iter()
    }

    /// How many NICs there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nics.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nics.is_empty()
    }

    /// The NIC with this index.
    #[must_use]
    pub fn by_index(&self, index: u32) -> Option<&Nic> {
        let position = self.nics.binary_search_by_key(&index, |nic| nic.index);
        position.ok().map(|position| &self.nics[position])
    }

    /// The NIC with this name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Nic> {
        self.nics.iter().find(|nic| nic.name == name)
    }

    /// The NIC that has this address.
    #[must_use]
    pub fn owner(&self, address: Ipv4Addr) -> Option<&Nic> {
        let position = self.owners.binary_search_by_key(&address, |owner| owner.0);
        position.ok().map(|position| &self.nics[self.owners[position].1])
    }

    /// Whether datagrams to this address stay on this host: its own addresses and 127.0.0.0/8.
    #[must_use]
    pub fn is_local(&self, address: Ipv4Addr) -> bool {
        address.is_loopback() || self.owner(address).is_some()
    }

    /// The first loopback NIC.
    #[must_use]
    pub fn loopback(&self) -> Option<&Nic> {
        self.nics.iter().find(|nic| nic.is_loopback)
    }
}

impl FromIterator<Nic> for Nics {
    fn from_iter<I: IntoIterator<Item = Nic>>(nics: I) -> Self {
        let mut nics: Vec<Nic> = nics.into_iter().collect();
        nics.sort_by_key(|nic| nic.index);
        let mut owners: Vec<_> = nics
            .iter()
            .enumerate()
            .flat_map(|(position, nic)| {
                nic.addresses.iter().map(move |address| (address.address, position))
            })
            .collect();
        owners.sort();
        owners.dedup_by_key(|owner| owner.0);
        Self { nics, owners }
    }
}

impl<'a> IntoIterator for &'a Nics {
    type Item = &'a Nic;
    type IntoIter = std::slice::Iter<'a, Nic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Names one or more NICs: by name, by address, or by subnet.
///
/// ```
/// # use nicring::NicFilter;
/// let by_name: NicFilter = "eth0".parse()?;
/// let by_address: NicFilter = "192.0.2.7".parse()?;
/// let by_subnet: NicFilter = "192.0.2.0/24".parse()?;
/// assert!("192.0.2.0/33".parse::<NicFilter>().is_err());
/// # Ok::<(), nicring::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NicFilter {
    /// The NIC of this name.
    Name(String),
    /// The NIC that has this address, and of its addresses only this one.
    Address(Ipv4Addr),
    /// Every NIC that has an address in this subnet (an address and a prefix length of 0 to 32),
    /// and of its addresses only those in the subnet.
    Subnet(Ipv4Addr, u8),
}

impl NicFilter {
    /// Whether the filter names this address of this NIC.
    #[must_use]
    pub fn matches(&self, nic: &Nic, own: &NicAddress) -> bool {
        match self {
            Self::Name(name) => nic.name == *name,
            Self::Address(address) => own.address == *address,
            Self::Subnet(network, prefix_len) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(*prefix_len)).unwrap_or(0);
                (own.address.to_bits() ^ network.to_bits()) & mask == 0
            }
        }
    }
}

impl fmt::Display for NicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
            Self::Subnet(network, prefix_len) => write!(f, "{network}/{prefix_len}"),
        }
    }
}

impl std::str::FromStr for NicFilter {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |reason: &str| {
            let reason =
                format!("{text:?} {reason}; expected a NIC's name, 192.0.2.7 or 192.0.2.0/24");
            Err(Error::setting("nic", reason))
        };
        if let Some((network, prefix_len)) = text.split_once('/') {
            return match (network.parse(), prefix_len.parse()) {
                (Ok(network), Ok(prefix_len @ 0..=32)) => Ok(Self::Subnet(network, prefix_len)),
                (Err(_), _) => refuse("has no IPv4 address before the slash"),
                _ => refuse("has no prefix length of 0 to 32 after the slash"),
            };
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let looks_numeric =
            text.contains('.') && text.chars().all(|c| c.is_ascii_digit() || c == '.');
        if text.is_empty() || looks_numeric || text.contains(char::is_whitespace) {
            return refuse("is neither a name nor an IPv4 address");
        }
        Ok(Self::Name(text.to_owned()))
    }
}

/// NICs for tests.
#[cfg(test)]
pub(crate) mod samples {
    use super::*;

    /// A NIC that is up, with these addresses and prefix lengths. `lo` is the loopback.
    pub fn nic(name: &str, index: u32, addresses: &[(&str, u32)]) -> Nic {
        let address = |&(address, prefix_len): &(&str, u32)| {
            let mask = u32::MAX << (32 - prefix_len);
            NicAddress::new(address.parse().unwrap(), Ipv4Addr::from_bits(mask))
        };
        Nic {
            name: name.into(),
            index,
            is_up: true,
            is_loopback: name == "lo",
            is_point_to_point: false,
            addresses: addresses.iter().map(address).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcast_is_none_for_31_32_and_0() {
        let broadcast = |prefix_len: u32| {
            let mask = u32::MAX.checked_shl(32 - prefix_len).unwrap_or(0);
            NicAddress::new(Ipv4Addr::new(10, 1, 2, 3), Ipv4Addr::from_bits(mask)).broadcast
        };
        assert_eq!(broadcast(0), None);
        assert_eq!(broadcast(8), Some(Ipv4Addr::new(10, 255, 255, 255)));
        assert_eq!(broadcast(24), Some(Ipv4Addr::new(10, 1, 2, 255)));
        assert_eq!(broadcast(30), Some(Ipv4Addr::new(10, 1, 2, 3)));
        assert_eq!(broadcast(31), None);
        assert_eq!(broadcast(32), None);
    }

    #[test]
    fn the_loopback_nic_is_found_with_its_address() {
        let nics = Nics::enumerate().unwrap();
        let lo = nics.loopback().expect("every host has a loopback NIC");
        assert!(lo.owns(Ipv4Addr::LOCALHOST));
        assert_eq!(nics.owner(Ipv4Addr::LOCALHOST), Some(lo));
        assert_eq!(nics.by_index(lo.index), Some(lo));
        assert!(nics.is_local(Ipv4Addr::new(127, 9, 9, 9)));
    }

    #[test]
    fn filters_match_by_name_address_and_subnet() {
        let own = NicAddress::new([10, 1, 2, 3].into(), [255, 255, 255, 0].into());
        let nic = Nic {
            name: "eth0".into(),
            index: 2,
            is_up: true,
            is_loopback: false,
            is_point_to_point: false,
            addresses: vec![own],
        };
        let matches = |text: &str| text.parse::<NicFilter>().unwrap().matches(&nic, &own);
        assert!(matches("eth0") && matches("10.1.2.3") && matches("10.1.0.0/16"));
        assert!(matches("0.0.0.0/0") && matches("10.1.2.3/32"));
        assert!(!matches("eth1") && !matches("10.1.2.4") && !matches("10.2.0.0/16"));
    }

    #[test]
    fn filters_refuse_what_is_neither_a_name_nor_an_address() {
        for text in ["", "1.2.3", "1.2.3.4/33", "x/8", "eth 0", "1.2.3.4.5"] {
            assert!(text.parse::<NicFilter>().is_err(), "{text:?}");
        }
    }
}
