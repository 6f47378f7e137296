//! SEARCH in a closed loop, for contestants and for servers. Servers do not answer what they do not
//! know.
//!
//! One thread asks and takes the answers, and never sleeps. Questions come in cycles: names that
//! nobody knows, with names between that the server has, and one of these last, all to the same
//! NIC. A server takes a socket's datagrams in order, so the answer to the last name shows that the
//! whole cycle is done. As many cycles are on their way as fit in the window, but at least one.

use std::{
    io,
    net::{SocketAddrV4, UdpSocket},
    os::fd::AsFd,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use nicring::search::{
    Protocol,
    load::{SearchLoad, SearchMix},
    pva,
};
use nix::sys::socket::SockaddrIn;

use crate::{
    contestant::mmsg::Received,
    names::{push_name, shuffled},
    network::Network,
    outcome::{CLIENT_PORT, LINGER, Outcome, TIME_MAX},
    segments::{self, SEGMENT_COUNT_MAX},
    sender::Counters,
};

/// What is asked, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Questions {
    /// The protocol of the questions.
    pub protocol: Protocol,
    /// How many names each datagram asks for, up to [`NAMES_PER_DATAGRAM_MAX`].
    pub names_per_datagram: u16,
    /// How many names the server has. As many others are asked for that it does not have.
    pub name_count: u32,
    /// One in this many names is one that the server has.
    pub hit_every: u16,
    /// How many datagrams are on their way, at least a cycle of them.
    pub window: u16,
    /// Whether they go to the broadcast address of a NIC's subnet instead of its address.
    pub is_broadcast: bool,
    /// Whether each cycle goes to another NIC than the last, by a system call of its own. Otherwise
    /// runs of 16 datagrams go to each NIC.
    pub is_spread: bool,
}

/// How many names of CA fit a datagram that is as long as those of libca.
pub const NAMES_PER_DATAGRAM_MAX: u16 = 21;

/// An answer that takes longer counts as lost. Servers in Python, on a busy CPU, take some 100 ms.
const STALL_MAX: Duration = Duration::from_millis(400);
/// How many datagrams go to one NIC before the next NIC has its turn.
const RUN_LEN: u64 = 16;

/// Where the next load goes on. If each began at the same name, only those that one load reaches
/// would be asked for, and caches would hold them.
static NEXT_NAME: AtomicU64 = AtomicU64::new(0);

impl Questions {
    /// Asks through `socket` until it is told to stop.
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
        let to = |nic| SockaddrIn::from(SocketAddrV4::new(address(nic), port));
        let asker = Asker {
            questions: self,
            destinations: (0..nic_count).map(to).collect(),
            load: search_load(self.mix(), self.name_count),
            cycle_count: 0,
            run: Vec::new(),
            socket,
            counters,
            start: Instant::now(),
            received: Received::new(SEGMENT_COUNT_MAX),
            outcome: Outcome::default(),
        };
        asker.run()
    }

    fn mix(self) -> SearchMix {
        let names_per_datagram = usize::from(self.names_per_datagram);
        SearchMix {
            protocol: self.protocol,
            hits: 1.0 / f64::from(self.hit_every),
            names_per_datagram,
            timeout: STALL_MAX,
            // Few enough for the client's own cache.
            open_max: 16 * usize::from(self.window.max(self.cycle_len())) * names_per_datagram,
        }
    }

    /// How many datagrams a cycle has: the fewest of which the last name is a hit.
    fn cycle_len(self) -> u16 {
        let (mut divisor, mut rest) = (self.hit_every, self.names_per_datagram);
        while rest != 0 {
            (divisor, rest) = (rest, divisor % rest);
        }
        self.hit_every / divisor
    }

    /// How many names of a cycle the server has.
    fn hits_per_cycle(self) -> usize {
        usize::from(self.cycle_len()) * usize::from(self.names_per_datagram)
            / usize::from(self.hit_every)
    }

    /// How many answers may be awaited before another cycle is sent: those of the other cycles.
    fn open_max(self) -> usize {
        usize::from((self.window / self.cycle_len()).max(1) - 1) * self.hits_per_cycle()
    }
}

/// A load that asks for names as [`shuffled`], and begins where the last one ended.
pub(crate) fn search_load(
    mix: SearchMix,
    name_count: u32,
) -> SearchLoad<impl FnMut(u64, bool, &mut String)> {
    let first = NEXT_NAME.load(Relaxed);
    SearchLoad::new(mix, first, move |number, is_hit, name: &mut String| {
        push_name(shuffled(number, name_count), is_hit, name);
    })
}

