//! Receiving: one multishot `recvmsg` per socket, and what happens when one ends.
//!
//! `IORING_CQE_F_MORE` alone says whether an arm lives. A socket never has two.
//!
//! | the completion says | it means | the engine |
//! |---|---|---|
//! | no MORE, `ENOBUFS` | the kernel had no buffer left | arms again with the next turn, which gives it more; if none is spare, the arm is *starved* until some come back; datagrams wait in the socket |
//! | no MORE, no payload | a datagram of no bytes | hands it out, arms again |
//! | no MORE, with payload | the completion queue was full, or a limit of the kernel's | hands it out, arms again |
//! | no MORE, another error | trouble of the socket | counts, arms again, up to eight times in a row |
//! | `ECANCELED` | the socket is being removed, or the engine closes | lets go of the socket |
//!
//! The completion queue has room for every buffer, arm and reply at once, so that receives cannot
//! overflow it. The generation in a request's user data tells a late completion from one of the
//! socket that has the slot now.
#![allow(unsafe_code)]

use std::{
    fmt, io, mem,
    os::fd::AsFd,
    sync::{Arc, atomic::Ordering},
};

use io_uring::types::RecvMsgOut;

use super::{
    buffers::BufferRing,
    kernel::{Completion, Kernel},
    user_data::{GENERATION_COUNT, UserData},
};
use crate::{
    datagram::{Arrival, Record, Span},
    path::{Admission, ERROR_COUNT_MAX, ListenSocket},
    stats::add,
    sys::linux::cmsg,
};

/// Room for the source address: as much as IPv4 needs, so that control messages stay aligned.
const NAME_BYTES: usize = size_of::<libc::sockaddr_in>();
/// What the kernel writes before name, control messages and payload: four 32-bit fields
/// (`struct io_uring_recvmsg_out`, io_uring_prep_recvmsg_multishot(3)).
const OUT_BYTES: usize = 16;
/// What stands before the payload in a buffer.
pub(super) const HEADER_BYTES: usize = OUT_BYTES + NAME_BYTES + cmsg::RECEIVED_BYTES;

/// The state of a socket's receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ArmState {
    /// To be armed with the next submission.
    Due,
    /// Lives in the kernel, until a completion without `IORING_CQE_F_MORE`.
    Armed,
    /// Ended because no buffer was left; to be armed again when the kernel has some.
    Starved,
    /// Hears nothing: a socket that only sends, or one that failed for good.
    Idle,
}

/// A socket in its slot.
#[derive(Debug)]
struct Arm {
    socket: Arc<ListenSocket>,
    generation: u32,
    state: ArmState,
    /// Whether it was removed. Then it is forgotten once its receive has ended.
    is_closing: bool,
    error_count: u32,
}

/// The receives of all sockets.
pub(super) struct Arms {
    arms: Vec<Option<Arm>>,
    next_generation: u32,
    armed_count: usize,
    due_count: usize,
    starved_count: usize,
    /// The slot to start arming from: one past last time's first, so that low slots cannot take all
    /// buffers.
    first_slot: usize,
    /// Sockets that failed for good.
    deaf: Vec<(u16, io::Error)>,
    /// Receives of closing sockets that are still to be cancelled.
    to_cancel: Vec<u64>,
    /// Whether a receive ended because the kernel had no buffer, while there were spare ones. Its
    /// socket then has datagrams waiting.
    ran_short: bool,
    layout: BufferLayout,
}

impl Arms {
    pub fn new() -> Self {
        Self {
            arms: Vec::new(),
            next_generation: 0,
            armed_count: 0,
            due_count: 0,
            starved_count: 0,
            first_slot: 0,
            deaf: Vec::new(),
            to_cancel: Vec::new(),
            ran_short: false,
            layout: BufferLayout::new(),
        }
    }

    /// How many receives live in the kernel.
    pub fn armed_count(&self) -> usize {
        self.armed_count
    }

    pub fn is_starved(&self) -> bool {
        self.starved_count > 0
    }

    /// Whether a receive that is about to be armed again has datagrams waiting.
    pub fn ran_short(&self) -> bool {
        self.ran_short
    }

    /// Takes the slot of a socket that failed for good, and why.
    pub fn take_deaf(&mut self) -> Option<(u16, io::Error)> {
        self.deaf.pop()
    }

    pub fn is_free(&self, slot: u16) -> bool {
        self.arms.get(usize::from(slot)).is_none_or(Option::is_none)
    }

