//! Datagrams that wait in the sockets before a receiver asks for them. They show what receiving
//! itself costs, without wake-ups and without another CPU.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

/// A number of datagrams for each address. The receiver's own thread sends the next batch whenever
/// it has received the whole previous one.
#[derive(Debug)]
pub struct QueuedBatch {
    sockets: Vec<UdpSocket>,
    /// How many datagrams go to each address.
    depth: usize,
    state: Mutex<State>,
    /// How long receiving took, over all batches.
    spent_ns: AtomicU64,
    is_last: AtomicBool,
}

#[derive(Debug)]
struct State {
    left_count: usize,
    sent_at: Instant,
}

impl QueuedBatch {
    /// Prepares batches of `depth` datagrams of 80 bytes to each address.
    ///
    /// # Errors
    ///
    /// The errors of the sockets.
    pub fn new(
        addresses: impl Iterator<Item = Ipv4Addr>,
        port: u16,
        depth: usize,
    ) -> io::Result<Self> {
        let connected = |address: Ipv4Addr| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.set_broadcast(true)?;
            socket.connect(SocketAddrV4::new(address, port))?;
            Ok(socket)
        };
        Ok(Self {
            sockets: addresses.map(connected).collect::<io::Result<_>>()?,
            depth,
            state: Mutex::new(State { left_count: 0, sent_at: Instant::now() }),
            spent_ns: AtomicU64::new(0),
            is_last: AtomicBool::new(false),
        })
    }

    /// Sends the first batch.
    pub fn start(&self) {
        self.send(&mut self.state());
    }

    /// Notes that the receiver has taken this many datagrams.
    pub fn received(&self, count: usize) {
        let mut state = self.state();
        state.left_count = state.left_count.saturating_sub(count);
        if state.left_count == 0 && !self.is_last.load(Relaxed) {
            let spent = state.sent_at.elapsed();
            self.spent_ns.fetch_add(spent.as_nanos() as u64, Relaxed);
            self.send(&mut state);
        }
    }

    /// The time from sending a batch to its last receive, summed over all batches.
    pub fn spent_ns(&self) -> u64 {
        self.spent_ns.load(Relaxed)
    }

    /// Resumes after [`QueuedBatch::pause`]. The calling thread sends the first batch.
    pub fn go_on(&self) {
        self.is_last.store(false, Relaxed);
        self.start();
    }

    /// Stops after the current batch: the receiver falls asleep.
    pub fn pause(&self) {
        self.is_last.store(true, Relaxed);
    }

    fn send(&self, state: &mut State) {
        state.left_count = self.sockets.len() * self.depth;
        for socket in &self.sockets {
            for _ in 0..self.depth {
                // Loopback delivers at once.
                socket.send(&[0x5a; 80]).expect("a socket that listens");
            }
        }
        state.sent_at = Instant::now();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
