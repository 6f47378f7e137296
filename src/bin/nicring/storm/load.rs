//! Sends SEARCHes over plain sockets, and counts what comes back to each sender.

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
    search::{
        Protocol,
        load::{LoadCounts, SearchLoad, SearchMix},
    },
};

use super::histogram::Histogram;

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
pub enum Speed {
    /// As fast as answers come: at most this many datagrams wait for their answers.
    Window(usize),
    /// This many datagrams per second, whatever comes back.
    Rate(f64),
}

/// Where datagrams go.
#[derive(Debug, Clone, Copy)]
pub struct Destination {
    pub address: SocketAddrV4,
    /// Whether it is one host. A PVA request states this.
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

/// What one sender has to do.
#[derive(Debug, Clone)]
pub struct Load {
    pub protocol: Protocol,
    /// The datagrams go to them in turn.
    pub destinations: Vec<Destination>,
    pub names: Names,
    /// The share of names that a server should know, 0 to 1; the others are made up.
    pub hits: f64,
    pub names_per_datagram: usize,
    pub speed: Speed,
    pub duration: Duration,
    /// How long to wait for an answer.
    pub timeout: Duration,
}

/// What a sender counted.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub sent_datagram_count: u64,
    pub send_error_count: u64,
    pub counts: LoadCounts,
    /// The time from sending a question to receiving its first answer.
    pub latency: Histogram,
}

impl Outcome {
    pub fn add(&mut self, other: &Self) {
        self.sent_datagram_count += other.sent_datagram_count;
        self.send_error_count += other.send_error_count;
        self.counts += other.counts;
        self.latency.add(&other.latency);
    }
}

/// How long a sender waits for an answer before it checks whether to end.
const WAIT_MAX: Duration = Duration::from_millis(20);
/// The most datagrams sent at once to catch up with the rate.
const BURST_MAX: u64 = 64;
/// The distance between the first numbers of two senders, so that they ask for different names.
const NUMBER_STRIDE: u64 = 7919;

impl Load {
    /// Sends until the time is over or `stop` is set, then waits for the last answers. `number`
    /// tells senders apart: each begins at another name.
    pub fn run(&self, number: u64, stop: &AtomicBool) -> io::Result<Outcome> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_broadcast(true)?;
        socket.set_read_timeout(Some(WAIT_MAX))?;
        // As much as the system gives. Answers lost here would look like losses of the server.
        let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(8 << 20);
        let write_name = |number, is_hit, name: &mut String| {
            if is_hit {
                self.names.write(number, name);
            } else {
                let _ = write!(name, "nicring:no-such-name:{number}");
            }
        };
        let load = SearchLoad::new(self.mix(), number * NUMBER_STRIDE, write_name);
        let flow = Flow {
            settings: self,
            port: socket.local_addr()?.port(),
            socket,
            load: Mutex::new(load),
            latency: Mutex::default(),
        };
        let mut sender = Sender { turn: number as usize, ..Sender::default() };
        match self.speed {
            Speed::Window(datagrams) => {
                let expected = (self.names_per_datagram as f64 * self.hits).ceil() as usize;
                flow.run_window(datagrams.max(1) * expected.max(1), &mut sender, stop)?;
            }
            Speed::Rate(rate) => flow.run_rate(rate, &mut sender, stop)?,
        }
        Ok(Outcome {
            sent_datagram_count: sender.sent_count,
            send_error_count: sender.error_count,
            counts: flow.load.into_inner().unwrap_or_else(PoisonError::into_inner).finish(),
            latency: flow.latency.into_inner().unwrap_or_else(PoisonError::into_inner),
        })
    }

    fn mix(&self) -> SearchMix {
        let datagrams = match self.speed {
            Speed::Window(datagrams) => (datagrams * 4) as f64 / self.hits.max(0.001),
            Speed::Rate(rate) => rate * self.timeout.as_secs_f64() * 2.0,
        };
        SearchMix {
            protocol: self.protocol,
            hits: self.hits,
            names_per_datagram: self.names_per_datagram,
            timeout: self.timeout,
            open_max: (datagrams * self.names_per_datagram as f64) as usize,
        }
    }
}

/// What sending and receiving share. With a given rate, these are two threads.
struct Flow<'a, F> {
    settings: &'a Load,
    socket: UdpSocket,
    /// The port that PVA answers go to.
    port: u16,
    load: Mutex<SearchLoad<F>>,
    latency: Mutex<Histogram>,
}

/// The state of sending.
#[derive(Default)]
struct Sender {
    /// Which destination is next; taken modulo their number.
    turn: usize,
    datagram: Vec<u8>,
    sent_count: u64,
    error_count: u64,
}

