//! PVAccess SEARCH: parser and writers.
//!
//! A message is a header of eight bytes (0xCA, version, flags, command, length of the payload) and
//! a payload. A flag tells the byte order of both. A client sends SEARCH with any number of names,
//! and with the address that replies go to. A server replies with SEARCH_RESPONSE, which holds the
//! address of one server and the ids of the names that this server has. ORIGIN_TAG goes before a
//! SEARCH that one server of a host passes on to the others.
//!
//! ```
//! use nicring::search::pva;
//!
//! let mut request = pva::RequestWriter::new();
//! request.begin(pva::SearchHead {
//!     byte_order: pva::ByteOrder::Little,
//!     sequence: 7,
//!     flags: 0,
//!     reply_to: "0.0.0.0:40000".parse()?,
//! });
//! request.push(42, b"ioc1:temp");
//!
//! let message = pva::messages(request.datagram()).next().unwrap()?;
//! let search = message.search()?;
//! assert!(search.accepts_tcp && search.reply_port == 40000);
//! assert!(search.names().eq([(42, &b"ioc1:temp"[..])]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod write;

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Reject;
use crate::path::Join;

pub use write::{
    RequestWriter, ResponseHead, ResponseWriter, SearchHead, append_forwarded, append_origin_tag,
};

/// The longest datagram that is written, in bytes. It fits one Ethernet frame.
pub const DATAGRAM_LEN_MAX: usize = 1400;
/// The version of the protocol, as sent.
pub const VERSION: u8 = 2;
/// Command: who has these names?
pub const SEARCH: u8 = 3;
/// Command: this server has these names.
pub const SEARCH_RESPONSE: u8 = 4;
/// Command: says where the next message was sent to before a server of this host passed it on.
pub const ORIGIN_TAG: u8 = 22;
/// The group on the loopback NIC through which the servers of one host pass on to each other what
/// only one of them received (pvxs and its peers).
pub const FORWARD_GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 128);
/// SEARCH flag: a response is wanted in any case.
pub const FLAG_MUST_REPLY: u8 = 0x01;
/// SEARCH flag, from version 3 on: the response goes to the port that the request came from,
/// whatever it says, as clients behind a NAT need it
/// ([epics-docs](https://github.com/epics-docs/epics-docs/pull/134)).
pub const FLAG_REPLY_TO_SOURCE_PORT: u8 = 0x02;
/// SEARCH flag: the request was sent to one host, not to all.
pub const FLAG_UNICAST: u8 = 0x80;

/// [`FORWARD_GROUP`] where it is used: on the loopback NIC, at the port of PVA.
///
/// ```
/// use nicring::{Engine, search::pva};
///
/// let builder = Engine::builder().ports([5064, 5076]).join(pva::forwarded(5076));
/// # let _ = builder;
/// ```
#[must_use]
pub fn forwarded(port: u16) -> Join {
    Join::group(FORWARD_GROUP).on(Ipv4Addr::LOCALHOST).port(port)
}

const HEADER_LEN: usize = 8;
/// GUID, sequence number, address and port, `tcp`, found, and how many ids follow.
const RESPONSE_HEAD_LEN: usize = 12 + 4 + 16 + 2 + 1 + TCP.len() + 1 + 2;
/// How many ids fit a SEARCH_RESPONSE of [`DATAGRAM_LEN_MAX`] bytes.
pub(super) const RESPONSE_ID_COUNT_MAX: usize =
    (DATAGRAM_LEN_MAX - HEADER_LEN - RESPONSE_HEAD_LEN) / 4;
const MAGIC: u8 = 0xca;
const HEADER_CONTROL: u8 = 0x01;
const HEADER_SEGMENTED: u8 = 0x30;
const HEADER_SERVER: u8 = 0x40;
const HEADER_BIG_ENDIAN: u8 = 0x80;
/// The size byte for no size at all.
const SIZE_NULL: u8 = 0xff;
/// The size byte for a size of four bytes that follows.
const SIZE_LONG: u8 = 0xfe;
const TCP: &[u8] = b"tcp";

/// The byte order of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ByteOrder {
    /// Least significant byte first.
    Little,
    /// Most significant byte first.
    Big,
}

/// The messages of one datagram. Nothing comes after an `Err`.
#[must_use]
pub fn messages(datagram: &[u8]) -> Messages<'_> {
    Messages { rest: datagram, is_cut: false }
}

/// As [`messages`], of a datagram of which only the beginning arrived. If the last message is cut,
/// it comes with what is there of it.
#[must_use]
pub fn messages_of_cut(datagram: &[u8]) -> Messages<'_> {
    Messages { rest: datagram, is_cut: true }
}

