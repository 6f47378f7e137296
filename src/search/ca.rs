//! Channel Access SEARCH: parser and writers.
//!
//! A datagram is a row of messages. Each message is a header of 16 bytes and a payload of a
//! multiple of eight bytes. A header that gives the payload's length as 0xFFFF has 24 bytes: the
//! true length and count follow. All numbers are big-endian. A client sends VERSION and then SEARCH
//! for each name. A server replies with VERSION and then SEARCH for each name that it has.
//!
//! ```
//! use nicring::search::ca;
//!
//! let mut request = ca::RequestWriter::new();
//! request.begin(Some(7));
//! request.push(42, b"ioc1:temp");
//!
//! let mut messages = ca::messages(request.datagram());
//! let version = messages.next().unwrap()?;
//! assert_eq!((version.command, version.sequence()), (ca::VERSION, Some(7)));
//! let search = messages.next().unwrap()?.search()?;
//! assert_eq!((search.id, search.name), (42, &b"ioc1:temp"[..]));
//! assert!(messages.next().is_none());
//! # Ok::<(), nicring::search::Reject>(())
//! ```

use std::net::{Ipv4Addr, SocketAddrV4};

use super::{Reject, bytes};

/// The longest datagram that is written, in bytes.
///
/// EPICS Base sends no longer ones, packed replies of its server included (`MAX_UDP_SEND` in
/// caProto.h). In its early days it received no longer ones either. Today Base's own library
/// takes 65,551 bytes. caproto takes 4,096 where the system does not tell it the length. 1,472
/// would be the longest that no Ethernet fragments.
pub const DATAGRAM_LEN_MAX: usize = 1024;
/// The minor version of the protocol, as sent.
pub const MINOR_VERSION: u16 = 13;
/// The minor version of the oldest client that connects to the address in a reply. Older ones
/// connect to the sender of the reply.
pub const MINOR_VERSION_REDIRECT: u16 = 8;
/// Command: the sender's minor version, and a sequence number.
pub const VERSION: u16 = 0;
/// Command: asks who has a name. In a reply it says who has it.
pub const SEARCH: u16 = 6;
/// SEARCH: no answer is wanted from servers that do not have the name.
pub const DONT_REPLY: u16 = 5;
/// SEARCH: an answer is wanted in any case. Servers obey this over TCP only.
pub const DO_REPLY: u16 = 10;

const HEADER_LEN: usize = 16;
const EXTENSION_LEN: usize = 8;
/// The length of a payload whose true length follows.
const EXTENDED: u16 = 0xffff;
/// The address of a server that is the sender of the reply.
const SENDER: u32 = 0xffff_ffff;
/// The data type of a VERSION message whose first parameter is a sequence number.
const SEQUENCE_VALID: u16 = 1;
/// From this version on, the first parameter of VERSION is a sequence number.
const MINOR_VERSION_SEQUENCE: u32 = 11;
const REPLY_PAYLOAD_LEN: usize = 8;
/// How many answers fit a datagram, after its VERSION message.
pub(super) const REPLY_NAME_COUNT_MAX: usize =
    (DATAGRAM_LEN_MAX - HEADER_LEN) / (HEADER_LEN + REPLY_PAYLOAD_LEN);

/// The messages of one datagram. Nothing comes after an `Err`.
#[must_use]
pub fn messages(datagram: &[u8]) -> Messages<'_> {
    Messages { rest: datagram }
}

/// Iterator of [`messages`].
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Reject>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let message = Message::read(self.rest).map(|(message, rest)| {
            self.rest = rest;
            message
        });
        if message.is_err() {
            self.rest = &[];
        }
        Some(message)
    }
}

