//! The name table.
//!
//! In the order in which a look-up passes them:
//!
//! 1. [`filter`]: a few bits of one word tell of nearly every name that the table does not have
//!    that it does not.
//! 2. [`index`]: an open-addressed table of (hash, place in the arena).
//! 3. [`arena`]: all names, each after its server and its length.
//! 4. [`together`]: these steps for many names at once.
//!
//! Beside its own bytes a name costs eight bytes in the arena, about eleven in the index and less
//! than two in the filter.

mod arena;
mod filter;
mod index;
mod together;

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddrV4},
};

use self::{
    arena::{HEAD_LEN, Record},
    filter::Filter,
    index::{ARENA_LEN_MAX, Hasher, Index, Slot},
};
use super::{Protocol, fields::Fields, patterns::Patterns};

pub(super) use together::TOGETHER_MAX;

/// The longest name that a table takes, in bytes. It is what fits a CA client's datagram: libca 7.0
/// and p4p send names of up to 990 bytes.
pub const NAME_LEN_MAX: usize = 990;

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
    filter: Filter,
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
    ///
    /// [`Lookup::lookup_all`](super::Lookup::lookup_all) is for many names: it is faster.
    #[must_use]
    pub fn lookup(&self, protocol: Protocol, name: &[u8]) -> Option<SocketAddrV4> {
        let of_record = || {
            let mut records = self.fields.records_of(name);
            records.find_map(|record| self.lookup_exact(protocol, record))
        };
        let by_pattern = || self.patterns.find(protocol, name);
        self.lookup_exact(protocol, name).or_else(of_record).or_else(by_pattern)
    }

    /// The same table with another rule for fields; [`Fields::Any`] unless called.
    #[must_use]
    pub fn with_fields(self, fields: Fields) -> Self {
        Self { fields, ..self }
    }

    fn lookup_exact(&self, protocol: Protocol, name: &[u8]) -> Option<SocketAddrV4> {
        let hash = self.hasher.hash(protocol, name);
        Filter::admits(self.filter.word(hash), hash).then(|| self.find(protocol, hash, name))?
    }

    /// The server of a name with this hash, without a look at the filter.
    fn find(&self, protocol: Protocol, hash: u32, name: &[u8]) -> Option<SocketAddrV4> {
        Some(self.index.find(&self.arena, hash, protocol, name)?.server)
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
        self.arena.len() + self.index.heap_bytes() + self.filter.heap_bytes()
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
        self.rest = &self.rest[HEAD_LEN + record.name.len()..];
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
        if self.arena.len() + HEAD_LEN + name.len() > ARENA_LEN_MAX {
            return Err(InsertError::Full);
        }
        self.index.insert(Slot { hash, at: self.arena.len() as u32 });
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
        self.index.shrink();
        let Self { hasher, patterns, index, arena, len } = self;
        let filter = Filter::of(&index, len.iter().sum());
        let arena = arena.into_boxed_slice();
        NameTable { hasher, fields: Fields::default(), patterns, filter, index, arena, len }
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
