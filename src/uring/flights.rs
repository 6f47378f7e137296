//! Sending: one `sendmsg` per [`SegmentRun`] of an outbox, submitted with the next wait.
//!
//! The kernel reads payload and control message until the completion, but msghdr, iovec and address
//! only during submission (io_uring_enter(2)). So an outbox is in flight, untouched, until all its
//! completions are in. With MSG_DONTWAIT they are in by the end of the submission.
//!
//! If a run is refused because it is a run, its datagrams are queued again from the same flight,
//! one per `sendmsg`. What a sender has no room for is queued again for a spare one. Both leave
//! with the submission that follows. All counts are of datagrams.
#![allow(unsafe_code)]

use std::{
    fmt, io,
    mem::{self, offset_of},
    ptr::{self, NonNull},
};

use super::{
    kernel::{Completion, Kernel},
    user_data::UserData,
};
use crate::{
    datagram::{Outbox, Outgoing},
    path::{Dispatch, Sent},
    sys::linux::{
        cmsg::{self, SendControl},
        segments::{SegmentRun, Segmenter},
    },
};

/// What the kernel reads beside the payload.
struct Header {
    name: libc::sockaddr_in,
    control: SendControl,
    iovec: libc::iovec,
    message: libc::msghdr,
}

impl Header {
    fn new() -> Self {
        let nobody = std::net::SocketAddrV4::new(std::net::Ipv4Addr::UNSPECIFIED, 0);
        Self {
            name: cmsg::socket_address(nobody),
            control: SendControl::new(Default::default(), None),
            iovec: libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 },
            message: empty_message(),
        }
    }
}

/// An outbox whose datagrams the kernel may be reading.
struct Flight {
    outbox: Outbox,
    /// One per datagram. A run uses the header of its first datagram.
    headers: Headers,
    states: Box<[State]>,
    remaining_count: usize,
}

/// Owned headers that are reached by raw pointers alone: no reference to one of them ever claims
/// that nobody else reads it.
struct Headers(NonNull<[Header]>);

impl Headers {
    fn new(count: usize) -> Self {
        let headers: Box<[Header]> = (0..count).map(|_| Header::new()).collect();
        // SAFETY: a box is never null.
        Self(unsafe { NonNull::new_unchecked(Box::into_raw(headers)) })
    }

    fn at(&self, index: usize) -> *mut Header {
        assert!(index < self.0.len(), "header {index} of {}", self.0.len());
        self.0.as_ptr().cast::<Header>().wrapping_add(index)
    }
}

impl Drop for Headers {
    fn drop(&mut self) {
        // SAFETY: made from a box in `new`, and not used after. What the kernel may still read is
        // not dropped but leaked ([`Flights::leak`]).
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// What is under way through a header.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// How many datagrams the kernel may be reading.
    in_flight_count: usize,
    /// Whether a spare sender has them.
    is_spare: bool,
}

/// The outboxes in flight.
pub(super) struct Flights {
    flights: Vec<Flight>,
    replies_max: usize,
    remaining_count: usize,
    segmenter: Segmenter,
    sent_count: usize,
    completed_count: usize,
}

// SAFETY: the pointers in the headers are set before each submission, to memory that the same
// flight owns on the heap, where it stays when this moves.
unsafe impl Send for Flights {}

/// How many outboxes may be in flight. So many are needed only if the kernel holds completions
/// back.
const FLIGHT_COUNT_MAX: usize = 16;

impl Flights {
    pub fn new(replies_max: usize, uses_gso: bool) -> Self {
        let mut segmenter = Segmenter::new();
        if !uses_gso {
            segmenter.turn_off();
        }
        Self {
            flights: Vec::with_capacity(FLIGHT_COUNT_MAX),
            replies_max,
            remaining_count: 0,
            segmenter,
            sent_count: 0,
            completed_count: 0,
        }
    }

    /// How many datagrams the kernel may still be reading.
    pub fn remaining_count(&self) -> usize {
        self.remaining_count
    }

    /// Queues what `outbox` holds for the next submission, and leaves an empty outbox in its place.
    /// While too many are in flight, `outbox` stays as it is and the next turn tries again.
    pub fn send(
        &mut self,
        ring: &mut impl Kernel,
        dispatch: &Dispatch,
        outbox: &mut Outbox,
    ) -> io::Result<()> {
        if outbox.is_empty() {
            return Ok(());
        }
        let Some(flight_index) = self.free_flight() else {
            return Ok(());
        };
        mem::swap(&mut self.flights[flight_index].outbox, outbox);
        let mut first = 0;
        while first < self.flights[flight_index].outbox.len() {
            let outgoing = self.flights[flight_index].outbox.outgoing_from(first);
            let run = self.segmenter.next(outgoing);
            let pushed = self.push(ring, dispatch, (flight_index, first), &run);
            if pushed.is_err() {
                self.release(flight_index);
                return pushed;
            }
            first += run.count;
        }
        self.release(flight_index);
        Ok(())
    }