/// One message, whatever its command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// What it is: [`VERSION`], [`SEARCH`] or anything else.
    pub command: u16,
    /// Its data type field.
    pub data_type: u16,
    /// Its data count field.
    pub count: u32,
    /// Its first parameter. In SEARCH it is the id of a channel, or the address of a server.
    pub cid: u32,
    /// Its second parameter. In SEARCH it is the id that a reply repeats.
    pub available: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    #[inline]
    fn read(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Reject> {
        let (header, mut rest) =
            bytes.split_first_chunk::<HEADER_LEN>().ok_or(Reject::TruncatedHeader)?;
        let short = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let long = |at: usize| u32::from(short(at)) << 16 | u32::from(short(at + 2));
        let (mut payload_len, mut count) = (u32::from(short(2)), u32::from(short(6)));
        if short(2) == EXTENDED {
            let (extension, after) =
                rest.split_first_chunk::<EXTENSION_LEN>().ok_or(Reject::TruncatedHeader)?;
            let [a, b, c, d, true_count @ ..] = *extension;
            payload_len = u32::from_be_bytes([a, b, c, d]);
            count = u32::from_be_bytes(true_count);
            rest = after;
        }
        if payload_len % 8 != 0 {
            return Err(Reject::Misaligned);
        }
        let (payload, rest) =
            rest.split_at_checked(payload_len as usize).ok_or(Reject::TruncatedPayload)?;
        let message = Self {
            command: short(0),
            data_type: short(4),
            count,
            cid: long(8),
            available: long(12),
            payload,
        };
        Ok((message, rest))
    }

    /// The sender's minor version, in a VERSION message.
    #[must_use]
    pub fn minor_version(&self) -> u16 {
        u16::try_from(self.count).unwrap_or(u16::MAX)
    }

    /// The sequence number in a VERSION message, if it says that it has one.
    #[must_use]
    pub fn sequence(&self) -> Option<u32> {
        let has = self.command == VERSION && self.data_type & SEQUENCE_VALID != 0;
        has.then_some(self.cid)
    }

    /// The sequence number that a reply to this VERSION message carries. Servers echo the field to
    /// every client that is new enough to have one, even if the client did not mark it as valid.
    pub(super) fn sequence_to_echo(&self) -> Option<u32> {
        (self.count >= MINOR_VERSION_SEQUENCE).then_some(self.cid)
    }

    /// The question in a SEARCH message of a client.
    ///
    /// # Errors
    ///
    /// If it is another command, or if its name is empty or does not end.
    #[inline]
    pub fn search(&self) -> Result<Search<'a>, Reject> {
        if self.command != SEARCH {
            return Err(Reject::UnexpectedCommand);
        }
        let name_len = bytes::find(0, self.payload);
        let name = match name_len {
            Some(0) => return Err(Reject::EmptyName),
            Some(name_len) => &self.payload[..name_len],
            None if self.payload.is_empty() => return Err(Reject::EmptyName),
            None => return Err(Reject::UnterminatedName),
        };
        let minor_version = self.minor_version();
        Ok(Search { id: self.available, minor_version, reply_flag: self.data_type, name })
    }

    /// The answer in a SEARCH message of a server.
    ///
    /// # Errors
    ///
    /// If it is another command, or if its payload is too short for the server's minor version.
    pub fn search_reply(&self) -> Result<SearchReply, Reject> {
        if self.command != SEARCH {
            return Err(Reject::UnexpectedCommand);
        }
        let version = self.payload.first_chunk().ok_or(Reject::MalformedPayload)?;
        Ok(SearchReply {
            id: self.available,
            server: (self.cid != SENDER).then(|| Ipv4Addr::from_bits(self.cid)),
            port: self.data_type,
            minor_version: u16::from_be_bytes(*version),
        })
    }
}

/// What a client asks about one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Search<'a> {
    /// The id that the client gave the name; a reply repeats it.
    pub id: u32,
    /// The client's minor version.
    pub minor_version: u16,
    /// [`DONT_REPLY`] or [`DO_REPLY`].
    pub reply_flag: u16,
    /// The name, without the NUL bytes after it.
    pub name: &'a [u8],
}

/// What a server says about one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchReply {
    /// The id that the client gave the name.
    pub id: u32,
    /// The server's address; `None` means the sender of the reply.
    pub server: Option<Ipv4Addr>,
    /// The server's TCP port.
    pub port: u16,
    /// The server's minor version.
    pub minor_version: u16,
}

/// A header: command, length of the payload, data type, count; and two parameters.
#[inline]
fn header(
    [command, data_type, count]: [u16; 3],
    [cid, available]: [u32; 2],
    payload_len: usize,
) -> [u8; HEADER_LEN] {
    let [words, more] = [[command, payload_len as u16], [data_type, count]]
        .map(|[high, low]| u64::from(high) << 16 | u64::from(low));
    let first = words << 32 | more;
    let second = u64::from(cid) << 32 | u64::from(available);
    (u128::from(first) << 64 | u128::from(second)).to_be_bytes()
}

fn append_version(buffer: &mut Vec<u8>, sequence: Option<u32>) {
    let data_type = if sequence.is_some() { SEQUENCE_VALID } else { 0 };
    let head = [VERSION, data_type, MINOR_VERSION];
    buffer.extend_from_slice(&header(head, [sequence.unwrap_or(0), 0], 0));
}

