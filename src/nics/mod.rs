//! The interfaces that have IPv4 addresses: what they are called, what is theirs, and how somebody
//! chooses some of them. Only data; the system is asked in `sys`.
//!
//! - [`subnet`]: an address and a prefix length.
//! - [`filter`]: which NICs, and which of their addresses.

mod filter;
mod subnet;

use std::{
    borrow::Cow,
    fmt,
    net::{Ipv4Addr, SocketAddrV4},
};

pub use filter::NicFilter;
pub use subnet::{Subnet, SubnetError};

/// An interface that has an IPv4 address.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Nic {
    /// The system's name for it, such as `eth0`.
    pub name: String,
    /// The system's index, 1 or more. A NIC that is made again under its name usually has another
    /// index.
    pub index: u32,
    /// Whether it is administratively up.
    pub is_up: bool,
    /// Whether it is a loopback interface.
    pub is_loopback: bool,
    /// Whether it is a point-to-point link, such as a tunnel.
    pub is_point_to_point: bool,
    /// Its IPv4 addresses, in the system's order: the first is the primary one.
    pub addresses: Vec<NicAddress>,
    /// The broadcast addresses of its subnets, sorted. On Linux these are the ones that the kernel
    /// has for it (in its table `local`): the address that was configured (`brd` of ip-address(8))
    /// and the one that follows from the mask. Elsewhere they are those of
    /// [`Nic::addresses`]. `255.255.255.255` is not among them.
    pub broadcasts: Vec<Ipv4Addr>,
    /// Subnets of which every address is this host's, as 127.0.0.0/8 on Linux. On Linux these are
    /// the other `local` routes of ip-route(8) that lead to this NIC; elsewhere there is none.
    pub local_subnets: Vec<Subnet>,
    /// Counts the NICs that had this index before, as far as somebody watched.
    pub(crate) predecessor_count: u32,
}

/// The identity of a NIC: its name and its index.
///
/// ```
/// # let engine = nicring::Engine::builder().port(0).nic("127.0.0.1").open()?;
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
    /// The system's index, 1 or more. A NIC that is made again under its name usually has another
    /// index.
    pub index: u32,
    pub(crate) predecessor_count: u32,
}

impl NicId {
    /// Whether it is the same NIC, maybe under another name.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (self.index, self.predecessor_count) == (other.index, other.predecessor_count)
    }
}

impl fmt::Display for NicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&printable(&self.name))
    }
}

/// A name as it may be written to a terminal or a log. Linux takes control characters in names.
pub(crate) fn printable(name: &str) -> Cow<'_, str> {
    if name.chars().any(char::is_control) {
        return name.escape_debug().to_string().into();
    }
    name.into()
}

/// One IPv4 address of a [`Nic`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct NicAddress {
    /// The address.
    pub address: Ipv4Addr,
    /// The mask of its subnet.
    pub netmask: Ipv4Addr,
    /// The broadcast address of its subnet, if it has one: the address that was configured, else
    /// the one that follows from the mask. /31 and /32 have none, and where the system says so
    /// point-to-point NICs.
    pub broadcast: Option<Ipv4Addr>,
    /// The other end of a point-to-point address (`peer` of ip-address(8)). The subnet is the
    /// peer's then, and the address need not be in it.
    pub peer: Option<Ipv4Addr>,
    /// Whether a plain socket of this host hears datagrams to the address. On Linux one that is not
    /// in the kernel's table `local` is not heard: an address of a VRF, for example
    /// ([vrf](https://docs.kernel.org/networking/vrf.html)).
    pub is_local: bool,
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
        let mut own = Self { address, netmask, broadcast: None, peer: None, is_local: true };
        own.broadcast = own.computed_broadcast();
        own
    }

    /// The broadcast address that follows from the mask; `None` for /31, /32 and /0.
    pub(crate) fn computed_broadcast(&self) -> Option<Ipv4Addr> {
        let host_bits = !self.netmask.to_bits();
        let has_broadcast = host_bits > 1 && host_bits != u32::MAX;
        has_broadcast.then(|| Ipv4Addr::from_bits(self.in_subnet().to_bits() | host_bits))
    }

    /// An address of the subnet.
    fn in_subnet(&self) -> Ipv4Addr {
        self.peer.unwrap_or(self.address)
    }

    /// Whether `other` is in the subnet of this address. With a mask of /0 only the address itself
    /// is: such a mask does not say who is on the link.
    #[must_use]
    pub fn contains(&self, other: Ipv4Addr) -> bool {
        let mask = self.netmask.to_bits();
        if mask == 0 {
            return self.address == other;
        }
        (self.in_subnet().to_bits() ^ other.to_bits()) & mask == 0
    }

    /// Whether `broadcast` is a broadcast address of this address's subnet.
    pub(crate) fn has_broadcast(&self, broadcast: Ipv4Addr) -> bool {
        // Before Linux 5.13 the lowest address of a subnet was a broadcast address too.
        let lowest = self.in_subnet().to_bits() & self.netmask.to_bits();
        self.broadcast == Some(broadcast)
            || self.computed_broadcast() == Some(broadcast)
            || self.contains(broadcast) && broadcast.to_bits() == lowest
    }
}

