//! A steady rate, and then many datagrams at once.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::AsFd,
    thread,
    time::{Duration, Instant},
};

use nix::sys::socket::SockaddrIn;

use crate::{
    network::{Host, Network},
    segments,
    sender::due,
};

/// What is sent to the server's first NIC.
#[derive(Debug, Clone, Copy)]
pub struct Surge {
    /// Datagrams per second before the surge, evenly spaced.
    pub rate: u32,
    /// How long.
    pub steady: Duration,
    /// How many come at once.
    pub count: u32,
    /// Whether these leave by calls of 64, which the kernel cuts into datagrams. Otherwise one by
    /// one, as fast as one CPU can send.
    pub is_segmented: bool,
}

const PAYLOAD: [u8; 80] = [0x5a; 80];

impl Surge {
    /// Sends all of it. Returns how many datagrams that were.
    ///
    /// # Errors
    ///
    /// Those of the socket.
    pub fn send(self, network: &Network, port: u16) -> io::Result<u64> {
        thread::scope(|scope| {
            let sent = scope.spawn(|| {
                network.enter(Host::Client)?;
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
                self.send_through(&socket, SocketAddrV4::new(Network::server_address(0), port))
            });
            sent.join().expect("no panic")
        })
    }

    fn send_through(self, socket: &UdpSocket, to: SocketAddrV4) -> io::Result<u64> {
        let (start, mut sent_count) = (Instant::now(), 0);
        while start.elapsed() < self.steady {
            if start.elapsed() >= due(sent_count, self.rate) {
                socket.send_to(&PAYLOAD, to)?;
                sent_count += 1;
            }
        }
        if self.is_segmented {
            let payloads = PAYLOAD.repeat(self.count as usize);
            segments::send(socket.as_fd(), SockaddrIn::from(to), &payloads, PAYLOAD.len())?;
        } else {
            for _ in 0..self.count {
                socket.send_to(&PAYLOAD, to)?;
            }
        }
        Ok(sent_count + u64::from(self.count))
    }
}
