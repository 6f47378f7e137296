//! Segments (GSO): datagrams of an outbox that leave by one `sendmsg`.
//!
//! With a control message UDP_SEGMENT (udp(7), Linux 4.18) the kernel cuts one payload into
//! *segments* of equal length, the last of which may be shorter, and sends each as a datagram. A
//! whole [`SegmentRun`] passes route, firewall and queue once. They are most of what sending costs.
//! A datagram that is not followed by one like it is a run of one, and leaves without such a
//! message.

use std::{fmt, net::Ipv4Addr};

use crate::datagram::{Outgoing, PAYLOAD_LEN_MAX};

/// The smallest `UDP_MAX_SEGMENTS` (linux/udp.h) that any kernel has.
pub(crate) const COUNT_MAX: usize = 64;
/// The longest payload that fits Ethernet's usual MTU of 1,500 bytes. Longer datagrams may have to
/// be fragmented, which segments never are.
const SEGMENT_LEN_MAX: u32 = 1472;
/// For how many datagrams to its address a refusal holds.
const REST_COUNT: u32 = 1024;

/// Adjacent datagrams of one outbox that leave from one socket, by one egress, to one destination.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SegmentRun {
    /// The first of them, with the payload of all.
    pub whole: Outgoing,
    pub count: usize,
    segment_len: u16,
}

impl SegmentRun {
    /// The first datagram alone.
    pub fn single(first: &Outgoing) -> Self {
        Self { whole: *first, count: 1, segment_len: 0 }
    }

    /// The longest run that `outgoing` begins with. `outgoing` must not be empty.
    fn longest(outgoing: &[Outgoing]) -> Self {
        let mut run = Self::single(&outgoing[0]);
        let segment_len = outgoing[0].len;
        if !(1..=SEGMENT_LEN_MAX).contains(&segment_len) {
            return run;
        }
        for next in outgoing[1..].iter().take(COUNT_MAX - 1) {
            if !run.is_followed_by(next) || !(1..=segment_len).contains(&next.len) {
                break;
            }
            run.whole.len += next.len;
            run.count += 1;
            run.segment_len = segment_len as u16;
            if next.len < segment_len {
                break;
            }
        }
        run
    }

    fn is_followed_by(&self, next: &Outgoing) -> bool {
        let whole = &self.whole;
        next.origin == whole.origin
            && next.destination == whole.destination
            && next.egress == whole.egress
            && whole.len + next.len <= PAYLOAD_LEN_MAX as u32
    }

    /// What UDP_SEGMENT is set to, if there is more than one datagram.
    pub fn segment_len(&self) -> Option<u16> {
        (self.count > 1).then_some(self.segment_len)
    }
}

/// Cuts outboxes into runs of segments. Avoids runs that the kernel has refused.
pub(crate) struct Segmenter {
    /// Whether every datagram leaves alone, because the kernel or a device knows no segments.
    is_off: bool,
    /// Indexed by the last byte of the address.
    refusals: Box<[Refusal; 256]>,
}

/// Segments of this length or longer do not fit the path to an address.
#[derive(Debug, Clone, Copy)]
struct Refusal {
    address: Ipv4Addr,
    segment_len: u32,
    /// For how many more datagrams this holds. It ends because the path may change, and because the
    /// refusal may have had another reason.
    rest_count: u32,
}

impl Segmenter {
    pub fn new() -> Self {
        let none = Refusal { address: Ipv4Addr::UNSPECIFIED, segment_len: 0, rest_count: 0 };
        Self { is_off: false, refusals: Box::new([none; 256]) }
    }

    /// From now on every datagram leaves alone.
    pub fn turn_off(&mut self) {
        self.is_off = true;
    }

    /// The next run of `outgoing`, which must not be empty.
    pub fn next(&mut self, outgoing: &[Outgoing]) -> SegmentRun {
        let first = &outgoing[0];
        if self.is_off || self.is_resting(first) {
            return SegmentRun::single(first);
        }
        SegmentRun::longest(outgoing)
    }

    fn is_resting(&mut self, first: &Outgoing) -> bool {
        let refusal = self.refusal(first);
        let is_resting = refusal.rest_count > 0
            && refusal.address == *first.destination.ip()
            && refusal.segment_len <= first.len;
        if is_resting {
            refusal.rest_count -= 1;
        }
        is_resting
    }

    fn refusal(&mut self, first: &Outgoing) -> &mut Refusal {
        &mut self.refusals[usize::from(first.destination.ip().octets()[3])]
    }

    /// Whether the run that begins with `first` may have failed because it is a run. Its datagrams
    /// are then to be sent again one by one. Remembers the refusal, so that [`Segmenter::next`]
    /// does not try the same in vain.
    pub fn note_error(&mut self, first: &Outgoing, errno: i32) -> bool {
        match errno {
            // It was sent, or the socket or the device has no room for anything.
            ..=0 | libc::EAGAIN | libc::ENOBUFS => false,
            // The device computes no checksums (before Linux 6.11), or IPsec has the route.
            libc::EIO | libc::EOPNOTSUPP | libc::ENOPROTOOPT => {
                tracing::debug!(errno, "the kernel takes no segments: datagrams leave one by one");
                self.turn_off();
                true
            }
            // A segment is longer than the path's MTU. Or a rule of the firewall is about the
            // length of the whole (EPERM). Or something is wrong with each datagram, and sending it
            // alone will tell.
            _ => {
                *self.refusal(first) = Refusal {
                    address: *first.destination.ip(),
                    segment_len: first.len,
                    rest_count: REST_COUNT,
                };
                true
            }
        }
    }
}

impl fmt::Debug for Segmenter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segmenter").field("is_off", &self.is_off).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
