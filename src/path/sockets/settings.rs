//! What the user chooses about the sockets.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use super::{join::Join, shared_drops::SharedDrops};
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::nics::{Nic, NicAddress, NicFilter, Nics, Subnet};
use crate::platform;
use crate::sys::{options::Requested, shard::Shard};

/// Which sockets hear the datagrams of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Listen {
    /// [`Listen::Class`] where this process may bind sockets to devices, and on Windows. Elsewhere
    /// [`Listen::Wildcard`] with [`Unicast::Take`], and one socket per class for all NICs with
    /// [`Unicast::Leave`].
    #[default]
    Auto,
    /// One socket per class and NIC. Unicast sockets are bound to an address. The sockets for
    /// subnet broadcast, limited broadcast and each group are bound to the device. Binding to a
    /// device needs no privilege since Linux 5.7
    /// ([c427bfec18f2](https://git.kernel.org/torvalds/c/c427bfec18f2)), and CAP_NET_RAW before.
    /// Windows has one socket per address, which also hears the broadcasts of its NIC.
    Class,
    /// One socket on 0.0.0.0 for everything. The kernel tells the NIC of each datagram
    /// (`IP_PKTINFO` on Linux).
    Wildcard,
}

/// Whether the engine hears datagrams to the unicast addresses of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unicast {
    /// Yes. A server of this host on 0.0.0.0 and the same port then no longer gets them.
    #[default]
    Take,
    /// No: they are left to the other servers of this host.
    Leave,
}

/// What to do about a socket that cannot be opened when the engine opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnFailedNic {
    /// A warning is logged, and what the socket was for stays unheard until it can be opened: it is
    /// tried again and again. [`Handle::failed_nics`](crate::Handle::failed_nics) lists it. Opening
    /// fails only if no socket is left that hears anything, if this process may open no more
    /// descriptors, or if a port that is to be [exclusive](crate::Builder::exclusive) is held.
    #[default]
    Warn,
    /// Opening the engine fails with an error that names the NIC.
    Fail,
}

/// The settings that decide which sockets there are.
#[derive(Debug, Clone)]
pub(crate) struct ListenSettings {
    pub ports: Vec<u16>,
    pub joins: Vec<Join>,
    pub chosen: Vec<NicFilter>,
    pub excluded: Vec<NicFilter>,
    pub listen: Listen,
    pub unicast: Unicast,
    /// Where unicasts are left to others, whatever `unicast` says.
    pub left: Vec<NicFilter>,
    pub on_failed_nic: OnFailedNic,
    /// Whether a chosen NIC may come later.
    pub waits_for_nics: bool,
    /// Whether NICs that come and go are followed.
    pub follows_nics: bool,
    /// How often to list them where the system does not tell of them.
    pub list_nics_every: Duration,
    pub is_exclusive: bool,
    /// What is of interest at all.
    pub filter: Option<Arc<Filter>>,
    /// Which part of the broadcasts and groups is heard.
    pub shard: Shard,
    /// For the drops of what several shards hear a part of.
    pub shared_drops: Arc<SharedDrops>,
    /// What is sent to groups, unless an egress says otherwise.
    pub multicast_ttl: u8,
    pub multicast_loop: bool,
    pub recv_buffer_bytes: usize,
    pub send_buffer_bytes: usize,
    /// What the kernel is to tell of each datagram beside how it arrived.
    pub requested: Requested,
    /// Whether datagrams from 0.0.0.0 are handed out.
    pub allows_unspecified_source: bool,
}

impl Default for ListenSettings {
    fn default() -> Self {
        Self {
            ports: Vec::new(),
            joins: Vec::new(),
            chosen: Vec::new(),
            excluded: Vec::new(),
            listen: Listen::Auto,
            unicast: Unicast::Take,
            left: Vec::new(),
            on_failed_nic: OnFailedNic::Warn,
            waits_for_nics: false,
            follows_nics: true,
            list_nics_every: Duration::from_secs(2),
            is_exclusive: false,
            filter: None,
            shard: Shard::ONLY,
            shared_drops: Arc::default(),
            multicast_ttl: 1,
            multicast_loop: true,
            recv_buffer_bytes: 1 << 20,
            send_buffer_bytes: 4 << 20,
            requested: Requested::default(),
            allows_unspecified_source: false,
        }
    }
}

impl ListenSettings {
    /// Whether every filter names a NIC that is up, or may wait for one.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`], which names the filter and the NICs that there are.
    pub fn check_chosen(&self, nics: &Nics) -> Result<()> {
        if self.waits_for_nics {
            return Ok(());
        }
        if let Some(absent) = self.chosen.iter().find(|filter| !filter.finds_any(nics)) {
            let reason = format!(
                "{absent}: no NIC of this host that is up matches; there are {nics} \
                 (Builder::wait_for_nics waits for it)"
            );
            return Err(Error::setting("nic", reason));
        }
        if !self.select(nics).iter().any(|nic| nic.is_up) {
            let reason = "no NIC that is up has an address that was chosen and not excluded";
            return Err(Error::setting("nic", reason));
        }
        self.check_joins(&self.select(nics))
    }

    fn check_joins(&self, selected: &Nics) -> Result<()> {
        let mut strays = self.joins.iter().filter_map(|join| join.stray_nic(selected));
        let Some(stray) = strays.next() else { return Ok(()) };
        let reason = format!(
            "{stray}: no NIC that is up and listened on matches; there are {selected} \
             (Builder::wait_for_nics waits for it)"
        );
        Err(Error::setting("join", reason))
    }

