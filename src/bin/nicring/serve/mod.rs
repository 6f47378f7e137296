//! `nicring serve`: a name server.

mod answer;
pub mod demo;
mod files;
pub mod hosts;
mod live;
mod report;
mod service;
pub mod sources;
pub mod tables;

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use nicring::{
    Subnet,
    search::{Fields, Protocol},
};
use serde_json::json;

use self::{
    files::FileEvents,
    live::Live,
    service::{Rules, Service, Setup, announce},
    sources::{Judgement, Reading, Sources},
    tables::{Reloader, Tables, describe},
};
use crate::cli::{
    environment::Environment,
    failure::Failure,
    listen::ListenArguments,
    parse::{delay, seconds, shards},
    signals::Signals,
    text::{Console, short},
};

/// Answers CA and PVA SEARCH from a file of names, on every NIC
///
/// The file has lines of PROTOCOL NAME SERVER; # begins a comment:
///
///     ca   ioc1:temp   192.0.2.7:5064
///     pva  ioc1:temp   192.0.2.7:5075
///
/// A name in double quotes may have blanks. One that ends with * stands for all that begin so. The
/// port is 5064 for CA and 5075 for PVA unless given; the server may be a host's name, or * for
/// this host. A name that is not in the files may be a field of a record that is (--fields).
/// Names that are not found are left to other servers.
///
/// SIGHUP reads the files again while the old names are served; a bad file keeps its old names.
/// SIGINT or SIGTERM answers what was received, prints totals and ends. Once it listens, it prints
/// a line that begins with `ready`.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  nicring serve --demo
  nicring serve --pvs pvs.txt
  nicring serve --pvs pvs.txt --interface eth0 --interface 192.0.2.0/24 --unicast leave
  EPICS_CAS_INTF_ADDR_LIST=192.0.2.7 nicring serve --pvs pvs.txt --duration-s 60 --json

Environment, each with what it is for; options go before it, the first that is set counts:
  EPICS_CAS_SERVER_PORT        --ca-port; a port of 5001 to 65535
  EPICS_CA_SERVER_PORT         the same; else 5064
  EPICS_PVAS_BROADCAST_PORT    --pva-port; 0 for an unused one
  EPICS_PVA_BROADCAST_PORT     the same; else 5076
  EPICS_CAS_INTF_ADDR_LIST     addresses of the NICs to hear CA on; else all NICs
  EPICS_PVAS_INTF_ADDR_LIST    the same for PVA (where the two differ, two engines run)
  EPICS_CAS_IGNORE_ADDR_LIST   do not answer CA SEARCHes from these addresses
  EPICS_PVAS_IGNORE_ADDR_LIST  the same for PVA; ADDRESS:PORT is that port only
  NICRING_BACKEND              io_uring or portable: what --backend auto means
  NICRING_LOG, RUST_LOG        what to log, such as debug; default warn
Lists are separated by blanks; entries are ADDRESS or ADDRESS:PORT. 0.0.0.0 in an INTF list
stands for all NICs, a multicast group is joined, a port has no effect. A value that cannot be
read is an error."
)]
pub struct Arguments {
    /// A file of names, or a directory of such files; repeatable; - is standard input
    ///
    /// A pipe is read once. Of a directory all files are read but hidden ones and those that end
    /// with ~.
    #[arg(long, value_name = "FILE", required_unless_present = "demo")]
    pvs: Vec<PathBuf>,

    /// Read the files again as soon as they change, as on SIGHUP
    #[arg(long)]
    watch: bool,

    /// Leave out lines that are wrong, and take the rest of the file
    ///
    /// Otherwise a wrong line is fatal at the start, and on a reload its file keeps its old names.
    #[arg(long)]
    skip_bad_lines: bool,

    /// Take a file that has less than half of the names that it had
    ///
    /// Otherwise it keeps its old names on a reload: a program that writes it may have failed.
    #[arg(long)]
    allow_shrink: bool,

    /// What is a field of a record: any, known or none
    ///
    /// A name that is not in the files is looked up again as the field of a record: what stands
    /// before its first dot. known takes only what looks like a field, such as .EGU and .VAL$.
    /// Whoever is sent to an IOC for a field that it does not have comes back again and again.
    #[arg(long, default_value_t = Fields::Any, value_name = "WHICH")]
    fields: Fields,

    /// Answer PVA SEARCHes that servers of this host pass on without saying that they do
    ///
    /// Some old ones do so. Any program of this host can then have answers sent to other hosts.
    #[arg(long)]
    accept_untagged: bool,

    #[command(flatten)]
    listen: ListenArguments,

    /// How long an answer may wait, so that several SEARCHes cost one wake-up: up to 100ms, 0 for
    /// not at all
    ///
    /// It saves half of the CPU time where 5,000 SEARCHes a second come and three quarters at
    /// 20,000, and costs the askers that time at most; libca waits for an answer for 32 ms at the
    /// least. Where fewer than 4,000 come, where askers would ask less because of it, and where
    /// receive buffers are small, an answer waits less or not at all.
    #[arg(long, value_name = "DURATION", default_value = "1ms", value_parser = delay)]
    delay_max: Duration,

