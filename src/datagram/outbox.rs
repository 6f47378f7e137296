//! Datagrams that wait to be sent: a bounded arena that the backend sends from without copying.

use std::{net::SocketAddrV4, sync::Mutex};

use super::{egress::Egress, record::Origin};
use crate::lock::lock;

/// Whether a datagram was accepted for sending.
///
/// ```
/// # fn answer(batch: &nicring::Batch, datagram: &nicring::Datagram<'_>) {
/// if !batch.reply(datagram, b"here").is_queued() {
///     // the asker will ask again
/// }
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Queued {
    /// Yes: it leaves with the engine's next submission. [`Stats`](crate::Stats) counts whether
    /// the kernel took it.
    Yes,
    /// No: the outbox is full ([`Builder::replies_max`](crate::Builder::replies_max)).
    Full,
    /// No: it is longer than the payload of a UDP datagram can be (65,507 bytes).
    TooLong,
    /// No: an answer goes to one host, and this is a broadcast address, a group or port 0.
    /// [`Batch::send`](crate::Batch::send) may send there.
    NoHost,
    /// No: the engine listens on no such port ([`Egress::port`]).
    NoPort,
    /// No: the engine has been told to stop.
    Stopped,
}

impl Queued {
    /// Whether it was accepted.
    #[must_use]
    pub fn is_queued(self) -> bool {
        self == Self::Yes
    }
}

/// The longest payload of UDP over IPv4: 65,535 bytes less both headers (RFC 768, RFC 791).
pub(crate) const PAYLOAD_LEN_MAX: usize = 65_507;

/// One datagram to send: where its payload lies in the arena, and where it goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outgoing {
    /// Where the question came in that it answers; `None` if it answers nothing.
    pub origin: Option<Origin>,
    pub egress: Egress,
    pub destination: SocketAddrV4,
    pub start: u32,
    pub len: u32,
}

/// Datagrams that wait to be sent. Neither vector ever grows beyond its first capacity. So a
/// payload stays in its place until the outbox is cleared, and the kernel can read it there.
#[derive(Debug)]
pub(crate) struct Outbox {
    outgoing: Vec<Outgoing>,
    arena: Vec<u8>,
    refusals: Refusals,
    /// What answers are composed in, so that nobody composes under a lock.
    draft: Vec<u8>,
}

/// How many datagrams an outbox has refused.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusals {
    /// As [`Queued::Full`].
    pub full_count: u64,
    /// As [`Queued::NoHost`].
    pub no_host_count: u64,
}

impl Outbox {
    pub fn new(replies_max: usize) -> Self {
        // A reply to a SEARCH is seldom longer than 256 bytes. Two of the longest always fit.
        let arena_len = (replies_max * 256).max(2 * PAYLOAD_LEN_MAX);
        Self {
            outgoing: Vec::with_capacity(replies_max),
            arena: Vec::with_capacity(arena_len),
            refusals: Refusals::default(),
            draft: Vec::new(),
        }
    }

    pub fn push(
        &mut self,
        origin: Option<Origin>,
        egress: Egress,
        destination: SocketAddrV4,
        payload: &[u8],
    ) -> Queued {
        let admitted = self.admit(payload.len());
        if !admitted.is_queued() {
            return admitted;
        }
        let (start, len) = (self.arena.len() as u32, payload.len() as u32);
        self.arena.extend_from_slice(payload);
        self.outgoing.push(Outgoing { origin, egress, destination, start, len });
        Queued::Yes
    }

    /// Queues one payload once for each egress, or for none of them.
    pub fn push_each(
        &mut self,
        egresses: impl ExactSizeIterator<Item = Egress>,
        destination: SocketAddrV4,
        payload: &[u8],
    ) -> Queued {
        if egresses.len() == 0 {
            return Queued::Yes;
        }
        let admitted = self.admit(payload.len());
        if !admitted.is_queued() {
            return admitted;
        }
        if self.outgoing.len() + egresses.len() > self.outgoing.capacity() {
            self.refusals.full_count += 1;
            return Queued::Full;
        }
        let (start, len) = (self.arena.len() as u32, payload.len() as u32);
        self.arena.extend_from_slice(payload);
        let outgoing = |egress| Outgoing { origin: None, egress, destination, start, len };
        self.outgoing.extend(egresses.map(outgoing));
        Queued::Yes
    }

    /// Counts an answer that is for no host.
    pub fn refuse(&mut self) -> Queued {
        self.refusals.no_host_count += 1;
        Queued::NoHost
    }

    /// Memory to compose a datagram of up to `len_max` bytes in, all zeros. It does not allocate
    /// if it comes back by [`Outbox::push_draft`].
    ///
    /// # Errors
    ///
    /// Such a datagram would be refused.
    pub fn draft(&mut self, len_max: usize) -> Result<Vec<u8>, Queued> {
        let admitted = self.admit(len_max);
        if !admitted.is_queued() {
            return Err(admitted);
        }
        let mut draft = std::mem::take(&mut self.draft);
        draft.clear();
        draft.resize(len_max, 0);
        Ok(draft)
    }

