//! Load: datagrams to several addresses in turn, at a rate or as fast as one CPU can.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// A load; sent by the calling thread.
#[derive(Debug)]
pub struct Sender {
    /// Where to, one datagram each in turn.
    pub destinations: Vec<SocketAddrV4>,
    /// Datagrams a second; as many as possible if `None`.
    pub rate: Option<u32>,
    /// Bytes a datagram.
    pub payload_len: usize,
}

impl Sender {
    /// 80 bytes to each address and port in turn.
    pub fn new(addresses: impl Iterator<Item = Ipv4Addr>, port: u16, rate: Option<u32>) -> Self {
        let destination = |address| SocketAddrV4::new(address, port);
        Self { destinations: addresses.map(destination).collect(), rate, payload_len: 80 }
    }

    /// Sends until `stop`, or for `time_max`; returns how many datagrams left. `sent` counts along.
    ///
    /// Each datagram has its own moment, 1/rate after the one before; a sender that was held up
    /// catches up. Nothing is bunched on purpose.
    ///
    /// # Errors
    ///
    /// What the socket says beyond a full buffer.
    pub fn send(&self, time_max: Duration, stop: &AtomicBool, sent: &AtomicU64) -> io::Result<u64> {
        let sockets: Vec<UdpSocket> =
            self.destinations.iter().map(|to| connected(*to)).collect::<io::Result<_>>()?;
        let payload = vec![0x5a; self.payload_len];
        let start = Instant::now();
        let mut sent_count = 0u64;
        while !stop.load(Relaxed) && start.elapsed() < time_max {
            if let Some(rate) = self.rate {
                let due = Duration::from_secs_f64(sent_count as f64 / f64::from(rate));
                while start.elapsed() < due {
                    std::hint::spin_loop();
                }
            }
            let socket = &sockets[sent_count as usize % sockets.len()];
            match socket.send(&payload) {
                Ok(_) => sent_count += 1,
                // Nobody listens yet, or any more; or the buffer is full: try the next.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => sent_count += 1,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            sent.store(sent_count, Relaxed);
        }
        Ok(sent_count)
    }
}

fn connected(to: SocketAddrV4) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(to)?;
    Ok(socket)
}
