//! Datagrams that nobody answers, as fast as one CPU can send them.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use nicring::search::{Protocol, load::SearchMix};

use crate::{network::Network, outcome::CLIENT_PORT, questions, sender::Sender};

/// What a storm is made of. Nobody answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Storm {
    /// What comes.
    pub content: StormContent,
    /// How many ports the client sends from to each NIC, in turn.
    pub source_count: u16,
}

/// What comes in a storm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StormContent {
    /// 80 bytes to each NIC's address.
    Unicast,
    /// 80 bytes to the broadcast address of each NIC's subnet.
    Broadcast,
    /// By broadcast, nine beacons of PVA for each SEARCH, which is for a name that nobody of
    /// `name_count` has. Servers beacon to the port at which they are searched.
    Foreign {
        /// How many names the server has.
        name_count: u32,
    },
}

/// How many different datagrams a foreign storm has. A prime, so that every port sends all of them.
const FOREIGN_PAYLOAD_COUNT: u16 = 997;

impl Storm {
    /// Sends to a server with these addresses.
    pub(crate) fn sender(self, addresses: &[Ipv4Addr], port: u16) -> Sender {
        let broadcasts = (0..addresses.len() as u8).map(Network::broadcast_address);
        let sender = match self.content {
            StormContent::Unicast => Sender::new(addresses.iter().copied(), port, None),
            StormContent::Broadcast => Sender::new(broadcasts, port, None),
            StormContent::Foreign { name_count } => {
                let payloads = foreign_payloads(name_count);
                Sender { payloads, ..Sender::new(broadcasts, port, None) }
            }
        };
        Sender { source_count: self.source_count, ..sender }
    }
}

/// Beacons of many servers, and a SEARCH for another name after each nine of them.
fn foreign_payloads(name_count: u32) -> Vec<Vec<u8>> {
    let (protocol, hits, timeout) = (Protocol::Pva, 0.0, Duration::ZERO);
    let mix = SearchMix { protocol, hits, names_per_datagram: 1, timeout, open_max: 0 };
    let mut load = questions::search_load(mix, name_count);
    let payload = |number: u16| match number % 10 {
        9 => load.compose(false, CLIENT_PORT, Instant::now()).to_vec(),
        _ => pva_beacon(number),
    };
    (0..FOREIGN_PAYLOAD_COUNT).map(payload).collect()
}

/// A beacon of the PVA server with this number, as the specification of pvAccess lays it out.
fn pva_beacon(number: u16) -> Vec<u8> {
    let mut beacon = vec![0xca, 2, 0x40, 0]; // little-endian, from a server, a beacon
    beacon.extend(39_u32.to_le_bytes());
    beacon.extend([0; 10].into_iter().chain(number.to_le_bytes())); // GUID
    beacon.extend([0, 1, 0, 0]); // flags, sequence number, change count
    beacon.extend(Ipv4Addr::new(10, 77, 0, 2).to_ipv6_mapped().octets());
    beacon.extend(5075_u16.to_le_bytes());
    beacon.extend([3, b't', b'c', b'p', 0xff]); // no status
    beacon
}
