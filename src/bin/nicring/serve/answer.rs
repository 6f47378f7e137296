//! The handler of an engine: datagrams in, replies out, and counts of both.

use std::{
    cell::RefCell,
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use nicring::{
    Batch, Class, Datagram, Nic, NicAddress, NicFilter, Nics, ReplyPath, Subnet,
    search::{Asked, CaResponder, Protocol, PvaResponder, Reply, SearchCounts, pva::FORWARD_GROUP},
};

use super::tables::TableReader;
use crate::cli::{environment::Ignored, host};

/// How often an engine's thread publishes its counts.
const PUBLISH_PERIOD: Duration = Duration::from_millis(50);

/// Counts of one protocol on one NIC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub datagram_count: u64,
    pub name_count: u64,
    pub hit_count: u64,
}

impl Tally {
    pub fn add(&mut self, other: Self) {
        self.datagram_count += other.datagram_count;
        self.name_count += other.name_count;
        self.hit_count += other.hit_count;
    }
}

/// What one engine's handler has done, by protocol in the order of [`Protocol::ALL`].
#[derive(Debug, Clone, Default)]
pub struct Answers {
    pub counts: [SearchCounts; 2],
    /// Datagrams from ignored sources.
    pub ignored_counts: [u64; 2],
    /// By the NIC's index, 0 for an unknown NIC.
    pub nics: Vec<(u32, [Tally; 2])>,
    /// The CPU time of the engine's thread; `None` where the system does not report it.
    pub cpu: Option<Duration>,
}

/// Where a handler publishes its [`Answers`].
#[derive(Debug, Clone, Default)]
pub struct Board(Arc<Mutex<Answers>>);

