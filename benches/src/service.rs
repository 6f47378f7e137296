//! What a receiver does with each datagram. It is the same for all contestants.

use std::{
    hint::black_box,
    net::SocketAddrV4,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use nicring::{
    ReplyPath,
    search::{CaResponder, NameTable, Protocol, PvaResponder, Reply},
};

use crate::{clock::shared_time, names::table, queued_batch::QueuedBatch};

/// What a receiver shares with whoever measures it.
#[derive(Debug, Default)]
pub struct Progress {
    /// Datagrams received.
    pub received_count: AtomicU64,
    /// When this many have been received, the receiver prints the time.
    pub announced_count: AtomicU64,
    /// Tells the receiver to end, if it looks: see [`Setup::look_every`].
    ///
    /// [`Setup::look_every`]: crate::contestant::Setup::look_every
    pub stop: AtomicBool,
    /// The batch that the receiver's thread sends to itself.
    pub queued_batch: Option<QueuedBatch>,
}

/// What is done with a datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// It is read and counted.
    Count,
    /// It goes back to its sender.
    Echo,
    /// It is a SEARCH and is answered from a table of this many names.
    Search(Protocol, u32),
    /// The same. `Engine::run` and `Shards::run` answer by an `Answerer`, as servers do, in place
    /// of the responder that all contestants share.
    Answer(Protocol, u32),
    /// It is sent out of each NIC, to these addresses, which are in the order of the NICs.
    FanOut(Vec<SocketAddrV4>),
}

/// The way by which a datagram leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// As an answer, by the way that the question came: its reply path, if it came by an engine.
    Back(Option<ReplyPath>),
    /// By the NIC at this position.
    Nic(usize),
}

/// A datagram that was received.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Who sent it.
    pub source: SocketAddrV4,
    /// Its bytes.
    pub payload: &'a [u8],
    /// How an engine answers it.
    pub path: Option<ReplyPath>,
}

/// Does a [`Task`] and counts. Each thread or task of a receiver has one.
#[derive(Debug)]
pub struct Service {
    progress: Arc<Progress>,
    task: Task,
    names: Arc<NameTable>,
    ca: CaResponder<Option<ReplyPath>>,
    pva: PvaResponder<Option<ReplyPath>>,
}

impl Service {
    /// A service that counts in `progress`.
    pub fn new(task: Task, progress: Arc<Progress>) -> Self {
        let names = match task {
            Task::Search(protocol, name_count) | Task::Answer(protocol, name_count) => {
                table(protocol, name_count)
            }
            _ => NameTable::builder().build(),
        };
        Self::with_names(task, progress, Arc::new(names))
    }

    fn with_names(task: Task, progress: Arc<Progress>, names: Arc<NameTable>) -> Self {
        let (ca, pva) = (CaResponder::new(), PvaResponder::new(Vec::new()));
        Self { progress, task, names, ca, pva }
    }

    /// The same service for another thread or task.
    #[must_use]
    pub fn fork(&self) -> Self {
        let names = Arc::clone(&self.names);
        Self::with_names(self.task.clone(), Arc::clone(&self.progress), names)
    }

    /// What an `Answerer` is to answer, if the task is for one.
    #[must_use]
    pub fn answered_protocol(&self) -> Option<Protocol> {
        match self.task {
            Task::Answer(protocol, _) => Some(protocol),
            _ => None,
        }
    }

    /// The names that are known. All forks share them.
    #[must_use]
    pub fn names(&self) -> &NameTable {
        &self.names
    }

    /// Does the task with one datagram. `send` sends the results.
    pub fn handle(
        &mut self,
        source: SocketAddrV4,
        payload: &[u8],
        send: &mut dyn FnMut(Way, SocketAddrV4, &[u8]),
    ) {
        self.handle_all([Question { source, payload, path: None }], send);
    }

    /// The same with several datagrams that were received at once. SEARCHes are answered together.
    pub fn handle_all<'a>(
        &mut self,
        questions: impl IntoIterator<Item = Question<'a>>,
        send: &mut dyn FnMut(Way, SocketAddrV4, &[u8]),
    ) {
        let back = |reply: Reply<'_, Option<ReplyPath>>| {
            send(Way::Back(reply.way), reply.to, reply.payload);
        };
        match self.task {
            Task::Search(Protocol::Ca, _) | Task::Answer(Protocol::Ca, _) => {
                let mut answers = self.ca.pack(&*self.names, back);
                for Question { source, payload, path } in questions {
                    answers.add(payload, source, path);
                }
            }
            Task::Search(Protocol::Pva, _) | Task::Answer(Protocol::Pva, _) => {
                let mut answers = self.pva.pack(&*self.names, back);
                for Question { source, payload, path } in questions {
                    answers.add(payload, source.into(), path);
                }
            }
            _ => questions.into_iter().for_each(|question| self.handle_one(question, send)),
        }
    }

    fn handle_one(
        &mut self,
        Question { source, payload, path }: Question<'_>,
        send: &mut dyn FnMut(Way, SocketAddrV4, &[u8]),
    ) {
        match &self.task {
            Task::Count => {
                black_box((source, payload.first(), payload.len()));
            }
            Task::Echo => send(Way::Back(path), source, payload),
            Task::Search(..) | Task::Answer(..) => unreachable!("answered all at once"),
            Task::FanOut(destinations) => {
                for (nic, destination) in destinations.iter().enumerate() {
                    send(Way::Nic(nic), *destination, payload);
                }
            }
        }
    }

    /// Counts datagrams that were handled.
    pub fn received(&self, count: usize) {
        let before = self.progress.received_count.fetch_add(count as u64, Relaxed);
        let announced = self.progress.announced_count.load(Relaxed);
        if before < announced && announced <= before + count as u64 {
            println!("{}", shared_time().expect("a clock").as_nanos());
        }
        if let Some(batch) = &self.progress.queued_batch {
            batch.received(count);
        }
    }

    /// Whether the receiver has to end.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.progress.stop.load(Relaxed)
    }
}

/// Datagrams to send later, for contestants that cannot send while they read what they received.
#[derive(Debug, Default)]
pub struct Outgoing {
    bytes: Vec<u8>,
    datagrams: Vec<(Way, SocketAddrV4, usize)>,
}

impl Outgoing {
    /// Adds a datagram.
    pub fn push(&mut self, way: Way, to: SocketAddrV4, payload: &[u8]) {
        self.bytes.extend_from_slice(payload);
        self.datagrams.push((way, to, self.bytes.len()));
    }

    /// The datagrams, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Way, SocketAddrV4, &[u8])> {
        let mut start = 0;
        self.datagrams.iter().map(move |&(way, to, end)| {
            let payload = &self.bytes[start..end];
            start = end;
            (way, to, payload)
        })
    }

    /// Forgets the datagrams and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.datagrams.clear();
    }
}
