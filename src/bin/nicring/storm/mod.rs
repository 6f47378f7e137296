//! `nicring storm`: SEARCH load, and what comes back.

pub mod histogram;
pub mod load;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use nicring::{
    Nics,
    search::{NAME_LEN_MAX, Protocol},
};
use serde_json::{Value, json};

use self::load::{Destination, Load, Names, Outcome, Speed, run_all};
use crate::cli::{
    environment::Environment,
    failure::Failure,
    parse::seconds,
    signals::Signals,
    text::{Console, grouped, percent, short, table},
};

/// Sends CA and PVA SEARCHes, and counts and times the answers
///
/// Runs for --duration-s seconds and then tells how many of the names that a server should know
/// were answered, how many twice (two servers, or two ways to one), how many not at all, and how
/// long the answers took. Without --rate it waits for answers before it asks on, so that it is as
/// fast as the server; with --rate it is as fast as it is told.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  nicring storm 127.0.0.1 --name 'ioc1:ch{}' --name-count 5000 --names-per-datagram 10
  nicring storm 192.0.2.255 --names-file pvs.txt --hits 0.2 --rate 20000 --senders 4
  nicring storm 192.0.2.7:5064 --protocol ca --name ioc1:temp --duration-s 1 --json

It loads every server that hears it: use it on networks that are yours.
Exit codes: 0 something was answered; 1 nothing was, or it failed; 2 usage.")]
pub struct Arguments {
    /// Hosts or broadcast addresses, each HOST or HOST:PORT; the datagrams go to them in turn
    #[arg(required = true, value_name = "DEST")]
    destinations: Vec<String>,

    #[arg(long, value_enum, default_value_t = ProtocolChoice::Both, help = "ca, pva or both")]
    protocol: ProtocolChoice,

    /// UDP port for CA [default: EPICS_CA_SERVER_PORT, else 5064]
    #[arg(long, value_name = "PORT")]
    ca_port: Option<u16>,

    /// UDP port for PVA [default: EPICS_PVA_BROADCAST_PORT, else 5076]
    #[arg(long, value_name = "PORT")]
    pva_port: Option<u16>,

    /// Datagrams per second, over all senders
    #[arg(long, value_name = "COUNT", value_parser = positive, conflicts_with = "window")]
    rate: Option<f64>,

    /// How many datagrams of a sender may wait for their answers
    #[arg(long, value_name = "COUNT", default_value_t = 16,
          value_parser = clap::value_parser!(u16).range(1..))]
    window: u16,

    /// Ask for the names in this file: lines of NAME or, as `nicring serve` reads them, PROTOCOL
    /// NAME SERVER
    #[arg(long, value_name = "FILE", conflicts_with = "name")]
    names_file: Option<PathBuf>,

    /// Ask for this name; {} in it stands for each number below --name-count
    #[arg(long, required_unless_present = "names_file")]
    name: Option<String>,

    /// How many names the pattern of --name stands for
    #[arg(long, value_name = "COUNT", default_value_t = 1000,
          value_parser = clap::value_parser!(u64).range(1..))]
    name_count: u64,

    /// The share of these names among all that are asked for; the others nobody has
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, value_parser = share)]
    hits: f64,

    /// Names in a datagram, as far as they fit
    #[arg(long, value_name = "COUNT", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=100))]
    names_per_datagram: u16,

    /// Senders for each protocol, each with a socket of its own
    #[arg(long, value_name = "COUNT", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=256))]
    senders: u16,

    /// How long to send, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    duration_s: Duration,

    /// An answer that takes longer is lost
    #[arg(long, value_name = "MS", default_value_t = 1000,
          value_parser = clap::value_parser!(u64).range(1..=60_000))]
    timeout_ms: u64,

    /// Print the result as one JSON object on stdout, and everything else on stderr
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProtocolChoice {
    Ca,
    Pva,
    Both,
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "expected a number above 0".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| (0.0..=1.0).contains(number));
    number.ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

