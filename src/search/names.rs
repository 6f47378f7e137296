//! The name table.
//!
//! All names lie in one arena of bytes, each after its server and its length. An open-addressed
//! index of (hash, place in the arena) finds them. Beside its own bytes a name costs eight bytes in
//! the arena and about eleven in the index. For a name that is not there, a look at the index alone
//! is nearly always enough.

use std::{
    collections::hash_map::RandomState,
    fmt,
    hash::{BuildHasher, Hasher as _},
    net::{Ipv4Addr, SocketAddrV4},
};

use super::{Protocol, fields::Fields, patterns::Patterns};

/// The longest name that a table takes, in bytes. It is what fits a CA client's datagram: libca 7.0
/// and p4p send names of up to 990 bytes.
pub const NAME_LEN_MAX: usize = 990;

/// Address, port, and the length of the name that follows. The top bit of the length is the
/// protocol.
const RECORD_HEAD_LEN: usize = 8;
const PVA_BIT: u16 = 0x8000;
/// All records lie below this place, so none lies at the place of [`Slot::FREE`].
const ARENA_LEN_MAX: usize = u32::MAX as usize;

/// Which server has which name: immutable and compact. Threads can share it freely.
///
/// ```
/// use nicring::search::{NameTable, Protocol};
///
/// let mut builder = NameTable::builder();
/// builder.insert(Protocol::Pva, "ioc1:temp", "192.0.2.7:5075".parse()?)?;
/// let names = builder.build();
///
/// let server = Some("192.0.2.7:5075".parse()?);
/// assert_eq!(names.lookup(Protocol::Pva, b"ioc1:temp"), server);
/// assert_eq!(names.lookup(Protocol::Pva, b"ioc1:temp.EGU"), server, "a field of a record");
/// assert_eq!(names.lookup(Protocol::Ca, b"ioc1:temp"), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct NameTable {
    hasher: Hasher,
    fields: Fields,
    patterns: Patterns,
    index: Index,
    arena: Box<[u8]>,
    /// How many names each protocol has.
    len: [usize; 2],
}

impl NameTable {
    /// An empty builder.
    #[must_use]
    pub fn builder() -> NameTableBuilder {
        NameTableBuilder::new()
    }

    /// The server of `name`. If the table does not have `name`, the server of the record that
    /// `name` is a field of ([`Fields`]): what stands before the first `.`, else what stands before
    /// the last one; dots in a channel filter, `{...}` behind a dot, do not count. If it has none
    /// of these, the server of the longest pattern that `name` begins with.
    ///
    /// The address 0.0.0.0 stands for this host, at the address that was asked.
    #[must_use]
    pub fn lookup(&self, protocol: Protocol, name: &[u8]) -> Option<SocketAddrV4> {
        let of_record = || {
            let mut records = self.fields.records_of(name);
            records.find_map(|record| self.exact(protocol, record))
        };
        let by_pattern = || self.patterns.find(protocol, name);
        self.exact(protocol, name).or_else(of_record).or_else(by_pattern)
    }

    /// The same table with another rule for fields; [`Fields::Any`] unless called.
    #[must_use]
    pub fn with_fields(self, fields: Fields) -> Self {
        Self { fields, ..self }
    }

    fn exact(&self, protocol: Protocol, name: &[u8]) -> Option<SocketAddrV4> {
        let record =
            self.index.find(&self.arena, self.hasher.hash(protocol, name), protocol, name)?;
        Some(record.server)
    }

    /// How many patterns the table has for one protocol.
    #[must_use]
    pub fn pattern_count(&self, protocol: Protocol) -> usize {
        self.patterns.len(protocol)
    }

    /// Every pattern with its server, in no order: what names begin with.
    pub fn patterns(&self) -> impl Iterator<Item = (Protocol, &str, SocketAddrV4)> {
        self.patterns.iter()
    }

    /// How many names the table has for one protocol.
    #[must_use]
    pub fn len(&self, protocol: Protocol) -> usize {
        self.len[protocol as usize]
    }

    /// Whether the table has no name and no pattern at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.arena.is_empty()
            && Protocol::ALL.iter().all(|protocol| self.patterns.len(*protocol) == 0)
    }

    /// How many bytes it holds on the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.arena.len() + size_of_val::<[Slot]>(&self.index.slots)
    }

    /// Every name with its server, in the order of insertion.
    #[must_use]
    pub fn iter(&self) -> Names<'_> {
        Names { rest: &self.arena }
    }
}

