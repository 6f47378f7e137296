//! A scripted kernel. It records what is submitted, and completes what a test tells it to. So it
//! does things that a real kernel does not do on demand.
#![allow(unsafe_code)]

use std::{
    collections::{BTreeMap, VecDeque},
    io, mem,
    os::fd::{AsRawFd, BorrowedFd, RawFd},
    ptr::NonNull,
    slice,
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use io_uring::types::BufRingEntry;

use crate::{
    sys::linux::cmsg::RECEIVED_BYTES,
    uring::{
        buffers::GROUP,
        kernel::{Completion, Entered, Kernel},
        user_data::UserData,
    },
};

/// `IORING_CQE_F_BUFFER` and `IORING_CQE_F_MORE` (linux/io_uring.h). The upper 16 bits are the
/// buffer's number.
const F_BUFFER: u32 = 1;
const F_MORE: u32 = 2;
const BUFFER_SHIFT: u32 = 16;
const NAME_BYTES: usize = size_of::<libc::sockaddr_in>();

/// A request, as it was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    Receive {
        slot: u16,
    },
    /// A datagram, or a run of segments if there is a `segment_len`. `address` is where the payload
    /// was read from.
    Send {
        slot: u16,
        payload: Vec<u8>,
        segment_len: Option<u16>,
        address: usize,
    },
    Watch,
    Cancel {
        target: Option<u16>,
    },
    CancelAll,
}

/// Whether a receive lives on after a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    GoesOn,
    Ends,
}

/// The scripted kernel. Unless told otherwise it does at once what is asked of it: sends succeed,
/// and cancelled requests end.
#[derive(Debug, Default)]
pub(super) struct Fake {
    is_enabled: bool,
    files: BTreeMap<u32, RawFd>,
    entries: Option<Entries>,
    queued: Vec<(Request, u64)>,
    /// Receives that live, by slot, with their user data.
    arms: BTreeMap<u16, u64>,
    watch: Option<u64>,
    completions: VecDeque<Completion>,
    /// What was submitted since the last call of [`Fake::submitted`].
    log: Vec<Request>,
    pub enter_count: usize,
    pub wait_count: usize,
    pub coalesce_count: usize,
    /// How many completions the last coalescing wait asked for, and how long.
    pub waited_for: (u32, Duration),
    /// What the next calls that enter the kernel return.
    pub entered: VecDeque<io::Result<Entered>>,
    /// Sends stay under way until [`Fake::complete_sends`].
    pub keeps_sends: bool,
    /// Sends under way complete by themselves when `enter_count` reaches this.
    pub sends_end_at: Option<usize>,
    /// Cancellations of one request are ignored.
    pub ignores_cancels: bool,
    /// Cancellations of all requests are ignored.
    pub never_rests: bool,
    /// Every watch ends at once with this error.
    pub watch_error: Option<i32>,
    pub push_error: Option<i32>,
    /// How often it was asked for news.
    pub news_count: usize,
    /// There are some from this `news_count` on.
    pub news_at: Option<usize>,
    /// How many of the next pushes find no room.
    pub refused_count: usize,
    pub can_coalesce: bool,
    /// Every run of segments ends with this error.
    pub run_error: Option<i32>,
    /// Runs of longer segments are refused, as on a path with a small MTU.
    pub segment_len_max: Option<u16>,
    sends: VecDeque<Sending>,
}

/// A send under way, with the memory that the kernel may read until it is completed.
#[derive(Debug)]
struct Sending {
    user_data: u64,
    result: i32,
    payload: Vec<u8>,
    address: usize,
}

impl Sending {
    fn assert_untouched(&self) {
        // SAFETY: whoever pushed the send promised that the memory lives until its completion,
        // which has not come yet.
        let memory =
            unsafe { slice::from_raw_parts(self.address as *const u8, self.payload.len()) };
        assert_eq!(memory, self.payload, "what is in flight was written to");
    }
}

/// The registered buffer ring. The kernel has read it as far as `head`.
#[derive(Debug)]
struct Entries {
    start: NonNull<BufRingEntry>,
    count: u16,
    head: u16,
}

// SAFETY: the memory is the engine's, which keeps it while the ring is registered.
unsafe impl Send for Entries {}