    /// Queues the run that begins at an index of a flight. Counts what cannot be queued.
    fn push(
        &mut self,
        ring: &mut impl Kernel,
        dispatch: &Dispatch,
        (flight_index, index): (usize, usize),
        run: &SegmentRun,
    ) -> io::Result<()> {
        let Some(slot) = dispatch.sending_slot(&run.whole) else {
            dispatch.count_sent(&run.whole, Sent::Failed, run.count);
            return Ok(());
        };
        self.flights[flight_index].prepare(index, run);
        self.push_prepared(ring, dispatch, (flight_index, index), slot, run.count)
    }

    /// Queues a message of `count` datagrams that [`Flight::prepare`] has made.
    fn push_prepared(
        &mut self,
        ring: &mut impl Kernel,
        dispatch: &Dispatch,
        (flight_index, index): (usize, usize),
        slot: u16,
        count: usize,
    ) -> io::Result<()> {
        let flight = &mut self.flights[flight_index];
        let header = flight.headers.at(index).cast::<u8>();
        let message = header.wrapping_add(offset_of!(Header, message)).cast::<libc::msghdr>();
        let user_data = UserData::Send { flight: flight_index as u16, index: index as u32 };
        // SAFETY: the message points into the flight's headers and its outbox's arena, both on the
        // heap, which the flight owns and leaves alone until `remaining_count` is back at 0; this
        // header is written anew only after its completion.
        match unsafe { ring.push_send(slot, message, user_data.encode()) } {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                dispatch.count_sent(flight.outbox.outgoing(index), Sent::WouldBlock, count);
                return Ok(());
            }
            pushed => pushed?,
        }
        flight.states[index].in_flight_count = count;
        flight.remaining_count += count;
        self.remaining_count += count;
        self.sent_count += count;
        Ok(())
    }

    /// Queues the datagrams of a refused run one by one.
    fn push_singly(
        &mut self,
        ring: &mut impl Kernel,
        dispatch: &Dispatch,
        (flight_index, first): (usize, usize),
        count: usize,
    ) {
        for index in first..first + count {
            let single = SegmentRun::single(self.flights[flight_index].outbox.outgoing(index));
            let pushed = self.push(ring, dispatch, (flight_index, index), &single);
            if let Err(error) = pushed {
                // The next submission ends the engine with the same error.
                tracing::error!(%error, "sending the datagrams of a run one by one");
                dispatch.count_sent(&single.whole, Sent::Failed, 1);
            }
        }
    }

    /// Queues a message that its sender had no room for, for a spare sender. Returns whether there
    /// is one that has not had it yet.
    fn push_spare(
        &mut self,
        ring: &mut impl Kernel,
        dispatch: &Dispatch,
        (flight_index, index): (usize, usize),
        count: usize,
    ) -> bool {
        let flight = &mut self.flights[flight_index];
        let outgoing = *flight.outbox.outgoing(index);
        let (Some(slot), false) = (dispatch.spare_slot(&outgoing), flight.states[index].is_spare)
        else {
            return false;
        };
        flight.states[index].is_spare = true;
        let pushed = self.push_prepared(ring, dispatch, (flight_index, index), slot, count);
        if let Err(error) = pushed {
            tracing::error!(%error, "sending by a spare sender");
            dispatch.count_sent(&outgoing, Sent::Failed, count);
        }
        true
    }

    /// Leaks what the kernel may still be reading.
    pub fn leak(&mut self) {
        mem::forget(mem::replace(self, Self::new(self.replies_max, false)));
    }

    fn free_flight(&mut self) -> Option<usize> {
        let free = self.flights.iter().position(|flight| flight.remaining_count == 0);
        if free.is_none() && self.flights.len() < FLIGHT_COUNT_MAX {
            self.flights.push(Flight::new(self.replies_max));
            return Some(self.flights.len() - 1);
        }
        free
    }

