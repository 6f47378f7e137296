//! The measurement behind the program `shards`.

use std::{
    error::Error, fmt, io, net::SocketAddrV4, process::ExitCode, str::FromStr, thread,
    time::Duration,
};

use clap::Parser;
use nicring::search::Protocol;
use nicring_bench::{
    affinity,
    clock::{shared_time, waited_for_cpu},
    contestant::Contestant,
    crowd::{self, Content, NAMES_PER_DATAGRAM},
    network::{Network, dropped_count},
    outcome::{Outcome, verdict},
    receiver::{self, PORT, Receiver},
    service::Task,
    statistics::{grouped, median, ratio},
};

/// Fills the queues of receivers that stand still, lets them go on, and tells how long they take
/// to empty them: one engine, one shard, two shards on two CPUs.
///
/// Needs root, `ip` and as many CPUs as shards. Fails if anything was lost.
#[derive(Debug, Parser)]
struct Arguments {
    /// Who takes part: nicring or nicring-portable, with settings. The others are compared with
    /// the first. @0 after a name keeps the process on the first CPU. @0@1 is a process on each of
    /// two CPUs, which share nothing, and have a port and half of the datagrams each: what this
    /// machine allows
    #[arg(long, value_delimiter = ',', default_value = DEFAULT_CONTESTANTS)]
    contestants: Vec<Entrant>,
    /// How many datagrams wait
    #[arg(long, default_value_t = 16_384,
          value_parser = clap::value_parser!(u32).range(64..=100_000))]
    datagrams: u32,
    /// How many senders they are from, each with a port of its own
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    senders: u32,
    /// How many names the table has
    #[arg(long, default_value_t = 1_000_000,
          value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    names: u32,
    /// How often each contestant empties its queues [default: 21]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// 3 rounds, unless named
    #[arg(long)]
    quick: bool,
}

const DEFAULT_CONTESTANTS: &str =
    "nicring+shards=1@0,nicring@0,nicring+shards=2+pin_shards,nicring@0@1";
/// The kernel takes less than twice this from a receive buffer for one datagram of 1,024 bytes or
/// less, and doubles what is asked for.
const BUFFER_BYTES_PER_DATAGRAM: usize = 2048;
/// A turn in which the receiver's threads waited for CPUs for a larger share of the time than this
/// measured what else ran on this machine. It is taken again, so often at most.
const WAITED_MAX: f64 = 0.03;
const TRY_MAX: u32 = 8;
/// What has not arrived by then is lost.
const TIME_MAX: Duration = Duration::from_secs(10);
/// How long the kernel may take to deliver the last datagrams.
const DELIVERY: Duration = Duration::from_millis(2);

pub fn main() -> ExitCode {
    if let Some(code) = receiver::serve_if_asked() {
        return code;
    }
    verdict("shards", measure(&Arguments::parse()).map(|()| true))
}

/// What comes, and how.
#[derive(Clone, Copy)]
struct Work {
    content: Content,
    is_broadcast: bool,
}

/// A contestant in a process on each of some CPUs, or in one process that may use all.
#[derive(Debug, Clone)]
struct Entrant {
    contestant: Contestant,
    cpus: Vec<usize>,
}

impl FromStr for Entrant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (contestant, cpus) = text.split_once('@').unwrap_or((text, ""));
        let cpus = cpus.split('@').filter(|cpu| !cpu.is_empty()).map(str::parse);
        let cpus = cpus
            .collect::<Result<_, _>>()
            .map_err(|_| format!("{text:?}: expected the number of a CPU after @"))?;
        Ok(Self { contestant: contestant.parse()?, cpus })
    }
}

impl fmt::Display for Entrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.contestant.title())?;
        match self.cpus[..] {
            [] => Ok(()),
            [cpu] => write!(f, ", on CPU {cpu}"),
            _ => write!(f, ", {} processes", self.cpus.len()),
        }
    }
}

/// The processes of a contestant, each at a port of its own.
struct Racer {
    entrant: Entrant,
    receivers: Vec<(Receiver, u16)>,
}

