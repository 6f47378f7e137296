//! `nicring serve --demo`: the server under its own load, on the loopback interface.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    process::ExitCode,
    time::{Duration, Instant},
};

use nicring::{
    Nics,
    search::{NameTable, Protocol},
};

use super::{
    Arguments,
    live::Live,
    service::{Rules, Service, announce},
    tables::{Tables, describe},
};
use crate::{
    cli::{
        failure::Failure,
        host,
        signals::Signals,
        text::{Console, short},
    },
    storm::{
        json_of,
        load::{Destination, Load, Names, Outcome, Speed, run_all},
        text_of,
    },
};

const DURATION: Duration = Duration::from_secs(10);
const NAMES_PER_DATAGRAM: usize = 4;
const HITS: f64 = 0.75;
/// Enough to keep the server busy, and few enough that the receive buffers never fill.
const WINDOW: usize = 32;

pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let console = Console::new(arguments.json);
    let signals = Signals::catch()?;
    let start = Instant::now();
    let table = generate(arguments.demo_names)?;
    console.say(&format!("generated {}, in {}", describe(&table), short(start.elapsed())));
    let tables = Tables::new(table);
    let plans = arguments.listen.on_loopback();
    let service = Service::start(arguments.setup(), plans, &Rules::default(), &tables)?;
    announce(&service, console);

    let duration = arguments.duration_s.unwrap_or(DURATION);
    console.say(&format!(
        "asking for {}: one sender for each protocol, {NAMES_PER_DATAGRAM} names per datagram, \
         {:.0} % of them known, {WINDOW} datagrams under way at most",
        short(duration),
        HITS * 100.0
    ));
    let outcomes = drive(&service, arguments.demo_names, duration, &signals)?;
    let report = service.stop()?;
    if arguments.json {
        let mut object = report.json();
        object["load"] = json_of(&outcomes, duration);
        Console::new(false).say(&object.to_string());
    } else {
        let seen = text_of(&outcomes, duration);
        console.say(&format!("\nThe server\n{}\n\nIts clients\n{seen}", report.text()));
    }
    if report.searched().hit_count == 0 {
        return Err(Failure::Run("nothing was answered: `nicring doctor` may tell why".to_owned()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Generates names, half of them for each protocol.
fn generate(name_count: u64) -> Result<NameTable, Failure> {
    let mut builder = NameTable::builder();
    for (protocol, port) in [(Protocol::Ca, 5064), (Protocol::Pva, 5075)] {
        let server = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        for number in 0..name_count / 2 {
            let name = pattern(protocol).replace("{}", &number.to_string());
            let inserted = builder.insert(protocol, &name, server);
            inserted.map_err(|error| Failure::Run(format!("{name}: {error}")))?;
        }
    }
    Ok(builder.build())
}

fn pattern(protocol: Protocol) -> String {
    format!("demo:{protocol}:channel{{}}")
}

/// Sends until the demo ends, and shows live counters meanwhile.
fn drive(
    service: &Service,
    name_count: u64,
    duration: Duration,
    signals: &Signals,
) -> Result<Vec<(Protocol, Outcome)>, Failure> {
    let nics = Nics::enumerate()?;
    let loads = Protocol::ALL.map(|protocol| {
        let mut hosts = vec![Ipv4Addr::LOCALHOST];
        if host::HAS_LOOPBACK_BROADCAST {
            hosts.push(Ipv4Addr::new(127, 255, 255, 255));
        }
        let port = service.port(protocol);
        let to = |host| Destination::new(SocketAddrV4::new(host, port), &nics);
        Load {
            protocol,
            destinations: hosts.into_iter().map(to).collect(),
            names: Names::Pattern { pattern: pattern(protocol), count: name_count / 2 },
            hits: HITS,
            names_per_datagram: NAMES_PER_DATAGRAM,
            speed: Speed::Window(WINDOW),
            duration,
            timeout: Duration::from_secs(1),
        }
    });
    let mut live = Live::new(service, true);
    let outcomes = run_all(&loads, || {
        live.show_if_due(service, 0);
        !signals.wants_stop() && !service.is_broken()
    });
    outcomes.map_err(|error| Failure::Run(error.to_string()))
}
