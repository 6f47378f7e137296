//! The name table.

use std::fmt;
use std::net::SocketAddrV4;

use super::Protocol;

/// The longest name a table takes, in bytes; EPICS itself holds longer ones to be mistakes.
pub const NAME_LEN_MAX: usize = 500;

/// Which server has which name: immutable, compact, shared freely between threads.
#[derive(Clone)]
pub struct NameTable(());

impl NameTable {
    /// An empty builder.
    pub fn builder() -> NameTableBuilder {
        todo!()
    }
    /// The server of `name`, or else of the record it is a field of: what stands before the last `.`.
    pub fn lookup(&self, protocol: Protocol, name: &[u8]) -> Option<SocketAddrV4> {
        todo!()
    }
    /// How many names the table has for one protocol.
    pub fn len(&self, protocol: Protocol) -> usize {
        todo!()
    }
    /// Whether it has none for either.
    pub fn is_empty(&self) -> bool {
        todo!()
    }
    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        todo!()
    }
    /// Every name with its server, in the order of insertion.
    pub fn iter(&self) -> Names<'_> {
        todo!()
    }
}

/// Iterator of [`NameTable::iter`]: `(Protocol, &str, SocketAddrV4)`.
#[derive(Clone, Debug)]
pub struct Names<'a>(&'a ());

impl<'a> Iterator for Names<'a> {
    type Item = (Protocol, &'a str, SocketAddrV4);
    fn next(&mut self) -> Option<Self::Item> {
        todo!()
    }
}

/// Builds a [`NameTable`].
#[derive(Default, Debug)]
pub struct NameTableBuilder(());

impl NameTableBuilder {
    /// An empty builder.
    pub fn new() -> Self {
        todo!()
    }
    /// Adds one name. The same name with the same server again is no error.
    pub fn insert(
        &mut self,
        protocol: Protocol,
        name: &str,
        server: SocketAddrV4,
    ) -> Result<(), InsertError> {
        todo!()
    }
    /// The table.
    pub fn build(self) -> NameTable {
        todo!()
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
        /// Its length.
        name_len: usize,
    },
    /// The name has a control character.
    ControlCharacter,
    /// No client can connect to this server: no host's address, or port 0.
    Server,
    /// The table holds all it can (4 GiB of names).
    Full,
}

impl fmt::Display for InsertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}
impl std::error::Error for InsertError {}
