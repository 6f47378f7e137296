//! Datagrams that wait to be sent: a bounded arena that the backend sends from without copying.

use std::net::SocketAddrV4;

use super::{egress::Egress, record::SocketKey};

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
    /// The socket that heard the datagram that this one answers; `None` if it answers nothing.
    pub heard_by: Option<SocketKey>,
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
    full_count: u64,
}

impl Outbox {
    pub fn new(replies_max: usize) -> Self {
        // A reply to a SEARCH is seldom longer than 256 bytes. Two of the longest always fit.
        let arena_len = (replies_max * 256).max(2 * PAYLOAD_LEN_MAX);
        Self {
            outgoing: Vec::with_capacity(replies_max),
            arena: Vec::with_capacity(arena_len),
            full_count: 0,
        }
    }

    pub fn push(
        &mut self,
        heard_by: Option<SocketKey>,
        egress: Egress,
        destination: SocketAddrV4,
        payload: &[u8],
    ) -> Queued {
        let admitted = self.admit(payload.len());
        if !admitted.is_queued() {
            return admitted;
        }
        let start = self.arena.len();
        self.arena.extend_from_slice(payload);
        self.commit(heard_by, egress, destination, start)
    }

    pub fn push_with(
        &mut self,
        heard_by: Option<SocketKey>,
        egress: Egress,
        destination: SocketAddrV4,
        len_max: usize,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) -> Queued {
        let admitted = self.admit(len_max);
        if !admitted.is_queued() {
            return admitted;
        }
        let start = self.arena.len();
        // If `write` panics, these bytes stay unused until the outbox is cleared.
        self.arena.resize(start + len_max, 0);
        let len = write(&mut self.arena[start..]).min(len_max);
        self.arena.truncate(start + len);
        self.commit(heard_by, egress, destination, start)
    }

    fn admit(&mut self, len: usize) -> Queued {
        if len > PAYLOAD_LEN_MAX {
            return Queued::TooLong;
        }
        let has_room = self.outgoing.len() < self.outgoing.capacity()
            && self.arena.len() + len <= self.arena.capacity();
        if !has_room {
            self.full_count += 1;
            return Queued::Full;
        }
        Queued::Yes
    }

    fn commit(
        &mut self,
        heard_by: Option<SocketKey>,
        egress: Egress,
        destination: SocketAddrV4,
        start: usize,
    ) -> Queued {
        self.outgoing.push(Outgoing {
            heard_by,
            egress,
            destination,
            start: start as u32,
            len: (self.arena.len() - start) as u32,
        });
        Queued::Yes
    }

    pub fn len(&self) -> usize {
        self.outgoing.len()
    }

    pub fn is_empty(&self) -> bool {
        self.outgoing.is_empty()
    }

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

    /// How many datagrams were refused as [`Queued::Full`] since the last call.
    pub fn take_full_count(&mut self) -> u64 {
        std::mem::take(&mut self.full_count)
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
        let heard_by = |slot| Some(SocketKey { slot, number: 7 });
        assert!(outbox.push(heard_by(3), egress, destination(), b"one").is_queued());
        let write = |buffer: &mut [u8]| {
            buffer[..3].copy_from_slice(b"two");
            3
        };
        assert!(outbox.push_with(heard_by(4), egress, destination(), 100, write).is_queued());
        assert!(outbox.push(heard_by(5), egress, destination(), b"").is_queued());
        let payloads: Vec<_> =
            outbox.outgoing_from(0).iter().map(|one| (one.heard_by, outbox.payload(one))).collect();
        let expected = [(heard_by(3), &b"one"[..]), (heard_by(4), b"two"), (heard_by(5), b"")];
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
            assert_eq!(outbox.take_full_count(), 1);
            assert_eq!(outbox.arena.as_ptr(), arena, "the arena moved");
            outbox.clear();
        }
        let too_long = vec![0; PAYLOAD_LEN_MAX + 1];
        assert_eq!(outbox.push(None, egress, destination(), &too_long), Queued::TooLong);
    }

    #[test]
    fn a_writer_that_claims_more_than_it_was_given_sends_no_more_than_that() {
        let mut outbox = Outbox::new(2);
        let queued = outbox.push_with(None, Egress::default(), destination(), 4, |_| 400);
        assert_eq!(queued, Queued::Yes);
        assert_eq!(outbox.outgoing(0).len, 4);
    }

    #[test]
    fn a_writer_that_panics_leaves_what_was_queued_before() {
        let mut outbox = Outbox::new(4);
        let egress = Egress::default();
        outbox.push(None, egress, destination(), b"first");
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            outbox.push_with(None, egress, destination(), 9, |_| panic!("a bug in the handler"))
        }));
        assert!(panicked.is_err());
        outbox.push(None, egress, destination(), b"second");
        let outgoing = outbox.outgoing_from(0).iter();
        let payloads: Vec<_> = outgoing.map(|one| outbox.payload(one)).collect();
        assert_eq!(payloads, [&b"first"[..], b"second"]);
    }
}
