//! Answers PVA SEARCH.
use super::{Counts, NameTable, Subnet};
use std::net::SocketAddrV4;

/// Who asked, and by which way the question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The sender of the datagram.
    pub source: SocketAddrV4,
    /// Whether it came through the loopback group 224.0.0.128, from a server of this host.
    pub forwarded: bool,
}
impl From<SocketAddrV4> for Asked {
    fn from(source: SocketAddrV4) -> Self {
        Self { source, forwarded: false }
    }
}

/// Turns datagrams of PVA SEARCH into replies.
#[derive(Debug, Default)]
pub struct PvaResponder(());
impl PvaResponder {
    /// A responder that replies to the sender only, and to hosts in these subnets.
    pub fn new(reply_subnets: Vec<Subnet>) -> Self {
        todo!()
    }
    /// Replaces the subnets, as the host's addresses change.
    pub fn set_reply_subnets(&mut self, reply_subnets: Vec<Subnet>) {
        todo!()
    }
    /// Answers one datagram: calls `send` for each reply, nothing for names not in the table.
    pub fn answer(
        &mut self,
        names: &NameTable,
        payload: &[u8],
        asked: Asked,
        send: &mut dyn FnMut(SocketAddrV4, &[u8]),
    ) {
        todo!()
    }
    /// What it has seen.
    pub fn counts(&self) -> &Counts {
        todo!()
    }
}
