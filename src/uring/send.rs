//! Sending: the datagrams of an outbox as one `sendmsg` each, submitted with the next wait.
//!
//! The kernel reads payload and control message until the completion (msghdr, iovec and address
//! only during submission, io_uring_enter(2)), so an outbox is in flight, untouched, until all its
//! completions are in. With MSG_DONTWAIT that is by the end of the submission.
#![allow(unsafe_code)]

use std::{fmt, io, mem, ptr};

use super::{
    books::Tally,
    control::{self, PacketInfo},
    kernel::{Completion, Kernel},
    receive::Receiver,
    user_data::UserData,
};
use crate::{
    admit::{Admission, Sent},
    outbox::{Outbox, Outgoing},
};

/// What the kernel reads beside the payload.
struct Header {
    name: libc::sockaddr_in,
    info: PacketInfo,
    iovec: libc::iovec,
    message: libc::msghdr,
    is_in_flight: bool,
}

/// An outbox whose datagrams the kernel may be reading.
struct Flight {
    outbox: Outbox,
    headers: Box<[Header]>,
    remaining_count: usize,
}

/// The outboxes in flight.
pub(super) struct Sender {
    flights: Vec<Flight>,
    replies_max: usize,
    remaining_count: usize,
    sent: Tally,
    completed: Tally,
}

// SAFETY: the pointers in the headers are set before each submission, to memory that the same
// flight owns on the heap, where it stays when the sender moves.
unsafe impl Send for Sender {}

/// More are never in flight unless the kernel holds completions back.
const FLIGHT_COUNT_MAX: usize = 16;

impl Sender {
    pub fn new(replies_max: usize) -> Self {
        Self {
            flights: Vec::with_capacity(FLIGHT_COUNT_MAX),
            replies_max,
            remaining_count: 0,
            sent: Tally::default(),
            completed: Tally::default(),
        }
    }

    /// How many datagrams the kernel may still be reading.
    pub fn remaining_count(&self) -> usize {
        self.remaining_count
    }

    /// Queues what `outbox` holds for the next submission, and leaves an empty outbox in its
    /// place. While too many are in flight it stays as it is: the next turn tries again.
    pub fn send(
        &mut self,
        ring: &mut impl Kernel,
        receiver: &Receiver,
        admission: &Admission,
        outbox: &mut Outbox,
    ) -> io::Result<()> {
        if outbox.is_empty() {
            return Ok(());
        }
        let Some(flight_index) = self.free_flight() else {
            return Ok(());
        };
        let flight = &mut self.flights[flight_index];
        mem::swap(&mut flight.outbox, outbox);
        for index in 0..flight.outbox.len() {
            let outgoing = *flight.outbox.outgoing(index);
            let open = |slot: &u16| receiver.socket(*slot).is_some();
            let Some(slot) = admission.sending_slot(&outgoing).filter(open) else {
                admission.count_sent(&outgoing, None, Sent::Failed);
                continue;
            };
            let message = flight.prepare(index, &outgoing);
            let user_data = UserData::Send { flight: flight_index as u16, index: index as u32 };
            // SAFETY: the message points into the flight's headers and its outbox's arena, both on
            // the heap and left alone until `remaining_count` is back at 0.
            match unsafe { ring.push_send(slot, message, user_data.encode()) } {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    admission.count_sent(&outgoing, None, Sent::WouldBlock);
                    continue;
                }
                pushed => pushed?,
            }
            flight.headers[index].is_in_flight = true;
            flight.remaining_count += 1;
            self.remaining_count += 1;
            self.sent.add(1);
        }
        if flight.remaining_count == 0 {
            flight.outbox.clear();
        }
        Ok(())
    }

    /// Keeps for good what the kernel may still be reading.
    pub fn leak(&mut self) {
        mem::forget(mem::replace(self, Self::new(self.replies_max)));
    }

    fn free_flight(&mut self) -> Option<usize> {
        let free = self.flights.iter().position(|flight| flight.remaining_count == 0);
        if free.is_none() && self.flights.len() < FLIGHT_COUNT_MAX {
            self.flights.push(Flight::new(self.replies_max));
            return Some(self.flights.len() - 1);
        }
        free
    }

    /// Takes the completion of one datagram, and counts it where the counters are at hand.
    pub fn complete(
        &mut self,
        (flight, index): (u16, u32),
        completion: Completion,
        counted: Option<(&Receiver, &Admission)>,
    ) {
        let index = index as usize;
        let Some(flight) = self.flights.get_mut(usize::from(flight)) else {
            return;
        };
        let header = flight.headers.get_mut(index);
        if !header.is_some_and(|header| mem::take(&mut header.is_in_flight)) {
            tracing::error!(?completion, "a completion of nothing that is being sent");
            return;
        }
        if let Some((receiver, admission)) = counted {
            count(receiver, admission, flight.outbox.outgoing(index), completion.result);
        }
        flight.remaining_count -= 1;
        self.remaining_count -= 1;
        self.completed.add(1);
        if flight.remaining_count == 0 {
            flight.outbox.clear();
        }
    }

    /// What is in flight makes up for what was sent and is not completed; see [`super::books`].
    #[allow(dead_code, reason = "release builds keep no books")]
    pub fn is_balanced(&self) -> bool {
        let in_flight =
            |flight: &Flight| flight.headers.iter().filter(|header| header.is_in_flight).count();
        let is_whole = |flight: &Flight| {
            in_flight(flight) == flight.remaining_count
                && (flight.remaining_count > 0) != flight.outbox.is_empty()
        };
        let remaining_count: usize = self.flights.iter().map(|flight| flight.remaining_count).sum();
        self.flights.iter().all(is_whole)
            && remaining_count == self.remaining_count
            && self.sent == self.completed.and(remaining_count)
    }
}