/// What emptying the queues once took.
struct Sample {
    spent: Duration,
    /// All threads of the receiver.
    cpu_ns: u64,
    /// How long they waited for a CPU.
    waited: Duration,
    /// Putting the datagrams into the queues.
    filling: Duration,
}

impl Sample {
    fn waited_share(&self) -> f64 {
        self.waited.as_secs_f64() / self.spent.as_secs_f64()
    }
}

fn measure(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let network = Network::new(1)?;
    network.prime()?;
    let search = |has_hit| Content::Search { name_count: arguments.names, has_hit };
    let both_ways = |content| [false, true].map(|is_broadcast| Work { content, is_broadcast });
    let plain = both_ways(Content::Plain).to_vec();
    let searches = [both_ways(search(false)), both_ways(search(true))].concat();
    let mut ports = PORT..;
    let counters = start(arguments, &network, &Task::Count, &mut ports)?;
    let answer = Task::Answer(Protocol::Ca, arguments.names);
    let answerers = start(arguments, &network, &answer, &mut ports)?;
    println!("{TABLE_HEAD}");
    for (mut racers, works) in [(counters, plain), (answerers, searches)] {
        let samples = take_turns(arguments, &network, &mut racers, &works)?;
        for (work, samples) in works.iter().zip(&samples) {
            show(arguments, *work, samples);
        }
    }
    Ok(())
}

fn start(
    arguments: &Arguments,
    network: &Network,
    task: &Task,
    mut ports: impl Iterator<Item = u16>,
) -> Result<Vec<Racer>, Box<dyn Error>> {
    let mut racers = Vec::new();
    for entrant in arguments.contestants.clone() {
        let Contestant::Run(mut tuning) = entrant.contestant else {
            return Err(format!("{entrant}: only nicring and nicring-portable take part").into());
        };
        let bytes = arguments.datagrams as usize * BUFFER_BYTES_PER_DATAGRAM;
        tuning.recv_buffer_bytes = tuning.recv_buffer_bytes.or(Some(bytes));
        let mut receivers = Vec::new();
        for (number, port) in ports.by_ref().take(entrant.cpus.len().max(1)).enumerate() {
            let receiver = Receiver::start(Contestant::Run(tuning), task, port, network)?;
            if let Some(cpu) = entrant.cpus.get(number) {
                affinity::pin_process(receiver.pid(), *cpu)?;
            }
            receivers.push((receiver, port));
        }
        racers.push(Racer { entrant, receivers });
    }
    Ok(racers)
}

/// The samples of each contestant at each work, round by round. Each round begins with another
/// contestant.
fn take_turns(
    arguments: &Arguments,
    network: &Network,
    racers: &mut [Racer],
    works: &[Work],
) -> Result<Vec<Vec<Vec<Sample>>>, Box<dyn Error>> {
    let none = || racers.iter().map(|_| Vec::new()).collect();
    let mut samples: Vec<Vec<Vec<Sample>>> = works.iter().map(|_| none()).collect();
    let default = if arguments.quick { 3 } else { 21 };
    for round in 0..arguments.rounds.unwrap_or(default) as usize {
        for (work, samples) in works.iter().zip(&mut samples) {
            for number in 0..racers.len() {
                let number = (number + round) % racers.len();
                let racer = &mut racers[number];
                let sample = racer.undisturbed(arguments, network, *work);
                let because = |error| format!("{}, {work}: {error}", racer.entrant);
                samples[number].push(sample.map_err(because)?);
            }
        }
    }
    Ok(samples)
}

impl Racer {
    /// The first turn that nobody disturbed, or the one that was disturbed least.
    fn undisturbed(
        &mut self,
        arguments: &Arguments,
        network: &Network,
        work: Work,
    ) -> Result<Sample, Box<dyn Error>> {
        let mut best = self.empty(arguments, network, work)?;
        for _ in 1..TRY_MAX {
            if best.waited_share() <= WAITED_MAX {
                break;
            }
            let next = self.empty(arguments, network, work)?;
            if next.waited_share() < best.waited_share() {
                best = next;
            }
        }
        Ok(best)
    }

