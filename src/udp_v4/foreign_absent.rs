//! Receives one datagram of a caller's socket, on systems that report no drop counts.

use std::{cell::RefCell, io, net::SocketAddr};

use tokio::{io::Interest, net::UdpSocket};

thread_local! {
    /// Room for the longest datagram. If the buffer is too short, Windows returns an error
    /// (WSAEMSGSIZE) that does not name the source.
    static WHOLE: RefCell<Vec<u8>> = RefCell::new(vec![0; 1 << 16]);
}

/// Receives one datagram. A payload that is longer than `buf` is truncated.
pub(super) async fn recv_with_drops(
    sock: &UdpSocket,
    buf: &mut [u8],
) -> io::Result<(usize, SocketAddr, u32)> {
    let receive = || {
        WHOLE.with_borrow_mut(|whole| {
            let (whole_len, source) = sock.try_recv_from(whole)?;
            let len = whole_len.min(buf.len());
            buf[..len].copy_from_slice(&whole[..len]);
            Ok((len, source, 0))
        })
    };
    sock.async_io(Interest::READABLE, receive).await
}
