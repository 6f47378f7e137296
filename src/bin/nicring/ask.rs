//! `nicring ask`: who answers for a name.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs, UdpSocket},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args;
use nicring::{
    Nics,
    search::{Protocol, Request, RequestHead, ca, pva},
};

use crate::cli::{
    environment::Environment,
    failure::Failure,
    parse::seconds,
    text::{Console, printable, short, table},
};

/// Asks who serves names, and tells who answers, by which NIC, and how fast
///
/// It asks as clients do, for CA and for PVA, at the broadcast addresses of all NICs, or where --to
/// says. A name that two servers answer for is told, and so is a server that answers twice.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  nicring ask ioc1:temp
  nicring ask ioc1:temp.EGU ioc2:temp --to 192.0.2.7 --to gateway.example:5066

Exit codes: 0 each name was answered; 1 some were not; 2 usage.")]
pub struct Arguments {
    /// The names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,

    /// Ask this host or broadcast address only, HOST or HOST:PORT; repeatable
    #[arg(long, value_name = "DEST")]
    to: Vec<String>,

    /// How long to wait for answers
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    wait_s: Duration,
}

/// An answer for a name.
#[derive(Debug, Clone, Copy)]
struct Answer {
    /// The position of the name.
    name: usize,
    protocol: Protocol,
    server: SocketAddrV4,
    /// Who sent it.
    source: SocketAddrV4,
    /// The position of the socket that heard it.
    socket: usize,
    delay: Duration,
}

/// A socket that asks.
struct Asker {
    socket: UdpSocket,
    /// What it is called.
    nic: String,
    destinations: Vec<(Protocol, SocketAddrV4)>,
}

pub fn run(arguments: &Arguments, environment: &Environment) -> Result<ExitCode, Failure> {
    let ports = [environment.client_port(Protocol::Ca)?, environment.client_port(Protocol::Pva)?];
    let failed = |error: io::Error| Failure::Run(error.to_string());
    let nics = Nics::enumerate()?;
    let askers = match arguments.to.is_empty() {
        true => on_all_nics(&nics, ports).map_err(failed)?,
        false => vec![at(&arguments.to, ports)?],
    };
    if askers.is_empty() {
        return Err(Failure::Run("no NIC that is up has a broadcast address: use --to".to_owned()));
    }
    let mut answers = Vec::new();
    for asker in &askers {
        for &(protocol, to) in &asker.destinations {
            let is_unicast = !nics.is_broadcast(*to.ip()) && !to.ip().is_multicast();
            ask(&asker.socket, protocol, (to, is_unicast), &arguments.names);
        }
    }
    let start = Instant::now();
    while start.elapsed() < arguments.wait_s {
        for (number, asker) in askers.iter().enumerate() {
            take(number, &asker.socket, start, arguments.names.len(), &mut answers);
        }
    }
    let console = Console::new(false);
    show(arguments, &askers, &answers).into_iter().for_each(|line| console.say(&line));
    let is_answered = |name| answers.iter().any(|answer: &Answer| answer.name == name);
    match (0..arguments.names.len()).all(is_answered) {
        true => Ok(ExitCode::SUCCESS),
        false => Ok(ExitCode::FAILURE),
    }
}

/// A socket on each NIC that is up, which asks at the NIC's broadcast addresses.
fn on_all_nics(nics: &Nics, ports: [u16; 2]) -> io::Result<Vec<Asker>> {
    let mut askers = Vec::new();
    for nic in nics.iter().filter(|nic| nic.is_up && !nic.broadcasts.is_empty()) {
        let Some(own) = nic.primary() else { continue };
        let to = |broadcast: &Ipv4Addr| {
            Protocol::ALL
                .map(|protocol| (protocol, SocketAddrV4::new(*broadcast, ports[protocol as usize])))
        };
        let destinations = nic.broadcasts.iter().flat_map(to).collect();
        askers.push(Asker { socket: socket(own)?, nic: printable(&nic.name), destinations });
    }
    Ok(askers)
}

/// A socket that asks at these hosts, by the system's routes.
fn at(hosts: &[String], ports: [u16; 2]) -> Result<Asker, Failure> {
    let mut destinations = Vec::new();
    for host in hosts {
        for protocol in Protocol::ALL {
            destinations.push((protocol, destination(host, ports[protocol as usize])?));
        }
    }
    let socket = socket(Ipv4Addr::UNSPECIFIED).map_err(|error| Failure::Run(error.to_string()))?;
    Ok(Asker { socket, nic: "route".to_owned(), destinations })
}

/// HOST or HOST:PORT.
pub fn destination(text: &str, default_port: u16) -> Result<SocketAddrV4, Failure> {
    let refused = |reason: &str| {
        let expected = "expected an IPv4 address or a host's name, with or without :PORT";
        Failure::Usage(format!("{text:?}: {reason}: {expected}"))
    };
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| refused("no port"))?),
        None => (text, default_port),
    };
    let found = (host, port).to_socket_addrs().map_err(|error| refused(&error.to_string()))?;
    let is_v4 = |address| match address {
        SocketAddr::V4(address) => Some(address),
        SocketAddr::V6(_) => None,
    };
    { found }.find_map(is_v4).ok_or_else(|| refused("no IPv4 address"))
}

