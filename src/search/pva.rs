//! PVAccess SEARCH: parser and writers.

use super::Reject;
use std::net::{Ipv6Addr, SocketAddrV4};

/// The longest datagram written, in bytes (one name that alone is longer excepted).
pub const DATAGRAM_LEN_MAX: usize = 1400;

/// Byte order of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ByteOrder {
    /// Least significant byte first.
    Little,
    /// Most significant byte first.
    Big,
}
/// The messages of one datagram; after the first `Err` there is no more.
pub fn messages(datagram: &[u8]) -> Messages<'_> {
    todo!()
}
/// Iterator of [`messages`].
#[derive(Clone, Debug)]
pub struct Messages<'a>(&'a [u8]);
impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Reject>;
    fn next(&mut self) -> Option<Self::Item> {
        todo!()
    }
}
/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The sender's protocol version.
    pub version: u8,
    /// Byte order of all that follows.
    pub byte_order: ByteOrder,
    /// What it is.
    pub command: u8,
    /// What follows the header.
    pub payload: &'a [u8],
}
impl<'a> Message<'a> {
    /// The SEARCH in it.
    pub fn search(&self) -> Result<Search<'a>, Reject> {
        todo!()
    }
    /// The SEARCH_RESPONSE in it.
    pub fn search_response(&self) -> Result<SearchResponse<'a>, Reject> {
        todo!()
    }
}
/// One SEARCH.
#[derive(Clone, Copy, Debug)]
pub struct Search<'a> {
    /// The number a response repeats.
    pub sequence: u32,
    /// Flags: [`Search::must_reply`].
    pub flags: u8,
    /// Where the response shall go: unspecified for the sender.
    pub reply_address: Ipv6Addr,
    /// ... and to which port.
    pub reply_port: u16,
    names: &'a [u8],
}
/// One SEARCH_RESPONSE.
#[derive(Clone, Copy, Debug)]
pub struct SearchResponse<'a> {
    /// Identity of the server.
    pub guid: [u8; 12],
    /// The number of the request.
    pub sequence: u32,
    /// The server's address: unspecified for the sender.
    pub server: Ipv6Addr,
    /// The server's TCP port.
    pub port: u16,
    /// The protocol: `tcp`.
    pub protocol: &'a [u8],
    /// Whether it has the names.
    pub found: bool,
    ids: &'a [u8],
}
impl<'a> SearchResponse<'a> {
    /// The ids of the names it is about.
    pub fn ids(&self) -> impl Iterator<Item = u32> + use<'a> {
        std::iter::empty()
    }
}
/// Head of a SEARCH to write.
#[derive(Clone, Copy, Debug)]
pub struct SearchHead {
    /// Byte order to write.
    pub byte_order: ByteOrder,
    /// The number a response repeats.
    pub sequence: u32,
    /// [`FLAG_MUST_REPLY`], [`FLAG_UNICAST`].
    pub flags: u8,
    /// Where the response shall go: the unspecified address for the sender.
    pub reply_to: SocketAddrV4,
}
/// Set where a response is wanted in any case.
pub const FLAG_MUST_REPLY: u8 = 0x01;
/// Set where the request was sent to one host.
pub const FLAG_UNICAST: u8 = 0x80;
/// Writes SEARCH requests, as many names in a datagram as fit.
#[derive(Clone, Debug, Default)]
pub struct RequestWriter(Vec<u8>);
impl RequestWriter {
    /// An empty datagram.
    pub fn new() -> Self {
        todo!()
    }
    /// Begins the next datagram.
    pub fn begin(&mut self, head: SearchHead) {
        todo!()
    }
    /// Adds a name, or returns false where it does not fit.
    pub fn push(&mut self, id: u32, name: &[u8]) -> bool {
        todo!()
    }
    /// The datagram so far.
    pub fn datagram(&self) -> &[u8] {
        todo!()
    }
    /// Names in it.
    pub fn name_count(&self) -> usize {
        todo!()
    }
}
