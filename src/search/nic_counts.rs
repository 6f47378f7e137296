//! What was asked on which NIC.

use std::ops::AddAssign;

use super::Protocol;
use crate::nics::Nics;

/// What was asked by one protocol on one NIC, and found
/// ([`Answerer::nic_counts`](super::Answerer::nic_counts)). Counters only grow.
///
/// ```
/// use nicring::search::{NicSearchCounts, Protocol};
///
/// fn total(counts: &[NicSearchCounts], protocol: Protocol) -> NicSearchCounts {
///     let mut total = NicSearchCounts::new(None, protocol);
///     counts.iter().filter(|one| one.protocol == protocol).for_each(|one| total += *one);
///     total
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NicSearchCounts {
    /// The index of the NIC that heard it ([`Datagram::nic`](crate::Datagram::nic)). `None` stands
    /// for unknown NICs, and for all that have gone.
    pub nic: Option<u32>,
    /// The protocol.
    pub protocol: Protocol,
    /// Datagrams, but those of ignored sources.
    pub datagram_count: u64,
    /// Names asked for in well-formed SEARCH messages.
    pub name_count: u64,
    /// Names that were found and answered.
    pub hit_count: u64,
}

impl NicSearchCounts {
    /// Zeros, to add others to.
    #[must_use]
    pub const fn new(nic: Option<u32>, protocol: Protocol) -> Self {
        Self { nic, protocol, datagram_count: 0, name_count: 0, hit_count: 0 }
    }

    fn key(&self) -> (Option<u32>, Protocol) {
        (self.nic, self.protocol)
    }
}

impl AddAssign for NicSearchCounts {
    /// Adds the counters of the other, whatever its NIC and protocol are.
    fn add_assign(&mut self, other: Self) {
        self.datagram_count = self.datagram_count.wrapping_add(other.datagram_count);
        self.name_count = self.name_count.wrapping_add(other.name_count);
        self.hit_count = self.hit_count.wrapping_add(other.hit_count);
    }
}

/// The counts of all NICs, sorted by NIC and protocol.
#[derive(Debug, Default)]
pub(super) struct NicTable(Vec<NicSearchCounts>);

impl NicTable {
    pub fn as_slice(&self) -> &[NicSearchCounts] {
        &self.0
    }

    /// The counts of one NIC. Only a new one costs an allocation.
    pub fn of(
        &mut self,
        nic: Option<u32>,
        protocol: Protocol,
        nics: &Nics,
    ) -> &mut NicSearchCounts {
        let known = self.position(nic, protocol).unwrap_or_else(|_| {
            self.fold_gone(nics);
            self.insert(nic, protocol)
        });
        &mut self.0[known]
    }

    fn position(&self, nic: Option<u32>, protocol: Protocol) -> Result<usize, usize> {
        self.0.binary_search_by_key(&(nic, protocol), NicSearchCounts::key)
    }

    fn insert(&mut self, nic: Option<u32>, protocol: Protocol) -> usize {
        self.position(nic, protocol).unwrap_or_else(|free| {
            self.0.insert(free, NicSearchCounts::new(nic, protocol));
            free
        })
    }

    /// NICs that have gone share their counts. Otherwise those of tunnels and containers would grow
    /// without end.
    fn fold_gone(&mut self, nics: &Nics) {
        let mut gone = Protocol::ALL.map(|protocol| NicSearchCounts::new(None, protocol));
        self.0.retain(|counts| {
            let stays = counts.nic.is_none_or(|index| nics.by_index(index).is_some());
            if !stays {
                gone[counts.protocol as usize] += *counts;
            }
            stays
        });
        for gone in gone.into_iter().filter(|gone| gone.datagram_count > 0) {
            let shared = self.insert(None, gone.protocol);
            self.0[shared] += gone;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nics::samples::nic;

    #[test]
    fn nics_that_have_gone_share_their_counts() {
        let nics = |indices: &[u32]| -> Nics {
            indices.iter().map(|index| nic("eth", *index, &[("192.0.2.7", 24)])).collect()
        };
        let mut table = NicTable::default();
        for index in 1..=100 {
            for protocol in Protocol::ALL {
                table.of(Some(index), protocol, &nics(&[index])).datagram_count += 1;
            }
        }
        table.of(None, Protocol::Pva, &nics(&[100])).datagram_count += 1;
        let counts = |one: &NicSearchCounts| (one.nic, one.protocol, one.datagram_count);
        let (ca, pva) = (Protocol::Ca, Protocol::Pva);
        let expected = [(None, ca, 99), (None, pva, 100), (Some(100), ca, 1), (Some(100), pva, 1)];
        assert!(table.as_slice().iter().map(counts).eq(expected), "{table:?}");
    }
}
