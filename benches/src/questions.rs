//! SEARCH in a closed loop, for contestants and for servers. Servers do not answer what they do not
//! know.
//!
//! One thread asks and takes the answers, and never sleeps. Questions come in cycles: some for
//! names that nobody knows, then one for a name that the server has, all to the same NIC. A server
//! takes a socket's datagrams in order, so the answer to the last question shows that the whole
//! cycle is done. As many cycles are on their way as fit in the window, but at least one.

use std::{
    io,
    net::{SocketAddrV4, UdpSocket},
    os::fd::AsFd,
    sync::atomic::Ordering::Relaxed,
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
    network::Network,
    outcome::{CLIENT_PORT, LINGER, Outcome, TIME_MAX},
    segments::{self, SEGMENT_COUNT_MAX},
    sender::Counters,
    service::{NAME_COUNT, name},
};

/// What is asked, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Questions {
    /// The protocol of the questions, one name each.
    pub protocol: Protocol,
    /// Whether they go to the broadcast address of a NIC's subnet instead of its address.
    pub is_broadcast: bool,
    /// One in this many questions is for a name that the server has.
    pub cycle_len: u16,
    /// How many questions are on their way, at least `cycle_len`.
    pub window: u16,
}

/// An answer that takes longer counts as lost. Servers in Python, on a busy CPU, take some 100 ms.
const STALL_MAX: Duration = Duration::from_millis(400);
/// How many datagrams go to one NIC before the next NIC has its turn.
const RUN_LEN: u64 = 16;

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
        let hits: Vec<_> = (0..NAME_COUNT).map(name).collect();
        // As long as the known names, because the kernel cuts a run into equal segments.
        let misses: Vec<_> = hits.iter().map(|name| name.replace("device", "absent")).collect();
        let load = SearchLoad::new(self.mix(), 0, |number, is_hit, name: &mut String| {
            let names = if is_hit { &hits } else { &misses };
            name.push_str(&names[number as usize % names.len()]);
        });
        let to = |nic| SockaddrIn::from(SocketAddrV4::new(address(nic), port));
        let asker = Asker {
            questions: self,
            destinations: (0..nic_count).map(to).collect(),
            load,
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
        SearchMix {
            protocol: self.protocol,
            hits: 1.0 / f64::from(self.cycle_len),
            names_per_datagram: 1,
            timeout: STALL_MAX,
            open_max: 1 << 20,
        }
    }

    /// How many cycles may be open.
    fn open_max(self) -> usize {
        usize::from((self.window / self.cycle_len).max(1))
    }
}

struct Asker<'a, F> {
    questions: Questions,
    socket: UdpSocket,
    destinations: Vec<SockaddrIn>,
    load: SearchLoad<F>,
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
            let has_sent = self.load.open_count() < self.questions.open_max();
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
        let end = Instant::now() + LINGER;
        while Instant::now() < end {
            self.receive()?;
        }
        let counts = self.load.finish();
        self.outcome.expected_count = counts.expected_count;
        self.outcome.answered_count = counts.answered_count;
        self.outcome.duplicate_count = counts.duplicate_count + counts.late_count;
        Ok(self.outcome)
    }

    /// Sends, in one call, the cycles to the next NIC that there is room for.
    fn send_run(&mut self, now: Instant) -> io::Result<()> {
        let nic = self.next_nic();
        self.run.clear();
        let (mut count, mut datagram_len) = (0, 0);
        while count < SEGMENT_COUNT_MAX
            && self.load.open_count() < self.questions.open_max()
            && self.next_nic() == nic
        {
            for _ in 0..self.questions.cycle_len {
                let datagram = self.load.compose(!self.questions.is_broadcast, CLIENT_PORT, now);
                datagram_len = datagram.len();
                self.run.extend_from_slice(datagram);
                count += 1;
            }
        }
        segments::send(self.socket.as_fd(), self.destinations[nic], &self.run, datagram_len)?;
        self.outcome.sent_count += count as u64;
        self.counters.sent_count.store(self.outcome.sent_count, Relaxed);
        Ok(())
    }

    fn next_nic(&self) -> usize {
        let cycle = self.load.counts().expected_count;
        let cycles_per_nic = (RUN_LEN / u64::from(self.questions.cycle_len)).max(1);
        (cycle / cycles_per_nic) as usize % self.destinations.len()
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