impl Entries {
    /// The next buffer that was published: number, address and length.
    fn next(&mut self) -> Option<(u16, *mut u8, usize)> {
        // SAFETY: the first entry of the registered memory.
        let tail = unsafe { BufRingEntry::tail(self.start.as_ptr()) };
        // SAFETY: registered memory, accessed atomically by both sides.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        if tail.load(Ordering::Acquire) == self.head {
            return None;
        }
        let index = usize::from(self.head & (self.count - 1));
        // SAFETY: within the entries that were registered.
        let entry = unsafe { self.start.add(index) };
        // SAFETY: published, hence initialised and left alone by the engine.
        let entry = unsafe { entry.as_ref() };
        self.head = self.head.wrapping_add(1);
        Some((entry.bid(), entry.addr() as *mut u8, entry.len() as usize))
    }
}

impl Fake {
    /// What was submitted since the last call.
    pub fn submitted(&mut self) -> Vec<Request> {
        mem::take(&mut self.log)
    }

    pub fn is_armed(&self, slot: u16) -> bool {
        self.arms.contains_key(&slot)
    }

    /// The slots whose files are registered.
    pub fn slots(&self) -> Vec<u32> {
        self.files.keys().copied().collect()
    }

    /// A datagram arrives. As with a real kernel it is put into the next buffer. If there is none
    /// the receive ends, and `false` says that the datagram stays in the socket.
    pub fn deliver(&mut self, slot: u16, payload: &[u8]) -> bool {
        let then = if payload.is_empty() { Then::Ends } else { Then::GoesOn };
        self.deliver_and(slot, payload, then)
    }

    pub fn deliver_and(&mut self, slot: u16, payload: &[u8], then: Then) -> bool {
        let user_data = self.arms[&slot];
        let Some((buffer, result)) = self.fill(payload) else {
            self.end(slot, libc::ENOBUFS);
            return false;
        };
        if then == Then::Ends {
            self.arms.remove(&slot);
        }
        self.complete(user_data, result, Some(buffer), then);
        true
    }