/// Iterator of [`messages`].
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
    /// Whether the end is missing.
    is_cut: bool,
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Reject>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let message = Message::read(self.rest, self.is_cut).map(|(message, rest)| {
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
    /// The sender's version of the protocol.
    pub version: u8,
    /// The byte order of what follows.
    pub byte_order: ByteOrder,
    /// What it is: [`SEARCH`], [`SEARCH_RESPONSE`], [`ORIGIN_TAG`] or anything else.
    pub command: u8,
    /// What follows the header.
    pub payload: &'a [u8],
    /// Whether the end of the payload is missing ([`messages_of_cut`]).
    pub is_cut: bool,
}

impl<'a> Message<'a> {
    fn read(bytes: &'a [u8], may_be_cut: bool) -> Result<(Self, &'a [u8]), Reject> {
        let (header, rest) =
            bytes.split_first_chunk::<HEADER_LEN>().ok_or(Reject::TruncatedHeader)?;
        let [magic, version, flags, command, payload_len @ ..] = *header;
        if magic != MAGIC || version == 0 {
            return Err(Reject::BadMagic);
        }
        if flags & HEADER_CONTROL != 0 {
            return Err(Reject::ControlMessage);
        }
        if flags & HEADER_SEGMENTED != 0 {
            return Err(Reject::Segmented);
        }
        let (byte_order, payload_len) = if flags & HEADER_BIG_ENDIAN == 0 {
            (ByteOrder::Little, u32::from_le_bytes(payload_len))
        } else {
            (ByteOrder::Big, u32::from_be_bytes(payload_len))
        };
        let is_cut = may_be_cut && rest.len() < payload_len as usize;
        let there = if is_cut { rest.len() } else { payload_len as usize };
        let (payload, rest) = rest.split_at_checked(there).ok_or(Reject::TruncatedPayload)?;
        Ok((Self { version, byte_order, command, payload, is_cut }, rest))
    }

    fn reader(&self) -> Reader<'a> {
        Reader { rest: self.payload, order: self.byte_order }
    }

    /// The SEARCH in this message, checked to its last name. Of one that is cut, the names that are
    /// whole.
    ///
    /// # Errors
    ///
    /// If it is another command, or if its payload ends too soon.
    pub fn search(&self) -> Result<Search<'a>, Reject> {
        if self.command != SEARCH {
            return Err(Reject::UnexpectedCommand);
        }
        let search = self.reader().search(self.version, self.is_cut);
        search.ok_or(Reject::MalformedPayload)
    }

    /// The SEARCH_RESPONSE in this message, checked to its last id.
    ///
    /// # Errors
    ///
    /// If it is another command, or if its payload ends too soon.
    pub fn search_response(&self) -> Result<SearchResponse<'a>, Reject> {
        if self.command != SEARCH_RESPONSE {
            return Err(Reject::UnexpectedCommand);
        }
        self.reader().search_response().ok_or(Reject::MalformedPayload)
    }

    /// The address in an ORIGIN_TAG: where the messages behind it were first sent to.
    ///
    /// # Errors
    ///
    /// If it is another command, or if its payload ends too soon.
    pub fn origin(&self) -> Result<Ipv6Addr, Reject> {
        if self.command != ORIGIN_TAG {
            return Err(Reject::UnexpectedCommand);
        }
        self.reader().address().ok_or(Reject::MalformedPayload)
    }
}

/// What a client asks.
#[derive(Clone, Copy, Debug)]
pub struct Search<'a> {
    /// The number that a response repeats.
    pub sequence: u32,
    /// [`FLAG_MUST_REPLY`], [`FLAG_REPLY_TO_SOURCE_PORT`], [`FLAG_UNICAST`].
    pub flags: u8,
    /// The client's version of the protocol.
    pub version: u8,
    /// The address that the response goes to; unspecified means the sender.
    pub reply_address: Ipv6Addr,
    /// The port that the response goes to.
    pub reply_port: u16,
    /// Whether `tcp` is among the protocols that the client takes.
    pub accepts_tcp: bool,
    /// How many names it asks for.
    pub name_count: u16,
    names: Reader<'a>,
}

impl<'a> Search<'a> {
    /// The byte order of the message it came in.
    #[must_use]
    pub fn byte_order(&self) -> ByteOrder {
        self.names.order
    }

    /// Whether a response is wanted in any case.
    #[must_use]
    pub fn must_reply(&self) -> bool {
        self.flags & FLAG_MUST_REPLY != 0
    }

    /// Whether the sender says that it sent the request to one host.
    #[must_use]
    pub fn is_unicast(&self) -> bool {
        self.flags & FLAG_UNICAST != 0
    }

    /// Whether the response goes to the port that the request came from, unless another server has
    /// passed it on.
    #[must_use]
    pub fn wants_source_port(&self) -> bool {
        self.version >= 3 && self.flags & FLAG_REPLY_TO_SOURCE_PORT != 0
    }