    /// As [`Outbox::push`], with the first `len` bytes of a draft as the payload.
    pub fn push_draft(
        &mut self,
        origin: Option<Origin>,
        egress: Egress,
        destination: SocketAddrV4,
        draft: Vec<u8>,
        len: usize,
    ) -> Queued {
        let queued = self.push(origin, egress, destination, &draft[..len.min(draft.len())]);
        self.draft = draft;
        queued
    }

    /// Queues an answer that `write` composes in up to `len_max` bytes. The outbox is not locked
    /// meanwhile, so `write` may queue other answers.
    pub fn compose(
        outbox: &Mutex<Self>,
        origin: Origin,
        (egress, destination): (Egress, SocketAddrV4),
        len_max: usize,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) -> Queued {
        let draft = lock(outbox).draft(len_max);
        let mut draft = match draft {
            Ok(draft) => draft,
            Err(refused) => return refused,
        };
        let len = write(&mut draft);
        lock(outbox).push_draft(Some(origin), egress, destination, draft, len)
    }

    fn admit(&mut self, len: usize) -> Queued {
        if len > PAYLOAD_LEN_MAX {
            return Queued::TooLong;
        }
        let has_room = self.outgoing.len() < self.outgoing.capacity()
            && self.arena.len() + len <= self.arena.capacity();
        if !has_room {
            self.refusals.full_count += 1;
            return Queued::Full;
        }
        Queued::Yes
    }

    pub fn len(&self) -> usize {
        self.outgoing.len()
    }

    pub fn is_empty(&self) -> bool {
        self.outgoing.is_empty()
    }

    #[allow(dead_code, reason = "for io_uring, which only Linux has")]
    pub fn outgoing(&self, index: usize) -> &Outgoing {
        &self.outgoing[index]
    }

    /// The datagrams from `first` on.
    pub fn outgoing_from(&self, first: usize) -> &[Outgoing] {
        &self.outgoing[first..]
    }

    pub fn payload(&self, outgoing: &Outgoing) -> &[u8] {
        let start = outgoing.start as usize;
        &self.arena[start..start + outgoing.len as usize]
    }

    /// Empties it. The caller makes sure that the kernel has read everything.
    pub fn clear(&mut self) {
        self.outgoing.clear();
        self.arena.clear();
    }

    /// How many datagrams were refused since the last call.
    pub fn take_refusals(&mut self) -> Refusals {
        std::mem::take(&mut self.refusals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination() -> SocketAddrV4 {
        "192.0.2.9:5064".parse().unwrap()
    }

    #[test]
    fn what_is_pushed_comes_out_in_order() {
        let mut outbox = Outbox::new(8);
        let egress = Egress::default();
        let from = |ifindex| Some(Origin { port: 5064, ifindex });
        assert!(outbox.push(from(3), egress, destination(), b"one").is_queued());
        let mut draft = outbox.draft(100).expect("room");
        draft[..3].copy_from_slice(b"two");
        assert!(outbox.push_draft(from(4), egress, destination(), draft, 3).is_queued());
        assert!(outbox.push(from(5), egress, destination(), b"").is_queued());
        let payloads: Vec<_> =
            outbox.outgoing_from(0).iter().map(|one| (one.origin, outbox.payload(one))).collect();
        let expected = [(from(3), &b"one"[..]), (from(4), b"two"), (from(5), b"")];
        assert_eq!(payloads, expected);
    }

    #[test]
    fn a_full_outbox_refuses_and_counts_and_works_again_once_cleared() {
        let mut outbox = Outbox::new(2);
        let egress = Egress::default();
        let arena = outbox.arena.as_ptr();
        for _ in 0..3 {
            let longest = vec![7; PAYLOAD_LEN_MAX];
            assert_eq!(outbox.push(None, egress, destination(), &longest), Queued::Yes);
            assert_eq!(outbox.push(None, egress, destination(), &longest), Queued::Yes);
            assert_eq!(outbox.push(None, egress, destination(), b"x"), Queued::Full);
            assert_eq!(outbox.take_refusals().full_count, 1);
            assert_eq!(outbox.arena.as_ptr(), arena, "the arena moved");
            outbox.clear();
        }
        let too_long = vec![0; PAYLOAD_LEN_MAX + 1];
        assert_eq!(outbox.push(None, egress, destination(), &too_long), Queued::TooLong);
    }

    #[test]
    fn a_writer_that_claims_more_than_it_was_given_sends_no_more_than_that() {
        let mut outbox = Outbox::new(2);
        let draft = outbox.draft(4).expect("room");
        let queued = outbox.push_draft(None, Egress::default(), destination(), draft, 400);
        assert_eq!(queued, Queued::Yes);
        assert_eq!(outbox.outgoing(0).len, 4);
    }
}