impl Nic {
    /// A NIC that is up, with the broadcast addresses of these addresses.
    pub(crate) fn new(name: &str, index: u32, addresses: Vec<NicAddress>) -> Self {
        let mut broadcasts: Vec<_> = addresses.iter().filter_map(|own| own.broadcast).collect();
        broadcasts.sort();
        broadcasts.dedup();
        Self {
            name: name.to_owned(),
            index,
            is_up: true,
            is_loopback: false,
            is_point_to_point: false,
            addresses,
            broadcasts,
            local_subnets: Vec::new(),
            predecessor_count: 0,
        }
    }

    /// Its name and index.
    #[must_use]
    pub fn id(&self) -> NicId {
        let (name, index) = (self.name.clone(), self.index);
        NicId { name, index, predecessor_count: self.predecessor_count }
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
        longest_prefix(self.addresses.iter(), asker, |own| (own.in_subnet(), own.netmask))
            .or_else(|| self.addresses.iter().find(|own| own.has_broadcast(asked)))
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
    /// Every local subnet with the position of its NIC, the longest prefix first.
    local_subnets: Vec<(Subnet, usize)>,
    /// Every broadcast address, sorted.
    broadcasts: Vec<Ipv4Addr>,
}

impl Nics {
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

    /// The NIC that has this address, or else the one with the smallest [`Nic::local_subnets`] that
    /// contains it.
    #[must_use]
    pub fn owner(&self, address: Ipv4Addr) -> Option<&Nic> {
        let by_address = self.owners.binary_search_by_key(&address, |owner| owner.0);
        let by_subnet = || self.local_subnets.iter().find(|owner| owner.0.contains(address));
        let position = match by_address {
            Ok(position) => self.owners[position].1,
            Err(_) => by_subnet()?.1,
        };
        Some(&self.nics[position])
    }

    /// Whether an address is that of several NICs.
    pub(crate) fn has_shared_addresses(&self) -> bool {
        self.owners.len() < self.nics.iter().map(|nic| nic.addresses.len()).sum()
    }

    /// Whether datagrams to this address stay on this host: its own addresses, its
    /// [`Nic::local_subnets`] and 127.0.0.0/8.
    #[must_use]
    pub fn is_local(&self, address: Ipv4Addr) -> bool {
        address.is_loopback() || self.owner(address).is_some()
    }

    /// Whether it is the broadcast address of a subnet of this host, or 255.255.255.255.
    #[must_use]
    pub fn is_broadcast(&self, address: Ipv4Addr) -> bool {
        address.is_broadcast() || self.broadcasts.binary_search(&address).is_ok()
    }

    /// Whether what is sent there goes to one host: the port is not 0, and the address no
    /// multicast, broadcast or unspecified one.
    #[inline]
    pub(crate) fn is_host(&self, at: SocketAddrV4) -> bool {
        let address = *at.ip();
        at.port() != 0
            && !address.is_multicast()
            && !address.is_unspecified()
            && !self.is_broadcast(address)
    }

    /// The NICs by which a datagram for everyone leaves: those that are up and have an address, but
    /// not the loopback NIC unless there is no other.
    ///
    /// ```
    /// use std::net::SocketAddrV4;
    ///
    /// use nicring::Egress;
    ///
    /// # fn announce(handle: &nicring::Handle, group: SocketAddrV4) {
    /// // Each NIC announces its own address.
    /// for nic in handle.heard_nics().outward() {
    ///     let Some(own) = nic.primary() else { continue };
    ///     let egress = Egress::by_nic(nic.index).with_source(own);
    ///     let _ = handle.send(egress, group, format!("I am at {own}").as_bytes());
    /// }
    /// # }
    /// ```
    pub fn outward(&self) -> impl Iterator<Item = &Nic> {
        let is_fit = |nic: &&Nic| nic.is_up && nic.primary().is_some();
        let is_inward = !self.iter().filter(is_fit).any(|nic| !nic.is_loopback);
        self.iter().filter(is_fit).filter(move |nic| nic.is_loopback == is_inward)
    }