impl fmt::Debug for NameTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NameTable")
            .field("ca_len", &self.len(Protocol::Ca))
            .field("pva_len", &self.len(Protocol::Pva))
            .field("heap_bytes", &self.heap_bytes())
            .finish()
    }
}

impl<'a> IntoIterator for &'a NameTable {
    type Item = (Protocol, &'a str, SocketAddrV4);
    type IntoIter = Names<'a>;

    fn into_iter(self) -> Names<'a> {
        self.iter()
    }
}

/// Iterator of [`NameTable::iter`].
#[derive(Clone)]
pub struct Names<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Names<'a> {
    type Item = (Protocol, &'a str, SocketAddrV4);

    fn next(&mut self) -> Option<Self::Item> {
        let record = Record::read(self.rest, 0)?;
        self.rest = &self.rest[RECORD_HEAD_LEN + record.name.len()..];
        let name = std::str::from_utf8(record.name).expect("names are inserted as str");
        Some((record.protocol, name, record.server))
    }
}

impl fmt::Debug for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names").field("rest_bytes", &self.rest.len()).finish()
    }
}

/// Builds a [`NameTable`].
///
/// ```
/// use nicring::search::{InsertError, NameTable, Protocol};
///
/// let (here, there) = ("192.0.2.7:5064".parse()?, "192.0.2.8:5064".parse()?);
/// let mut builder = NameTable::builder();
/// builder.insert(Protocol::Ca, "ioc1:temp", here)?;
/// builder.insert(Protocol::Ca, "ioc1:temp", here)?; // Nothing new.
/// assert_eq!(
///     builder.insert(Protocol::Ca, "ioc1:temp", there),
///     Err(InsertError::Duplicate { server: here })
/// );
/// assert_eq!(builder.build().len(Protocol::Ca), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Default)]
pub struct NameTableBuilder {
    hasher: Hasher,
    patterns: Patterns,
    index: Index,
    arena: Vec<u8>,
    len: [usize; 2],
}

impl NameTableBuilder {
    /// An empty builder.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one name. The same name with the same server again is no error.
    ///
    /// # Errors
    ///
    /// [`InsertError`] says why the name was not taken. The builder is as it was before.
    pub fn insert(
        &mut self,
        protocol: Protocol,
        name: &str,
        server: SocketAddrV4,
    ) -> Result<(), InsertError> {
        check(name, server)?;
        let hash = self.hasher.hash(protocol, name.as_bytes());
        match self.index.find(&self.arena, hash, protocol, name.as_bytes()) {
            Some(known) if known.server == server => return Ok(()),
            Some(known) => return Err(InsertError::Duplicate { server: known.server }),
            None => {}
        }
        if self.arena.len() + RECORD_HEAD_LEN + name.len() > ARENA_LEN_MAX {
            return Err(InsertError::Full);
        }
        self.index.reserve_one();
        self.index.put(Slot { hash, at: self.arena.len() as u32 });
        Record { protocol, server, name: name.as_bytes() }.append_to(&mut self.arena);
        self.len[protocol as usize] += 1;
        Ok(())
    }

    /// Adds a pattern: all names that begin with `prefix` and that the table does not have are
    /// those of `server`. The longest prefix decides. An empty one stands for all names.
    ///
    /// # Errors
    ///
    /// As [`NameTableBuilder::insert`].
    ///
    /// ```
    /// use nicring::search::{NameTable, Protocol};
    ///
    /// let (gateway, other) = ("192.0.2.1:5064".parse()?, "192.0.2.2:5064".parse()?);
    /// let mut builder = NameTable::builder();
    /// builder.insert_pattern(Protocol::Ca, "ioc7:", gateway)?;
    /// builder.insert_pattern(Protocol::Ca, "ioc7:vac", other)?;
    /// let names = builder.build();
    /// assert_eq!(names.lookup(Protocol::Ca, b"ioc7:temp"), Some(gateway));
    /// assert_eq!(names.lookup(Protocol::Ca, b"ioc7:vac1"), Some(other));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn insert_pattern(
        &mut self,
        protocol: Protocol,
        prefix: &str,
        server: SocketAddrV4,
    ) -> Result<(), InsertError> {
        match check(prefix, server) {
            Ok(()) | Err(InsertError::Empty) => {}
            refused => return refused,
        }
        let inserted = self.patterns.insert(protocol, prefix, server);
        inserted.map_err(|server| InsertError::Duplicate { server })
    }

    /// The table, in no more memory than it needs.
    #[must_use]
    pub fn build(mut self) -> NameTable {
        self.index.resize(Index::capacity_for(self.index.used_count));
        let Self { hasher, patterns, index, arena, len } = self;
        let arena = arena.into_boxed_slice();
        NameTable { hasher, fields: Fields::default(), patterns, index, arena, len }
    }
}