    /// [`reply_address`](Self::reply_address) as IPv4, `0.0.0.0` for the sender; `None` if only
    /// IPv6 can reach it.
    #[must_use]
    pub fn reply_ipv4(&self) -> Option<Ipv4Addr> {
        to_ipv4(self.reply_address)
    }

    /// The names, each with the id that the client gave it.
    pub fn names(&self) -> impl Iterator<Item = (u32, &'a [u8])> + use<'a> {
        let mut reader = self.names;
        (0..self.name_count).map_while(move |_| reader.name())
    }
}

/// What a server answers.
#[derive(Clone, Copy, Debug)]
pub struct SearchResponse<'a> {
    /// The identity of the server.
    pub guid: [u8; 12],
    /// The number of the request.
    pub sequence: u32,
    /// The server's address; unspecified means the sender.
    pub server: Ipv6Addr,
    /// The server's TCP port.
    pub port: u16,
    /// The protocol to connect with.
    pub protocol: &'a [u8],
    /// Whether the server has the names.
    pub found: bool,
    /// How many names it is about.
    pub id_count: u16,
    ids: Reader<'a>,
}

impl<'a> SearchResponse<'a> {
    /// [`server`](Self::server) as IPv4, `0.0.0.0` for the sender; `None` if only IPv6 can reach
    /// it.
    #[must_use]
    pub fn server_ipv4(&self) -> Option<Ipv4Addr> {
        to_ipv4(self.server)
    }

    /// The ids of the names it is about.
    pub fn ids(&self) -> impl Iterator<Item = u32> + use<'a> {
        let mut reader = self.ids;
        (0..self.id_count).map_while(move |_| reader.u32())
    }
}

fn to_ipv4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    if address.is_unspecified() { Some(Ipv4Addr::UNSPECIFIED) } else { address.to_ipv4_mapped() }
}

/// Reads a payload. `None` means that it has ended.
#[derive(Clone, Copy, Debug)]
struct Reader<'a> {
    rest: &'a [u8],
    order: ByteOrder,
}

impl<'a> Reader<'a> {
    fn search(mut self, version: u8, is_cut: bool) -> Option<Search<'a>> {
        let sequence = self.u32()?;
        let [flags, _, _, _] = *self.array()?;
        let reply_address = self.address()?;
        let reply_port = self.u16()?;
        let mut accepts_tcp = false;
        for _ in 0..self.size()?? {
            accepts_tcp |= self.string()? == Some(TCP);
        }
        let said_count = self.u16()?;
        let names = self;
        let whole_count = (0..said_count).map_while(|_| self.name()).count() as u16;
        if whole_count < said_count && !is_cut {
            return None;
        }
        Some(Search {
            sequence,
            flags,
            version,
            reply_address,
            reply_port,
            accepts_tcp,
            name_count: whole_count,
            names,
        })
    }

    fn search_response(mut self) -> Option<SearchResponse<'a>> {
        let guid = *self.array()?;
        let sequence = self.u32()?;
        let server = self.address()?;
        let port = self.u16()?;
        let protocol = self.string()?.unwrap_or_default();
        let [found] = *self.array()?;
        let id_count = self.u16()?;
        self.rest.get(..4 * usize::from(id_count))?;
        let found = found != 0;
        Some(SearchResponse { guid, sequence, server, port, protocol, found, id_count, ids: self })
    }

    fn array<const LEN: usize>(&mut self) -> Option<&'a [u8; LEN]> {
        let (array, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(array)
    }

    fn u16(&mut self) -> Option<u16> {
        let bytes = *self.array()?;
        Some(match self.order {
            ByteOrder::Little => u16::from_le_bytes(bytes),
            ByteOrder::Big => u16::from_be_bytes(bytes),
        })
    }

    fn u32(&mut self) -> Option<u32> {
        let bytes = *self.array()?;
        Some(match self.order {
            ByteOrder::Little => u32::from_le_bytes(bytes),
            ByteOrder::Big => u32::from_be_bytes(bytes),
        })
    }

    fn address(&mut self) -> Option<Ipv6Addr> {
        Some(Ipv6Addr::from(*self.array::<16>()?))
    }

    /// A size, or `Some(None)` for the null size that some implementations write for no string.
    fn size(&mut self) -> Option<Option<u32>> {
        let [first] = *self.array()?;
        Some(match first {
            SIZE_NULL => None,
            // Sizes beyond 2^31 have another form, but no datagram holds as much.
            SIZE_LONG => Some(self.u32()?),
            short => Some(u32::from(short)),
        })
    }

    fn string(&mut self) -> Option<Option<&'a [u8]>> {
        let Some(len) = self.size()? else { return Some(None) };
        let (string, rest) = self.rest.split_at_checked(len as usize)?;
        self.rest = rest;
        Some(Some(string))
    }

    fn name(&mut self) -> Option<(u32, &'a [u8])> {
        let id = self.u32()?;
        Some((id, self.string()??))
    }
}