    /// The first loopback NIC.
    #[must_use]
    pub fn loopback(&self) -> Option<&Nic> {
        self.nics.iter().find(|nic| nic.is_loopback)
    }
}

/// The names with the addresses, in one line.
impl fmt::Display for Nics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, nic) in self.nics.iter().enumerate() {
            let separator = if position > 0 { ", " } else { "" };
            write!(f, "{separator}{} (", printable(&nic.name))?;
            for (position, own) in nic.addresses.iter().enumerate() {
                let separator = if position > 0 { ", " } else { "" };
                write!(f, "{separator}{}", own.address)?;
            }
            f.write_str(if nic.is_up { ")" } else { ", down)" })?;
        }
        Ok(())
    }
}

impl FromIterator<Nic> for Nics {
    fn from_iter<I: IntoIterator<Item = Nic>>(nics: I) -> Self {
        let mut nics: Vec<Nic> = nics.into_iter().collect();
        nics.sort_by_key(|nic| nic.index);
        let (mut owners, mut local_subnets, mut broadcasts) = (Vec::new(), Vec::new(), Vec::new());
        for (position, nic) in nics.iter().enumerate() {
            owners.extend(nic.addresses.iter().map(|own| (own.address, position)));
            local_subnets.extend(nic.local_subnets.iter().map(|subnet| (*subnet, position)));
            broadcasts.extend(&nic.broadcasts);
        }
        owners.sort();
        owners.dedup_by_key(|owner| owner.0);
        local_subnets.sort_by_key(|(subnet, _)| std::cmp::Reverse(subnet.prefix_len()));
        broadcasts.sort();
        broadcasts.dedup();
        Self { nics, owners, local_subnets, broadcasts }
    }
}

impl<'a> IntoIterator for &'a Nics {
    type Item = &'a Nic;
    type IntoIter = std::slice::Iter<'a, Nic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// NICs for tests.
#[cfg(test)]
pub(crate) mod samples {
    use super::*;

    /// A NIC that is up, with these addresses and prefix lengths. `lo` is the loopback.
    pub fn nic(name: &str, index: u32, addresses: &[(&str, u32)]) -> Nic {
        let address = |&(address, prefix_len): &(&str, u32)| {
            let mask = u32::MAX.checked_shl(32 - prefix_len).unwrap_or(0);
            NicAddress::new(address.parse().unwrap(), Ipv4Addr::from_bits(mask))
        };
        let addresses = addresses.iter().map(address).collect();
        Nic { is_loopback: name == "lo", ..Nic::new(name, index, addresses) }
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
    fn a_subnet_of_a_peer_is_that_of_the_peer() {
        // ip address add 10.1.9.1 peer 10.1.2.0/24
        let netmask = [255, 255, 255, 0].into();
        let own = NicAddress { peer: Some([10, 1, 2, 0].into()), ..samples_address(netmask) };
        assert!(own.contains([10, 1, 2, 7].into()) && !own.contains([10, 1, 9, 7].into()));
        assert_eq!(own.computed_broadcast(), Some([10, 1, 2, 255].into()));
        assert!(own.has_broadcast([10, 1, 2, 255].into()));
        assert!(!own.has_broadcast([10, 1, 9, 255].into()));
    }

    fn samples_address(netmask: Ipv4Addr) -> NicAddress {
        let mut own = NicAddress::new([10, 1, 9, 1].into(), netmask);
        own.broadcast = None;
        own
    }

    #[test]
    fn an_address_of_a_local_subnet_belongs_to_the_nic_with_the_smallest_one() {
        let mut lo = samples::nic("lo", 1, &[("127.0.0.1", 8)]);
        lo.local_subnets = vec!["10.0.0.0/8".parse().unwrap(), "127.0.0.0/8".parse().unwrap()];
        let mut eth0 = samples::nic("eth0", 2, &[("10.1.0.1", 24)]);
        eth0.local_subnets = vec!["10.2.0.0/16".parse().unwrap()];
        let nics = Nics::from_iter([lo, eth0]);
        for (address, owner) in [
            ("127.0.1.1", Some("lo")),
            ("10.1.0.1", Some("eth0")),
            ("10.2.0.9", Some("eth0")),
            ("10.3.0.9", Some("lo")),
            ("192.0.2.1", None),
        ] {
            let found = nics.owner(address.parse().unwrap()).map(|nic| nic.name.as_str());
            assert_eq!(found, owner, "{address}");
        }
    }
}