    /// Puts a socket into a free slot. It is armed with the next submission.
    pub fn add(
        &mut self,
        ring: &mut impl Kernel,
        slot: u16,
        socket: Arc<ListenSocket>,
    ) -> io::Result<()> {
        ring.set_file(slot.into(), Some(socket.socket.as_fd()))?;
        let index = usize::from(slot);
        if index >= self.arms.len() {
            self.arms.resize_with(index + 1, || None);
        }
        let hears = socket.plan.hears();
        let generation = self.next_generation;
        self.next_generation = (generation + 1) % GENERATION_COUNT;
        self.due_count += usize::from(hears);
        self.arms[index] = Some(Arm {
            socket,
            generation,
            state: if hears { ArmState::Due } else { ArmState::Idle },
            is_closing: false,
            error_count: 0,
        });
        Ok(())
    }

    /// Removes a socket: at once, or with its last completion if it is armed.
    pub fn remove(&mut self, ring: &mut impl Kernel, slot: u16) -> io::Result<()> {
        let Some(Some(arm)) = self.arms.get_mut(usize::from(slot)) else {
            return Ok(());
        };
        arm.is_closing = true;
        self.deaf.retain(|(deaf, _)| *deaf != slot);
        match arm.state {
            ArmState::Armed => {
                let target = UserData::Receive { slot, generation: arm.generation }.encode();
                self.to_cancel.push(target);
                self.cancel(ring)
            }
            ArmState::Due | ArmState::Starved | ArmState::Idle => {
                self.set_state(slot, ArmState::Idle);
                self.forget(ring, slot)
            }
        }
    }

    /// Queues the cancellations that are due. Those that the ring has no room for stay due.
    fn cancel(&mut self, ring: &mut impl Kernel) -> io::Result<()> {
        while let Some(target) = self.to_cancel.last() {
            match ring.push_cancel(*target, UserData::Cancel.encode()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                pushed => pushed?,
            }
            self.to_cancel.pop();
        }
        Ok(())
    }

    /// Lets go of a socket that has nothing under way.
    fn forget(&mut self, ring: &mut impl Kernel, slot: u16) -> io::Result<()> {
        self.arms[usize::from(slot)] = None;
        ring.set_file(slot.into(), None)
    }

    fn set_state(&mut self, slot: u16, state: ArmState) {
        let Some(Some(arm)) = self.arms.get_mut(usize::from(slot)) else {
            return;
        };
        let previous = mem::replace(&mut arm.state, state);
        for (state, is_entered) in [(previous, false), (state, true)] {
            let count = match state {
                ArmState::Due => &mut self.due_count,
                ArmState::Armed => &mut self.armed_count,
                ArmState::Starved => &mut self.starved_count,
                ArmState::Idle => continue,
            };
            *count = if is_entered { *count + 1 } else { *count - 1 };
        }
    }

    /// Arms the receives that are due, and those that are starved if the kernel has buffers again.
    pub fn arm(&mut self, ring: &mut impl Kernel, buffers: &BufferRing) -> io::Result<()> {
        self.ran_short = false;
        self.cancel(ring)?;
        // A receive that finds no buffer ends at once, so starved ones would be armed in vain.
        let has_buffers = buffers.given_count() > 0;
        if self.due_count == 0 && !(has_buffers && self.is_starved()) {
            return Ok(());
        }
        let slot_count = self.arms.len();
        let mut first_armed = None;
        for slot in (self.first_slot..slot_count).chain(0..self.first_slot) {
            let Some(arm) = &self.arms[slot] else {
                continue;
            };
            let slot = slot as u16;
            let is_due = match arm.state {
                ArmState::Due => true,
                ArmState::Starved => has_buffers,
                ArmState::Armed | ArmState::Idle => false,
            };
            if is_due {
                let user_data = UserData::Receive { slot, generation: arm.generation };
                self.layout.push_receive(ring, slot, user_data)?;
                self.set_state(slot, ArmState::Armed);
                first_armed.get_or_insert(usize::from(slot));
            }
        }
        // Next time the slot after it comes first, because buffers may be short then.
        if let Some(first) = first_armed {
            self.first_slot = (first + 1) % slot_count;
        }
        Ok(())
    }

