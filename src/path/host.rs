//! What an engine knows of its host when it sends: the NICs, those that it listens on, its ports.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::{Arc, Mutex},
};

use super::{route, strangers::Strangers};
use crate::{
    datagram::{Egress, Outbox, Queued, ReplyPath},
    lock::lock,
    nics::Nics,
};

/// See the module's documentation. It is made anew when the NICs change.
#[derive(Debug, Default)]
pub(crate) struct Host {
    /// All NICs.
    pub nics: Arc<Nics>,
    /// The NICs that the engine listens on, each with what of it the engine listens at.
    pub heard: Arc<Nics>,
    /// The ports that it listens on, in the order in which they were asked for.
    pub ports: Vec<u16>,
    /// Whether what it sends to groups comes back to this host, unless an egress says otherwise.
    pub multicast_loop: bool,
    pub strangers: Arc<Strangers>,
}

impl Host {
    /// How an answer leaves.
    pub fn egress(&self, path: &ReplyPath, destination: Ipv4Addr) -> Egress {
        route::egress(&self.nics, path, destination)
    }

    /// How an answer leaves, if it may.
    pub fn way(&self, path: &ReplyPath, destination: SocketAddrV4) -> Option<Egress> {
        self.strangers.way(&self.nics, path, destination)
    }

    /// How what answers nothing leaves: an egress in which nothing is left to the engine. `None` if
    /// it names a port that the engine does not listen on.
    fn complete(&self, egress: Egress) -> Option<Egress> {
        let port = egress.port.or(self.ports.first().copied());
        let multicast_loop = egress.multicast_loop.or(Some(self.multicast_loop));
        let is_own = port.is_none_or(|port| self.ports.contains(&port));
        is_own.then_some(Egress { port, multicast_loop, ..egress })
    }

    /// Queues what answers nothing.
    pub fn send(
        &self,
        outbox: &Mutex<Outbox>,
        egress: Egress,
        destination: SocketAddrV4,
        payload: &[u8],
    ) -> Queued {
        let Some(egress) = self.complete(egress) else { return Queued::NoPort };
        lock(outbox).push(None, egress, destination, payload)
    }

    /// Queues what answers nothing, once for each NIC that is listened on.
    pub fn fan_out(
        &self,
        outbox: &Mutex<Outbox>,
        egress: Egress,
        destination: SocketAddrV4,
        payload: &[u8],
    ) -> Queued {
        let Some(egress) = self.complete(egress) else { return Queued::NoPort };
        let ways = self.interfaces();
        let by = ways.iter().map(|index| Egress { ifindex: Some(*index), ..egress });
        lock(outbox).push_each(by, destination, payload)
    }

    /// The interfaces that a datagram for everyone leaves by.
    fn interfaces(&self) -> Vec<u32> {
        self.heard.outward().map(|nic| nic.index).collect()
    }
}