impl fmt::Debug for NameTableBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NameTableBuilder").field("len", &self.len).finish_non_exhaustive()
    }
}

/// Why a name was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InsertError {
    /// The table has the name already, with another server.
    Duplicate {
        /// The server it has.
        server: SocketAddrV4,
    },
    /// The name is empty.
    Empty,
    /// The name is longer than [`NAME_LEN_MAX`].
    TooLong {
        /// Its length in bytes.
        name_len: usize,
    },
    /// The name has a control character, so no client can ask for it.
    ControlCharacter,
    /// No client can connect to this server: its address is not that of one host, nor 0.0.0.0 for
    /// this one, or its port is 0.
    Server,
    /// The table holds all it can, 4 GiB of names.
    Full,
}

impl fmt::Display for InsertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duplicate { server } => {
                write!(f, "the name is already that of {server}: give each name one server")
            }
            Self::Empty => f.write_str("the name is empty"),
            Self::TooLong { name_len } => {
                write!(f, "the name has {name_len} bytes: at most {NAME_LEN_MAX} are taken")
            }
            Self::ControlCharacter => f.write_str("the name has a control character"),
            Self::Server => {
                f.write_str("the server is not one host's address with a port of 1 to 65535")
            }
            Self::Full => f.write_str("the table is full: spread the names over several tables"),
        }
    }
}

impl std::error::Error for InsertError {}

fn check(name: &str, server: SocketAddrV4) -> Result<(), InsertError> {
    if name.is_empty() {
        return Err(InsertError::Empty);
    }
    if name.len() > NAME_LEN_MAX {
        return Err(InsertError::TooLong { name_len: name.len() });
    }
    if name.chars().any(char::is_control) {
        return Err(InsertError::ControlCharacter);
    }
    if server.port() == 0 || !is_host(*server.ip()) && !server.ip().is_unspecified() {
        return Err(InsertError::Server);
    }
    Ok(())
}

/// Whether an address can be that of one host, as far as the address alone tells.
pub(super) fn is_host(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_broadcast() || address.is_multicast())
}

/// Hashes names. Each table has random numbers of its own: whoever may add names to a file cannot
/// make many names of one hash, which would be slow to load and to look up.
#[derive(Clone, Copy)]
struct Hasher {
    start: u64,
    factor: u64,
}

impl Default for Hasher {
    fn default() -> Self {
        // The standard library seeds its maps from the system's random numbers.
        let random = || RandomState::new().build_hasher().finish();
        Self { start: random(), factor: random() | 1 }
    }
}

impl Hasher {
    /// Multiplies eight bytes at a time into the state, and folds the product's halves.
    fn hash(self, protocol: Protocol, name: &[u8]) -> u32 {
        let mut state = self.fold(self.start, (name.len() as u64) << 1 | protocol as u64);
        let mut words = name.chunks_exact(8);
        for word in &mut words {
            state = self.fold(state, u64::from_le_bytes(word.try_into().expect("eight bytes")));
        }
        let rest = words.remainder().iter().rev();
        let rest = rest.fold(0, |rest, &byte| rest << 8 | u64::from(byte));
        (self.fold(self.fold(state, rest), self.start) >> 32) as u32
    }

    #[inline]
    fn fold(self, state: u64, word: u64) -> u64 {
        let product = u128::from(state ^ word) * u128::from(self.factor);
        (product >> 64) as u64 ^ product as u64
    }
}

/// One name as it lies in the arena.
struct Record<'a> {
    protocol: Protocol,
    server: SocketAddrV4,
    name: &'a [u8],
}

impl<'a> Record<'a> {
    fn append_to(&self, arena: &mut Vec<u8>) {
        let bit = if self.protocol == Protocol::Pva { PVA_BIT } else { 0 };
        arena.extend_from_slice(&self.server.ip().octets());
        arena.extend_from_slice(&self.server.port().to_be_bytes());
        arena.extend_from_slice(&(bit | self.name.len() as u16).to_be_bytes());
        arena.extend_from_slice(self.name);
    }

