//! Loads of all kinds, each in a thread of the client's namespace.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    sync::{Arc, atomic::Ordering::Relaxed},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nicring::search::{Protocol, ca, pva};
use nix::sys::socket::{setsockopt, sockopt};

use crate::{
    network::{self, Host, Network},
    questions::{Questions, answered_ids},
    sender::{Counters, Sender, due},
    service::name,
};

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Datagrams that nobody answers, at a rate or as fast as one CPU can.
    Flood(Option<u32>),
    /// The same in runs of 16 segments to one address, as fast as one CPU can: more than is taken.
    Bursts,
    /// Datagrams at a rate that carry their time, so that answers tell their delay.
    Paced(u32),
    /// SEARCH for one name each, so many on their way at once.
    Search(Protocol, usize),
    /// SEARCH for servers of their own.
    Questions(Questions),
}

/// How many datagrams come to one NIC at once.
const BURST_LEN: u16 = 16;
/// The port of the client that takes answers.
pub const CLIENT_PORT: u16 = 40_076;
/// No load lasts longer, whatever becomes of who started it.
pub(crate) const TIME_MAX: Duration = Duration::from_secs(120);
/// How long answers are awaited after the end.
pub(crate) const LINGER: Duration = Duration::from_millis(100);
/// An answer that takes longer is lost: in a closed loop, so that it goes on.
const STALL_MAX: Duration = Duration::from_millis(50);

/// What became of a load.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Datagrams that left.
    pub sent_count: u64,
    /// Answers that [`Load::Questions`] are due.
    pub expected_count: u64,
    /// Datagrams that came back, none twice.
    pub answered_count: u64,
    /// Datagrams that came back once more.
    pub duplicate_count: u64,
    /// How long each answer took, while that was measured.
    pub delays: Vec<Duration>,
}

impl Outcome {
    /// Adds what became of another load.
    pub fn add(&mut self, other: Self) {
        self.sent_count += other.sent_count;
        self.expected_count += other.expected_count;
        self.answered_count += other.answered_count;
        self.duplicate_count += other.duplicate_count;
        self.delays.extend(other.delays);
    }
}

/// A load under way.
#[derive(Debug)]
pub struct Running {
    /// How far it has come.
    pub counters: Arc<Counters>,
    thread: JoinHandle<io::Result<Outcome>>,
}

impl Running {
    /// Ends it.
    ///
    /// # Errors
    ///
    /// What ended it before.
    pub fn stop(self) -> io::Result<Outcome> {
        self.counters.stop.store(true, Relaxed);
        self.thread.join().expect("no panic")
    }
}

impl Load {
    /// Starts to send to each server address of the network in turn.
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
            Self::Bursts => Some(Sender { segment_count: BURST_LEN, ..sender(None) }),
            _ => None,
        };
        if let Some(sender) = sender {
            let sent_count = sender.send(TIME_MAX, counters)?;
            return Ok(Outcome { sent_count, ..Outcome::default() });
        }
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, CLIENT_PORT))?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20))?;
        if let Self::Questions(questions) = self {
            return questions.ask(socket, addresses.len() as u8, port, counters);
        }
        let destinations = addresses.iter().map(|address| SocketAddrV4::new(*address, port));
        let mut client = Client {
            socket,
            destinations: destinations.collect(),
            counters,
            start: Instant::now(),
            buffer: vec![0; 2048],
            outcome: Outcome::default(),
        };
        match self {
            Self::Search(protocol, window) => client.search(protocol, window)?,
            Self::Paced(rate) => client.pace(rate)?,
            Self::Flood(_) | Self::Bursts | Self::Questions(_) => {}
        }
        Ok(client.outcome)
    }
}

/// Sends and looks for answers in turn, and never sleeps: waking would add to the delays.
struct Client<'a> {
    socket: UdpSocket,
    destinations: Vec<SocketAddrV4>,
    counters: &'a Counters,
    start: Instant,
    buffer: Vec<u8>,
    outcome: Outcome,
}

