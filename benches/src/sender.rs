//! A load of datagrams to several addresses in turn, at a rate or as fast as one CPU can send.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use nix::sys::socket::{setsockopt, sockopt};

/// What a load shares with whoever measures it.
#[derive(Debug, Default)]
pub struct Counters {
    /// Tells the load to end.
    pub stop: AtomicBool,
    /// How many datagrams were sent.
    pub sent_count: AtomicU64,
    /// How many answers came, without duplicates.
    pub answered_count: AtomicU64,
    /// How long it spun until the next datagram was due or an answer came, in ns. This time counts
    /// as nobody's work.
    pub waited_ns: AtomicU64,
    /// Whether the delays of answers are kept.
    pub is_measuring: AtomicBool,
}

/// A load that the calling thread sends.
#[derive(Debug)]
pub struct Sender {
    /// The destinations, which receive one datagram each in turn.
    pub destinations: Vec<SocketAddrV4>,
    /// Datagrams per second; as many as possible if `None`.
    pub rate: Option<u32>,
    /// What is sent, one after the other, over and over.
    pub payloads: Vec<Vec<u8>>,
    /// How many datagrams with the same payload leave by one call. The kernel cuts them apart
    /// (`UDP_SEGMENT`).
    pub segment_count: u16,
    /// How many ports it sends from to each destination, in turn.
    pub source_count: u16,
}

impl Sender {
    /// 80 bytes to each address and port in turn.
    pub fn new(addresses: impl Iterator<Item = Ipv4Addr>, port: u16, rate: Option<u32>) -> Self {
        let destination = |address| SocketAddrV4::new(address, port);
        let destinations = addresses.map(destination).collect();
        let payloads = vec![vec![0x5a; 80]];
        Self { destinations, rate, payloads, segment_count: 1, source_count: 1 }
    }

    /// Sends until it is told to stop, or for `time_max`. Returns how many datagrams were sent.
    ///
    /// Each datagram has its own moment, 1/rate after the previous one. A sender that was held up
    /// catches up. Only segments are sent together.
    ///
    /// # Errors
    ///
    /// Any error of the socket except a full buffer.
    pub fn send(&self, time_max: Duration, counters: &Counters) -> io::Result<u64> {
        let sources = (0..self.source_count).flat_map(|_| &self.destinations);
        let sockets: Vec<UdpSocket> =
            sources.map(|to| self.connected(*to)).collect::<io::Result<_>>()?;
        let repeated = |payload: &Vec<u8>| payload.repeat(self.segment_count.into());
        let payloads: Vec<_> = self.payloads.iter().map(repeated).collect();
        let segment_count = u64::from(self.segment_count);
        let start = Instant::now();
        let mut sent_count = 0u64;
        while !counters.stop.load(Relaxed) && start.elapsed() < time_max {
            if let Some(rate) = self.rate {
                let waited = spin_until(start, due(sent_count, rate));
                counters.waited_ns.fetch_add(waited.as_nanos() as u64, Relaxed);
            }
            let call = (sent_count / segment_count) as usize;
            let socket = &sockets[call % sockets.len()];
            // The same one to each destination, or some would get nothing of a kind.
            let payload = &payloads[call / self.destinations.len() % payloads.len()];
            match socket.send(payload) {
                Ok(_) => sent_count += segment_count,
                // Nobody listens yet or any more: this counts as sent. With a full buffer, the loop
                // tries the same socket again.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    sent_count += segment_count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            counters.sent_count.store(sent_count, Relaxed);
        }
        Ok(sent_count)
    }

    fn connected(&self, to: SocketAddrV4) -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_broadcast(true)?;
        socket.connect(to)?;
        if self.segment_count > 1 {
            setsockopt(&socket, sockopt::UdpGsoSegment, &(self.payloads[0].len() as i32))?;
        }
        Ok(socket)
    }
}

/// When a datagram is due, counted from the start.
pub(crate) fn due(number: u64, rate: u32) -> Duration {
    Duration::from_secs_f64(number as f64 / f64::from(rate))
}

fn spin_until(start: Instant, due: Duration) -> Duration {
    let began = start.elapsed();
    while start.elapsed() < due {
        std::hint::spin_loop();
    }
    due.saturating_sub(began)
}
