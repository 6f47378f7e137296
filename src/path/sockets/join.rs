//! The multicast groups to hear, and where.

use std::{fmt, net::Ipv4Addr};

use crate::{
    error::Error,
    nics::{Nic, NicFilter, Nics},
};

/// A multicast group to hear: on every NIC and port of an engine, unless it says on which.
///
/// ```
/// use nicring::{Engine, Join};
///
/// let everywhere = Engine::builder().port(5353).join([224, 0, 0, 251]);
/// // What servers of PVAccess forward to others of their host, they send by `lo` only.
/// let forwarded = Join::group([224, 0, 0, 128]).on([127, 0, 0, 1]).port(5076);
/// let builder = Engine::builder().ports([5064, 5076]).join(forwarded);
/// # let _ = (everywhere, builder);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    pub(crate) group: Ipv4Addr,
    /// Where; everywhere if there is none.
    nics: Vec<NicFilter>,
    ports: Vec<u16>,
    /// What is wrong with the first filter that could not be read.
    pub(crate) bad_filter: Option<String>,
}

impl Join {
    /// Hears `group` on every NIC that the engine listens on, at every port.
    #[must_use]
    pub fn group(group: impl Into<Ipv4Addr>) -> Self {
        Self { group: group.into(), nics: Vec::new(), ports: Vec::new(), bad_filter: None }
    }

    /// Only on the NICs that `filter` names, of those that the engine listens on. It may be called
    /// for several. If none is there, opening the engine fails, unless it
    /// [waits for NICs](crate::Builder::wait_for_nics).
    #[must_use]
    pub fn on(mut self, filter: impl TryInto<NicFilter, Error: Into<Error>>) -> Self {
        match NicFilter::read(filter) {
            Ok(filter) => self.nics.push(filter),
            Err(reason) => _ = self.bad_filter.get_or_insert(reason),
        }
        self
    }

    /// Only at this port, which is one of the engine's. It may be called for several.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.ports.push(port);
        self
    }

    /// Whether the group is to be heard at a port, as the settings name it.
    pub(super) fn is_at(&self, port: u16) -> bool {
        self.ports.is_empty() || self.ports.contains(&port)
    }

    /// Whether the group is to be heard on a NIC.
    pub(super) fn is_on(&self, nic: &Nic) -> bool {
        let is_on = |filter: &NicFilter| nic.addresses.iter().any(|own| filter.matches(nic, own));
        self.nics.is_empty() || self.nics.iter().any(is_on)
    }

    /// Names the ports that were chosen for unused ones (0) instead of them.
    pub(crate) fn follow_ports(&mut self, chosen: &[u16]) {
        if self.ports.contains(&0) {
            self.ports.retain(|port| *port != 0);
            self.ports.extend(chosen);
        }
    }

    /// A port that it names and that is not of `ports`.
    pub(crate) fn stray_port(&self, ports: &[u16]) -> Option<u16> {
        self.ports.iter().copied().find(|port| !ports.contains(port))
    }

    /// A filter that names no NIC of `selected` that is up.
    pub(super) fn stray_nic(&self, selected: &Nics) -> Option<&NicFilter> {
        self.nics.iter().find(|filter| !filter.finds_any(selected))
    }
}

impl From<Ipv4Addr> for Join {
    fn from(group: Ipv4Addr) -> Self {
        Self::group(group)
    }
}

impl From<[u8; 4]> for Join {
    fn from(group: [u8; 4]) -> Self {
        Self::group(group)
    }
}

impl fmt::Display for Join {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.group.fmt(f)?;
        for filter in &self.nics {
            write!(f, " on {filter}")?;
        }
        Ok(())
    }
}
