//! SEARCH traffic from plain sockets, and a count of what comes back.

use std::{
    fmt::Write,
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use nicring::{
    Nics,
    search::{Protocol, ca, pva},
};

use crate::flight::{Flight, Outcome};

/// Which names are asked for.
#[derive(Debug, Clone)]
pub enum Names {
    /// `{}` stands for a number below `count`.
    Pattern {
        pattern: String,
        count: u64,
    },
    List(Vec<String>),
}

impl Names {
    fn write(&self, number: u64, name: &mut String) {
        name.clear();
        match self {
            Self::List(names) => name.push_str(&names[(number % names.len() as u64) as usize]),
            Self::Pattern { pattern, count } => match pattern.split_once("{}") {
                None => name.push_str(pattern),
                Some((before, after)) => {
                    let _ = write!(name, "{before}{}{after}", number % count);
                }
            },
        }
    }
}

/// How fast a sender sends.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// As fast as answers come: the answers awaited are those of this many datagrams at most.
    Window(usize),
    /// This many datagrams a second, whatever comes back.
    Rate(f64),
}

/// Where datagrams go.
#[derive(Debug, Clone, Copy)]
pub struct Destination {
    pub address: SocketAddrV4,
    /// Whether it is one host: PVA says so in its requests.
    is_one_host: bool,
}

impl Destination {
    pub fn new(address: SocketAddrV4, nics: &Nics) -> Self {
        let ip = *address.ip();
        let mut own = nics.iter().flat_map(|nic| &nic.addresses);
        let is_broadcast = ip.is_broadcast()
            || ip == Ipv4Addr::new(127, 255, 255, 255)
            || own.any(|own| own.broadcast == Some(ip));
        Self { address, is_one_host: !is_broadcast && !ip.is_multicast() }
    }
}

/// What one sender is to do.
#[derive(Debug, Clone)]
pub struct Load {
    pub protocol: Protocol,
    /// Taken in turn.
    pub destinations: Vec<Destination>,
    pub names: Names,
    /// The share of names that a server should know, 0 to 1; the others are made up.
    pub hits: f64,
    pub names_per_datagram: usize,
    pub pace: Pace,
    pub duration: Duration,
    /// How long an answer is awaited.
    pub timeout: Duration,
}

/// How long a sender waits for an answer at a time, so that it sees when to end.
const WAIT_MAX: Duration = Duration::from_millis(20);

/// The most datagrams sent at once to catch up with the rate.
const BURST_MAX: u64 = 64;

impl Load {
    /// Sends until the time is over or `stop` is set, then waits for the last answers. `number`
    /// tells senders apart: each begins at another name.
    pub fn run(&self, number: u64, stop: &AtomicBool) -> io::Result<Outcome> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_broadcast(true)?;
        socket.set_read_timeout(Some(WAIT_MAX))?;
        // As much as the system gives: what is lost here would look like the server's loss.
        let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(8 << 20);
        let flight = Mutex::new(Flight::new(self.flight_capacity(), self.timeout));
        let mut sender = Sender::new(self, &socket, number)?;
        match self.pace {
            Pace::Window(datagrams) => {
                let expected = (self.names_per_datagram as f64 * self.hits).ceil() as usize;
                let open_max = datagrams.max(1) * expected.max(1);
                self.run_window(open_max, &mut sender, &flight, stop)?;
            }
            Pace::Rate(rate) => self.run_rate(rate, &mut sender, &flight, stop)?,
        }
        Ok(flight.into_inner().unwrap_or_else(PoisonError::into_inner).finish())
    }

    fn flight_capacity(&self) -> usize {
        let datagrams = match self.pace {
            Pace::Window(datagrams) => (datagrams * 4) as f64 / self.hits.max(0.001),
            Pace::Rate(rate) => rate * self.timeout.as_secs_f64() * 2.0,
        };
        (datagrams * self.names_per_datagram as f64) as usize
    }

    fn run_window(
        &self,
        open_max: usize,
        sender: &mut Sender<'_>,
        flight: &Mutex<Flight>,
        stop: &AtomicBool,
    ) -> io::Result<()> {
        let mut receiver = Receiver::new(self.protocol, sender.socket);
        let deadline = Instant::now() + self.duration;
        let mut next_expiry = Instant::now() + WAIT_MAX;
        loop {
            let now = Instant::now();
            if now >= deadline || stop.load(SeqCst) {
                return receiver.linger(flight, self.timeout);
            }
            if now >= next_expiry {
                lock(flight).expire(now);
                next_expiry = now + WAIT_MAX;
            }
            if lock(flight).open_count() < open_max {
                sender.send(flight, now)?;
            } else {
                receiver.receive(flight)?;
            }
        }
    }

    /// A thread of its own receives, so that the answers' times are right while this one sleeps.
    fn run_rate(
        &self,
        rate: f64,
        sender: &mut Sender<'_>,
        flight: &Mutex<Flight>,
        stop: &AtomicBool,
    ) -> io::Result<()> {
        let has_sent = AtomicBool::new(false);
        let mut receiver = Receiver::new(self.protocol, sender.socket);
        thread::scope(|scope| {
            let receiving = scope.spawn(|| {
                while !has_sent.load(SeqCst) {
                    receiver.receive(flight)?;
                    lock(flight).expire(Instant::now());
                }
                receiver.linger(flight, self.timeout)
            });
            let sent = self.send_at_rate(rate, sender, flight, stop);
            has_sent.store(true, SeqCst);
            let received = receiving.join();
            sent.and(received.unwrap_or_else(|_| Err(io::Error::other("the receiver panicked"))))
        })
    }

    fn send_at_rate(
        &self,
        rate: f64,
        sender: &mut Sender<'_>,
        flight: &Mutex<Flight>,
        stop: &AtomicBool,
    ) -> io::Result<()> {
        let start = Instant::now();
        let mut turn_count = 0;
        while start.elapsed() < self.duration && !stop.load(SeqCst) {
            let due_count = (start.elapsed().as_secs_f64() * rate) as u64 + 1;
            for _ in 0..due_count.saturating_sub(turn_count).min(BURST_MAX) {
                sender.send(flight, Instant::now())?;
                turn_count += 1;
            }
            let next = Duration::from_secs_f64(turn_count as f64 / rate);
            thread::sleep(next.saturating_sub(start.elapsed()).min(WAIT_MAX));
        }
        Ok(())
    }
}