pub fn run(arguments: &Arguments, environment: &Environment) -> Result<ExitCode, Failure> {
    let console = Console::new(arguments.json);
    let loads = arguments.loads(environment)?;
    let signals = Signals::catch()?;
    let start = Instant::now();
    let outcomes = run_all(&loads, || !signals.wants_stop())
        .map_err(|error| Failure::Run(error.to_string()))?;
    let sent_for = start.elapsed().min(arguments.duration_s);
    if arguments.json {
        Console::new(false).say(&json_of(&outcomes, sent_for).to_string());
    } else {
        console.say(&text_of(&outcomes, sent_for));
    }
    let is_answered = outcomes.iter().any(|(_, outcome)| outcome.counts.answered_count > 0);
    let is_expected = outcomes.iter().any(|(_, outcome)| outcome.counts.expected_count > 0);
    if is_expected && !is_answered {
        return Err(Failure::Run(
            "nothing was answered: is a server there that has these names, and does it hear this \
             address? `nicring doctor` on its host tells"
                .to_owned(),
        ));
    }
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    /// One load per sender.
    fn loads(&self, environment: &Environment) -> Result<Vec<Load>, Failure> {
        let protocols: &[Protocol] = match self.protocol {
            ProtocolChoice::Ca => &[Protocol::Ca],
            ProtocolChoice::Pva => &[Protocol::Pva],
            ProtocolChoice::Both => &Protocol::ALL,
        };
        let nics = Nics::enumerate()?;
        let sender_count = protocols.len() * usize::from(self.senders);
        let speed = match self.rate {
            Some(rate) => Speed::Rate(rate / sender_count as f64),
            None if self.hits == 0.0 => {
                let text = "--hits 0: no answer would come to wait for: say how fast with --rate";
                return Err(Failure::Usage(text.to_owned()));
            }
            None => Speed::Window(self.window.into()),
        };
        let mut loads = Vec::new();
        for &protocol in protocols {
            let load = Load {
                protocol,
                destinations: self.destinations(protocol, environment, &nics)?,
                names: self.names(protocol)?,
                hits: self.hits,
                names_per_datagram: self.names_per_datagram.into(),
                speed,
                duration: self.duration_s,
                timeout: Duration::from_millis(self.timeout_ms),
            };
            loads.extend((0..self.senders).map(|_| load.clone()));
        }
        Ok(loads)
    }

    fn destinations(
        &self,
        protocol: Protocol,
        environment: &Environment,
        nics: &Nics,
    ) -> Result<Vec<Destination>, Failure> {
        let port = match protocol {
            Protocol::Ca => self.ca_port,
            Protocol::Pva => self.pva_port,
        };
        let port = port.map_or_else(|| environment.client_port(protocol), Ok)?;
        let mut destinations = Vec::new();
        for text in &self.destinations {
            let (host, own_port) = match text.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text.as_str(), None),
            };
            if own_port.is_some() && self.protocol == ProtocolChoice::Both {
                return Err(Failure::Usage(format!(
                    "{text}: both protocols cannot have one port: add --protocol ca or pva, or \
                     give the ports with --ca-port and --pva-port"
                )));
            }
            let port = match own_port.map(str::parse) {
                None => port,
                Some(Ok(port)) if port != 0 => port,
                Some(_) => return Err(refuse(text, "expected a port of 1 to 65535")),
            };
            let address = resolve(host, port).ok_or_else(|| {
                refuse(text, "expected an IPv4 address or a host's name, which was not found")
            })?;
            if !is_near(*address.ip(), nics) {
                tracing::warn!(%address, "not in a private network nor in a subnet of this host");
            }
            destinations.push(Destination::new(address, nics));
        }
        Ok(destinations)
    }

    fn names(&self, protocol: Protocol) -> Result<Names, Failure> {
        let Some(file) = &self.names_file else {
            let pattern = self.name.clone().unwrap_or_default();
            if pattern.is_empty() || pattern.len() > NAME_LEN_MAX {
                let expected = format!("expected 1 to {NAME_LEN_MAX} bytes");
                return Err(Failure::Usage(format!("--name: {expected}")));
            }
            return Ok(Names::Pattern { pattern, count: self.name_count });
        };
        let refuse = |reason: &str| Failure::Usage(format!("{}: {reason}", file.display()));
        let text = fs::read_to_string(file).map_err(|error| refuse(&error.to_string()))?;
        let names: Vec<String> =
            text.lines().filter_map(|line| name_in(line, protocol)).map(str::to_owned).collect();
        if let Some(long) = names.iter().find(|name| name.len() > NAME_LEN_MAX) {
            let start: String = long.chars().take(20).collect();
            return Err(refuse(&format!("{start}...: longer than {NAME_LEN_MAX} bytes")));
        }
        if names.is_empty() {
            return Err(refuse(&format!("no {protocol} name in it")));
        }
        Ok(Names::List(names))
    }
}

fn refuse(destination: &str, reason: &str) -> Failure {
    Failure::Usage(format!("{destination}: {reason}"))
}