    /// Takes a completion of a receive. Returns a record, or `None` if there is nothing to hand
    /// out; then the buffer goes back at once.
    #[inline]
    pub fn complete(
        &mut self,
        ring: &mut impl Kernel,
        buffers: &mut BufferRing,
        admission: &Admission,
        (slot, generation): (u16, u32),
        completion: Completion,
    ) -> Option<Record> {
        let named = completion.buffer();
        let buffer = named.filter(|buffer| buffers.take(*buffer));
        let record = match self.arms.get_mut(usize::from(slot)) {
            Some(Some(arm)) if arm.generation == generation => {
                if named != buffer {
                    add(&arm.socket.counters.malformed_count, 1);
                }
                if completion.result >= 0 {
                    arm.error_count = 0;
                }
                let record = buffer.and_then(|buffer| {
                    let len = usize::try_from(completion.result).ok()?;
                    admit(arm, slot, buffers, admission, (buffer, len))
                });
                if !completion.has_more() {
                    self.ended(ring, slot, completion.result, buffers.has_spare());
                }
                record
            }
            // Its socket has left the slot.
            _ => None,
        };
        if let (Some(buffer), None) = (buffer, &record) {
            buffers.give_back(buffer);
        }
        record
    }

    /// Takes a completion while the engine closes: nothing is handed out or armed any more.
    pub fn discard(&mut self, (slot, generation): (u16, u32), completion: Completion) {
        let arm = self.arms.get(usize::from(slot)).and_then(Option::as_ref);
        let Some(arm) = arm.filter(|arm| arm.generation == generation) else {
            return;
        };
        if completion.result >= 0 && completion.buffer().is_some() {
            arm.socket.counters.left_count.fetch_add(1, Ordering::Relaxed);
        }
        if !completion.has_more() {
            self.set_state(slot, ArmState::Idle);
        }
    }

    /// Decides whether and when a receive that has ended is armed again.
    fn ended(&mut self, ring: &mut impl Kernel, slot: u16, result: i32, has_spare: bool) {
        let Some(Some(arm)) = self.arms.get_mut(usize::from(slot)) else {
            return;
        };
        let counters = Arc::clone(&arm.socket.counters);
        if arm.is_closing {
            self.set_state(slot, ArmState::Idle);
            if let Err(error) = self.forget(ring, slot) {
                tracing::warn!(%error, slot, "a socket stays registered until the engine closes");
            }
            return;
        }
        let next = match -result {
            // It ended with data, or with a datagram of no bytes: the completion queue was full, or
            // the kernel had a reason of its own.
            ..=0 => ArmState::Due,
            // The kernel's stock was too small. The next turn makes it larger.
            libc::ENOBUFS if has_spare => {
                self.ran_short = true;
                ArmState::Due
            }
            libc::ENOBUFS => {
                add(&counters.starved_count, 1);
                ArmState::Starved
            }
            errno => {
                add(&counters.receive_error_count, 1);
                arm.error_count += 1;
                let is_hopeless = matches!(errno, libc::EBADF | libc::ENOTSOCK | libc::EFAULT);
                if is_hopeless || arm.error_count >= ERROR_COUNT_MAX {
                    let error = io::Error::from_raw_os_error(errno);
                    self.deaf.push((slot, error));
                    ArmState::Idle
                } else {
                    ArmState::Due
                }
            }
        };
        if next != ArmState::Idle {
            add(&counters.rearmed_count, 1);
        }
        self.set_state(slot, next);
    }

    /// Whether there is at most one receive per socket, and the counts are those of the states; see
    /// [`super::audit`].
    pub fn is_balanced(&self) -> bool {
        let arms = || self.arms.iter().flatten();
        let in_state = |state| arms().filter(|arm| arm.state == state).count();
        self.armed_count == in_state(ArmState::Armed)
            && self.due_count == in_state(ArmState::Due)
            && self.starved_count == in_state(ArmState::Starved)
            && self.armed_count + self.due_count + self.starved_count <= arms().count()
    }

    /// Forgets every socket, when the engine closes.
    pub fn clear(&mut self) {
        self.arms.clear();
        (self.armed_count, self.due_count, self.starved_count) = (0, 0, 0);
    }
}

/// Tells the kernel how to lay out a buffer: how much room name and control messages have.
pub(super) struct BufferLayout(Box<libc::msghdr>);

// SAFETY: the pointers in the msghdr are null, and it is only read.
unsafe impl Send for BufferLayout {}