fn lock(flight: &Mutex<Flight>) -> MutexGuard<'_, Flight> {
    flight.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Composes and sends requests.
struct Sender<'a> {
    load: &'a Load,
    socket: &'a UdpSocket,
    request: Request,
    name: String,
    /// The numbers of the next hit and the next miss.
    hit: u64,
    miss: u64,
    /// The part of a hit that is owed: grows by `hits` with each name.
    owed: f64,
    turn: usize,
    /// Where to find the port that PVA answers to.
    port: u16,
    has_sent: bool,
}

/// A number far enough from the other senders' that they ask for different names.
const NUMBER_STRIDE: u64 = 7919;

impl<'a> Sender<'a> {
    fn new(load: &'a Load, socket: &'a UdpSocket, number: u64) -> io::Result<Self> {
        let request = match load.protocol {
            Protocol::Ca => Request::Ca(ca::RequestWriter::new()),
            Protocol::Pva => Request::Pva(pva::RequestWriter::new()),
        };
        let first = number * NUMBER_STRIDE;
        Ok(Self {
            load,
            socket,
            request,
            name: String::new(),
            hit: first,
            miss: first,
            owed: 0.0,
            turn: number as usize,
            port: socket.local_addr()?.port(),
            has_sent: false,
        })
    }

    /// Sends one datagram.
    fn send(&mut self, flight: &Mutex<Flight>, now: Instant) -> io::Result<()> {
        let destinations = &self.load.destinations;
        let destination = destinations[self.turn % destinations.len()];
        self.turn = self.turn.wrapping_add(1);
        {
            // Before it is sent, for the answer may be here before `send_to` returns.
            let mut flight = lock(flight);
            self.request.begin(flight.next_id(), destination.is_one_host, self.port);
            self.fill(&mut flight, now);
        }
        let sent = self.socket.send_to(self.request.datagram(), destination.address);
        let mut flight = lock(flight);
        match sent {
            Ok(_) => {
                self.has_sent = true;
                flight.outcome.sent_datagram_count += 1;
            }
            Err(error) if !self.has_sent => {
                let text = format!("sending to {}: {error}", destination.address);
                return Err(io::Error::new(error.kind(), text));
            }
            Err(_) => {
                flight.outcome.send_error_count += 1;
                drop(flight);
                thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    fn fill(&mut self, flight: &mut Flight, now: Instant) {
        for _ in 0..self.load.names_per_datagram {
            let owed = self.owed + self.load.hits;
            // A little less than 1, for sums of fractions are a little off.
            let is_hit = owed > 1.0 - 1e-9;
            if is_hit {
                self.load.names.write(self.hit, &mut self.name);
            } else {
                self.name.clear();
                let _ = write!(self.name, "nicring:no-such-name:{}", self.miss);
            }
            if !self.request.push(flight.next_id(), self.name.as_bytes()) {
                return;
            }
            flight.ask(is_hit, now);
            if is_hit {
                self.hit += 1;
                self.owed = owed - 1.0;
            } else {
                self.miss += 1;
                self.owed = owed;
            }
        }
    }
}

enum Request {
    Ca(ca::RequestWriter),
    Pva(pva::RequestWriter),
}

impl Request {
    fn begin(&mut self, sequence: u32, is_one_host: bool, port: u16) {
        match self {
            Self::Ca(request) => request.begin(Some(sequence)),
            Self::Pva(request) => request.begin(pva::SearchHead {
                byte_order: pva::ByteOrder::Little,
                sequence,
                flags: if is_one_host { pva::FLAG_UNICAST } else { 0 },
                reply_to: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port),
            }),
        }
    }

    fn push(&mut self, id: u32, name: &[u8]) -> bool {
        match self {
            Self::Ca(request) => request.push(id, name),
            Self::Pva(request) => request.push(id, name),
        }
    }

    fn datagram(&self) -> &[u8] {
        match self {
            Self::Ca(request) => request.datagram(),
            Self::Pva(request) => request.datagram(),
        }
    }
}

/// Receives and counts answers.
struct Receiver<'a> {
    protocol: Protocol,
    socket: &'a UdpSocket,
    buffer: Vec<u8>,
}

impl<'a> Receiver<'a> {
    fn new(protocol: Protocol, socket: &'a UdpSocket) -> Self {
        Self { protocol, socket, buffer: vec![0; 65_536] }
    }

