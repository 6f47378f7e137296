//! SEARCH in a closed loop, for servers that leave unanswered what they do not know.
//!
//! One thread asks and takes the answers, and never sleeps. Questions come in cycles: some for
//! names that nobody knows, then one for a name that the server has, all to the same NIC. A server
//! takes a socket's datagrams in order, so the answer to the last one tells that the whole cycle is
//! done. As many cycles are on their way as fit in the window, and one at least.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::AsFd,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use nicring::search::{Protocol, ca, pva};
use nix::sys::socket::SockaddrIn;

use crate::{
    contestant::mmsg::Received,
    load::{CLIENT_PORT, LINGER, Outcome, TIME_MAX},
    network::Network,
    segments::{self, SEGMENT_COUNT_MAX},
    sender::Counters,
    service::{NAME_COUNT, name},
};

/// What is asked, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Questions {
    /// The protocol of the questions, one name each.
    pub protocol: Protocol,
    /// Whether they go to a NIC's subnet in place of its address.
    pub is_broadcast: bool,
    /// One in so many is for a name that the server has.
    pub cycle_len: u16,
    /// How many are on their way, `cycle_len` at least.
    pub window: u16,
}

impl Questions {
    /// Asks by way of `socket` until it is told to stop.
    pub(crate) fn ask(
        self,
        socket: UdpSocket,
        nic_count: u8,
        port: u16,
        counters: &Counters,
    ) -> io::Result<Outcome> {
        socket.set_broadcast(true)?;
        let address = match self.is_broadcast {
            true => Network::broadcast_address,
            false => Network::server_address,
        };
        let mut asker = Asker {
            destinations: (0..nic_count)
                .map(|nic| SockaddrIn::from(SocketAddrV4::new(address(nic), port)))
                .collect(),
            cycle_len: u32::from(self.cycle_len),
            run: Run::new(self),
            flight: Flight::new(u32::from((self.window / self.cycle_len).max(1))),
            protocol: self.protocol,
            socket,
            counters,
            start: Instant::now(),
            received: Received::new(SEGMENT_COUNT_MAX),
            outcome: Outcome::default(),
        };
        asker.run()?;
        asker.outcome.expected_count = u64::from(asker.flight.next);
        Ok(asker.outcome)
    }
}

/// An answer that takes longer is lost: servers in Python, on a busy CPU, take some 100 ms.
const STALL_MAX: Duration = Duration::from_millis(400);
/// How many datagrams go to one NIC before it is the next one's turn.
const RUN_LEN: u32 = 16;
/// The ids of questions that nobody is to answer have this bit, all others are a cycle's number.
const MISS: u32 = 1 << 31;

struct Asker<'a> {
    socket: UdpSocket,
    destinations: Vec<SockaddrIn>,
    protocol: Protocol,
    cycle_len: u32,
    run: Run,
    flight: Flight,
    counters: &'a Counters,
    start: Instant,
    received: Received,
    outcome: Outcome,
}

impl Asker<'_> {
    fn run(&mut self) -> io::Result<()> {
        let mut next_expiry = STALL_MAX;
        while !self.counters.stop.load(Relaxed) && self.start.elapsed() < TIME_MAX {
            let began = self.start.elapsed();
            let has_sent = self.flight.has_room();
            if has_sent {
                self.send_run(began)?;
            }
            if self.receive()? == 0 && !has_sent {
                let waited = self.start.elapsed() - began;
                self.counters.waited_ns.fetch_add(waited.as_nanos() as u64, Relaxed);
            }
            if began > next_expiry {
                self.flight.forget_before(began.saturating_sub(STALL_MAX));
                next_expiry = began + STALL_MAX / 4;
            }
        }
        let end = Instant::now() + LINGER;
        while Instant::now() < end {
            self.receive()?;
        }
        Ok(())
    }

    /// Sends the cycles that there is room for and that go to the next NIC, in one call.
    fn send_run(&mut self, now: Duration) -> io::Result<()> {
        let nic = self.nic_of(self.flight.next);
        self.run.clear();
        while self.run.count < SEGMENT_COUNT_MAX
            && self.flight.has_room()
            && self.nic_of(self.flight.next) == nic
        {
            let cycle = self.flight.open(now);
            for number in 1..self.cycle_len {
                self.run.push(MISS | (cycle * self.cycle_len + number));
            }
            self.run.push(cycle);
        }
        let (socket, to) = (self.socket.as_fd(), self.destinations[nic]);
        segments::send(socket, to, &self.run.bytes, self.run.datagram_len)?;
        self.outcome.sent_count += self.run.count as u64;
        self.counters.sent_count.store(self.outcome.sent_count, Relaxed);
        Ok(())
    }

    fn nic_of(&self, cycle: u32) -> usize {
        (cycle / (RUN_LEN / self.cycle_len).max(1)) as usize % self.destinations.len()
    }

    /// How many datagrams came.
    fn receive(&mut self) -> io::Result<usize> {
        let Self { flight, outcome, counters, .. } = self;
        let count = self.received.receive(self.socket.as_fd())?;
        if count == 0 {
            return Ok(0);
        }
        let now = self.start.elapsed();
        let is_measuring = counters.is_measuring.load(Relaxed);
        for datagram in self.received.iter() {
            answered_ids(self.protocol, datagram.payload, |id| match flight.close(id) {
                Some(sent) => {
                    outcome.answered_count += 1;
                    if is_measuring {
                        outcome.delays.push(now.saturating_sub(sent));
                    }
                }
                // The echo sends those back too.
                None if id & MISS != 0 => {}
                None => outcome.duplicate_count += 1,
            });
        }
        counters.answered_count.store(outcome.answered_count, Relaxed);
        Ok(count)
    }
}

