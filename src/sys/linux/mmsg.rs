//! `recvmmsg` and `sendmmsg`, with which the portable backend and `AsyncUdpV4` receive and send.
#![allow(unsafe_code)]

use std::{
    fmt, io, mem,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use super::{
    cmsg::{self, SendControl},
    segments::{SegmentRun, Segmenter},
};
use crate::datagram::{Arrival, Outbox, Outgoing};

/// The most datagrams that one system call receives, and the most runs of segments that it sends.
pub(crate) const COUNT_MAX: usize = 64;

/// The fewest datagrams that a receive asks for: the one that woke the socket, and some to spare.
const WANTED_COUNT_MIN: usize = 4;

const NAME_BYTES: usize = size_of::<libc::sockaddr_in>();

/// Headers for one call, allocated once.
pub(crate) struct Mmsg {
    headers: Box<[libc::mmsghdr; COUNT_MAX]>,
    iovecs: Box<[libc::iovec; COUNT_MAX]>,
    names: Box<[libc::sockaddr_in; COUNT_MAX]>,
    received_names: Box<[[u8; NAME_BYTES]; COUNT_MAX]>,
    received_controls: Box<[Control; COUNT_MAX]>,
    send_controls: Box<[SendControl; COUNT_MAX]>,
    /// How many datagrams the next receive asks for. Each costs a header, whether it comes or not.
    wanted_count: usize,
    /// How many datagrams came since a receive last got fewer than it asked for.
    run_count: usize,
    segmenter: Segmenter,
}

/// Aligned as cmsg(3) asks.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; cmsg::RECEIVED_BYTES]);

// SAFETY: the pointers in `headers` and `iovecs` are set anew by each call, to memory that is
// borrowed for that call or owned by this struct's boxes, and never read between calls.
unsafe impl Send for Mmsg {}

impl Mmsg {
    pub fn new() -> Self {
        // SAFETY: all zeros are a valid mmsghdr: null pointers and lengths of 0.
        let header: libc::mmsghdr = unsafe { mem::zeroed() };
        let iovec = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        let nobody = std::net::SocketAddrV4::new(std::net::Ipv4Addr::UNSPECIFIED, 0);
        Self {
            headers: Box::new([header; COUNT_MAX]),
            iovecs: Box::new([iovec; COUNT_MAX]),
            names: Box::new([cmsg::socket_address(nobody); COUNT_MAX]),
            received_names: Box::new([[0; NAME_BYTES]; COUNT_MAX]),
            received_controls: Box::new([Control([0; cmsg::RECEIVED_BYTES]); COUNT_MAX]),
            send_controls: Box::new([SendControl::new(Default::default(), None); COUNT_MAX]),
            wanted_count: WANTED_COUNT_MIN,
            run_count: 0,
            segmenter: Segmenter::new(),
        }
    }

    /// Receives into consecutive pieces of `memory`, `stride` bytes each; never waits. Returns how
    /// many datagrams came, and whether there may be more. How many it asks for depends on how many
    /// came before: see `learn`.
    ///
    /// The lengths are set anew each time, because the kernel shortens them to what it wrote.
    pub fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        memory: &mut [u8],
        stride: usize,
    ) -> io::Result<(usize, bool)> {
        let mut count = 0;
        for (index, piece) in memory.chunks_exact_mut(stride).take(self.wanted_count).enumerate() {
            self.iovecs[index] =
                libc::iovec { iov_base: piece.as_mut_ptr().cast(), iov_len: piece.len() };
            let header = &mut self.headers[index].msg_hdr;
            header.msg_name = self.received_names[index].as_mut_ptr().cast();
            header.msg_namelen = NAME_BYTES as libc::socklen_t;
            header.msg_iov = &mut self.iovecs[index];
            header.msg_iovlen = 1;
            header.msg_control = self.received_controls[index].0.as_mut_ptr().cast();
            header.msg_controllen = cmsg::RECEIVED_BYTES as _;
            header.msg_flags = 0;
            count += 1;
        }
        // SAFETY: the first `count` headers point to `memory` and to this struct's boxes, all
        // borrowed mutably until the call returns, after which the kernel writes to none of them.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count as libc::c_uint,
                // musl has the flags as unsigned, glibc as signed.
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error());
        let may_have_more = received.as_ref().is_ok_and(|received| *received == count);
        self.learn(received.as_ref().map_or(0, |count| *count), may_have_more);
        Ok((received?, may_have_more))
    }

    /// Asks next for twice what came in this call and in the full calls before it. Asks for at most
    /// a quarter fewer each time, because other sockets are received from in between.
    fn learn(&mut self, received_count: usize, may_have_more: bool) {
        self.run_count += received_count;
        let wanted_count = (2 * self.run_count).max(self.wanted_count - self.wanted_count / 4);
        self.wanted_count = wanted_count.clamp(WANTED_COUNT_MIN, COUNT_MAX);
        if !may_have_more {
            self.run_count = 0;
        }
    }

    /// The datagram that the last [`Mmsg::receive`] put into piece `index`, and its length there.
    pub fn arrival(&self, index: usize, stride: usize) -> (Arrival, usize) {
        let header = &self.headers[index];
        let name_len = (header.msg_hdr.msg_namelen as usize).min(NAME_BYTES);
        let mut arrival = Arrival::from(cmsg::source(&self.received_names[index][..name_len]));
        #[allow(clippy::unnecessary_cast, reason = "musl has 32 bits here")]
        let control_len = (header.msg_hdr.msg_controllen as usize).min(cmsg::RECEIVED_BYTES);
        cmsg::decode(&self.received_controls[index].0[..control_len], &mut arrival);
        arrival.is_truncated = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
        arrival.is_control_truncated = header.msg_hdr.msg_flags & libc::MSG_CTRUNC != 0;
        (arrival, (header.msg_len as usize).min(stride))
    }

    /// From now on every datagram is sent by a message of its own.
    pub fn turn_segments_off(&mut self) {
        self.segmenter.turn_off();
    }

    /// Sends the first of `outgoing`, which must not be empty, from one socket; never waits.
    /// Returns how many left.
    ///
    /// # Errors
    ///
    /// How many of the first were not sent, and why. The others were not sent either.
    pub fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        outbox: &Outbox,
        outgoing: &[Outgoing],
    ) -> Result<usize, (usize, io::Error)> {
        loop {
            let (first_count, result) = self.try_send(socket, outbox, outgoing);
            match result {
                Err(error) if first_count > 1 && self.is_refusal(&outgoing[0], &error) => {}
                result => return result.map_err(|error| (first_count, error)),
            }
        }
    }

    /// Whether a run was refused because it is a run. Then [`Segmenter::next`] returns its
    /// datagrams one by one.
    fn is_refusal(&mut self, first: &Outgoing, error: &io::Error) -> bool {
        error.raw_os_error().is_some_and(|errno| self.segmenter.note_error(first, errno))
    }

    /// Makes one call. Returns how many datagrams the first run has, and how many datagrams left.
    fn try_send(
        &mut self,
        socket: BorrowedFd<'_>,
        outbox: &Outbox,
        outgoing: &[Outgoing],
    ) -> (usize, io::Result<usize>) {
        let mut counts = [0; COUNT_MAX];
        let mut message_count = 0;
        let mut rest = outgoing;
        while !rest.is_empty() && message_count < COUNT_MAX {
            let run = self.segmenter.next(rest);
            self.prepare(message_count, outbox, &run);
            counts[message_count] = run.count;
            message_count += 1;
            rest = &rest[run.count..];
        }
        // SAFETY: the first `message_count` headers point to payloads of `outbox`, borrowed until
        // the call returns, and to this struct's boxes; the kernel only reads them, during the
        // call.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                message_count as libc::c_uint,
                libc::MSG_DONTWAIT as _,
            )
        };
        let sent = usize::try_from(sent).map_err(|_| io::Error::last_os_error());
        (counts[0], sent.map(|sent| counts.iter().take(sent).sum()))
    }

    /// Fills the header at `index` for a run.
    fn prepare(&mut self, index: usize, outbox: &Outbox, run: &SegmentRun) {
        let payload = outbox.payload(&run.whole);
        self.names[index] = cmsg::socket_address(run.whole.destination);
        self.send_controls[index] = SendControl::new(run.whole.egress, run.segment_len());
        self.iovecs[index] = libc::iovec {
            // sendmsg(2) only reads from here, though the type is mutable.
            iov_base: payload.as_ptr().cast_mut().cast(),
            iov_len: payload.len(),
        };
        let control = self.send_controls[index].as_bytes();
        let header = &mut self.headers[index].msg_hdr;
        header.msg_name = ptr::from_mut(&mut self.names[index]).cast();
        header.msg_namelen = NAME_BYTES as libc::socklen_t;
        header.msg_iov = &mut self.iovecs[index];
        header.msg_iovlen = 1;
        header.msg_control = control.as_ptr().cast_mut().cast();
        header.msg_controllen = control.len() as _;
        header.msg_flags = 0;
    }
}