    /// Takes the completion of a run. Counts its datagrams, or queues them again one by one.
    pub fn complete(
        &mut self,
        ring: &mut impl Kernel,
        dispatch: &Dispatch,
        of: (u16, u32),
        completion: Completion,
    ) {
        let Some((flight_index, first, count)) = self.take(of, completion) else {
            return;
        };
        let outgoing = *self.flights[flight_index].outbox.outgoing(first);
        let at = (flight_index, first);
        if count > 1 && self.segmenter.note_error(&outgoing, -completion.result) {
            self.push_singly(ring, dispatch, at, count);
        } else if -completion.result != libc::EAGAIN || !self.push_spare(ring, dispatch, at, count)
        {
            count_sent(dispatch, &outgoing, completion.result, count);
        }
        self.release(flight_index);
    }

    /// Takes the completion of a run while the engine closes: nothing is counted or queued again.
    pub fn discard(&mut self, of: (u16, u32), completion: Completion) {
        if let Some((flight_index, ..)) = self.take(of, completion) {
            self.release(flight_index);
        }
    }

    /// Takes the datagrams of a completion out of flight. Returns the flight, the index of the
    /// first datagram and their number; `None` if none was in flight.
    fn take(
        &mut self,
        (flight_index, first): (u16, u32),
        completion: Completion,
    ) -> Option<(usize, usize, usize)> {
        let (flight_index, first) = (usize::from(flight_index), first as usize);
        let flight = self.flights.get_mut(flight_index)?;
        let state = flight.states.get_mut(first);
        let count = state.map_or(0, |state| mem::take(&mut state.in_flight_count));
        if count == 0 {
            tracing::error!(?completion, "a completion of nothing that is being sent");
            return None;
        }
        flight.remaining_count -= count;
        self.remaining_count -= count;
        self.completed_count += count;
        Some((flight_index, first, count))
    }

    /// Empties the outbox of a flight if the kernel has read all of it.
    fn release(&mut self, flight_index: usize) {
        let flight = &mut self.flights[flight_index];
        if flight.remaining_count == 0 {
            flight.outbox.clear();
        }
    }

    /// Whether the datagrams in flight are those that were sent and are not completed; see
    /// [`super::audit`].
    pub fn is_balanced(&self) -> bool {
        let is_whole = |flight: &Flight| {
            let in_flight_count: usize =
                flight.states.iter().map(|state| state.in_flight_count).sum();
            in_flight_count == flight.remaining_count
                && (flight.remaining_count > 0) != flight.outbox.is_empty()
        };
        let remaining_count: usize = self.flights.iter().map(|flight| flight.remaining_count).sum();
        self.flights.iter().all(is_whole)
            && remaining_count == self.remaining_count
            && self.sent_count == self.completed_count + remaining_count
    }
}

fn count_sent(dispatch: &Dispatch, outgoing: &Outgoing, result: i32, count: usize) {
    let sent = match -result {
        ..=0 => Sent::Yes,
        libc::EAGAIN | libc::ENOBUFS => Sent::WouldBlock,
        _ => Sent::Failed,
    };
    dispatch.count_sent(outgoing, sent, count);
}

impl Flight {
    fn new(replies_max: usize) -> Self {
        Self {
            outbox: Outbox::new(replies_max),
            headers: Headers::new(replies_max),
            states: vec![State::default(); replies_max].into_boxed_slice(),
            remaining_count: 0,
        }
    }

    /// Fills the header of a run. The message is valid until the next call with the same index.
    fn prepare(&mut self, index: usize, run: &SegmentRun) {
        let payload = self.outbox.payload(&run.whole);
        self.states[index] = State::default();
        let control = SendControl::new(run.whole.egress, run.segment_len());
        let control_len = control.as_bytes().len();
        let header = self.headers.at(index);
        let field = |offset| header.cast::<u8>().wrapping_add(offset);
        let mut message = empty_message();
        message.msg_control = field(offset_of!(Header, control)).cast();
        message.msg_controllen = control_len as _;
        message.msg_name = field(offset_of!(Header, name)).cast();
        message.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        message.msg_iov = field(offset_of!(Header, iovec)).cast();
        message.msg_iovlen = 1;
        let name = cmsg::socket_address(run.whole.destination);
        // sendmsg(2) only reads from here, though the type is mutable.
        let iov_base = payload.as_ptr().cast_mut().cast();
        let iovec = libc::iovec { iov_base, iov_len: payload.len() };
        // SAFETY: the header exists, and nothing is under way through it: the kernel reads none of
        // it now.
        unsafe { header.write(Header { name, control, iovec, message }) };
    }
}

fn empty_message() -> libc::msghdr {
    // SAFETY: all zeros are a valid msghdr: null pointers and lengths of 0.
    unsafe { mem::zeroed() }
}

impl fmt::Debug for Flights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flights({}, {} remaining)", self.flights.len(), self.remaining_count)
    }
}
