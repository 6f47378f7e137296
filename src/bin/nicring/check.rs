//! `nicring check`: what is in files of names.

use std::{
    collections::HashMap,
    fs::File,
    io::BufReader,
    net::{Ipv4Addr, SocketAddrV4},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args;
use nicring::search::{NameTable, Protocol, PvFile};

use crate::{
    ask,
    cli::{
        environment::Environment,
        failure::Failure,
        text::{Console, grouped, printable},
    },
    serve::{hosts::Hosts, sources::mistakes_of, tables::describe},
};

/// Tells the mistakes and the number of names of files, before a server reads them
///
/// With --against it tells what differs from another file, with --server what a running server
/// answers otherwise.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  nicring check pvs.txt && kill -HUP $(pidof nicring)
  nicring check new.txt --against pvs.txt
  nicring check pvs.txt --server 192.0.2.7

Exit codes: 0 all is well; 1 there are mistakes or differences; 2 usage.")]
pub struct Arguments {
    /// The files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Tell the difference to this file
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,

    /// Ask this server for each name, HOST or HOST:PORT
    #[arg(long, value_name = "DEST", conflicts_with = "against")]
    server: Option<String>,
}

/// How many differences of one kind are shown.
const SHOWN_COUNT: usize = 20;

pub fn run(arguments: &Arguments, environment: &Environment) -> Result<ExitCode, Failure> {
    let (console, mut hosts, mut is_good) = (Console::new(false), Hosts::default(), true);
    let mut all = Names::new();
    for path in &arguments.files {
        let (table, is_right) = read(path, &mut hosts, console)?;
        is_good &= is_right;
        for (key, server) in names_of(&table) {
            // As a server takes them: the first counts.
            let known = *all.entry(key.clone()).or_insert(server);
            if known != server {
                console.say(&format!(
                    "{}: {}, but {known} above",
                    path.display(),
                    line(&key, server)
                ));
                is_good = false;
            }
        }
    }
    let differences = match (&arguments.against, &arguments.server) {
        (Some(path), _) => {
            let (other, _) = read(path, &mut hosts, console)?;
            differences(&names_of(&other), &all)
        }
        (None, Some(server)) => differences_to_server(server, &all, environment)?,
        (None, None) => Vec::new(),
    };
    is_good &= differences.is_empty();
    differences.iter().for_each(|line| console.say(line));
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A name, and whether it is a pattern.
type Key = (Protocol, String, bool);
type Names = HashMap<Key, SocketAddrV4>;

fn names_of(table: &NameTable) -> Names {
    let name = |(protocol, name, server): (Protocol, &str, SocketAddrV4)| {
        ((protocol, name.to_owned(), false), server)
    };
    let pattern = |(protocol, prefix, server): (Protocol, &str, SocketAddrV4)| {
        ((protocol, prefix.to_owned(), true), server)
    };
    table.iter().map(name).chain(table.patterns().map(pattern)).collect()
}

/// Reads a file, and tells its mistakes and what is in it.
fn read(path: &Path, hosts: &mut Hosts, console: Console) -> Result<(NameTable, bool), Failure> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(|error| Failure::Usage(format!("{name}: {error}")))?;
    let mut reading = hosts.reading();
    let read = PvFile::read(BufReader::new(file), &name, &mut |host| reading.resolve(host));
    if read.mistake_count > 0 {
        console.say(&mistakes_of(&read, "\n"));
    }
    for host in &read.unknown_hosts {
        console.say(&format!("{name}: the host {host} does not resolve"));
    }
    if read.is_cut {
        console.say(&format!("{name}: its last line has no end: it may be cut"));
    }
    console.say(&format!("{name}: {}", describe(&read.table)));
    let is_right = read.mistake_count == 0 && read.unknown_hosts.is_empty();
    Ok((read.table, is_right))
}

/// What `new` has otherwise than `old`: lines with `+`, `-` and `~`.
fn differences(old: &Names, new: &Names) -> Vec<String> {
    let mut kinds = [('+', Vec::new()), ('-', Vec::new()), ('~', Vec::new())];
    for (key, server) in new {
        match old.get(key) {
            None => kinds[0].1.push(line(key, *server)),
            Some(other) if other != server => {
                kinds[2].1.push(format!("{}, was {other}", line(key, *server)));
            }
            Some(_) => {}
        }
    }
    let gone = old.iter().filter(|(key, _)| !new.contains_key(*key));
    kinds[1].1.extend(gone.map(|(key, server)| line(key, *server)));
    kinds.into_iter().flat_map(|(sign, lines)| shown(sign, lines)).collect()
}

fn line((protocol, name, is_pattern): &Key, server: SocketAddrV4) -> String {
    let star = if *is_pattern { "*" } else { "" };
    format!("{protocol} {}{star} {server}", printable(name))
}

fn shown(sign: char, mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    let more = lines.len().saturating_sub(SHOWN_COUNT);
    lines.truncate(SHOWN_COUNT);
    let mut shown: Vec<_> = lines.iter().map(|line| format!("{sign} {line}")).collect();
    if more > 0 {
        shown.push(format!("{sign} and {} more", grouped(more as u64)));
    }
    shown
}

/// How many names are asked for before the answers are waited for, how long an answer may take, and
/// how often names without one are asked for.
const TOGETHER: usize = 200;
const ANSWER_TIME_MAX: Duration = Duration::from_millis(300);
const ATTEMPT_COUNT: usize = 3;

fn differences_to_server(
    server: &str,
    names: &Names,
    environment: &Environment,
) -> Result<Vec<String>, Failure> {
    let failed = |error: std::io::Error| Failure::Run(error.to_string());
    let (mut missing, mut other) = (Vec::new(), Vec::new());
    let has_port = server.contains(':');
    let speaks = |protocol| names.keys().any(|(of, ..)| *of == protocol);
    if has_port && Protocol::ALL.into_iter().all(speaks) {
        let reason = "a port is for one protocol, and the files have names of both: name the host \
                      alone, and the ports by EPICS_CA_SERVER_PORT and EPICS_PVA_BROADCAST_PORT";
        return Err(Failure::Usage(format!("{server}: {reason}")));
    }
    for protocol in Protocol::ALL.into_iter().filter(|protocol| speaks(*protocol)) {
        let to = ask::destination(server, environment.client_port(protocol)?)?;
        let mut asked: Vec<_> = names
            .iter()
            .filter(|((of, _, is_pattern), _)| *of == protocol && !is_pattern)
            .collect();
        asked.sort();
        for some in asked.chunks(TOGETHER) {
            let socket = ask::socket(Ipv4Addr::UNSPECIFIED).map_err(failed)?;
            let texts: Vec<_> = some.iter().map(|((_, name, _), _)| name.as_str()).collect();
            let found = ask_for(&socket, protocol, to, &texts);
            for ((key, expected), found) in some.iter().zip(found) {
                match found {
                    None => missing.push(line(key, **expected)),
                    Some(found) if found != at_host(**expected, to) => {
                        other.push(format!("{}, not {expected}", line(key, found)));
                    }
                    Some(_) => {}
                }
            }
        }
    }
    Ok([shown('-', missing), shown('~', other)].concat())
}

/// 0.0.0.0 stands for the host that was asked.
fn at_host(server: SocketAddrV4, asked: SocketAddrV4) -> SocketAddrV4 {
    let address = if server.ip().is_unspecified() { asked.ip() } else { server.ip() };
    SocketAddrV4::new(*address, server.port())
}

fn ask_for(
    socket: &std::net::UdpSocket,
    protocol: Protocol,
    to: SocketAddrV4,
    names: &[&str],
) -> Vec<Option<SocketAddrV4>> {
    let mut found = vec![None; names.len()];
    for _ in 0..ATTEMPT_COUNT {
        // Those that were answered are asked for again: their ids are their positions.
        ask::ask(socket, protocol, (to, true), names);
        let end = Instant::now() + ANSWER_TIME_MAX;
        while found.contains(&None) && Instant::now() < end {
            let Some((_, answers)) = ask::receive(socket) else { continue };
            for (_, id, server) in answers {
                if let Some(place) = found.get_mut(id as usize) {
                    *place = Some(server);
                }
            }
        }
        if !found.contains(&None) {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_told_with_signs_and_not_without_end() {
        let names = |range: std::ops::Range<u16>, port| -> Names {
            let server = SocketAddrV4::new([192, 0, 2, 7].into(), port);
            range.map(|at| ((Protocol::Ca, format!("n{at:02}"), false), server)).collect()
        };
        let mut new = names(5..40, 1);
        new.insert(
            (Protocol::Ca, "n05".into(), false),
            SocketAddrV4::new([192, 0, 2, 8].into(), 1),
        );
        let lines = differences(&names(0..10, 1), &new);
        assert_eq!(lines.len(), 21 + 5 + 1);
        assert_eq!(
            (lines[0].as_str(), lines[20].as_str()),
            ("+ ca n10 192.0.2.7:1", "+ and 10 more")
        );
        assert_eq!(lines[26], "~ ca n05 192.0.2.8:1, was 192.0.2.7:1");
        assert!(differences(&new, &new).is_empty());
    }
}