impl<F: FnMut(u64, bool, &mut String) + Send> Flow<'_, F> {
    fn load(&self) -> MutexGuard<'_, SearchLoad<F>> {
        self.load.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run_window(
        &self,
        open_max: usize,
        sender: &mut Sender,
        stop: &AtomicBool,
    ) -> io::Result<()> {
        let mut buffer = vec![0; 65_536];
        let deadline = Instant::now() + self.settings.duration;
        let mut next_expiry = Instant::now() + WAIT_MAX;
        loop {
            let now = Instant::now();
            if now >= deadline || stop.load(SeqCst) {
                return self.linger(&mut buffer);
            }
            if now >= next_expiry {
                self.load().expire(now);
                next_expiry = now + WAIT_MAX;
            }
            if self.load().open_count() < open_max {
                self.send(sender, now)?;
            } else {
                self.receive(&mut buffer)?;
            }
        }
    }

    /// A second thread receives, so that answers get the right time while this thread sleeps.
    fn run_rate(&self, rate: f64, sender: &mut Sender, stop: &AtomicBool) -> io::Result<()> {
        let has_sent = AtomicBool::new(false);
        thread::scope(|scope| {
            let receiving = scope.spawn(|| {
                let mut buffer = vec![0; 65_536];
                while !has_sent.load(SeqCst) {
                    self.receive(&mut buffer)?;
                    self.load().expire(Instant::now());
                }
                self.linger(&mut buffer)
            });
            let sent = self.send_at_rate(rate, sender, stop);
            has_sent.store(true, SeqCst);
            let received = receiving.join();
            sent.and(received.unwrap_or_else(|_| Err(io::Error::other("the receiver panicked"))))
        })
    }

    fn send_at_rate(&self, rate: f64, sender: &mut Sender, stop: &AtomicBool) -> io::Result<()> {
        let start = Instant::now();
        let mut turn_count = 0;
        while start.elapsed() < self.settings.duration && !stop.load(SeqCst) {
            let due_count = (start.elapsed().as_secs_f64() * rate) as u64 + 1;
            for _ in 0..due_count.saturating_sub(turn_count).min(BURST_MAX) {
                self.send(sender, Instant::now())?;
                turn_count += 1;
            }
            let next = Duration::from_secs_f64(turn_count as f64 / rate);
            thread::sleep(next.saturating_sub(start.elapsed()).min(WAIT_MAX));
        }
        Ok(())
    }

    /// Sends one datagram.
    fn send(&self, sender: &mut Sender, now: Instant) -> io::Result<()> {
        let destinations = &self.settings.destinations;
        let destination = destinations[sender.turn % destinations.len()];
        sender.turn = sender.turn.wrapping_add(1);
        {
            // Recorded before sending: the answer may arrive before `send_to` returns.
            let mut load = self.load();
            let datagram = load.compose(destination.is_one_host, self.port, now);
            sender.datagram.clear();
            sender.datagram.extend_from_slice(datagram);
        }
        match self.socket.send_to(&sender.datagram, destination.address) {
            Ok(_) => sender.sent_count += 1,
            Err(error) if sender.sent_count == 0 => {
                let text = format!("sending to {}: {error}", destination.address);
                return Err(io::Error::new(error.kind(), text));
            }
            Err(_) => {
                sender.error_count += 1;
                thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    /// Waits a short time for one datagram.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<()> {
        use io::ErrorKind::{
            ConnectionRefused, ConnectionReset, Interrupted, TimedOut, WouldBlock,
        };
        match self.socket.recv(buffer) {
            Ok(len) => {
                let mut latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
                let record = |delay| latency.record(delay);
                self.load().answer(&buffer[..len], Instant::now(), record);
                Ok(())
            }
            Err(error) => match error.kind() {
                // On some systems the next receive reports that nobody listens.
                ConnectionRefused | ConnectionReset | Interrupted | TimedOut | WouldBlock => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Waits for the answers that are still due, and then a short time for duplicates.
    fn linger(&self, buffer: &mut [u8]) -> io::Result<()> {
        let start = Instant::now();
        while start.elapsed() < self.settings.timeout && self.load().open_count() > 0 {
            self.receive(buffer)?;
        }
        self.receive(buffer)
    }
}

/// Runs all senders and returns the outcome per protocol. Meanwhile it calls `tick`, which returns
/// whether to go on.
pub fn run_all(
    loads: &[Load],
    mut tick: impl FnMut() -> bool,
) -> io::Result<Vec<(Protocol, Outcome)>> {
    let stop = AtomicBool::new(false);
    let results = thread::scope(|scope| {
        let stop = &stop;
        let senders: Vec<_> = (0..)
            .zip(loads)
            .map(|(number, load)| (load.protocol, scope.spawn(move || load.run(number, stop))))
            .collect();
        while senders.iter().any(|(_, sender)| !sender.is_finished()) {
            if !tick() {
                stop.store(true, SeqCst);
            }
            thread::sleep(WAIT_MAX);
        }
        let join = |(protocol, sender): (Protocol, thread::ScopedJoinHandle<'_, _>)| {
            let outcome = sender.join();
            (protocol, outcome.unwrap_or_else(|_| Err(io::Error::other("a sender panicked"))))
        };
        senders.into_iter().map(join).collect::<Vec<_>>()
    });
    let mut outcomes: Vec<(Protocol, Outcome)> = Vec::new();
    for (protocol, result) in results {
        let outcome = result?;
        match outcomes.iter_mut().find(|(other, _)| *other == protocol) {
            Some((_, total)) => total.add(&outcome),
            None => outcomes.push((protocol, outcome)),
        }
    }
    Ok(outcomes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_pattern_or_the_list() {
        let names = |names: Names, number| {
            let mut name = String::new();
            names.write(number, &mut name);
            name
        };
        let pattern = |pattern: &str| Names::Pattern { pattern: pattern.to_owned(), count: 10 };
        assert_eq!(names(pattern("a{}b"), 13), "a3b");
        assert_eq!(names(pattern("ioc1:temp"), 13), "ioc1:temp");
        assert_eq!(names(Names::List(vec!["x".into(), "y".into()]), 3), "y");
    }
}
