//! A socket of the caller's, where the system does not tell what it has dropped.

use std::{io, net::SocketAddr};

use tokio::net::UdpSocket;

pub(super) async fn recv_with_drops(
    sock: &UdpSocket,
    buf: &mut [u8],
) -> io::Result<(usize, SocketAddr, u32)> {
    let (len, source) = sock.recv_from(buf).await?;
    Ok((len, source, 0))
}
