//! Looking up many names together.
//!
//! Most of what a look-up costs is waiting for memory. So it is done in steps, each for all names
//! before the next: no access of a step depends on another one, and the processor waits for all of
//! them at once.

use std::net::SocketAddrV4;

use arrayvec::ArrayVec;

use super::{
    NAME_LEN_MAX, NameTable,
    arena::{HEAD_LEN, Head},
    filter::Filter,
    index::Slot,
};
use crate::search::{Protocol, lookup::Lookup};

/// How many names are looked up together: more than a processor has accesses under way, and as many
/// as a full datagram of CA asks for.
pub(in crate::search) const TOGETHER_MAX: usize = 32;

/// Where fewer are asked for, one by one is as fast.
const TOGETHER_MIN: usize = 3;

/// Which of the names to look up, and how many of their bytes. Small, because it is cleared for
/// every datagram.
struct Wanted {
    places: [u8; TOGETHER_MAX],
    lens: [u16; TOGETHER_MAX],
    len: usize,
}

impl Wanted {
    /// Of those without a server, the beginnings that `of` tells.
    #[inline]
    fn collect(
        names: &[&[u8]],
        servers: &[Option<SocketAddrV4>],
        of: impl Fn(&[u8]) -> Option<usize>,
    ) -> Self {
        let mut wanted = Self { places: [0; TOGETHER_MAX], lens: [0; TOGETHER_MAX], len: 0 };
        for (place, name) in names.iter().enumerate() {
            // What is longer than any name in a table is not there.
            let len = of(name).filter(|len| *len <= NAME_LEN_MAX);
            if let (None, Some(len)) = (servers[place], len) {
                wanted.places[wanted.len] = place as u8;
                wanted.lens[wanted.len] = len as u16;
                wanted.len += 1;
            }
        }
        wanted
    }
}

impl Lookup for NameTable {
    fn lookup_all(
        &self,
        protocol: Protocol,
        names: &[&[u8]],
        servers: &mut [Option<SocketAddrV4>],
    ) {
        assert_eq!(names.len(), servers.len(), "a place for the server of each name");
        let servers = servers.chunks_mut(TOGETHER_MAX);
        for (names, servers) in names.chunks(TOGETHER_MAX).zip(servers) {
            self.lookup_some(protocol, names, servers);
        }
    }
}

impl NameTable {
    /// As [`Lookup::lookup_all`], for up to [`TOGETHER_MAX`] names.
    fn lookup_some(
        &self,
        protocol: Protocol,
        names: &[&[u8]],
        servers: &mut [Option<SocketAddrV4>],
    ) {
        if names.len() < TOGETHER_MIN {
            for (name, server) in names.iter().zip(servers) {
                *server = server.or_else(|| self.lookup(protocol, name));
            }
            return;
        }
        let all = Wanted::collect(names, servers, |name| Some(name.len()));
        self.exact_all(protocol, names, &all, servers);
        for number in 0.. {
            let len_of_record = |name: &[u8]| Some(self.fields.records_of(name).nth(number)?.len());
            let records = Wanted::collect(names, servers, len_of_record);
            if records.len == 0 {
                break;
            }
            self.exact_all(protocol, names, &records, servers);
        }
        if self.patterns.len(protocol) > 0 {
            for (name, server) in names.iter().zip(servers) {
                *server = server.or_else(|| self.patterns.find(protocol, name));
            }
        }
    }

    /// Looks up names as they are.
    fn exact_all(
        &self,
        protocol: Protocol,
        names: &[&[u8]],
        wanted: &Wanted,
        servers: &mut [Option<SocketAddrV4>],
    ) {
        let name = |number: u8| {
            let number = usize::from(number);
            &names[usize::from(wanted.places[number])][..usize::from(wanted.lens[number])]
        };
        let mut hashes: ArrayVec<u32, TOGETHER_MAX> =
            (0..wanted.len as u8).map(|number| self.hasher.hash(protocol, name(number))).collect();
        let words: ArrayVec<u64, TOGETHER_MAX> =
            hashes.iter().map(|hash| self.filter.word(*hash)).collect();
        // Those that the filter lets pass, without a branch that could be mispredicted.
        let mut passed = [0u8; TOGETHER_MAX];
        let mut passed_count = 0;
        for (number, word) in words.iter().enumerate() {
            let hash = hashes[number];
            passed[passed_count] = number as u8;
            hashes[passed_count] = hash;
            passed_count += usize::from(Filter::admits(*word, hash));
        }
        let (passed, hashes) = (&passed[..passed_count], &hashes[..passed_count]);
        let mut slots: ArrayVec<Slot, TOGETHER_MAX> =
            hashes.iter().map(|hash| self.index.home(*hash)).collect();
        for (slot, hash) in slots.iter_mut().zip(hashes) {
            if slot.hash != *hash || slot.is_free() {
                *slot = self.index.with_hash(*hash).next().unwrap_or(Slot::FREE);
            }
        }
        let head = |(slot, number): (&Slot, &u8)| {
            let name = name(*number);
            let end = (slot.at as usize).wrapping_add(HEAD_LEN + name.len());
            // The last byte, because a name may lie in two lines of the cache.
            let ends_alike = self.arena.get(end.wrapping_sub(1)) == name.last();
            (Head::read(&self.arena, slot.at).unwrap_or(Head::EMPTY), ends_alike)
        };
        let heads: ArrayVec<(Head, bool), TOGETHER_MAX> =
            slots.iter().zip(passed).map(head).collect();
        for (((head, ends_alike), slot), number) in heads.iter().zip(&slots).zip(passed) {
            if slot.is_free() {
                continue;
            }
            let name = name(*number);
            let start = slot.at as usize + HEAD_LEN;
            let is_it = *ends_alike
                && head.is_of(protocol, name)
                && self.arena.get(start..start + name.len()) == Some(name);
            servers[usize::from(wanted.places[usize::from(*number)])] = match is_it {
                true => Some(head.server()),
                // Another name has the same hash.
                false => self.find(protocol, slot.hash, name),
            };
        }
    }
}
