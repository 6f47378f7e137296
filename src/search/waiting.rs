//! What a responder holds until it answers: names that wait to be looked up together, and those
//! that were found.

use std::net::SocketAddrV4;

use arrayvec::ArrayVec;

use super::{Lookup, Protocol, SearchCounts, names::TOGETHER_MAX};

/// How many answers are held back at most, but for a PVA request that alone asks for more names.
/// Then they are sent. They and their questions take some 80 KiB with reply paths, 45 KiB without.
pub(super) const HELD_MAX: usize = 1024;

/// One reply of a responder, as it is to be sent.
///
/// ```
/// # fn send(_: std::net::SocketAddrV4, _: &[u8]) {}
/// # let names = nicring::search::NameTable::builder().build();
/// # let (request, source) = (b"", "192.0.2.99:40000".parse()?);
/// let mut responder = nicring::search::CaResponder::new();
/// let mut answers = responder.pack(&names, |reply| send(reply.to, reply.payload));
/// answers.add(request, source, ());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reply<'a, W = ()> {
    /// The way of the questions that it answers.
    pub way: W,
    /// Where it goes.
    pub to: SocketAddrV4,
    /// Its bytes.
    pub payload: &'a [u8],
    /// How many names it answers.
    pub name_count: usize,
}

/// A name found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hit {
    /// Its index among the questions.
    pub question: u32,
    pub server: SocketAddrV4,
    pub position: u32,
    pub id: u32,
}

impl Hit {
    /// Orders by a group, then by server, then as clients asked; one number, because comparing
    /// numbers is most of what sorting costs.
    #[inline]
    pub fn key(&self, group: u32) -> u128 {
        let server = u64::from(self.server.ip().to_bits()) << 16 | u64::from(self.server.port());
        u128::from(group) << 80 | u128::from(server) << 32 | u128::from(self.position)
    }
}

/// Names that wait to be looked up together, each with its question and the id that the client gave
/// it.
pub(super) struct Waiting<'a> {
    names: ArrayVec<&'a [u8], TOGETHER_MAX>,
    asked: ArrayVec<(u32, u32), TOGETHER_MAX>,
}

impl<'a> Waiting<'a> {
    pub const fn new() -> Self {
        Self { names: ArrayVec::new_const(), asked: ArrayVec::new_const() }
    }

    #[inline]
    pub fn push(&mut self, question: u32, id: u32, name: &'a [u8]) {
        self.names.push(name);
        self.asked.push((question, id));
    }

    /// Whether it has no room for another name.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.names.is_full()
    }

    /// Looks up all of them, and notes those that `names` has.
    pub fn look_up(
        &mut self,
        protocol: Protocol,
        names: &dyn Lookup,
        counts: &mut SearchCounts,
        hits: &mut Vec<Hit>,
    ) {
        // Taken out first: a table of the user's own may panic.
        let Self { names: wanted, asked } = std::mem::replace(self, Self::new());
        if wanted.is_empty() {
            return;
        }
        let mut servers = [None; TOGETHER_MAX];
        names.lookup_all(protocol, &wanted, &mut servers[..wanted.len()]);
        let hits_before = hits.len();
        for (server, (question, id)) in servers.iter().zip(&asked) {
            if let Some(server) = *server {
                let position = hits.len() as u32;
                hits.push(Hit { question: *question, server, position, id: *id });
            }
        }
        let hit_count = hits.len() - hits_before;
        counts.hit_count += hit_count as u64;
        counts.miss_count += (wanted.len() - hit_count) as u64;
    }
}