impl fmt::Debug for Mmsg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mmsg").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::UdpSocket, os::fd::AsFd};

    #[test]
    fn a_long_queue_takes_few_calls_and_the_last_one_says_so() {
        const STRIDE: usize = 64;
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for number in 0..110 {
            socket.send_to(&[number], socket.local_addr().unwrap()).unwrap();
        }
        let (mut mmsg, mut memory) = (Mmsg::new(), vec![0; COUNT_MAX * STRIDE]);
        let mut heard = Vec::new();
        let mut call_counts = Vec::new();
        loop {
            let (count, may_have_more) = mmsg.receive(socket.as_fd(), &mut memory, STRIDE).unwrap();
            heard.extend((0..count).map(|index| memory[index * STRIDE]));
            call_counts.push(count);
            if !may_have_more {
                break;
            }
        }
        assert_eq!(heard, (0..110).collect::<Vec<_>>());
        assert_eq!(call_counts, [4, 8, 24, 64, 10]);
    }

    #[test]
    fn a_socket_that_always_wakes_for_a_few_is_emptied_by_one_call() {
        for few in [1, 3, 4, 6, 8, 15] {
            let mut mmsg = Mmsg::new();
            let mut calls = |left: usize| {
                let mut left = left;
                (1..).find(|_| {
                    let (wanted, received) = (mmsg.wanted_count, left.min(mmsg.wanted_count));
                    left -= received;
                    mmsg.learn(received, received == wanted);
                    received < wanted
                })
            };
            let call_counts = [(); 6].map(|()| calls(few));
            assert_eq!(call_counts[2..], [Some(1); 4], "{few} each time: {call_counts:?}");
            // Another socket that has one datagram, received from in between, changes nothing.
            assert_eq!([calls(1), calls(few)], [Some(1); 2], "{few}");
        }
    }
}