impl Client<'_> {
    fn pace(&mut self, rate: u32) -> io::Result<()> {
        let mut payload = [0x5a; 80];
        while !self.is_over() {
            let began = self.start.elapsed();
            let is_due = began >= due(self.outcome.sent_count, rate);
            if is_due {
                let stamp = self.start.elapsed().as_nanos() as u64;
                payload[..8].copy_from_slice(&stamp.to_be_bytes());
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

    /// How many came.
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

    fn search(&mut self, protocol: Protocol, window: usize) -> io::Result<()> {
        let mut flight = Flight::new();
        let mut question = Question::new(protocol);
        let mut last_answer = Duration::ZERO;
        while !self.is_over() {
            let began = self.start.elapsed();
            let is_open = flight.open_count < window;
            if is_open {
                let id = self.outcome.sent_count as u32;
                flight.open(id, began);
                self.send(question.write(id))?;
            }
            let count = self.receive_answers(protocol, &mut flight)?;
            if count > 0 {
                last_answer = began;
            } else if !is_open {
                self.waited_since(began);
                if began.saturating_sub(last_answer) > STALL_MAX {
                    flight = Flight::new();
                    last_answer = began;
                }
            }
        }
        let end = Instant::now() + LINGER;
        while flight.open_count > 0 && Instant::now() < end {
            self.receive_answers(protocol, &mut flight)?;
        }
        Ok(())
    }

    /// How many answers to open questions came.
    fn receive_answers(&mut self, protocol: Protocol, flight: &mut Flight) -> io::Result<usize> {
        let mut count = 0;
        while let Some(len) = self.receive()? {
            let now = self.start.elapsed();
            let is_measuring = self.is_measuring();
            let outcome = &mut self.outcome;
            answered_ids(protocol, &self.buffer[..len], |id| match flight.close(id) {
                Some(sent) => {
                    if is_measuring {
                        outcome.delays.push(now.saturating_sub(sent));
                    }
                    outcome.answered_count += 1;
                    count += 1;
                }
                None => outcome.duplicate_count += 1,
            });
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

/// Which questions are open, by their id's last bits.
struct Flight {
    sent: Vec<Option<(u32, Duration)>>,
    open_count: usize,
}

impl Flight {
    fn new() -> Self {
        Self { sent: vec![None; 1 << 16], open_count: 0 }
    }

    fn slot(&mut self, id: u32) -> &mut Option<(u32, Duration)> {
        &mut self.sent[id as usize % (1 << 16)]
    }

    fn open(&mut self, id: u32, now: Duration) {
        if self.slot(id).replace((id, now)).is_none() {
            self.open_count += 1;
        }
    }

    /// When it was opened.
    fn close(&mut self, id: u32) -> Option<Duration> {
        let (_, sent) = self.slot(id).take_if(|(open_id, _)| *open_id == id)?;
        self.open_count -= 1;
        Some(sent)
    }
}

/// Writes SEARCH for one name.
enum Question {
    Ca(ca::RequestWriter),
    Pva(pva::RequestWriter),
}

impl Question {
    fn new(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Ca => Self::Ca(ca::RequestWriter::new()),
            Protocol::Pva => Self::Pva(pva::RequestWriter::new()),
        }
    }

    fn write(&mut self, id: u32) -> &[u8] {
        let name = name(id);
        match self {
            Self::Ca(request) => {
                request.begin(None);
                request.push(id, name.as_bytes());
                request.datagram()
            }
            Self::Pva(request) => {
                request.begin(pva::SearchHead {
                    byte_order: pva::ByteOrder::Little,
                    sequence: id,
                    flags: pva::FLAG_UNICAST,
                    reply_to: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT_PORT),
                });
                request.push(id, name.as_bytes());
                request.datagram()
            }
        }
    }
}