    /// The groups to join on a NIC, at a port as the settings name it.
    pub fn groups_on(&self, nic: &Nic, port: u16) -> Vec<Ipv4Addr> {
        let wanted = self.joins.iter().filter(|join| join.is_at(port) && join.is_on(nic));
        let mut groups: Vec<_> = wanted.map(|join| join.group).collect();
        groups.sort();
        groups.dedup();
        groups
    }

    /// The NICs to listen on, each with what of it to listen at. Of those that are down only the
    /// unicasts are heard, and not on every system.
    pub fn select(&self, nics: &Nics) -> Nics {
        nics.iter().filter_map(|nic| self.select_of(nic)).collect()
    }

    fn select_of(&self, nic: &Nic) -> Option<Nic> {
        let is_chosen = |own: &NicAddress| {
            let any = |filters: &[NicFilter]| filters.iter().any(|filter| filter.matches(nic, own));
            (self.chosen.is_empty() || any(&self.chosen)) && !any(&self.excluded)
        };
        let mut selected = nic.clone();
        selected.addresses.retain(is_chosen);
        let is_whole = selected.addresses.len() == nic.addresses.len();
        selected.broadcasts.retain(|broadcast| {
            let mut of_subnet = nic.addresses.iter().filter(|own| own.has_broadcast(*broadcast));
            match of_subnet.next() {
                // A route without an address goes with the whole NIC.
                None => is_whole,
                Some(first) => is_chosen(first) || of_subnet.any(is_chosen),
            }
        });
        selected.local_subnets.retain(|subnet| {
            let covers = |filter: &NicFilter| filter.covers(nic, *subnet);
            (self.chosen.is_empty() || self.chosen.iter().any(covers))
                && !self.excluded.iter().any(|filter| filter.touches(nic, *subnet))
        });
        let is_chosen = !selected.addresses.is_empty() || !selected.local_subnets.is_empty();
        ((nic.is_up || platform::HEARS_AT_NICS_THAT_ARE_DOWN) && is_chosen).then_some(selected)
    }

    /// Whether this port is shared with nobody. One that the settings do not name was an unused one
    /// (port 0): it stays unshared.
    pub fn is_exclusive(&self, port: u16) -> bool {
        self.is_exclusive || port == 0 || !self.ports.contains(&port)
    }

    /// Whether any unicasts are left to others.
    pub fn leaves_unicasts(&self) -> bool {
        self.unicast == Unicast::Leave || !self.left.is_empty()
    }

    /// Whether the unicasts to this address of a NIC are heard.
    pub fn takes_unicasts_at(&self, nic: &Nic, own: &NicAddress) -> bool {
        self.unicast == Unicast::Take && !self.left.iter().any(|filter| filter.matches(nic, own))
    }

    /// Whether the unicasts to this local subnet of a NIC are heard.
    pub fn takes_unicasts_of(&self, nic: &Nic, subnet: Subnet) -> bool {
        self.unicast == Unicast::Take && !self.left.iter().any(|filter| filter.touches(nic, subnet))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nics::samples::nic;

    #[test]
    fn a_broadcast_address_goes_with_the_addresses_of_its_subnet() {
        let mut eth0 = nic("eth0", 2, &[("10.1.0.1", 24), ("10.1.0.2", 24), ("10.2.0.1", 24)]);
        eth0.broadcasts.push([10, 9, 9, 9].into());
        let nics = Nics::from_iter([eth0]);
        let select = |chosen: &[&str]| {
            let chosen = chosen.iter().map(|filter| filter.parse().unwrap()).collect();
            let settings = ListenSettings { chosen, ..ListenSettings::default() };
            let selected = settings.select(&nics);
            selected.iter().flat_map(|nic| nic.broadcasts.clone()).collect::<Vec<_>>()
        };
        let address = |text: &str| text.parse::<Ipv4Addr>().unwrap();
        assert_eq!(select(&["10.1.0.2"]), [address("10.1.0.255")]);
        assert_eq!(select(&["10.2.0.1"]), [address("10.2.0.255")]);
        assert_eq!(select(&["eth0"]).len(), 3);
        assert_eq!(select(&[]).len(), 3);
    }

    #[test]
    fn a_local_subnet_is_heard_unless_an_address_of_it_is_excluded() {
        let mut lo = nic("lo", 1, &[("127.0.0.1", 8)]);
        lo.local_subnets = vec!["127.0.0.0/8".parse().unwrap()];
        let nics = Nics::from_iter([lo, nic("eth0", 2, &[("10.1.0.1", 24)])]);
        let hears = |chosen: &[&str], excluded: &[&str]| {
            let filters = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
            let (chosen, excluded) = (filters(chosen), filters(excluded));
            let settings = ListenSettings { chosen, excluded, ..ListenSettings::default() };
            settings.select(&nics).iter().any(|nic| !nic.local_subnets.is_empty())
        };
        assert!(hears(&[], &[]) && hears(&["lo"], &[]) && hears(&[], &["eth0"]));
        assert!(!hears(&["127.0.0.1"], &[]) && !hears(&["eth0"], &[]));
        assert!(!hears(&[], &["127.0.0.1"]) && !hears(&[], &["lo"]));
    }
}
