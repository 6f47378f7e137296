//! The NICs of this host, and the news of them, by netlink.

use std::{
    collections::BTreeMap,
    io,
    net::Ipv4Addr,
    os::fd::{AsFd, BorrowedFd},
};

use super::netlink::{Address, Link, List, Message, Netlink, Route};
use crate::{
    error::{Error, Result},
    nics::{Nic, NicAddress, Nics, Subnet},
};

/// Knows the NICs of this host, and hears when they change.
#[derive(Debug)]
pub(crate) struct NicWatch {
    asks: Netlink,
    is_told: Netlink,
    tables: Tables,
    /// Whether the links have to be listed anew.
    has_stale_links: bool,
    /// Whether addresses and routes have to be listed anew.
    is_stale: bool,
}

impl NicWatch {
    /// Lists the NICs, and asks for news of them.
    pub fn open() -> Result<Self> {
        let open = || {
            // What changes while it is listed is news.
            let is_told = Netlink::subscribe()?;
            let mut asks = Netlink::open()?;
            let tables = Tables::list(&mut asks)?;
            Ok(Self { asks, is_told, tables, has_stale_links: false, is_stale: false })
        };
        open().map_err(|source| Error::Enumerate { source })
    }

    /// The NICs as of now.
    pub fn nics(&self) -> Nics {
        self.tables.nics()
    }

    /// From now on nothing that is known counts: the next update lists everything.
    pub fn distrust(&mut self) {
        (self.has_stale_links, self.is_stale) = (true, true);
    }

    /// Takes the news. Returns whether there were any. After an error, the next update lists what
    /// this one could not.
    pub fn update(&mut self) -> Result<bool> {
        self.take_news().map_err(|source| Error::Enumerate { source })
    }

    fn take_news(&mut self) -> io::Result<bool> {
        let (tables, is_stale) = (&mut self.tables, &mut self.is_stale);
        let is_complete = self.is_told.take_news(|message| {
            *is_stale = true;
            tables.note_link(message);
        })?;
        if !is_complete {
            tracing::info!("news of links were lost: listing them anew");
            self.distrust();
        }
        if self.has_stale_links {
            self.tables.list_links(&mut self.asks)?;
            self.has_stale_links = false;
        }
        let has_news = self.is_stale;
        if has_news {
            // The kernel does not tell of every route that goes: those of a link that goes down
            // just vanish.
            self.tables.list_addresses_and_routes(&mut self.asks)?;
            self.is_stale = false;
        }
        Ok(has_news)
    }
}

/// Readable when there is news.
impl AsFd for NicWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.is_told.as_fd()
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
        let list = || Ok(Tables::list(&mut Netlink::open()?)?.nics());
        list().map_err(|source| Error::Enumerate { source })
    }
}

/// What the kernel has, as far as it concerns NICs.
#[derive(Debug, Default)]
struct Tables {
    /// By index. Each with how many links had gone when it came.
    links: BTreeMap<u32, (Link, u32)>,
    gone_count: u32,
    addresses: Vec<Address>,
    routes: Vec<Route>,
}

impl Tables {
    fn list(asks: &mut Netlink) -> io::Result<Self> {
        let mut tables = Self::default();
        tables.list_links(asks)?;
        tables.list_addresses_and_routes(asks)?;
        Ok(tables)
    }

    fn note_link(&mut self, message: Message) {
        match message {
            Message::Link(link) => {
                let known = self.links.get(&link.index).map(|(_, gone_count)| *gone_count);
                let gone_count = known.unwrap_or(self.gone_count);
                self.links.insert(link.index, (link, gone_count));
            }
            Message::LinkGone(index) => {
                self.links.remove(&index);
                self.gone_count += 1;
            }
            _ => {}
        }
    }

    fn list_links(&mut self, asks: &mut Netlink) -> io::Result<()> {
        let listed = asks.list(List::Links)?;
        let before = std::mem::take(&mut self.links);
        self.gone_count += u32::from(!before.is_empty());
        for message in listed {
            let Message::Link(link) = message else { continue };
            // A link may have been made again under its index while nobody told. Then it has
            // another hardware address, as veth, macvlan, tap and others draw theirs.
            let is_same = |(old, _): &&(Link, u32)| old.hardware_address == link.hardware_address;
            let known = before.get(&link.index).filter(is_same);
            let gone_count = known.map_or(self.gone_count, |(_, gone_count)| *gone_count);
            self.links.insert(link.index, (link, gone_count));
        }
        Ok(())
    }

    fn list_addresses_and_routes(&mut self, asks: &mut Netlink) -> io::Result<()> {
        let address = |message| match message {
            Message::Address(address) => Some(address),
            _ => None,
        };
        let route = |message| match message {
            Message::Route(route) => Some(route),
            _ => None,
        };
        self.addresses = asks.list(List::Addresses)?.into_iter().filter_map(address).collect();
        self.routes = asks.list(List::LocalRoutes)?.into_iter().filter_map(route).collect();
        self.routes.sort_by_key(|route| (route.is_broadcast, route.destination));
        Ok(())
    }

    fn nics(&self) -> Nics {
        let mut nics: BTreeMap<u32, Nic> = self.links.values().map(|link| self.nic(link)).collect();
        for address in &self.addresses {
            if let Some(nic) = nics.get_mut(&address.index) {
                nic.addresses.push(self.nic_address(address));
            }
        }
        for route in &self.routes {
            let Some(nic) = nics.get_mut(&route.index) else { continue };
            let of_host = route.prefix_len == 32 && nic.owns(route.destination);
            if route.is_broadcast {
                nic.broadcasts.push(route.destination);
            } else if let (false, Some(subnet)) =
                (of_host, Subnet::new(route.destination, route.prefix_len))
            {
                nic.local_subnets.push(subnet);
            }
        }
        let is_ours = |nic: &Nic| !nic.addresses.is_empty() || !nic.local_subnets.is_empty();
        nics.into_values().filter(is_ours).collect()
    }

    fn nic(&self, (link, gone_count): &(Link, u32)) -> (u32, Nic) {
        let has = |flag: libc::c_int| link.flags & flag as u32 != 0;
        let nic = Nic {
            is_up: has(libc::IFF_UP),
            is_loopback: has(libc::IFF_LOOPBACK),
            is_point_to_point: has(libc::IFF_POINTOPOINT),
            predecessor_count: *gone_count,
            ..Nic::new(&link.name, link.index, Vec::new())
        };
        (link.index, nic)
    }

    fn nic_address(&self, address: &Address) -> NicAddress {
        let host_bits = u32::MAX.checked_shr(address.prefix_len.into()).unwrap_or(0);
        let netmask = Ipv4Addr::from_bits(!host_bits);
        let mut own = NicAddress::new(address.local, netmask);
        own.peer = (address.address != address.local).then_some(address.address);
        own.is_local = self.is_routed(address.local, false);
        // 255.255.255.255 may be configured, and is a broadcast address on every NIC anyway.
        let candidates = [address.broadcast, own.computed_broadcast()].into_iter().flatten();
        own.broadcast = candidates.into_iter().find(|candidate| self.is_routed(*candidate, true));
        own
    }

    /// Whether a route of its own leads to this address.
    fn is_routed(&self, destination: Ipv4Addr, is_broadcast: bool) -> bool {
        let key = (is_broadcast, destination);
        let found =
            self.routes.partition_point(|route| (route.is_broadcast, route.destination) < key);
        let routes = self.routes[found..].iter();
        let mut equal = routes.take_while(|route| (route.is_broadcast, route.destination) == key);
        equal.any(|route| route.prefix_len == 32)
    }
}