    /// How many threads share the work, each with a ring of its own: 1 to 64, or auto for one per
    /// two processors
    ///
    /// One answers about a million SEARCHes a second. Each further one costs a copy of every
    /// broadcast in the kernel. Linux only: elsewhere there is one.
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = shards)]
    shards: usize,

    /// Have the kernel drop broadcasts that are no SEARCH, before they cost anything
    ///
    /// Where much else comes to these ports: beacons, answers, other protocols. What is lost in
    /// full receive buffers cannot be told then. Linux only: elsewhere nicring drops it.
    #[arg(long)]
    filter: bool,

    /// Send PVA answers to the address that a SEARCH names, if it is in this subnet; repeatable
    ///
    /// Otherwise they go to the sender only, so that nobody can have answers sent to others.
    #[arg(long, value_name = "CIDR")]
    reply_subnet: Vec<Subnet>,

    /// End after this many seconds [default: never; with --demo 10]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    duration_s: Option<Duration>,

    /// Print the totals as one JSON object on stdout, and everything else on stderr
    #[arg(long)]
    json: bool,

    /// Print live counters on stderr each second, also if that is no terminal
    #[arg(long)]
    live: bool,

    /// Show it at work: generated names, unused ports of the loopback interface, and load of its
    /// own
    #[arg(long, conflicts_with_all = [
        "pvs", "interface", "ca_port", "pva_port", "unicast", "reply_subnet",
    ])]
    demo: bool,

    /// How many names the demo generates, half of them for each protocol
    #[arg(long, value_name = "COUNT", default_value_t = 100_000, requires = "demo",
          value_parser = clap::value_parser!(u64).range(2..=100_000_000))]
    demo_names: u64,
}

impl Arguments {
    pub fn is_demo(&self) -> bool {
        self.demo
    }

    fn setup(&self) -> Setup<'_> {
        Setup {
            listen: &self.listen,
            delay_max: self.delay_max,
            shard_count: self.shards,
            filters: self.filter,
        }
    }
}

pub fn run(arguments: &Arguments, environment: &Environment) -> Result<ExitCode, Failure> {
    let console = Console::new(arguments.json);
    let rules = Rules {
        ignored: [environment.ignored(Protocol::Ca)?, environment.ignored(Protocol::Pva)?],
        reply_subnets: arguments.reply_subnet.clone(),
        accepts_untagged: arguments.accept_untagged,
    };
    // Before the file is read, so that wrong settings are reported at once.
    let plans = arguments.listen.plans(environment)?;
    let signals = Signals::catch()?;
    signals.catch_reload();
    let start = Instant::now();
    let judgement =
        Judgement { skips_bad_lines: arguments.skip_bad_lines, may_shrink: arguments.allow_shrink };
    let sources = Sources::new(&arguments.pvs, judgement, arguments.fields);
    // Before they are read: what changes meanwhile is read again.
    let events = match arguments.watch {
        true => Some(FileEvents::watch(sources.watched())?),
        false => None,
    };
    let Some((sources, reading)) = read_first(sources, &signals)? else {
        return Ok(ExitCode::SUCCESS); // told to end meanwhile
    };
    let Reading { table, refused, warnings, lacks_hosts, .. } = reading;
    if !refused.is_empty() {
        return Err(Failure::Usage(refused.join("\nnicring: ")));
    }
    warnings.iter().for_each(|warning| Console::to_stderr().say(&format!("nicring: {warning}")));
    let (what, took) = (describe(&table), short(start.elapsed()));
    console.say(&format!("loaded {what}, in {took}"));
    if table.is_empty() {
        Console::to_stderr().say("nicring: there is no name to answer for");
    }
    let tables = Tables::new(table);
    for note in plans.iter().filter_map(|plan| plan.note.as_deref()) {
        console.say(note);
    }
    let service = Service::start(arguments.setup(), plans, &rules, &tables)?;
    announce(&service, console);
    let reloader = Reloader::new(sources, &tables, lacks_hosts);
    watch(arguments, (&service, &tables), &signals, reloader, events);
    let report = service.stop()?;
    if arguments.json {
        let mut object = report.json();
        object["reload_count"] = json!(tables.reload_count());
        object["refused_files"] = json!(tables.refused());
        Console::new(false).say(&object.to_string());
    } else {
        console.say(&report.text());
        for reason in tables.refused() {
            console.say(&format!("not reloaded, its old names were in use: {reason}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// How often the main thread looks at signals. An idle program is not to wake much.
const GLANCE: Duration = Duration::from_millis(100);

/// Reads the files on a thread of its own: a pipe that nobody writes to must not keep the program
/// from ending. `None` if it is to end.
fn read_first(
    mut sources: Sources,
    signals: &Signals,
) -> Result<Option<(Sources, Reading)>, Failure> {
    let reader = thread::Builder::new().name("load".to_owned());
    let reading = reader.spawn(move || {
        let reading = sources.read();
        (sources, reading)
    });
    let reading = reading.map_err(|error| Failure::Run(format!("starting a thread: {error}")))?;
    while !reading.is_finished() {
        if signals.wants_stop() {
            return Ok(None);
        }
        thread::sleep(GLANCE.min(Duration::from_millis(5)));
    }
    Ok(Some(reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))))
}

/// Reacts to signals and shows live counters until it is time to end.
fn watch(
    arguments: &Arguments,
    (service, tables): (&Service, &Tables),
    signals: &Signals,
    mut reloader: Reloader,
    events: Option<FileEvents>,
) {
    let deadline = arguments.duration_s.map(|duration| Instant::now() + duration);
    let mut live = Live::new(service, arguments.live || io::stderr().is_terminal());
    while !signals.wants_stop() && !service.is_broken() {
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return;
        }
        if !reloader.is_busy() {
            let has_changed = events.as_ref().is_some_and(FileEvents::take_change);
            if signals.take_reload() || has_changed {
                reloader.start(false);
            } else if reloader.is_due() {
                reloader.start(true);
            }
        }
        live.show_if_due(service, tables.refused_count());
        thread::sleep(GLANCE);
    }
}
