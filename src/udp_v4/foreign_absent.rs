//! A socket of the caller's, where the system does not tell what it has dropped.

use std::{cell::RefCell, io, net::SocketAddr};

use tokio::{io::Interest, net::UdpSocket};

thread_local! {
    /// The longest datagram fits. Into a shorter buffer Windows would cut one with an error
    /// (WSAEMSGSIZE) that does not say whose datagram it was.
    static WHOLE: RefCell<Vec<u8>> = RefCell::new(vec![0; 1 << 16]);
}

/// One datagram of a foreign socket; what does not fit `buf` is cut off.
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
