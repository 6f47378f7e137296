//! Loads of all kinds, each in a thread in the client's namespace.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    sync::{Arc, atomic::Ordering::Relaxed},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nicring::search::{Protocol, load::SearchMix};

use crate::{
    network::{self, Host, Network, set_recv_buffer},
    outcome::{CLIENT_PORT, LINGER, Outcome, TIME_MAX},
    questions::{self, Questions},
    sender::{Counters, Sender, due},
    storm::Storm,
};

/// The kinds of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// 80 bytes that nobody answers, at a rate or as fast as one CPU can send.
    Flood(Option<u32>),
    /// As fast as one CPU can send, from several ports.
    Storm(Storm),
    /// 80 bytes in runs of 16 segments to one address, as fast as one CPU can send: more than a
    /// receiver can take.
    Bursts,
    /// Datagrams at a rate. They carry their send time, so that answers show their delay.
    Paced(u32),
    /// SEARCH in a closed loop.
    Questions(Questions),
    /// SEARCH for one name each that nobody has, at a rate.
    Misses(Misses),
}

/// SEARCH for one name each that nobody has, evenly spaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Misses {
    /// The protocol.
    pub protocol: Protocol,
    /// How many names the server has. As many others are asked for.
    pub name_count: u32,
    /// Whether they go to the broadcast address of a NIC's subnet instead of its address.
    pub is_broadcast: bool,
    /// How many are sent per second, to all NICs together.
    pub rate: u32,
}

/// How many datagrams come to one NIC at once.
const BURST_LEN: u16 = 16;

/// A load under way.
#[derive(Debug)]
pub struct Running {
    /// What the load has done so far.
    pub counters: Arc<Counters>,
    thread: JoinHandle<io::Result<Outcome>>,
}

impl Running {
    /// Ends the load and returns its outcome.
    ///
    /// # Errors
    ///
    /// The error that ended the load earlier.
    pub fn stop(self) -> io::Result<Outcome> {
        self.counters.stop.store(true, Relaxed);
        self.thread.join().expect("no panic")
    }
}

impl Load {
    /// Starts to send to each server address of the network in turn.
    #[must_use]
    pub fn start(self, network: &Network, port: u16) -> Running {
        let counters = Arc::new(Counters::default());
        let thread = {
            let counters = Arc::clone(&counters);
            let namespace = network.namespace(Host::Client);
            let addresses: Vec<_> = network.server_addresses().collect();
            thread::spawn(move || {
                network::enter(&namespace)?;
                self.run(&addresses, port, &counters)
            })
        };
        Running { counters, thread }
    }

    fn run(self, addresses: &[Ipv4Addr], port: u16, counters: &Counters) -> io::Result<Outcome> {
        let sender = |rate| Sender::new(addresses.iter().copied(), port, rate);
        let sender = match self {
            Self::Flood(rate) => Some(sender(rate)),
            Self::Storm(storm) => Some(storm.sender(addresses, port)),
            Self::Bursts => Some(Sender { segment_count: BURST_LEN, ..sender(None) }),
            _ => None,
        };
        if let Some(sender) = sender {
            let sent_count = sender.send(TIME_MAX, counters)?;
            return Ok(Outcome { sent_count, ..Outcome::default() });
        }
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, CLIENT_PORT))?;
        socket.set_nonblocking(true)?;
        set_recv_buffer(&socket, 8 << 20)?;
        if let Self::Questions(questions) = self {
            return questions.ask(socket, addresses.len() as u8, port, counters);
        }
        let destination = |(nic, address): (usize, &Ipv4Addr)| match self {
            Self::Misses(Misses { is_broadcast: true, .. }) => {
                SocketAddrV4::new(Network::broadcast_address(nic as u8), port)
            }
            _ => SocketAddrV4::new(*address, port),
        };
        let destinations = addresses.iter().enumerate().map(destination);
        let mut client = Client {
            socket,
            destinations: destinations.collect(),
            counters,
            start: Instant::now(),
            buffer: vec![0; 2048],
            outcome: Outcome::default(),
        };
        match self {
            Self::Misses(misses) => client.miss(misses)?,
            Self::Paced(rate) => client.echo(rate)?,
            Self::Flood(_) | Self::Storm(_) | Self::Bursts | Self::Questions(_) => {}
        }
        Ok(client.outcome)
    }
}

