//! Channel Access SEARCH: parser and writers.

use super::Reject;
use std::net::Ipv4Addr;

/// The longest datagram written, in bytes.
pub const DATAGRAM_LEN_MAX: usize = 1024;
/// The protocol's minor version, as sent.
pub const MINOR_VERSION: u16 = 13;

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
    /// What it is: 0 VERSION, 6 SEARCH.
    pub command: u16,
    /// Its data type field.
    pub data_type: u16,
    /// Its count field.
    pub count: u32,
    /// Its first parameter.
    pub cid: u32,
    /// Its second parameter.
    pub available: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}
impl<'a> Message<'a> {
    /// The sequence number of a VERSION message, where it says that it has one.
    pub fn sequence(&self) -> Option<u32> {
        todo!()
    }
    /// The reply in a SEARCH message of a server.
    pub fn search_reply(&self) -> Result<SearchReply, Reject> {
        todo!()
    }
}
/// What a server says about one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchReply {
    /// The id the client gave the name.
    pub id: u32,
    /// The server's address; `None` is the sender of the reply.
    pub server: Option<Ipv4Addr>,
    /// The server's TCP port.
    pub port: u16,
    /// The server's minor version.
    pub minor_version: u16,
}
/// Writes SEARCH requests, as many names in a datagram as fit.
#[derive(Clone, Debug, Default)]
pub struct RequestWriter(Vec<u8>);
impl RequestWriter {
    /// An empty datagram.
    pub fn new() -> Self {
        todo!()
    }
    /// Begins the next datagram, with a sequence number for the replies to echo.
    pub fn begin(&mut self, sequence: Option<u32>) {
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
