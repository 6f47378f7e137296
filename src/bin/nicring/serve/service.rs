//! Engines that serve a name table, each on a thread of its own.

use std::{
    net::SocketAddrV4,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nicring::{
    Backend, Batch, Filter, Handle, Shards, Stats, Subnet, Unicast,
    search::{Answerer, Protocol},
};

use super::{
    answer::{Board, Handler, read},
    report::Report,
    tables::Tables,
};
use crate::cli::{
    failure::Failure,
    listen::{ListenArguments, ListenPlan, by_engine},
    text::Console,
};

/// The longest time between two calls of a handler. Without SEARCHes it thus still takes over a new
/// table and publishes its counts. An idle program is not to wake much.
const TICK: Duration = Duration::from_millis(500);

/// How many replies a batch of 256 datagrams may cause. A datagram that asks for names of several
/// servers causes several replies.
const REPLIES_MAX: usize = 4096;

/// How the engines are opened, besides where they listen.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'a> {
    pub listen: &'a ListenArguments,
    pub delay_max: Duration,
    pub shard_count: usize,
    /// Whether the kernel drops what is no SEARCH.
    pub filters: bool,
}

/// What the handlers need besides the table.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// By protocol in the order of [`Protocol::ALL`].
    pub ignored: [Vec<SocketAddrV4>; 2],
    pub reply_subnets: Vec<Subnet>,
    pub accepts_untagged: bool,
}

impl Rules {
    fn answerer(&self, ports: &[(u16, Protocol)]) -> Answerer {
        let mut answerer = Answerer::new().reply_subnets(self.reply_subnets.iter().copied());
        for (port, protocol) in ports {
            answerer = answerer.port(*port, *protocol);
        }
        for (protocol, sources) in Protocol::ALL.into_iter().zip(&self.ignored) {
            answerer = sources.iter().fold(answerer, |some, source| some.ignore(protocol, *source));
        }
        if self.accepts_untagged { answerer.accept_untagged() } else { answerer }
    }
}

/// Engines that serve.
#[derive(Debug)]
pub struct Service {
    engines: Vec<Running>,
    start: Instant,
}

#[derive(Debug)]
struct Running {
    handle: Handle,
    /// One for each shard.
    boards: Vec<Board>,
    shard_count: usize,
    ports: Vec<(u16, Protocol)>,
    unicast: Unicast,
    thread: JoinHandle<nicring::Result<Stats>>,
}

impl Service {
    /// Opens all engines before any of them serves.
    pub fn start(
        setup: Setup<'_>,
        plans: [ListenPlan; 2],
        rules: &Rules,
        tables: &Arc<Tables>,
    ) -> Result<Self, Failure> {
        let mut opened = Vec::new();
        for plans in by_engine(plans) {
            let builder = setup.listen.builder(&plans).tick(TICK).replies_max(REPLIES_MAX);
            let mut builder = builder.delay_max(setup.delay_max).shards(setup.shard_count);
            if setup.filters {
                let only = plans.iter().map(|plan| plan.protocol);
                builder = builder.filter(only.fold(Filter::new(), Filter::search));
            }
            opened.push((builder.open_shards()?, plans));
        }
        let mut engines = Vec::new();
        for (shards, plans) in opened {
            engines.push(Running::start(shards, &plans, rules, tables)?);
        }
        Ok(Self { engines, start: Instant::now() })
    }

    /// The port of a protocol.
    pub fn port(&self, protocol: Protocol) -> u16 {
        let mut ports = self.engines.iter().flat_map(|engine| &engine.ports);
        ports.find(|(_, spoken)| *spoken == protocol).map_or(0, |(port, _)| *port)
    }

    /// The backend that runs. All engines were opened with the same choice.
    fn backend(&self) -> Backend {
        self.engines[0].handle.backend().backend
    }

    /// Describes how the service was opened, in lines for people.
    pub fn describe(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for engine in &self.engines {
            let ports = engine.ports.iter().map(|(port, protocol)| format!("{protocol} {port}"));
            let unicast = match engine.unicast {
                Unicast::Take => "taken",
                Unicast::Leave => "left to others",
            };
            let shards = match engine.shard_count {
                1 => String::new(),
                count => format!(", {count} shards"),
            };
            lines.push(format!(
                "{}: {} sockets, unicasts {unicast}{shards}; backend: {}",
                ports.collect::<Vec<_>>().join(", "),
                engine.handle.sockets().len(),
                engine.handle.backend()
            ));
        }
        lines
    }

    /// The line that says that the service listens.
    pub fn ready_line(&self) -> String {
        let [ca, pva] = Protocol::ALL.map(|protocol| self.port(protocol));
        let nic_count = self.report().nics.iter().filter(|nic| nic.index != 0).count();
        let nics = if nic_count == 1 { "NIC" } else { "NICs" };
        let backend = self.backend();
        format!("ready: CA port {ca}, PVA port {pva}, {nic_count} {nics}, {backend}")
    }

    /// Whether an engine has ended by itself.
    pub fn is_broken(&self) -> bool {
        self.engines.iter().any(|engine| engine.thread.is_finished())
    }

    /// What happened so far.
    pub fn report(&self) -> Report {
        let mut report = Report::new(self.start.elapsed(), self.backend());
        for engine in &self.engines {
            report.add(&engine.handle.stats(), &read(&engine.boards));
        }
        report
    }

    /// Ends all engines. They first answer what was received.
    pub fn stop(self) -> Result<Report, Failure> {
        let elapsed = self.start.elapsed();
        for engine in &self.engines {
            engine.handle.stop();
        }
        let mut report = Report::new(elapsed, self.backend());
        for engine in self.engines {
            let stats = match engine.thread.join() {
                Ok(stats) => stats?,
                Err(_) => return Err(Failure::Run("the engine's thread panicked".to_owned())),
            };
            report.add(&stats, &read(&engine.boards));
        }
        Ok(report)
    }
}

impl Running {
    fn start(
        shards: Shards,
        plans: &[ListenPlan],
        rules: &Rules,
        tables: &Arc<Tables>,
    ) -> Result<Self, Failure> {
        let protocols = plans.iter().map(|plan| plan.protocol);
        let ports: Vec<_> = shards.ports().iter().copied().zip(protocols).collect();
        let (handle, shard_count) = (shards.handle(), shards.len());
        let boards: Vec<_> = (0..shard_count).map(|_| Board::default()).collect();
        let (tables, rules) = (Arc::clone(tables), rules.clone());
        let (spoken, shown) = (ports.clone(), boards.clone());
        let serve = move || {
            shards.run(|number| {
                let answerer = rules.answerer(&spoken);
                let mut handler = Handler::new(tables.reader(), answerer, shown[number].clone());
                move |batch: &Batch| handler.handle(batch)
            })
        };
        let thread = thread::Builder::new().name("engine".to_owned()).spawn(serve);
        let thread = thread.map_err(|error| Failure::Run(format!("starting a thread: {error}")))?;
        Ok(Self { handle, boards, shard_count, ports, unicast: plans[0].way.unicast, thread })
    }
}

/// Prints how a service was opened, and that it listens.
pub fn announce(service: &Service, console: Console) {
    for line in service.describe() {
        console.say(&line);
    }
    console.say(&service.ready_line());
}