impl Board {
    pub fn read(&self) -> Answers {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Answers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a handler needs at the start.
#[derive(Debug)]
pub struct Instructions {
    pub table: TableReader,
    /// Each port with its protocol.
    pub ports: Vec<(u16, Protocol)>,
    pub ignored: [Vec<Ignored>; 2],
    pub reply_subnets: Vec<Subnet>,
    pub accepts_untagged: bool,
    /// The NICs that are listened on; none for all.
    pub filters: Vec<NicFilter>,
}

/// Answers what an engine hears. Allocates nothing once it is warm.
#[derive(Debug)]
pub struct Answerer {
    table: TableReader,
    ports: Vec<(u16, Protocol)>,
    ignored: [Vec<Ignored>; 2],
    ca: CaResponder<ReplyPath>,
    pva: PvaResponder<ReplyPath>,
    filters: Vec<NicFilter>,
    answers: Answers,
    cpu_at_start: Option<Duration>,
    board: Board,
    last_published: Option<Instant>,
}

impl Answerer {
    /// Must be called on the engine's thread: it measures the CPU time of the thread that it runs
    /// on.
    pub fn new(instructions: Instructions, board: Board) -> Self {
        let mut pva = PvaResponder::new(instructions.reply_subnets);
        if instructions.accepts_untagged {
            pva = pva.accept_untagged();
        }
        if !instructions.filters.is_empty() {
            pva.set_origins(Some(Vec::new())); // until the first batch tells the NICs
        }
        Self {
            table: instructions.table,
            ports: instructions.ports,
            ignored: instructions.ignored,
            ca: CaResponder::new(),
            pva,
            filters: instructions.filters,
            answers: Answers::default(),
            cpu_at_start: host::thread_cpu(),
            board,
            last_published: None,
        }
    }

    pub fn handle(&mut self, batch: &Batch) -> ControlFlow<()> {
        self.table.refresh();
        if self.last_published.is_none_or(|at| at.elapsed() >= PUBLISH_PERIOD) {
            self.follow(batch.nics());
            self.publish();
        }
        self.answer(batch);
        ControlFlow::Continue(())
    }

    /// What servers of this host pass on is answered only if it was sent to a NIC that is listened
    /// on.
    fn follow(&mut self, nics: &Nics) {
        if self.filters.is_empty() {
            return;
        }
        let is_chosen = |nic: &Nic, own: &NicAddress| {
            self.filters.iter().any(|filter| filter.matches(nic, own))
        };
        let mut origins = Vec::new();
        for nic in nics.iter() {
            for own in nic.addresses.iter().filter(|own| is_chosen(nic, own)) {
                origins.push(own.address);
                origins.extend(own.broadcast);
            }
        }
        self.pva.set_origins(Some(origins));
    }

    /// Answers a batch: the names of all its datagrams are looked up together, and CA answers are
    /// packed into few datagrams. Those still held back leave at the end.
    fn answer(&mut self, batch: &Batch) {
        let Self { table, ports, ignored, ca, pva, answers, .. } = self;
        let names = table.table();
        let nics = RefCell::new(&mut answers.nics);
        let add = |nic: Option<u32>, protocol, tally| {
            nic_tally(&mut nics.borrow_mut(), nic.unwrap_or(0), protocol, batch.nics()).add(tally);
        };
        // The engine's statistics count what the outbox refuses.
        let send = |protocol, reply: Reply<'_, ReplyPath>| {
            batch.reply_by(reply.way, reply.to, reply.payload);
            let hit_count = reply.name_count as u64;
            add(reply.way.nic(), protocol, Tally { hit_count, ..Tally::default() });
        };
        let mut ca = ca.pack(names, |reply| send(Protocol::Ca, reply));
        let mut pva = pva.pack(names, |reply| send(Protocol::Pva, reply));
        for datagram in batch {
            let spoken = ports.iter().find(|(port, _)| *port == datagram.port());
            let Some(&(_, protocol)) = spoken else { continue };
            let (source, payload) = (datagram.source(), datagram.payload());
            if ignored[protocol as usize].iter().any(|ignored| ignored.covers(source)) {
                answers.ignored_counts[protocol as usize] += 1;
                continue;
            }
            let path = datagram.reply_path();
            let names_before = [ca.counts(), pva.counts()][protocol as usize].name_count;
            match protocol {
                Protocol::Ca if datagram.is_truncated() => ca.add_truncated(payload, source, path),
                Protocol::Ca => ca.add(payload, source, path),
                Protocol::Pva => pva.add(payload, asked(batch, &datagram), path),
            }
            let names = [ca.counts(), pva.counts()][protocol as usize].name_count;
            let name_count = names - names_before;
            add(path.nic(), protocol, Tally { datagram_count: 1, name_count, hit_count: 0 });
        }
    }

    /// Publishes what was done so far.
    pub fn publish(&mut self) {
        self.last_published = Some(Instant::now());
        self.answers.counts = Protocol::ALL.map(|protocol| match protocol {
            Protocol::Ca => *self.ca.counts(),
            Protocol::Pva => *self.pva.counts(),
        });
        let cpu = host::thread_cpu().zip(self.cpu_at_start);
        self.answers.cpu = cpu.map(|(now, start)| now.saturating_sub(start));
        self.board.lock().clone_from(&self.answers);
    }
}

/// The tally of a NIC, by ascending index. NICs that have gone share one, that of index 0.
fn nic_tally<'a>(
    tallies: &'a mut Vec<(u32, [Tally; 2])>,
    nic: u32,
    protocol: Protocol,
    nics: &Nics,
) -> &'a mut Tally {
    let position =
        |tallies: &[(u32, [Tally; 2])]| tallies.binary_search_by_key(&nic, |(index, _)| *index);
    let known = position(tallies).unwrap_or_else(|_| {
        fold_gone(tallies, nics);
        position(tallies).unwrap_or_else(|free| {
            tallies.insert(free, (nic, Default::default()));
            free
        })
    });
    &mut tallies[known].1[protocol as usize]
}

fn fold_gone(tallies: &mut Vec<(u32, [Tally; 2])>, nics: &Nics) {
    let mut gone = [Tally::default(); 2];
    tallies.retain(|(index, of_nic)| {
        let stays = nics.by_index(*index).is_some();
        if !stays {
            gone.iter_mut().zip(of_nic).for_each(|(gone, tally)| gone.add(*tally));
        }
        stays
    });
    if gone != [Tally::default(); 2] {
        tallies.insert(0, (0, gone));
    }
}

/// Who asked by PVA, and how the question came.
fn asked(batch: &Batch, datagram: &Datagram<'_>) -> Asked {
    let mut asked = Asked::from(datagram.source());
    asked.forwarded = is_forwarded(batch, datagram);
    asked.truncated = datagram.is_truncated();
    if !asked.forwarded {
        asked.own = batch.egress(datagram, *asked.source.ip()).source;
    }
    asked
}

/// Whether another server of this host forwarded the datagram.
fn is_forwarded(batch: &Batch, datagram: &Datagram<'_>) -> bool {
    let is_on_loopback = || {
        let nic = datagram.ifindex().and_then(|index| batch.nics().by_index(index));
        nic.is_some_and(|nic| nic.is_loopback)
    };
    datagram.class() == Class::Group
        && datagram.destination() == Some(FORWARD_GROUP)
        && is_on_loopback()
}