/// Which cycles are open.
struct Flight {
    sent: Vec<Option<Duration>>,
    open_count: u32,
    open_max: u32,
    oldest: u32,
    next: u32,
}

impl Flight {
    fn new(open_max: u32) -> Self {
        Self { sent: vec![None; 1 << 16], open_count: 0, open_max, oldest: 0, next: 0 }
    }

    fn slot(&mut self, cycle: u32) -> &mut Option<Duration> {
        let position = cycle as usize % self.sent.len();
        &mut self.sent[position]
    }

    fn has_room(&self) -> bool {
        // One that is lost keeps its slot until it is forgotten.
        self.open_count < self.open_max && self.next - self.oldest < 1 << 16
    }

    /// Opens the next one; returns its number.
    fn open(&mut self, now: Duration) -> u32 {
        let cycle = self.next;
        *self.slot(cycle) = Some(now);
        self.next += 1;
        self.open_count += 1;
        cycle
    }

    /// When it was opened.
    fn close(&mut self, cycle: u32) -> Option<Duration> {
        if !(self.oldest..self.next).contains(&cycle) {
            return None;
        }
        let sent = self.slot(cycle).take()?;
        self.open_count -= 1;
        self.skip_closed();
        Some(sent)
    }

    fn skip_closed(&mut self) {
        while self.oldest < self.next && self.slot(self.oldest).is_none() {
            self.oldest += 1;
        }
    }

    /// Gives up those that were opened earlier.
    fn forget_before(&mut self, time: Duration) {
        while self.oldest < self.next && self.slot(self.oldest).is_some_and(|sent| sent < time) {
            *self.slot(self.oldest) = None;
            self.open_count -= 1;
            self.skip_closed();
        }
    }
}

/// Questions of one length, one after the other.
struct Run {
    bytes: Vec<u8>,
    count: usize,
    datagram_len: usize,
    hits: Vec<String>,
    misses: Vec<String>,
    writer: Writer,
}

enum Writer {
    Ca(ca::RequestWriter),
    Pva(pva::RequestWriter, u8),
}

impl Run {
    fn new(questions: Questions) -> Self {
        let flags = if questions.is_broadcast { 0 } else { pva::FLAG_UNICAST };
        let writer = match questions.protocol {
            Protocol::Ca => Writer::Ca(ca::RequestWriter::new()),
            Protocol::Pva => Writer::Pva(pva::RequestWriter::new(), flags),
        };
        let hits: Vec<_> = (0..NAME_COUNT).map(name).collect();
        // As long as the others, for the kernel cuts a run into equal parts.
        let misses = hits.iter().map(|name| name.replace("device", "absent")).collect();
        Self { bytes: Vec::new(), count: 0, datagram_len: 0, hits, misses, writer }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.count = 0;
    }

    /// Adds the question of an id.
    fn push(&mut self, id: u32) {
        let names = if id & MISS == 0 { &self.hits } else { &self.misses };
        let name = names[(id & !MISS) as usize % names.len()].as_bytes();
        let datagram = match &mut self.writer {
            Writer::Ca(request) => {
                request.begin(Some(id));
                request.push(id, name);
                request.datagram()
            }
            Writer::Pva(request, flags) => {
                request.begin(pva::SearchHead {
                    byte_order: pva::ByteOrder::Little,
                    sequence: id,
                    flags: *flags,
                    reply_to: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT_PORT),
                });
                request.push(id, name);
                request.datagram()
            }
        };
        self.datagram_len = datagram.len();
        self.bytes.extend_from_slice(datagram);
        self.count += 1;
    }
}

/// The ids in an answer; also in a question, for the echo's sake.
pub(crate) fn answered_ids(protocol: Protocol, datagram: &[u8], mut with: impl FnMut(u32)) {
    match protocol {
        Protocol::Ca => {
            let searches = ca::messages(datagram).flatten().filter(|m| m.command == ca::SEARCH);
            searches.for_each(|message| with(message.available));
        }
        Protocol::Pva => {
            for message in pva::messages(datagram).flatten() {
                if let Ok(response) = message.search_response() {
                    response.ids().for_each(&mut with);
                } else if let Ok(search) = message.search() {
                    search.names().for_each(|(id, _)| with(id));
                }
            }
        }
    }
}
