//! Askers whose answers leave by the NIC although their address is of none of its subnets: those
//! who asked by 255.255.255.255, and link-local ones.
//!
//! No router passes such a broadcast on, so they are on the link, and their answers leave by its
//! NIC. For each of them the kernel asks by ARP, and keeps an entry in its table of neighbours. The
//! table is small (`gc_thresh3`, 1,024 entries), and while it is full nobody new is answered.
//! Source addresses can be made up. So only a few such askers get answers by the NIC; answers to
//! more of them take the kernel's route, if there is one.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::Mutex,
    time::Instant,
};

use super::route;
use crate::{
    datagram::{Class, Egress, ReplyPath},
    lock::lock,
    nics::Nics,
};

/// How many askers are known at a time.
const KNOWN_COUNT_MAX: usize = 64;
/// How many more may come to be known per second. An entry of an address that does not answer stays
/// for some 15 seconds: with these 256 in all, of which the kernel minds the first 128 not at all.
const NEW_PER_SECOND: f64 = 16.0;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The one that was answered last is the last.
    addresses: Vec<Ipv4Addr>,
    /// How many more may come to be known, as of `refilled_at`.
    allowance: f64,
    refilled_at: Option<Instant>,
}

impl Strangers {
    /// How an answer leaves; `None` if it may not. All answers pass here, and none goes to more
    /// than one host: whoever can make up a source address could have a whole subnet flooded.
    pub fn way(&self, nics: &Nics, path: &ReplyPath, destination: SocketAddrV4) -> Option<Egress> {
        if !nics.is_host(destination) {
            return None;
        }
        let address = *destination.ip();
        let egress = route::egress(nics, path, address);
        // Others whose answers leave by the NIC are in one of its subnets.
        let may_be_stranger = path.class == Class::Limited || address.is_link_local();
        let is_stranger = may_be_stranger && route::is_stranger(nics, address, &egress);
        if is_stranger && !self.admits(address) {
            return Some(Egress { ifindex: None, ..egress });
        }
        Some(egress)
    }

    /// Whether an answer may leave by the NIC.
    pub fn admits(&self, asker: Ipv4Addr) -> bool {
        lock(&self.known).admits(asker, Instant::now())
    }
}

impl Known {
    fn admits(&mut self, asker: Ipv4Addr, now: Instant) -> bool {
        if let Some(position) = self.addresses.iter().rposition(|known| *known == asker) {
            let known = self.addresses.remove(position);
            self.addresses.push(known);
            return true;
        }
        let most = KNOWN_COUNT_MAX as f64;
        let passed = self.refilled_at.map(|at| now.saturating_duration_since(at).as_secs_f64());
        let refill = passed.map_or(most, |seconds| seconds * NEW_PER_SECOND);
        self.allowance = (self.allowance + refill).min(most);
        self.refilled_at = Some(now);
        if self.allowance < 1.0 {
            return false;
        }
        self.allowance -= 1.0;
        if self.addresses.len() == KNOWN_COUNT_MAX {
            self.addresses.remove(0);
        }
        self.addresses.push(asker);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn made_up_addresses_are_few_and_whoever_is_known_stays_so() {
        let (mut known, start) = (Known::default(), Instant::now());
        let address = |number: u32| Ipv4Addr::from_bits(0x0A00_0000 + number);
        assert!(known.admits(address(0), start));
        let admitted = (1..10_000).filter(|&number| {
            let is_admitted = known.admits(address(number), start);
            assert!(known.admits(address(0), start), "it is known");
            is_admitted
        });
        assert_eq!(admitted.count(), KNOWN_COUNT_MAX - 1);
        let later = start + Duration::from_secs(1);
        let admitted = (10_000..20_000).filter(|&number| known.admits(address(number), later));
        assert_eq!(admitted.count(), 16);
        assert!(known.addresses.len() <= KNOWN_COUNT_MAX);
    }
}