/// Ends a load. The next one begins behind what it asked for.
pub(crate) fn end<F: FnMut(u64, bool, &mut String)>(load: SearchLoad<F>, outcome: &mut Outcome) {
    let counts = load.finish();
    NEXT_NAME.fetch_add(counts.asked_count, Relaxed);
    outcome.expected_count = counts.expected_count;
    outcome.answered_count = counts.answered_count;
    outcome.duplicate_count = counts.duplicate_count + counts.late_count;
}

struct Asker<'a, F> {
    questions: Questions,
    socket: UdpSocket,
    destinations: Vec<SockaddrIn>,
    load: SearchLoad<F>,
    /// How many cycles were sent.
    cycle_count: u64,
    /// A run of questions of one length, one after the other.
    run: Vec<u8>,
    counters: &'a Counters,
    start: Instant,
    received: Received,
    outcome: Outcome,
}

impl<F: FnMut(u64, bool, &mut String)> Asker<'_, F> {
    fn run(mut self) -> io::Result<Outcome> {
        let mut next_expiry = Instant::now() + STALL_MAX;
        while !self.counters.stop.load(Relaxed) && self.start.elapsed() < TIME_MAX {
            let began = Instant::now();
            let has_sent = self.has_room();
            if has_sent {
                self.send_run(began)?;
            }
            if self.receive()? == 0 && !has_sent {
                let waited = began.elapsed();
                self.counters.waited_ns.fetch_add(waited.as_nanos() as u64, Relaxed);
            }
            if began > next_expiry {
                self.load.expire(began);
                next_expiry = began + STALL_MAX / 4;
            }
        }
        let last = Instant::now() + LINGER;
        while Instant::now() < last {
            self.receive()?;
        }
        end(self.load, &mut self.outcome);
        Ok(self.outcome)
    }

    fn has_room(&self) -> bool {
        self.load.open_count() <= self.questions.open_max()
    }

    /// Sends, in one call, the cycles to the next NIC that there is room for.
    fn send_run(&mut self, now: Instant) -> io::Result<()> {
        let nic = self.next_nic();
        self.run.clear();
        let (mut count, mut datagram_len) = (0, 0);
        while count < SEGMENT_COUNT_MAX && self.has_room() && self.next_nic() == nic {
            for _ in 0..self.questions.cycle_len() {
                let datagram = self.load.compose(!self.questions.is_broadcast, CLIENT_PORT, now);
                datagram_len = datagram.len();
                self.run.extend_from_slice(datagram);
                count += 1;
            }
            self.cycle_count += 1;
            if self.questions.is_spread {
                break;
            }
        }
        segments::send(self.socket.as_fd(), self.destinations[nic], &self.run, datagram_len)?;
        self.outcome.sent_count += count as u64;
        self.counters.sent_count.store(self.outcome.sent_count, Relaxed);
        Ok(())
    }

    fn next_nic(&self) -> usize {
        let cycles_per_nic = match self.questions.is_spread {
            true => 1,
            false => (RUN_LEN / u64::from(self.questions.cycle_len())).max(1),
        };
        (self.cycle_count / cycles_per_nic) as usize % self.destinations.len()
    }

    /// Receives answers. Returns how many datagrams came.
    fn receive(&mut self) -> io::Result<usize> {
        let Self { load, outcome, counters, received, .. } = self;
        let count = received.receive(self.socket.as_fd())?;
        if count == 0 {
            return Ok(0);
        }
        let now = Instant::now();
        let is_measuring = counters.is_measuring.load(Relaxed);
        let mut keep = |delay| {
            if is_measuring {
                outcome.delays.push(delay);
            }
        };
        for datagram in received.iter() {
            load.answer(datagram.payload, now, &mut keep);
            echoed_ids(self.questions.protocol, datagram.payload, |id| {
                load.answer_id(id, now).into_iter().for_each(&mut keep);
            });
        }
        counters.answered_count.store(load.counts().answered_count, Relaxed);
        Ok(count)
    }
}

/// The ids of PVA questions that the echo sends back. CA questions that come back already look like
/// answers.
fn echoed_ids(protocol: Protocol, datagram: &[u8], mut with: impl FnMut(u32)) {
    if protocol == Protocol::Pva {
        for search in pva::messages(datagram).flatten().flat_map(|message| message.search()) {
            search.names().for_each(|(id, _)| with(id));
        }
    }
}
