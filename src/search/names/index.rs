//! The index of a table: where the name with a hash lies in the arena.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher as _},
};

use foldhash::{SharedSeed, quality::SeedableRandomState};

use super::arena::Record;
use crate::search::Protocol;

/// Hashes names. Each table has a random number of its own: whoever may add names to a file cannot
/// make many names of one hash, which would be slow to load and to look up.
#[derive(Clone)]
pub(super) struct Hasher(SeedableRandomState);

impl Default for Hasher {
    fn default() -> Self {
        // The standard library seeds its maps from the system's random numbers.
        let random = RandomState::new().build_hasher().finish();
        Self(SeedableRandomState::with_seed(random, SharedSeed::global_random()))
    }
}

impl Hasher {
    #[inline]
    pub fn hash(&self, protocol: Protocol, name: &[u8]) -> u32 {
        let mut hasher = self.0.build_hasher();
        hasher.write_u8(protocol as u8);
        hasher.write(name);
        (hasher.finish() >> 32) as u32
    }
}

#[derive(Clone, Copy)]
pub(super) struct Slot {
    pub hash: u32,
    /// Where the record lies in the arena.
    pub at: u32,
}

impl Slot {
    pub const FREE: Self = Self { hash: 0, at: u32::MAX };

    #[inline]
    pub fn is_free(self) -> bool {
        self.at == u32::MAX
    }
}

/// All records lie below this place, so none lies at the place of a free slot.
pub(super) const ARENA_LEN_MAX: usize = u32::MAX as usize;

/// Open addressing with linear probing. The slots keep the whole hash: growing reads no names.
#[derive(Clone)]
pub(super) struct Index {
    /// At least one is free: every probe ends.
    slots: Box<[Slot]>,
    used_count: usize,
}

impl Default for Index {
    fn default() -> Self {
        Self { slots: [Slot::FREE].into(), used_count: 0 }
    }
}

impl Index {
    /// How many slots give a load of three quarters.
    fn capacity_for(used_count: usize) -> usize {
        used_count + used_count / 3 + 1
    }

    pub fn heap_bytes(&self) -> usize {
        size_of_val::<[Slot]>(&self.slots)
    }

    /// The slot where `hash` belongs.
    #[inline]
    pub fn home(&self, hash: u32) -> Slot {
        self.slots[self.home_of(hash)]
    }

    #[inline]
    fn home_of(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.slots.len() as u64) >> 32) as usize
    }

    /// The next slot to look at.
    #[inline]
    fn after(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() { 0 } else { at + 1 }
    }

    /// The used slots with this hash.
    #[inline]
    pub fn with_hash(&self, hash: u32) -> impl Iterator<Item = Slot> {
        let mut at = self.home_of(hash);
        std::iter::from_fn(move || {
            loop {
                let slot = self.slots[at];
                if slot.is_free() {
                    return None;
                }
                at = self.after(at);
                if slot.hash == hash {
                    return Some(slot);
                }
            }
        })
    }

    /// The record of a name.
    pub fn find<'a>(
        &self,
        arena: &'a [u8],
        hash: u32,
        protocol: Protocol,
        name: &[u8],
    ) -> Option<Record<'a>> {
        let mut records =
            self.with_hash(hash).filter_map(|slot| Record::read(arena, slot.at as usize));
        records.find(|record| record.protocol == protocol && record.name == name)
    }

    /// Every used slot.
    pub fn used(&self) -> impl Iterator<Item = Slot> {
        self.slots.iter().copied().filter(|slot| !slot.is_free())
    }

    /// Puts in a slot that is not there yet. Two slots must be free, because one must stay free.
    fn put(&mut self, slot: Slot) {
        let mut at = self.home_of(slot.hash);
        while !self.slots[at].is_free() {
            at = self.after(at);
        }
        self.slots[at] = slot;
        self.used_count += 1;
    }

    /// Puts in a slot that is not there yet.
    pub fn insert(&mut self, slot: Slot) {
        if Self::capacity_for(self.used_count + 1) > self.slots.len() {
            self.resize(2 * Self::capacity_for(self.used_count + 1));
        }
        self.put(slot);
    }

    /// Gives back what it does not need.
    pub fn shrink(&mut self) {
        self.resize(Self::capacity_for(self.used_count));
    }

    fn resize(&mut self, capacity: usize) {
        let old = std::mem::replace(&mut self.slots, vec![Slot::FREE; capacity].into());
        self.used_count = 0;
        for slot in old.into_iter().filter(|slot| !slot.is_free()) {
            self.put(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV4;

    use super::*;

    fn hashes_of(hasher: &Hasher) -> Vec<u32> {
        let hash = |number| hasher.hash(Protocol::Ca, format!("sys:dev{number}:x").as_bytes());
        (0..100_000).map(hash).collect()
    }

    #[test]
    fn hashes_of_like_names_differ() {
        let mut hashes = hashes_of(&Hasher::default());
        hashes.sort_unstable();
        hashes.dedup();
        // About one pair of 100,000 random 32-bit numbers is alike.
        assert!(hashes.len() > 99_980, "{}", hashes.len());
    }

    #[test]
    fn a_name_has_another_hash_in_another_table() {
        let [one, other] = [Hasher::default(), Hasher::default()].map(|hasher| hashes_of(&hasher));
        let alike_count = one.iter().zip(other).filter(|(one, other)| *one == other).count();
        assert!(alike_count < 10, "{alike_count} of 100,000");
    }

    #[test]
    fn a_name_has_another_hash_in_the_other_protocol() {
        let hasher = Hasher::default();
        let [ca, pva] = Protocol::ALL.map(|protocol| hasher.hash(protocol, b"ioc1:temp"));
        assert_ne!(ca, pva);
    }

    #[test]
    fn one_hash_for_many_names_is_slow_but_right() {
        let mut index = Index::default();
        let mut arena = Vec::new();
        let server = SocketAddrV4::new([192, 0, 2, 7].into(), 5064);
        for number in 0..100u32 {
            index.insert(Slot { hash: u32::MAX, at: arena.len() as u32 });
            let name = number.to_be_bytes();
            Record { protocol: Protocol::Ca, server, name: &name }.append_to(&mut arena);
        }
        for number in 0..100u32 {
            let name = number.to_be_bytes();
            assert!(index.find(&arena, u32::MAX, Protocol::Ca, &name).is_some());
            assert!(index.find(&arena, u32::MAX, Protocol::Pva, &name).is_none());
        }
    }
}