    /// Waits for one datagram, for a short time.
    fn receive(&mut self, flight: &Mutex<Flight>) -> io::Result<()> {
        use io::ErrorKind::{
            ConnectionRefused, ConnectionReset, Interrupted, TimedOut, WouldBlock,
        };
        match self.socket.recv(&mut self.buffer) {
            Ok(len) => {
                let mut flight = lock(flight);
                flight.outcome.reply_datagram_count += 1;
                if read_reply(self.protocol, &self.buffer[..len], &mut flight).is_none() {
                    flight.outcome.malformed_count += 1;
                }
                Ok(())
            }
            Err(error) => match error.kind() {
                // Some systems tell on the next receive that nobody listens.
                ConnectionRefused | ConnectionReset | Interrupted | TimedOut | WouldBlock => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Waits for the answers that are still awaited, and shortly for duplicates of them.
    fn linger(&mut self, flight: &Mutex<Flight>, timeout: Duration) -> io::Result<()> {
        let start = Instant::now();
        while start.elapsed() < timeout && lock(flight).open_count() > 0 {
            self.receive(flight)?;
        }
        self.receive(flight)
    }
}

/// Takes down every answer in a datagram; `None` if it is not one of answers only.
fn read_reply(protocol: Protocol, datagram: &[u8], flight: &mut Flight) -> Option<()> {
    let now = Instant::now();
    match protocol {
        Protocol::Ca => {
            for message in ca::messages(datagram) {
                let message = message.ok()?;
                if message.command == ca::SEARCH {
                    flight.answer(message.search_reply().ok()?.id, now);
                }
            }
        }
        Protocol::Pva => {
            for message in pva::messages(datagram) {
                let message = message.ok()?;
                if message.command != pva::SEARCH_RESPONSE {
                    continue;
                }
                let response = message.search_response().ok()?;
                if response.found {
                    response.ids().for_each(|id| flight.answer(id, now));
                }
            }
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_pattern_or_the_list() {
        let mut name = String::new();
        let mut names = |names: Names, number| {
            names.write(number, &mut name);
            name.clone()
        };
        let pattern = |pattern: &str| Names::Pattern { pattern: pattern.to_owned(), count: 10 };
        assert_eq!(names(pattern("a{}b"), 13), "a3b");
        assert_eq!(names(pattern("ioc1:temp"), 13), "ioc1:temp");
        assert_eq!(names(Names::List(vec!["x".into(), "y".into()]), 3), "y");
    }

    #[test]
    fn hits_are_spread_evenly_and_misses_are_asked_for_by_other_names() {
        let load = Load {
            protocol: Protocol::Ca,
            destinations: Vec::new(),
            names: Names::Pattern { pattern: "hit:{}".to_owned(), count: 1000 },
            hits: 0.75,
            names_per_datagram: 4,
            pace: Pace::Window(1),
            duration: Duration::ZERO,
            timeout: Duration::ZERO,
        };
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut sender = Sender::new(&load, &socket, 0).unwrap();
        let mut flight = Flight::new(4096, Duration::ZERO);
        for _ in 0..100 {
            sender.request.begin(0, true, 1);
            sender.fill(&mut flight, Instant::now());
        }
        assert_eq!((flight.outcome.asked_count, flight.outcome.expected_count), (400, 300));
    }
}
