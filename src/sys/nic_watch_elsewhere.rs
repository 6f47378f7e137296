//! The NICs of this host, where the system tells no news of them: they are listed again.

use std::net::Ipv4Addr;

use getifaddrs::{Address, Interface, InterfaceFilter, InterfaceFlags};

use crate::{
    error::{Error, Result},
    nics::{Nic, NicAddress, Nics},
};

/// Knows the NICs of this host.
#[derive(Debug)]
pub(crate) struct NicWatch {
    nics: Nics,
}

impl NicWatch {
    /// Lists the NICs.
    pub fn open() -> Result<Self> {
        Ok(Self { nics: Nics::enumerate()? })
    }

    /// The NICs as of the last look.
    pub fn nics(&self) -> Nics {
        self.nics.clone()
    }

    /// Nothing to do: each update lists everything.
    pub fn distrust(&mut self) {}

    /// Lists the NICs again. Returns whether they have changed.
    pub fn update(&mut self) -> Result<bool> {
        let nics = Nics::enumerate()?;
        let has_changed = nics != self.nics;
        self.nics = nics;
        Ok(has_changed)
    }
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
        let interfaces = InterfaceFilter::new().v4().get();
        let interfaces = interfaces.map_err(|source| Error::Enumerate { source })?;
        let mut nics: Vec<Nic> = Vec::new();
        for interface in interfaces {
            let (Some(index), Some(own)) = (interface.index, nic_address(&interface)) else {
                continue;
            };
            let of_nic = nics.iter().position(|nic| nic.index == index);
            let mut addresses = of_nic.map_or_else(Vec::new, |at| nics.swap_remove(at).addresses);
            addresses.push(own);
            nics.push(Nic {
                is_up: interface.flags.contains(InterfaceFlags::UP),
                is_loopback: interface.flags.contains(InterfaceFlags::LOOPBACK),
                is_point_to_point: interface.flags.contains(InterfaceFlags::POINTTOPOINT),
                ..Nic::new(&interface.name, index, addresses)
            });
        }
        Ok(Self::from_iter(nics))
    }
}

fn nic_address(interface: &Interface) -> Option<NicAddress> {
    let Address::V4(address) = &interface.address else {
        return None;
    };
    let netmask = address.netmask.unwrap_or(Ipv4Addr::BROADCAST);
    let mut own = NicAddress::new(address.address, netmask);
    let associated = address.associated_address.filter(|other| !other.is_unspecified());
    if interface.flags.contains(InterfaceFlags::POINTTOPOINT) {
        own.broadcast = None;
        own.peer = associated.filter(|peer| *peer != own.address);
    } else if own.broadcast.is_some() {
        // Wine names the address itself for 127.0.0.1.
        let is_broadcast = |other: &Ipv4Addr| !other.is_broadcast() && *other != own.address;
        own.broadcast = associated.filter(is_broadcast).or(own.broadcast);
    }
    Some(own)
}
