//! Answers CA SEARCH.
use super::{Counts, NameTable};
use std::net::SocketAddrV4;

/// Turns datagrams of CA SEARCH into replies.
#[derive(Debug, Default)]
pub struct CaResponder(());
impl CaResponder {
    /// A responder whose counters are zero.
    pub fn new() -> Self {
        todo!()
    }
    /// Answers one datagram: calls `send` for each reply, nothing for names not in the table.
    pub fn answer(
        &mut self,
        names: &NameTable,
        payload: &[u8],
        source: SocketAddrV4,
        send: &mut dyn FnMut(SocketAddrV4, &[u8]),
    ) {
        todo!()
    }
    /// What it has seen.
    pub fn counts(&self) -> &Counts {
        todo!()
    }
}