impl BufferLayout {
    pub fn new() -> Self {
        Self(Box::new(layout()))
    }

    /// Queues a multishot receive on a registered file.
    pub fn push_receive(
        &self,
        ring: &mut impl Kernel,
        slot: u16,
        user_data: UserData,
    ) -> io::Result<()> {
        // SAFETY: the kernel reads the layout during submission only (io_uring_enter(2)), and a
        // push is followed by a submission before this is dropped. The kernel writes only to
        // buffers, which belong to it by way of the buffer ring and outlive the receive (`drain`).
        unsafe { ring.push_receive(slot, &*self.0, user_data.encode()) }
    }
}

fn layout() -> libc::msghdr {
    // SAFETY: all zeros are a valid msghdr: null pointers and lengths of 0.
    let mut layout: libc::msghdr = unsafe { mem::zeroed() };
    layout.msg_namelen = NAME_BYTES as libc::socklen_t;
    layout.msg_controllen = cmsg::RECEIVED_BYTES as _;
    layout
}

#[inline(always)]
fn admit(
    arm: &Arm,
    slot: u16,
    buffers: &BufferRing,
    admission: &Admission,
    (buffer, len): (u16, usize),
) -> Option<Record> {
    let bytes = buffers.slab().bytes(buffer, len);
    let Some((arrival, payload_len)) = parse(bytes) else {
        add(&arm.socket.counters.malformed_count, 1);
        return None;
    };
    let span = Span { buffer, start: HEADER_BYTES as u32, len: payload_len as u32 };
    let payload = bytes.get(HEADER_BYTES..).unwrap_or_default();
    let payload = payload.get(..payload_len).unwrap_or(payload);
    admission.admit(&arm.socket, slot, arrival, span, payload)
}

/// Parses what the kernel wrote into a buffer. Returns the arrival and the length of the payload.
#[inline(always)]
pub(super) fn parse(bytes: &[u8]) -> Option<(Arrival, usize)> {
    let out = RecvMsgOut::parse(bytes, &layout()).ok()?;
    let mut arrival = Arrival::from(cmsg::source(out.name_data()));
    cmsg::decode(out.control_data(), &mut arrival);
    arrival.is_truncated = out.is_payload_truncated();
    arrival.is_control_truncated = out.is_control_data_truncated();
    Some((arrival, out.payload_data().len()))
}

impl fmt::Debug for Arms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arms")
            .field("arms", &self.arms)
            .field("armed_count", &self.armed_count)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    /// A buffer as the kernel fills it. Unused parts keep what was there before.
    fn buffer(control: &[u8], flags: i32, payload: &[u8]) -> Vec<u8> {
        let lengths = [NAME_BYTES, control.len(), payload.len(), flags as usize];
        let mut bytes: Vec<u8> =
            lengths.iter().flat_map(|len| (*len as u32).to_ne_bytes()).collect();
        bytes.extend((libc::AF_INET as u16).to_ne_bytes());
        bytes.extend([0x13, 0xc8, 192, 0, 2, 9, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend(control);
        bytes.resize(HEADER_BYTES, 0xee);
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn only_what_the_lengths_cover_is_believed() {
        let bytes = buffer(&[], 0, b"search");
        let (arrival, payload_len) = parse(&bytes).unwrap();
        assert_eq!(arrival.source, "192.0.2.9:5064".parse().unwrap());
        assert_eq!((arrival.destination, arrival.ifindex), (Ipv4Addr::UNSPECIFIED, 0));
        assert_eq!(payload_len, 6);
        assert!(!arrival.is_truncated && !arrival.is_control_truncated);
        let bytes = buffer(&[], libc::MSG_TRUNC | libc::MSG_CTRUNC, b"");
        let (arrival, payload_len) = parse(&bytes).unwrap();
        assert!(arrival.is_truncated && arrival.is_control_truncated);
        assert_eq!(payload_len, 0);
    }

    #[test]
    fn a_buffer_shorter_than_its_header_is_nothing() {
        let bytes = buffer(&[], 0, b"search");
        for len in 0..HEADER_BYTES {
            assert!(parse(&bytes[..len]).is_none(), "{len} bytes");
        }
    }

    proptest! {
        #[test]
        fn any_buffer_is_parsed_without_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..400),
        ) {
            if let Some((_, payload_len)) = parse(&bytes) {
                prop_assert!(HEADER_BYTES + payload_len <= bytes.len());
            }
        }
    }
}