/// Alternates between sending and looking for answers. Never sleeps: a wake-up would add to the
/// delays.
struct Client<'a> {
    socket: UdpSocket,
    destinations: Vec<SocketAddrV4>,
    counters: &'a Counters,
    start: Instant,
    buffer: Vec<u8>,
    outcome: Outcome,
}

impl Client<'_> {
    /// Sends datagrams that carry their send time.
    fn echo(&mut self, rate: u32) -> io::Result<()> {
        let start = self.start;
        self.pace(rate, |payload| {
            let stamp = start.elapsed().as_nanos() as u64;
            payload.resize(80, 0x5a);
            payload[..8].copy_from_slice(&stamp.to_be_bytes());
        })
    }

    fn miss(&mut self, misses: Misses) -> io::Result<()> {
        let Misses { protocol, name_count, is_broadcast, rate } = misses;
        self.socket.set_broadcast(true)?;
        let (hits, timeout) = (0.0, Duration::ZERO);
        let mix = SearchMix { protocol, hits, names_per_datagram: 1, timeout, open_max: 0 };
        let mut load = questions::search_load(mix, name_count);
        self.pace(rate, |payload| {
            payload.clear();
            payload.extend_from_slice(load.compose(!is_broadcast, CLIENT_PORT, Instant::now()));
        })?;
        questions::end(load, &mut self.outcome);
        Ok(())
    }

    /// Sends at a rate what `compose` writes.
    fn pace(&mut self, rate: u32, mut compose: impl FnMut(&mut Vec<u8>)) -> io::Result<()> {
        let mut payload = Vec::new();
        while !self.is_over() {
            let began = self.start.elapsed();
            let is_due = began >= due(self.outcome.sent_count, rate);
            if is_due {
                compose(&mut payload);
                self.send(&payload)?;
            }
            if self.receive_stamped()? == 0 && !is_due {
                self.waited_since(began);
            }
        }
        let end = Instant::now() + LINGER;
        while Instant::now() < end {
            self.receive_stamped()?;
        }
        Ok(())
    }

    /// Receives what is there. Returns how many datagrams came.
    fn receive_stamped(&mut self) -> io::Result<usize> {
        let mut count = 0;
        while let Some(len) = self.receive()? {
            let now = self.start.elapsed();
            if let Some(stamp) = self.buffer[..len].first_chunk() {
                let sent = Duration::from_nanos(u64::from_be_bytes(*stamp));
                self.keep_delay(now.saturating_sub(sent));
            }
            self.outcome.answered_count += 1;
            count += 1;
        }
        Ok(count)
    }

    fn is_over(&self) -> bool {
        self.counters.stop.load(Relaxed) || self.start.elapsed() > TIME_MAX
    }

    fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        let number = self.outcome.sent_count as usize;
        let to = self.destinations[number % self.destinations.len()];
        match self.socket.send_to(payload, to) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => {
                self.outcome.sent_count += 1;
                self.counters.sent_count.store(self.outcome.sent_count, Relaxed);
                Ok(())
            }
        }
    }

    fn receive(&mut self) -> io::Result<Option<usize>> {
        match self.socket.recv(&mut self.buffer) {
            Ok(len) => Ok(Some(len)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn keep_delay(&mut self, delay: Duration) {
        if self.is_measuring() {
            self.outcome.delays.push(delay);
        }
    }

    fn is_measuring(&self) -> bool {
        self.counters.is_measuring.load(Relaxed)
    }

    fn waited_since(&self, began: Duration) {
        let waited = self.start.elapsed() - began;
        self.counters.waited_ns.fetch_add(waited.as_nanos() as u64, Relaxed);
    }
}