pub fn socket(own: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((own, 0))?;
    socket.set_broadcast(true)?;
    socket.set_read_timeout(Some(Duration::from_millis(1)))?;
    Ok(socket)
}

/// Asks for names, as many in a datagram as fit. Their ids are their positions.
pub fn ask(
    socket: &UdpSocket,
    protocol: Protocol,
    (to, is_unicast): (SocketAddrV4, bool),
    names: &[impl AsRef<str>],
) {
    let reply_port = socket.local_addr().map_or(0, |own| own.port());
    let head = RequestHead { sequence: 1, is_unicast, reply_port };
    let mut request = Request::new(protocol);
    request.begin(head);
    for (id, name) in names.iter().enumerate() {
        let name = name.as_ref().as_bytes();
        if !request.push(id as u32, name) {
            send(socket, &request, to);
            request.begin(head);
            request.push(id as u32, name);
        }
    }
    send(socket, &request, to);
}

fn send(socket: &UdpSocket, request: &Request, to: SocketAddrV4) {
    if request.name_count() > 0 {
        if let Err(error) = socket.send_to(request.datagram(), to) {
            tracing::warn!(%error, %to, "not asked");
        }
    }
}

/// Takes the answers that are there.
fn take(
    socket: usize,
    from: &UdpSocket,
    start: Instant,
    name_count: usize,
    answers: &mut Vec<Answer>,
) {
    while let Some((source, found)) = receive(from) {
        let delay = start.elapsed();
        let known = found.into_iter().filter(|(_, id, _)| (*id as usize) < name_count);
        answers.extend(known.map(|(protocol, id, server)| Answer {
            name: id as usize,
            protocol,
            server,
            source,
            socket,
            delay,
        }));
    }
}

/// What one datagram answers: protocol, id and server of each name.
pub type Found = Vec<(Protocol, u32, SocketAddrV4)>;

/// Receives an answer; `None` if none is there.
pub fn receive(socket: &UdpSocket) -> Option<(SocketAddrV4, Found)> {
    let mut payload = [0; 2048];
    let Ok((len, SocketAddr::V4(source))) = socket.recv_from(&mut payload) else { return None };
    Some((source, found_in(&payload[..len], source)))
}

fn found_in(datagram: &[u8], source: SocketAddrV4) -> Found {
    let of_sender = |server: Ipv4Addr| if server.is_unspecified() { *source.ip() } else { server };
    if datagram.first() == Some(&0xca) {
        let responses = pva::messages(datagram).map_while(Result::ok);
        let responses = responses.filter_map(|message| message.search_response().ok());
        let found = responses.filter(|response| response.found).flat_map(|response| {
            let server = of_sender(response.server_ipv4().unwrap_or(Ipv4Addr::UNSPECIFIED));
            let server = SocketAddrV4::new(server, response.port);
            response.ids().map(move |id| (Protocol::Pva, id, server)).collect::<Vec<_>>()
        });
        return found.collect();
    }
    let messages = ca::messages(datagram).map_while(Result::ok);
    let replies = messages.filter_map(|message| message.search_reply().ok());
    let found = replies.map(|reply| {
        let server = of_sender(reply.server.unwrap_or(Ipv4Addr::UNSPECIFIED));
        (Protocol::Ca, reply.id, SocketAddrV4::new(server, reply.port))
    });
    found.collect()
}

fn show(arguments: &Arguments, askers: &[Asker], answers: &[Answer]) -> Vec<String> {
    let head = ["name", "", "server", "answered by", "NIC", "after"].map(str::to_owned).to_vec();
    let (mut rows, mut notes) = (vec![head], Vec::new());
    for (position, name) in arguments.names.iter().enumerate() {
        let of_name = answers.iter().filter(|answer| answer.name == position);
        let mut servers = Vec::new();
        for answer in of_name {
            let asker = &askers[answer.socket];
            rows.push(vec![
                printable(name),
                answer.protocol.to_string(),
                answer.server.to_string(),
                answer.source.to_string(),
                asker.nic.clone(),
                short(answer.delay),
            ]);
            servers.push((answer.protocol, answer.server, answer.socket));
        }
        if servers.is_empty() {
            notes.push(format!("{}: nobody answers", printable(name)));
        }
        for protocol in Protocol::ALL {
            let mut of_protocol: Vec<_> = servers
                .iter()
                .filter(|(of, ..)| *of == protocol)
                .map(|one| (one.1, one.2))
                .collect();
            let heard_count = of_protocol.len();
            of_protocol.sort_unstable();
            of_protocol.dedup();
            if of_protocol.len() < heard_count {
                notes.push(format!("{}: {protocol}: answered twice", printable(name)));
            }
            of_protocol.dedup_by_key(|(server, _)| *server);
            if of_protocol.len() > 1 {
                let count = of_protocol.len();
                notes.push(format!("{}: {protocol}: {count} servers have it", printable(name)));
            }
        }
    }
    let mut lines = if rows.len() > 1 { vec![table(&rows)] } else { Vec::new() };
    lines.extend(notes);
    lines
}