/// Writes SEARCH requests, as many names in a datagram as fit.
///
/// This asks for thousands of names in as few datagrams as possible:
///
/// ```
/// # let names: Vec<String> = (0..5000).map(|number| format!("ioc1:channel{number}")).collect();
/// # let mut datagram_count = 0;
/// # let mut send = |datagram: &[u8]| datagram_count += 1;
/// let mut request = nicring::search::ca::RequestWriter::new();
/// request.begin(None);
/// for (id, name) in (0..).zip(&names) {
///     if !request.push(id, name.as_bytes()) {
///         send(request.datagram());
///         request.begin(None);
///         assert!(request.push(id, name.as_bytes()));
///     }
/// }
/// send(request.datagram());
/// # assert_eq!(datagram_count, 193);
/// ```
#[derive(Clone, Debug, Default)]
pub struct RequestWriter {
    buffer: Vec<u8>,
    name_count: usize,
}

impl RequestWriter {
    /// A writer with room for a datagram. [`begin`](Self::begin) must begin the datagram.
    #[must_use]
    pub fn new() -> Self {
        Self { buffer: Vec::with_capacity(DATAGRAM_LEN_MAX), name_count: 0 }
    }

    /// Begins the next datagram, with a sequence number that replies echo.
    pub fn begin(&mut self, sequence: Option<u32>) {
        self.buffer.clear();
        self.name_count = 0;
        append_version(&mut self.buffer, sequence);
    }

    /// Adds a name, which has no NUL bytes. Returns false if it does not fit. A name of up to
    /// [`NAME_LEN_MAX`](super::NAME_LEN_MAX) bytes always fits a datagram of its own.
    pub fn push(&mut self, id: u32, name: &[u8]) -> bool {
        let payload_len = (name.len() + 1).next_multiple_of(8);
        let end = self.buffer.len() + HEADER_LEN + payload_len;
        if self.buffer.is_empty() || end > DATAGRAM_LEN_MAX {
            return false;
        }
        let head = [SEARCH, DONT_REPLY, MINOR_VERSION];
        self.buffer.extend_from_slice(&header(head, [id, id], payload_len));
        self.buffer.extend_from_slice(name);
        self.buffer.resize(end, 0);
        self.name_count += 1;
        true
    }

    /// The datagram so far.
    #[must_use]
    pub fn datagram(&self) -> &[u8] {
        &self.buffer
    }

    /// How many names it asks for.
    #[must_use]
    pub fn name_count(&self) -> usize {
        self.name_count
    }
}

/// Writes replies to SEARCH, as many in a datagram as fit.
///
/// ```
/// use nicring::search::ca;
///
/// let mut reply = ca::ReplyWriter::new();
/// reply.begin(Some(7));
/// assert!(reply.push(42, "192.0.2.7:5064".parse()?));
/// let message = ca::messages(reply.datagram()).nth(1).unwrap()?;
/// assert_eq!(message.search_reply()?.server, Some("192.0.2.7".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct ReplyWriter {
    buffer: Vec<u8>,
    name_count: usize,
}

impl ReplyWriter {
    /// A writer with room for a datagram. [`begin`](Self::begin) must begin the datagram.
    #[must_use]
    pub fn new() -> Self {
        Self { buffer: Vec::with_capacity(DATAGRAM_LEN_MAX), name_count: 0 }
    }

    /// Begins the next datagram, with the sequence number of the request.
    pub fn begin(&mut self, sequence: Option<u32>) {
        self.buffer.clear();
        self.name_count = 0;
        append_version(&mut self.buffer, sequence);
    }

    /// Adds the answer that `server` has the name with this id. With the address 0.0.0.0 it is the
    /// sender of the reply. Returns false if it does not fit.
    pub fn push(&mut self, id: u32, server: SocketAddrV4) -> bool {
        let end = self.buffer.len() + HEADER_LEN + REPLY_PAYLOAD_LEN;
        if self.buffer.is_empty() || end > DATAGRAM_LEN_MAX {
            return false;
        }
        let head = [SEARCH, server.port(), 0];
        let address = if server.ip().is_unspecified() { SENDER } else { server.ip().to_bits() };
        let header = header(head, [address, id], REPLY_PAYLOAD_LEN);
        let mut message = [0; HEADER_LEN + REPLY_PAYLOAD_LEN];
        message[..HEADER_LEN].copy_from_slice(&header);
        message[HEADER_LEN..HEADER_LEN + 2].copy_from_slice(&MINOR_VERSION.to_be_bytes());
        self.buffer.extend_from_slice(&message);
        self.name_count += 1;
        true
    }

    /// The datagram so far.
    #[must_use]
    pub fn datagram(&self) -> &[u8] {
        &self.buffer
    }

    /// How many names it answers.
    #[must_use]
    pub fn name_count(&self) -> usize {
        self.name_count
    }
}
