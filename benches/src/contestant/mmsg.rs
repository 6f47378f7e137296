//! `recvmmsg` and `sendmmsg` with headers that are prepared once.
#![allow(unsafe_code)]

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use super::BUFFER_LEN;

/// Room for IP_PKTINFO and SO_RXQ_OVFL, aligned as `cmsghdr` is.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
struct Control([u8; 64]);

/// The memory that the headers point to. None of it moves while they do.
#[derive(Debug)]
struct Memory {
    headers: Box<[libc::mmsghdr]>,
    names: Box<[libc::sockaddr_in]>,
    controls: Box<[Control]>,
    iovecs: Box<[libc::iovec]>,
    payloads: Box<[u8]>,
}

const NAME_LEN: u32 = size_of::<libc::sockaddr_in>() as u32;

impl Memory {
    fn new(count: usize, has_controls: bool) -> Self {
        // SAFETY: both consist of integers, arrays of integers and pointers, for all of which zero
        // is a valid value.
        let (header, name) = unsafe { std::mem::zeroed::<(libc::mmsghdr, libc::sockaddr_in)>() };
        let iovec = libc::iovec { iov_base: ptr::null_mut(), iov_len: BUFFER_LEN };
        let mut memory = Self {
            headers: vec![header; count].into(),
            names: vec![name; count].into(),
            controls: vec![Control([0; 64]); count].into(),
            iovecs: vec![iovec; count].into(),
            payloads: vec![0; count * BUFFER_LEN].into(),
        };
        let payloads = memory.payloads.chunks_exact_mut(BUFFER_LEN);
        for (iovec, payload) in memory.iovecs.iter_mut().zip(payloads) {
            iovec.iov_base = payload.as_mut_ptr().cast();
        }
        for (index, header) in memory.headers.iter_mut().enumerate() {
            let header = &mut header.msg_hdr;
            header.msg_name = (&raw mut memory.names[index]).cast();
            header.msg_namelen = NAME_LEN;
            header.msg_iov = &raw mut memory.iovecs[index];
            header.msg_iovlen = 1;
            if has_controls {
                header.msg_control = (&raw mut memory.controls[index]).cast();
                header.msg_controllen = size_of::<Control>();
            }
        }
        memory
    }
}

/// What one system call received.
#[derive(Debug)]
pub(crate) struct Received {
    memory: Memory,
    count: usize,
}

/// One datagram of [`Received`].
pub(crate) struct Datagram<'a> {
    pub source: SocketAddrV4,
    pub payload: &'a [u8],
    pub ifindex: Option<i32>,
}

impl Received {
    pub fn new(count_max: usize) -> Self {
        Self { memory: Memory::new(count_max, true), count: 0 }
    }

    /// Receives what is queued. Returns the number of datagrams, 0 if there are none.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        // The kernel has overwritten the lengths in the headers that it used.
        for header in &mut self.memory.headers[..self.count] {
            header.msg_hdr.msg_namelen = NAME_LEN;
            header.msg_hdr.msg_controllen = size_of::<Control>();
        }
        self.count = 0;
        let (headers, len) = (self.memory.headers.as_mut_ptr(), self.memory.headers.len() as u32);
        let (fd, flags) = (socket.as_raw_fd(), libc::MSG_DONTWAIT);
        // SAFETY: there are `len` headers, and they point to memory that lives as long as they do.
        let count = unsafe { libc::recvmmsg(fd, headers, len, flags as _, ptr::null_mut()) };
        if count < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
                _ => Err(error),
            };
        }
        self.count = count as usize;
        Ok(self.count)
    }

    pub fn iter(&self) -> impl Iterator<Item = Datagram<'_>> {
        let memory = &self.memory;
        let payloads = memory.payloads.chunks_exact(BUFFER_LEN);
        let headers = memory.headers[..self.count].iter();
        headers.zip(&memory.names).zip(payloads).map(|((header, name), payload)| Datagram {
            source: SocketAddrV4::new(
                Ipv4Addr::from_bits(u32::from_be(name.sin_addr.s_addr)),
                u16::from_be(name.sin_port),
            ),
            payload: &payload[..header.msg_len as usize],
            ifindex: arrival(&header.msg_hdr),
        })
    }
}

/// The NIC on which a datagram arrived, from its control messages. All of them are read.
fn arrival(header: &libc::msghdr) -> Option<i32> {
    let mut ifindex = None;
    // SAFETY: the kernel filled in `msg_controllen` bytes of control messages.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !message.is_null() {
        // SAFETY: it is not null, so it is within those bytes and aligned.
        let head = unsafe { *message };
        // SAFETY: as above, and the data follow the head.
        let data = unsafe { libc::CMSG_DATA(message) };
        match (head.cmsg_level, head.cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // SAFETY: this type of message holds this structure.
                let info = unsafe { data.cast::<libc::in_pktinfo>().read_unaligned() };
                ifindex = Some(info.ipi_ifindex);
            }
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                // SAFETY: this type of message holds this number.
                std::hint::black_box(unsafe { data.cast::<u32>().read_unaligned() });
            }
            _ => {}
        }
        // SAFETY: `message` is a control message of this header.
        message = unsafe { libc::CMSG_NXTHDR(header, message) };
    }
    ifindex
}

/// What one system call will send.
pub(crate) struct Outbox {
    memory: Memory,
    count: usize,
}

impl Outbox {
    pub fn new(count_max: usize) -> Self {
        Self { memory: Memory::new(count_max, false), count: 0 }
    }

    /// Adds a datagram. If there is no room, it first sends those before it.
    pub fn push(&mut self, socket: BorrowedFd<'_>, to: SocketAddrV4, payload: &[u8]) {
        if self.count == self.memory.headers.len() {
            self.flush(socket);
        }
        let name = &mut self.memory.names[self.count];
        name.sin_family = libc::AF_INET as libc::sa_family_t;
        name.sin_port = to.port().to_be();
        name.sin_addr.s_addr = to.ip().to_bits().to_be();
        let start = self.count * BUFFER_LEN;
        self.memory.payloads[start..start + payload.len()].copy_from_slice(payload);
        self.memory.iovecs[self.count].iov_len = payload.len();
        self.count += 1;
    }

    /// Sends all datagrams. What the socket does not take is lost.
    pub fn flush(&mut self, socket: BorrowedFd<'_>) {
        let mut sent = 0;
        while sent < self.count {
            let headers = &mut self.memory.headers[sent..self.count];
            let (first, len) = (headers.as_mut_ptr(), headers.len() as u32);
            let (fd, flags) = (socket.as_raw_fd(), libc::MSG_DONTWAIT);
            // SAFETY: there are `len` headers, and they point to memory that lives as long as they
            // do.
            let count = unsafe { libc::sendmmsg(fd, first, len, flags as _) };
            // An error concerns the first datagram, which is skipped.
            sent += usize::try_from(count).unwrap_or(1).max(1);
        }
        self.count = 0;
    }
}