    /// Writes a datagram into the next buffer that was published.
    pub fn fill(&mut self, payload: &[u8]) -> Option<(u16, i32)> {
        let (buffer, address, len) = self.entries.as_mut()?.next()?;
        let mut bytes: Vec<u8> = [NAME_BYTES, 0, payload.len(), 0]
            .iter()
            .flat_map(|field| (*field as u32).to_ne_bytes())
            .collect();
        bytes.extend((libc::AF_INET as u16).to_ne_bytes());
        bytes.extend([0x13, 0xc8, 192, 0, 2, 9, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes.resize(bytes.len() + RECEIVED_BYTES, 0xee);
        bytes.extend(payload);
        assert!(bytes.len() <= len, "the test sends more than fits");
        // SAFETY: the engine published the buffer, with this length, and does not touch it until
        // the completion.
        let memory = unsafe { slice::from_raw_parts_mut(address, bytes.len()) };
        memory.copy_from_slice(&bytes);
        Some((buffer, bytes.len() as i32))
    }

    /// The receive of a slot ends with an error.
    pub fn end(&mut self, slot: u16, errno: i32) {
        let user_data = self.arms.remove(&slot).expect("it is armed");
        self.complete(user_data, -errno, None, Then::Ends);
    }

    /// Adds any completion.
    pub fn complete(&mut self, user_data: u64, result: i32, buffer: Option<u16>, then: Then) {
        let sending = self.sends.iter().position(|send| send.user_data == user_data);
        if let Some(send) = sending.and_then(|index| self.sends.remove(index)) {
            send.assert_untouched();
        }
        let buffer = buffer.map_or(0, |buffer| F_BUFFER | u32::from(buffer) << BUFFER_SHIFT);
        let flags = buffer | if then == Then::GoesOn { F_MORE } else { 0 };
        self.completions.push_back(Completion { user_data, result, flags });
    }

    /// The user data of the receive that lives in a slot.
    pub fn user_data(&self, slot: u16) -> u64 {
        self.arms[&slot]
    }

    /// The eventfd that the engine watches was written to.
    pub fn wake(&mut self, then: Then) {
        let user_data = if then == Then::Ends { self.watch.take() } else { self.watch };
        self.complete(user_data.expect("it is watched"), libc::POLLIN.into(), None, then);
    }

    /// Completes all sends under way, the oldest first; returns their user data.
    pub fn complete_sends(&mut self) -> Vec<u64> {
        let sends: Vec<_> = self.sends.iter().map(|send| (send.user_data, send.result)).collect();
        for (user_data, result) in &sends {
            self.complete(*user_data, *result, None, Then::Ends);
        }
        sends.into_iter().map(|(user_data, _)| user_data).collect()
    }

    fn enter(&mut self) -> io::Result<Entered> {
        self.enter_count += 1;
        for (request, user_data) in mem::take(&mut self.queued) {
            self.take_on(&request, user_data);
            self.log.push(request);
        }
        if self.sends_end_at == Some(self.enter_count) {
            self.complete_sends();
        }
        self.entered.pop_front().unwrap_or(Ok(Entered::Normally))
    }

    fn take_on(&mut self, request: &Request, user_data: u64) {
        match request {
            Request::Receive { slot } => {
                assert!(self.files.contains_key(&(*slot).into()), "slot {slot} has no file");
                let former = self.arms.insert(*slot, user_data);
                assert_eq!(former, None, "two receives on the socket in slot {slot}");
            }
            Request::Send { payload, segment_len, address, .. } => {
                let result = self.result_of(payload, *segment_len);
                let (payload, address) = (payload.clone(), *address);
                self.sends.push_back(Sending { user_data, result, payload, address });
                if !self.keeps_sends {
                    self.complete_sends();
                }
            }
            Request::Watch => match self.watch_error {
                Some(errno) => self.complete(user_data, -errno, None, Then::Ends),
                None => assert_eq!(self.watch.replace(user_data), None, "watched twice"),
            },
            Request::Cancel { .. } if self.ignores_cancels => {}
            Request::CancelAll if self.never_rests => {}
            Request::Cancel { target } => {
                let target = target.expect("only receives are cancelled");
                let is_found = self.arms.contains_key(&target);
                if is_found {
                    self.end(target, libc::ECANCELED);
                }
                let result = if is_found { 0 } else { -libc::ENOENT };
                self.complete(user_data, result, None, Then::Ends);
            }
            Request::CancelAll => {
                let slots: Vec<u16> = self.arms.keys().copied().collect();
                slots.iter().for_each(|slot| self.end(*slot, libc::ECANCELED));
                if let Some(watch) = self.watch.take() {
                    self.complete(watch, -libc::ECANCELED, None, Then::Ends);
                }
                self.complete_sends();
                self.complete(user_data, slots.len() as i32, None, Then::Ends);
            }
        }
    }

    /// The result of a send. Panics at a run that no kernel would take: that is the engine's
    /// mistake.
    fn result_of(&self, payload: &[u8], segment_len: Option<u16>) -> i32 {
        let sent = payload.len() as i32;
        let Some(segment_len) = segment_len else {
            return sent;
        };
        let count = payload.len().div_ceil(segment_len.into());
        assert!((2..=64).contains(&count) && payload.len() <= 65_507, "{count} segments");
        if let Some(errno) = self.run_error {
            return -errno;
        }
        let is_too_long = self.segment_len_max.is_some_and(|max| segment_len > max);
        if is_too_long { -libc::EINVAL } else { sent }
    }

    fn push(&mut self, request: Request, user_data: u64) -> io::Result<()> {
        if let Some(errno) = self.push_error {
            return Err(io::Error::from_raw_os_error(errno));
        }
        if self.refused_count > 0 {
            self.refused_count -= 1;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.queued.push((request, user_data));
        Ok(())
    }
}

impl Kernel for Fake {
    fn abandon(&mut self) {
        self.is_enabled = false;
    }

    fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    fn enable(&mut self) -> io::Result<()> {
        assert!(!mem::replace(&mut self.is_enabled, true), "enabled twice");
        Ok(())
    }

    fn signal(&mut self, _event: BorrowedFd<'_>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn can_coalesce(&self) -> bool {
        self.can_coalesce
    }

    fn set_file(&mut self, index: u32, file: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let former = match file {
            None => self.files.remove(&index),
            Some(file) => self.files.insert(index, file.as_raw_fd()),
        };
        assert_eq!(former.is_some(), file.is_none(), "slot {index} was set or cleared twice");
        Ok(())
    }

    fn unregister_files(&mut self) -> io::Result<()> {
        self.files.clear();
        Ok(())
    }

    unsafe fn register_buffer_ring(
        &mut self,
        address: u64,
        count: u16,
        group: u16,
    ) -> io::Result<()> {
        assert_eq!(group, GROUP);
        let start = NonNull::new(address as *mut BufRingEntry).expect("an address");
        self.entries = Some(Entries { start, count, head: 0 });
        Ok(())
    }

    fn unregister_buffer_ring(&mut self, group: u16) -> io::Result<()> {
        assert_eq!(group, GROUP);
        assert!(self.arms.is_empty(), "receives live: {:?}", self.arms);
        self.entries.take().map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    unsafe fn push_receive(
        &mut self,
        slot: u16,
        layout: *const libc::msghdr,
        user_data: u64,
    ) -> io::Result<()> {
        // SAFETY: the caller's promise.
        let layout = unsafe { &*layout };
        assert_eq!(layout.msg_namelen as usize, NAME_BYTES);
        #[allow(clippy::unnecessary_cast, reason = "musl has 32 bits here")]
        let control_len = layout.msg_controllen as usize;
        assert_eq!(control_len, RECEIVED_BYTES);
        assert!(layout.msg_iov.is_null() && layout.msg_iovlen == 0);
        self.push(Request::Receive { slot }, user_data)
    }

    unsafe fn push_send(
        &mut self,
        slot: u16,
        message: *const libc::msghdr,
        user_data: u64,
    ) -> io::Result<()> {
        // SAFETY: the caller's promise.
        let message = unsafe { &*message };
        // SAFETY: as above; there is one iovec.
        let iovec = unsafe { &*message.msg_iov };
        // SAFETY: as above.
        let payload = unsafe { slice::from_raw_parts(iovec.iov_base.cast(), iovec.iov_len) };
        // SAFETY: as above.
        let control = unsafe {
            #[allow(clippy::unnecessary_cast, reason = "musl has 32 bits here")]
            slice::from_raw_parts(message.msg_control.cast::<u8>(), message.msg_controllen as usize)
        };
        let (payload, address) = (payload.to_vec(), iovec.iov_base as usize);
        let segment_len = segment_len(control);
        self.push(Request::Send { slot, payload, segment_len, address }, user_data)
    }

    fn push_watch(&mut self, _: BorrowedFd<'_>, user_data: u64) -> io::Result<()> {
        self.push(Request::Watch, user_data)
    }

    fn push_cancel(&mut self, target: u64, user_data: u64) -> io::Result<()> {
        let target = match UserData::decode(target) {
            Some(UserData::Receive { slot, .. }) => Some(slot),
            _ => None,
        };
        self.push(Request::Cancel { target }, user_data)
    }

    fn push_cancel_all(&mut self, user_data: u64) -> io::Result<()> {
        self.push(Request::CancelAll, user_data)
    }

    fn submit(&mut self) -> io::Result<Entered> {
        self.enter()
    }

    fn submit_and_wait(&mut self, _: Option<Instant>) -> io::Result<Entered> {
        self.wait_count += 1;
        self.enter()
    }

    fn submit_and_coalesce(
        &mut self,
        count: u32,
        wait_max: Duration,
        _: Option<Instant>,
    ) -> io::Result<Entered> {
        assert!(self.can_coalesce);
        self.waited_for = (count, wait_max);
        self.coalesce_count += 1;
        self.enter()
    }

    fn has_news(&mut self) -> bool {
        self.news_count += 1;
        self.has_completions() || self.news_at.is_some_and(|at| self.news_count >= at)
    }

    fn has_completions(&mut self) -> bool {
        !self.completions.is_empty()
    }

    fn next_completion(&mut self) -> Option<Completion> {
        self.completions.pop_front()
    }
}

/// The segment length in a control message UDP_SEGMENT, if there is one.
fn segment_len(mut control: &[u8]) -> Option<u16> {
    const HEADER_LEN: usize = size_of::<libc::cmsghdr>();
    while let Some((len, rest)) = control.split_first_chunk() {
        let kind = [libc::SOL_UDP.to_ne_bytes(), libc::UDP_SEGMENT.to_ne_bytes()].concat();
        let len = usize::from_ne_bytes(*len);
        assert!(len > HEADER_LEN && len <= control.len(), "a control message cut short");
        if rest.starts_with(&kind) {
            assert_eq!(len, HEADER_LEN + 2, "the kernel takes 16 bits (linux/udp.h)");
            return Some(u16::from_ne_bytes([control[HEADER_LEN], control[HEADER_LEN + 1]]));
        }
        control = &control[len.next_multiple_of(size_of::<usize>())..];
    }
    None
}