fn count(receiver: &Receiver, admission: &Admission, outgoing: &Outgoing, result: i32) {
    let slot = admission.sending_slot(outgoing);
    let socket = slot.and_then(|slot| receiver.socket(slot));
    let sent = match -result {
        ..=0 => Sent::Yes,
        libc::EAGAIN | libc::ENOBUFS => Sent::WouldBlock,
        _ => Sent::Failed,
    };
    admission.count_sent(outgoing, socket.map(AsRef::as_ref), sent);
}

impl Flight {
    fn new(replies_max: usize) -> Self {
        let nobody = std::net::SocketAddrV4::new(std::net::Ipv4Addr::UNSPECIFIED, 0);
        let header = || Header {
            name: control::socket_address(nobody),
            info: PacketInfo::new(Default::default()),
            iovec: libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 },
            // SAFETY: all zeros are a valid msghdr: null pointers and lengths of 0.
            message: unsafe { mem::zeroed() },
            is_in_flight: false,
        };
        Self {
            outbox: Outbox::new(replies_max),
            headers: (0..replies_max).map(|_| header()).collect(),
            remaining_count: 0,
        }
    }

    /// Fills the header of one datagram; valid until the next one of the same index.
    fn prepare(&mut self, index: usize, outgoing: &Outgoing) -> *const libc::msghdr {
        let payload = self.outbox.payload(outgoing);
        let header = &mut self.headers[index];
        header.name = control::socket_address(outgoing.destination);
        header.info = PacketInfo::new(outgoing.egress);
        header.iovec = libc::iovec {
            // sendmsg(2) reads from here only, whatever the type says.
            iov_base: payload.as_ptr().cast_mut().cast(),
            iov_len: payload.len(),
        };
        let info = header.info.as_bytes();
        header.message.msg_control = info.as_ptr().cast_mut().cast();
        header.message.msg_controllen = info.len() as _;
        header.message.msg_name = ptr::from_mut(&mut header.name).cast();
        header.message.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        header.message.msg_iov = &mut header.iovec;
        header.message.msg_iovlen = 1;
        &header.message
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sender({} flights, {} remaining)", self.flights.len(), self.remaining_count)
    }
}