    /// Fills the queues of the receiver while it stands still, and has it empty them.
    fn empty(
        &mut self,
        arguments: &Arguments,
        network: &Network,
        work: Work,
    ) -> Result<Sample, Box<dyn Error>> {
        let address = match work.is_broadcast {
            true => Network::broadcast_address(0),
            false => Network::server_address(0),
        };
        let to = |(_, port): &(Receiver, u16)| SocketAddrV4::new(address, *port);
        let destinations: Vec<_> = self.receivers.iter().map(to).collect();
        let count = arguments.datagrams as usize / destinations.len();
        let (senders, all_count) = (arguments.senders as usize, count * destinations.len());
        let crowd = crowd::gather(network, work.content, senders, all_count)?;
        let (cpu_before, waited_before) = (self.cpu_ns()?, self.waited()?);
        for (receiver, _) in &mut self.receivers {
            receiver.announce(count as u64)?;
            receiver.stop()?;
        }
        let filling = crowd.send(&destinations)?;
        thread::sleep(DELIVERY);
        let began = shared_time()?;
        for (receiver, _) in &self.receivers {
            receiver.go_on()?;
        }
        let mut last = began;
        for (receiver, _) in &mut self.receivers {
            last = last.max(end_of(receiver, count)?);
        }
        // The answers to the last batch are under way.
        thread::sleep(DELIVERY);
        let cpu_ns = self.cpu_ns()? - cpu_before;
        let Outcome { expected_count, answered_count, duplicate_count, .. } = crowd.outcome()?;
        if answered_count != expected_count || duplicate_count > 0 {
            return Err(format!(
                "of {expected_count} names {answered_count} were answered, and {duplicate_count} \
                 again"
            )
            .into());
        }
        let waited = self.waited()? - waited_before;
        Ok(Sample { spent: last - began, cpu_ns, waited, filling })
    }

    fn waited(&self) -> io::Result<Duration> {
        self.receivers.iter().map(|(receiver, _)| waited_for_cpu(receiver.pid())).sum()
    }

    fn cpu_ns(&mut self) -> Result<u64, Box<dyn Error>> {
        let snapshots = self.receivers.iter_mut().map(|(receiver, _)| receiver.snapshot());
        snapshots.map(|snapshot| Ok(snapshot?.cpu_ns)).sum()
    }
}

/// When it had received all that was announced.
fn end_of(receiver: &mut Receiver, count: usize) -> Result<Duration, Box<dyn Error>> {
    if let Some(end) = receiver.end(TIME_MAX)? {
        return Ok(end);
    }
    let dropped_count = dropped_count(receiver.pid())?;
    let reason = format!(
        "not all of {count} datagrams were received: {dropped_count} found the sockets full"
    );
    Err(reason.into())
}

const TABLE_HEAD: &str = "\
| what comes | contestant | datagrams per second | times as fast | CPU ns | filling ns |
|---|---|---:|---:|---:|---:|";

/// Prints a row for each contestant. Costs are per datagram.
fn show(arguments: &Arguments, work: Work, samples: &[Vec<Sample>]) {
    let count = f64::from(arguments.datagrams);
    let seconds = |sample: &Sample| sample.spent.as_secs_f64();
    for (entrant, own) in arguments.contestants.iter().zip(samples) {
        let pairs: Vec<_> = samples[0].iter().map(seconds).zip(own.iter().map(seconds)).collect();
        let is_first = std::ptr::eq(own, &samples[0]);
        let ratio = ratio(&pairs).filter(|_| !is_first);
        println!(
            "| {work} | {entrant} | {} | {} | {:.0} | {:.0} |",
            grouped(count / median(own.iter().map(seconds))),
            ratio.map_or("-".to_owned(), |ratio| ratio.to_string()),
            median(own.iter().map(|sample| sample.cpu_ns as f64)) / count,
            median(own.iter().map(|sample| sample.filling.as_nanos() as f64)) / count,
        );
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.content {
            Content::Plain => f.write_str("80 bytes")?,
            Content::Search { has_hit, .. } => {
                let miss_count = NAMES_PER_DATAGRAM - usize::from(has_hit);
                write!(f, "{miss_count} misses{}", if has_hit { " and a hit" } else { "" })?;
            }
        }
        write!(f, ", {}", if self.is_broadcast { "broadcast" } else { "unicast" })
    }
}
