//! Datagrams of one length to one address, sent by one system call. The kernel cuts the payload
//! into datagrams (`UDP_SEGMENT`), which costs the sender a fraction of one call per datagram.

use std::{
    io::{self, IoSlice},
    os::fd::{AsRawFd, BorrowedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg},
};

/// How many datagrams one call sends at most.
pub(crate) const SEGMENT_COUNT_MAX: usize = 64;

/// How many bytes one call sends at most: a datagram of IPv4, before it is cut.
const BYTES_MAX: usize = 65_507;

/// Sends `bytes`, cut into datagrams of `datagram_len` bytes. Waits while the socket is full.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    to: SockaddrIn,
    bytes: &[u8],
    datagram_len: usize,
) -> io::Result<()> {
    let len = datagram_len as u16;
    let segments = [ControlMessage::UdpGsoSegments(&len)];
    let segment_count = (BYTES_MAX / datagram_len).min(SEGMENT_COUNT_MAX);
    for bytes in bytes.chunks(datagram_len * segment_count) {
        let controls = if bytes.len() > datagram_len { &segments[..] } else { &[] };
        let (fd, payload) = (socket.as_raw_fd(), [IoSlice::new(bytes)]);
        while let Err(error) = sendmsg(fd, &payload, controls, MsgFlags::MSG_DONTWAIT, Some(&to)) {
            if !matches!(error, Errno::EAGAIN | Errno::EINTR) {
                return Err(error.into());
            }
        }
    }
    Ok(())
}
