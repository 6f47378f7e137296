//! CA and PVA SEARCH: a name server, its name table, parsers and writers.
//!
//! A SEARCH server hears "who serves this name?" over UDP and answers with the TCP address of the
//! server that does. This module is the part of it that uses no socket. [`Answerer`] answers what
//! an [`Engine`](crate::Engine) hears. The parts that it is made of, bytes in and bytes out, fit
//! any other source of datagrams as well.
//!
//! | part | what it is |
//! | --- | --- |
//! | [`NameTable`] | a million names and more, each with the server that has it, in few bytes |
//! | [`Lookup`] | names looked up together, in one table or a stack of them, or in your own |
//! | [`read_pv_file`] | the table from a text file, with errors that name file, line and column |
//! | [`Answerer`] | a name server of CA and PVA: an engine's batches and the table in, replies out |
//! | [`CaResponder`], [`PvaResponder`] | datagrams and the table in, reply datagrams out |
//! | [`ca`], [`pva`] | total parsers and writers of both protocols |
//! | [`Request`], [`load`] | for programs that ask: one or a million SEARCHes, and what became of them |
//! | [`SearchCounts`], [`NicSearchCounts`], [`Reject`] | what was asked, where, and why it was not answered |
//!
//! Any bytes may come from a network, so every parser is total. It never panics, and the length of
//! the datagram bounds its work. What is refused is counted by reason. Parsers borrow, and
//! responders reuse their memory: once they are warm, no datagram costs an allocation.
//!
//! ```
//! use nicring::search::{CaResponder, NameTable, Protocol, ca};
//!
//! let mut builder = NameTable::builder();
//! builder.insert(Protocol::Ca, "ioc1:temp", "192.0.2.7:5064".parse()?)?;
//! let names = builder.build();
//!
//! // What a client broadcasts ...
//! let mut request = ca::RequestWriter::new();
//! request.begin(Some(1));
//! assert!(request.push(42, b"ioc1:temp"));
//!
//! // ... and what it hears.
//! let mut responder = CaResponder::new();
//! let mut replies = Vec::new();
//! responder.answer(&names, request.datagram(), "192.0.2.99:40000".parse()?, &mut |to, bytes| {
//!     replies.push((to, bytes.to_vec()));
//! });
//! assert_eq!(replies.len(), 1);
//! assert_eq!(responder.counts().hit_count, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod answerer;
mod bytes;
pub mod ca;
mod ca_respond;
mod counts;
mod fields;
mod filter;
pub mod load;
mod lookup;
mod names;
mod nic_counts;
mod patterns;
mod pv_file;
pub mod pva;
mod pva_respond;
mod request;
#[cfg(feature = "serde")]
mod serialize;
mod waiting;

use std::{fmt, str::FromStr};

pub use answerer::Answerer;
pub use ca_respond::{CaAnswers, CaResponder};
pub use counts::{Reject, SearchCounts};
pub use fields::{Fields, FieldsError};
pub use lookup::Lookup;
pub use names::{InsertError, NAME_LEN_MAX, NameTable, NameTableBuilder, Names};
pub use nic_counts::NicSearchCounts;
pub use pv_file::{PvFile, PvFileError, read_pv_file};
pub use pva_respond::{Asked, PvaAnswers, PvaResponder};
pub use request::{Request, RequestHead, answered_ids};
pub use waiting::Reply;

/// One of the two EPICS protocols. A server may have the same name in both.
///
/// ```
/// use nicring::search::Protocol;
///
/// assert_eq!("pva".parse(), Ok(Protocol::Pva));
/// assert_eq!(Protocol::Ca.to_string(), "ca");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// Channel Access.
    Ca,
    /// PVAccess.
    Pva,
}

impl Protocol {
    /// Both, in order.
    pub const ALL: [Self; 2] = [Self::Ca, Self::Pva];

    /// `ca` or `pva`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ca => "ca",
            Self::Pva => "pva",
        }
    }

    /// The UDP port that SEARCH goes to unless configured otherwise: 5064 for CA, 5076 for PVA.
    #[must_use]
    pub const fn search_port(self) -> u16 {
        match self {
            Self::Ca => 5064,
            Self::Pva => 5076,
        }
    }
}

impl FromStr for Protocol {
    type Err = ProtocolError;

    fn from_str(text: &str) -> Result<Self, ProtocolError> {
        let named = Self::ALL.into_iter().find(|protocol| protocol.name() == text);
        named.ok_or(ProtocolError)
    }
}

/// The error for a text that names no [`Protocol`]: it is neither `ca` nor `pva`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProtocolError;

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected ca or pva")
    }
}

impl std::error::Error for ProtocolError {}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