/// The name on a line of NAME or PROTOCOL NAME SERVER, if it is one of this protocol.
fn name_in(line: &str, protocol: Protocol) -> Option<&str> {
    let line = line.trim();
    let mut words = line.split_whitespace();
    let first = words.next().filter(|word| !word.starts_with('#'))?;
    match words.next() {
        None => Some(first),
        Some(second) => (first.parse() == Ok(protocol)).then_some(second),
    }
}

fn resolve(host: &str, port: u16) -> Option<SocketAddrV4> {
    if let Ok(address) = host.parse() {
        return Some(SocketAddrV4::new(address, port));
    }
    let is_v4 = |address| match address {
        SocketAddr::V4(address) => Some(address),
        SocketAddr::V6(_) => None,
    };
    (host, port).to_socket_addrs().ok()?.find_map(is_v4)
}

fn is_near(address: Ipv4Addr, nics: &Nics) -> bool {
    address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_multicast()
        || nics.iter().any(|nic| nic.contains(address))
}

/// What senders saw, as a table with one row per protocol.
pub fn text_of(outcomes: &[(Protocol, Outcome)], sent_for: Duration) -> String {
    let heads = [
        "protocol",
        "datagrams/s",
        "asked",
        "expected",
        "answered",
        "lost",
        "lost %",
        "duplicate",
        "late",
        "p50",
        "p99",
        "max",
    ];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    let time = |time: Option<Duration>| time.map_or_else(|| "-".to_owned(), short);
    for (protocol, outcome) in outcomes {
        let rate = outcome.sent_datagram_count as f64 / sent_for.as_secs_f64().max(1e-9);
        rows.push(vec![
            protocol.to_string(),
            grouped(rate.round() as u64),
            grouped(outcome.counts.asked_count),
            grouped(outcome.counts.expected_count),
            grouped(outcome.counts.answered_count),
            grouped(outcome.counts.lost_count),
            percent(outcome.counts.lost_count, outcome.counts.expected_count),
            grouped(outcome.counts.duplicate_count),
            grouped(outcome.counts.late_count),
            time(outcome.latency.quantile(0.5)),
            time(outcome.latency.quantile(0.99)),
            time(outcome.latency.max()),
        ]);
    }
    let mut text = table(&rows);
    for (protocol, outcome) in outcomes {
        let remarks = [
            ("answers to names that nobody should have", outcome.counts.unexpected_count),
            ("replies that could not be read", outcome.counts.malformed_count),
            ("datagrams that could not be sent", outcome.send_error_count),
        ];
        for (what, count) in remarks.into_iter().filter(|(_, count)| *count > 0) {
            text += &format!("\n{protocol}: {what}: {}", grouped(count));
        }
    }
    text
}

/// What senders saw, by protocol.
pub fn json_of(outcomes: &[(Protocol, Outcome)], sent_for: Duration) -> Value {
    let mut object = json!({ "sent_for_s": sent_for.as_secs_f64() });
    let ns = |time: Option<Duration>| time.map(|time| time.as_nanos() as u64);
    for (protocol, outcome) in outcomes {
        object[protocol.name()] = json!({
            "sent_datagram_count": outcome.sent_datagram_count,
            "asked_count": outcome.counts.asked_count,
            "expected_count": outcome.counts.expected_count,
            "answered_count": outcome.counts.answered_count,
            "lost_count": outcome.counts.lost_count,
            "duplicate_count": outcome.counts.duplicate_count,
            "late_count": outcome.counts.late_count,
            "unexpected_count": outcome.counts.unexpected_count,
            "reply_datagram_count": outcome.counts.reply_count,
            "malformed_count": outcome.counts.malformed_count,
            "send_error_count": outcome.send_error_count,
            "latency_p50_ns": ns(outcome.latency.quantile(0.5)),
            "latency_p90_ns": ns(outcome.latency.quantile(0.9)),
            "latency_p99_ns": ns(outcome.latency.quantile(0.99)),
            "latency_max_ns": ns(outcome.latency.max()),
        });
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_names_file_may_be_a_pv_file() {
        for (line, ca, pva) in [
            ("ioc1:temp", Some("ioc1:temp"), Some("ioc1:temp")),
            (" ca ioc1:temp 192.0.2.7:5064", Some("ioc1:temp"), None),
            ("pva ioc1:temp 192.0.2.7:5075 # why", None, Some("ioc1:temp")),
            ("# ca ioc1:temp", None, None),
            ("", None, None),
        ] {
            assert_eq!(
                [Protocol::Ca, Protocol::Pva].map(|p| name_in(line, p)),
                [ca, pva],
                "{line}"
            );
        }
    }
}
