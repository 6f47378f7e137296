//! Which NICs, and which of their addresses, somebody chooses.

use std::{fmt, net::Ipv4Addr};

use super::{Nic, NicAddress, Nics, Subnet};
use crate::error::{Error, Result};

/// Names one or more NICs: by name, by a pattern of names, by address, or by subnet.
///
/// ```
/// # use nicring::NicFilter;
/// let by_name: NicFilter = "eth0".parse()?;
/// let by_pattern: NicFilter = "docker*".parse()?;
/// let by_address = NicFilter::from(std::net::Ipv4Addr::new(192, 0, 2, 7)); // or "192.0.2.7"
/// let by_subnet: NicFilter = "192.0.2.0/24".parse()?;
/// assert!("192.0.2.0/33".parse::<NicFilter>().is_err());
/// # Ok::<(), nicring::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NicFilter {
    /// The NIC of this name.
    Name(String),
    /// Every NIC whose name is like this one, in which each `*` stands for any letters or none.
    Pattern(String),
    /// The NIC that has this address, and of its addresses only this one.
    Address(Ipv4Addr),
    /// Every NIC that has an address in this subnet, and of its addresses only those in the subnet.
    Subnet(Subnet),
}

impl NicFilter {
    /// Whether the filter names this address of this NIC.
    #[must_use]
    pub fn matches(&self, nic: &Nic, own: &NicAddress) -> bool {
        match self {
            Self::Address(address) => own.address == *address,
            Self::Subnet(subnet) => subnet.contains(own.address),
            Self::Name(_) | Self::Pattern(_) => self.names(nic),
        }
    }

    /// The filter, or what is wrong with it.
    pub(crate) fn read(filter: impl TryInto<Self, Error: Into<Error>>) -> Result<Self, String> {
        filter.try_into().map_err(|error| match error.into() {
            Error::Setting { reason, .. } => reason,
            other => other.to_string(),
        })
    }

    /// Whether the filter names this NIC by its name.
    fn names(&self, nic: &Nic) -> bool {
        match self {
            Self::Name(name) => nic.name == *name,
            Self::Pattern(pattern) => is_like(&nic.name, pattern),
            Self::Address(_) | Self::Subnet(_) => false,
        }
    }

    /// Whether there is a NIC that is up and has what the filter names.
    ///
    /// ```
    /// let nics = nicring::Nics::enumerate()?;
    /// assert!(!"no-such-nic".parse::<nicring::NicFilter>()?.finds_any(&nics));
    /// # Ok::<(), nicring::Error>(())
    /// ```
    #[must_use]
    pub fn finds_any(&self, nics: &Nics) -> bool {
        let has_any = |nic: &Nic| {
            nic.addresses.iter().any(|own| self.matches(nic, own))
                || nic.local_subnets.iter().any(|local| self.covers(nic, *local))
        };
        nics.iter().any(|nic| nic.is_up && has_any(nic))
    }

    /// Whether the filter names all of this NIC's local subnet.
    pub(crate) fn covers(&self, nic: &Nic, local: Subnet) -> bool {
        match self {
            Self::Address(address) => local == Subnet::of_host(*address),
            Self::Subnet(subnet) => subnet.covers(local),
            Self::Name(_) | Self::Pattern(_) => self.names(nic),
        }
    }

    /// Whether the filter names an address of this NIC's local subnet.
    pub(crate) fn touches(&self, nic: &Nic, local: Subnet) -> bool {
        match self {
            Self::Address(address) => local.contains(*address),
            Self::Subnet(subnet) => subnet.covers(local) || local.covers(*subnet),
            Self::Name(_) | Self::Pattern(_) => self.names(nic),
        }
    }
}

impl fmt::Display for NicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) | Self::Pattern(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
            Self::Subnet(subnet) => subnet.fmt(f),
        }
    }
}

/// Whether a name is like a pattern, in which each `*` stands for any letters or none.
fn is_like(name: &str, pattern: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return name == pattern };
    let Some(left) = name.strip_prefix(start) else { return false };
    // A `*` takes as few letters as possible; if that does not fit, more.
    let mut begins = left.char_indices().map(|(at, _)| at).chain([left.len()]);
    begins.any(|at| is_like(&left[at..], rest))
}

impl From<Ipv4Addr> for NicFilter {
    fn from(address: Ipv4Addr) -> Self {
        Self::Address(address)
    }
}

