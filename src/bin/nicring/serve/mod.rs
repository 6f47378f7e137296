//! `nicring serve`: a name server.

mod answer;
pub mod demo;
mod live;
mod report;
mod service;
mod tables;

use std::{
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use nicring::{Subnet, search::Protocol};
use serde_json::json;

use self::{
    live::Live,
    service::{Rules, Service, announce},
    tables::{Reloader, Tables, describe, load},
};
use crate::cli::{
    environment::Environment,
    failure::Failure,
    listen::ListenArguments,
    parse::seconds,
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
/// A name that is not in the file is looked up again without the part from its last dot on: a
/// record serves its fields. Names that are not found are left to other servers.
///
/// SIGHUP reads the file again while the old names are served; a bad file changes nothing.
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
    /// The file of names
    #[arg(long, value_name = "FILE", required_unless_present = "demo")]
    pvs: Option<PathBuf>,

    #[command(flatten)]
    listen: ListenArguments,

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
}

pub fn run(arguments: &Arguments, environment: &Environment) -> Result<ExitCode, Failure> {
    let console = Console::new(arguments.json);
    let path = arguments.pvs.as_deref().unwrap_or(Path::new(""));
    let rules = Rules {
        ignored: [environment.ignored(Protocol::Ca)?, environment.ignored(Protocol::Pva)?],
        reply_subnets: arguments.reply_subnet.clone(),
    };
    // Before the file is read, so that wrong settings are reported at once.
    let plans = arguments.listen.plans(environment)?;
    let signals = Signals::catch()?;
    signals.catch_reload();
    let start = Instant::now();
    let table = load(path)?;
    let (what, took) = (describe(&table), short(start.elapsed()));
    console.say(&format!("loaded {}: {what}, in {took}", path.display()));
    let tables = Tables::new(table);
    for note in plans.iter().filter_map(|plan| plan.note.as_deref()) {
        console.say(note);
    }
    let service = Service::start(&arguments.listen, plans, &rules, &tables)?;
    announce(&service, console);
    watch(arguments, &service, &signals, Reloader::new(path, &tables));
    let report = service.stop()?;
    if arguments.json {
        let mut object = report.json();
        object["reload_count"] = json!(tables.reload_count());
        Console::new(false).say(&object.to_string());
    } else {
        console.say(&report.text());
    }
    Ok(ExitCode::SUCCESS)
}

/// How often the main thread looks at signals.
const GLANCE: Duration = Duration::from_millis(50);

/// Reacts to signals and shows live counters until it is time to end.
fn watch(arguments: &Arguments, service: &Service, signals: &Signals, mut reloader: Reloader) {
    let deadline = arguments.duration_s.map(|duration| Instant::now() + duration);
    let mut live = Live::new(service, arguments.live || io::stderr().is_terminal());
    while !signals.wants_stop() && !service.is_broken() {
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return;
        }
        if !reloader.is_busy() && signals.take_reload() {
            reloader.start();
        }
        live.show_if_due(service);
        thread::sleep(GLANCE);
    }
}