    /// `None` at the end of the arena.
    fn read(arena: &'a [u8], at: usize) -> Option<Self> {
        let (head, rest) = arena.get(at..)?.split_first_chunk::<RECORD_HEAD_LEN>()?;
        let [a, b, c, d, port @ .., len_high, len_low] = *head;
        let bits = u16::from_be_bytes([len_high, len_low]);
        Some(Self {
            protocol: if bits & PVA_BIT == 0 { Protocol::Ca } else { Protocol::Pva },
            server: SocketAddrV4::new([a, b, c, d].into(), u16::from_be_bytes(port)),
            name: rest.get(..usize::from(bits & !PVA_BIT))?,
        })
    }
}

#[derive(Clone, Copy)]
struct Slot {
    hash: u32,
    /// Where the record lies in the arena.
    at: u32,
}

impl Slot {
    const FREE: Self = Self { hash: 0, at: u32::MAX };

    fn is_free(self) -> bool {
        self.at == u32::MAX
    }
}

/// Open addressing with linear probing. The slots keep the whole hash: growing reads no names.
#[derive(Clone)]
struct Index {
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

    /// The slots in the order of probing. The first is the one where `hash` belongs.
    fn probe(&self, hash: u32) -> impl Iterator<Item = usize> + use<> {
        let capacity = self.slots.len();
        let start = ((u64::from(hash) * capacity as u64) >> 32) as usize;
        (start..capacity).chain(0..start)
    }

    /// The record of a name.
    fn find<'a>(
        &self,
        arena: &'a [u8],
        hash: u32,
        protocol: Protocol,
        name: &[u8],
    ) -> Option<Record<'a>> {
        let slots = self.probe(hash).map(|at| self.slots[at]);
        let alike = slots.take_while(|slot| !slot.is_free()).filter(|slot| slot.hash == hash);
        alike
            .filter_map(|slot| Record::read(arena, slot.at as usize))
            .find(|record| record.protocol == protocol && record.name == name)
    }

    /// Puts in a slot that is not there yet. Two slots must be free, because one must stay free.
    fn put(&mut self, slot: Slot) {
        let free = self.probe(slot.hash).find(|&at| self.slots[at].is_free());
        self.slots[free.expect("a slot is free")] = slot;
        self.used_count += 1;
    }

    fn reserve_one(&mut self) {
        if Self::capacity_for(self.used_count + 1) > self.slots.len() {
            self.resize(2 * Self::capacity_for(self.used_count + 1));
        }
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
    use super::*;

    #[test]
    fn hashes_of_like_names_differ() {
        let hasher = Hasher::default();
        let hash = |name: String| hasher.hash(Protocol::Ca, name.as_bytes());
        let mut hashes: Vec<u32> = (0..100_000).map(|i| hash(format!("sys:dev{i}:x"))).collect();
        hashes.sort_unstable();
        hashes.dedup();
        // About one pair of 100,000 random 32-bit numbers is alike.
        assert!(hashes.len() > 99_980, "{}", hashes.len());
    }

    /// Names of 16 bytes, of which the second half makes the state 0: one hash for all of them, for
    /// whoever knows the numbers of the table.
    fn colliding(hasher: Hasher, count: usize) -> Vec<String> {
        let start = hasher.fold(hasher.start, 16 << 1);
        let name = |number: u32| {
            let first = format!("{number:08x}");
            let word = u64::from_le_bytes(first.as_bytes().try_into().ok()?);
            let second = hasher.fold(start, word).to_le_bytes();
            let is_plain = second.iter().all(|byte| (b' '..=b'~').contains(byte));
            is_plain.then(|| first + std::str::from_utf8(&second).expect("ASCII"))
        };
        (0..).filter_map(name).take(count).collect()
    }

    #[test]
    fn names_that_were_made_to_collide_in_one_table_do_not_collide_in_another() {
        let known = Hasher::default();
        let names = colliding(known, 500);
        let hashes_of = |hasher: Hasher| {
            let hash = |name: &String| hasher.hash(Protocol::Ca, name.as_bytes());
            names.iter().map(hash).collect::<std::collections::HashSet<u32>>().len()
        };
        assert_eq!(hashes_of(known), 1);
        assert!(hashes_of(NameTableBuilder::new().hasher) > 490);
    }

    #[test]
    fn one_hash_for_many_names_is_slow_but_right() {
        let mut index = Index::default();
        let mut arena = Vec::new();
        let server = SocketAddrV4::new([192, 0, 2, 7].into(), 5064);
        for number in 0..100u32 {
            index.reserve_one();
            index.put(Slot { hash: u32::MAX, at: arena.len() as u32 });
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