impl From<[u8; 4]> for NicFilter {
    fn from(address: [u8; 4]) -> Self {
        Self::Address(address.into())
    }
}

impl From<Subnet> for NicFilter {
    fn from(subnet: Subnet) -> Self {
        Self::Subnet(subnet)
    }
}

impl TryFrom<&str> for NicFilter {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self> {
        text.parse()
    }
}

impl TryFrom<String> for NicFilter {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

const NO_PREFIX_LEN: &str = "has no prefix length of 0 to 32 after the slash";

impl std::str::FromStr for NicFilter {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |reason: &str| {
            let reason = format!(
                "{text:?} {reason}; expected a NIC's name, eth*, 192.0.2.7 or 192.0.2.0/24"
            );
            Err(Error::setting("nic", reason))
        };
        if let Some((network, prefix_len)) = text.split_once('/') {
            return match (network.parse(), prefix_len.parse()) {
                (Err(_), _) => refuse("has no IPv4 address before the slash"),
                (Ok(network), Ok(prefix_len)) => Subnet::new(network, prefix_len)
                    .map_or_else(|| refuse(NO_PREFIX_LEN), |subnet| Ok(Self::Subnet(subnet))),
                (Ok(_), Err(_)) => refuse(NO_PREFIX_LEN),
            };
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let looks_numeric =
            text.contains('.') && text.chars().all(|c| c.is_ascii_digit() || ".*".contains(c));
        if text.is_empty() || looks_numeric || text.contains(char::is_whitespace) {
            return refuse("is neither a name nor an IPv4 address");
        }
        Ok(match text.contains('*') {
            true => Self::Pattern(text.to_owned()),
            false => Self::Name(text.to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nics::samples::nic;

    fn filter(text: &str) -> NicFilter {
        text.parse().unwrap()
    }

    #[test]
    fn filters_match_by_name_address_and_subnet() {
        let nic = nic("eth0", 2, &[("10.1.2.3", 24)]);
        let matches = |text: &str| filter(text).matches(&nic, &nic.addresses[0]);
        assert!(matches("eth0") && matches("10.1.2.3") && matches("10.1.0.0/16"));
        assert!(matches("0.0.0.0/0") && matches("10.1.2.3/32"));
        assert!(!matches("eth1") && !matches("10.1.2.4") && !matches("10.2.0.0/16"));
    }

    #[test]
    fn a_star_in_a_name_stands_for_any_letters_or_none() {
        let matches = |name, pattern| {
            let nic = nic(name, 2, &[("10.1.2.3", 24)]);
            filter(pattern).matches(&nic, &nic.addresses[0])
        };
        for pattern in ["docker0", "docker*", "docker0*", "*0", "*", "d*r0", "*ck*", "**"] {
            assert!(matches("docker0", pattern), "{pattern}");
        }
        for pattern in ["veth*", "*1", "docker0*0", "d*x*0", "ocker*", "*docke"] {
            assert!(!matches("docker0", pattern), "{pattern}");
        }
        assert!(matches("é1", "*1") && matches("aXbXb", "a*Xb"));
    }

    #[test]
    fn a_local_subnet_is_chosen_as_a_whole() {
        let lo = nic("lo", 1, &[("127.0.0.1", 8)]);
        let loopback = Subnet::new(Ipv4Addr::LOCALHOST, 8).unwrap();
        for (text, covers, touches) in [
            ("lo", true, true),
            ("eth0", false, false),
            ("127.0.0.1", false, true),
            ("127.0.0.0/8", true, true),
            ("0.0.0.0/0", true, true),
            ("127.1.0.0/16", false, true),
            ("10.0.0.0/8", false, false),
        ] {
            let filter = filter(text);
            assert_eq!(filter.covers(&lo, loopback), covers, "{text}");
            assert_eq!(filter.touches(&lo, loopback), touches, "{text}");
        }
        let host = Subnet::of_host([192, 0, 2, 7].into());
        assert!(filter("192.0.2.7").covers(&lo, host) && !filter("192.0.2.8").touches(&lo, host));
    }

    #[test]
    fn filters_refuse_what_is_neither_a_name_nor_an_address() {
        let bad = ["", "1.2.3", "1.2.3.*", "1.2.3.4/33", "x/8", "eth 0", "1.2.3.4.5", "1.2.3.4/"];
        for text in bad {
            assert!(text.parse::<NicFilter>().is_err(), "{text:?}");
        }
    }
}
