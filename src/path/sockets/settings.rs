//! What the user chooses about the sockets.

use std::net::Ipv4Addr;

use crate::nics::{Nic, NicAddress, NicFilter, Nics};

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

/// What to do about a NIC whose sockets cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnFailedNic {
    /// Opening the engine fails with an error that names the NIC.
    #[default]
    Fail,
    /// A warning is logged, and the NIC stays unheard.
    /// [`Handle::failed_nics`](crate::Handle::failed_nics) lists it.
    Warn,
}

/// The settings that decide which sockets there are.
#[derive(Debug, Clone)]
pub(crate) struct ListenSettings {
    pub ports: Vec<u16>,
    pub groups: Vec<Ipv4Addr>,
    pub chosen: Vec<NicFilter>,
    pub excluded: Vec<NicFilter>,
    pub listen: Listen,
    pub unicast: Unicast,
    pub on_failed_nic: OnFailedNic,
    pub is_exclusive: bool,
    pub recv_buffer_bytes: usize,
    pub wants_kernel_time: bool,
}

impl Default for ListenSettings {
    fn default() -> Self {
        Self {
            ports: Vec::new(),
            groups: Vec::new(),
            chosen: Vec::new(),
            excluded: Vec::new(),
            listen: Listen::Auto,
            unicast: Unicast::Take,
            on_failed_nic: OnFailedNic::Fail,
            is_exclusive: false,
            recv_buffer_bytes: 1 << 20,
            wants_kernel_time: false,
        }
    }
}

impl ListenSettings {
    /// The NICs to listen on, each with the addresses to listen at.
    pub fn select(&self, nics: &Nics) -> Nics {
        let is_chosen = |nic: &Nic, own: &NicAddress| {
            let any = |filters: &[NicFilter]| filters.iter().any(|filter| filter.matches(nic, own));
            (self.chosen.is_empty() || any(&self.chosen)) && !any(&self.excluded)
        };
        let select = |nic: &Nic| {
            let mut selected = nic.clone();
            selected.addresses.retain(|own| is_chosen(nic, own));
            (nic.is_up && !selected.addresses.is_empty()).then_some(selected)
        };
        nics.iter().filter_map(select).collect()
    }
}
