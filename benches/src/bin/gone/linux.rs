//! The measurement behind the program `gone`.

use std::{
    error::Error,
    fs, io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    process::{Command, ExitCode},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use nicring::{
    Backend,
    search::{
        Protocol,
        load::{SearchLoad, SearchMix},
    },
};
use nicring_bench::{
    affinity,
    names::name,
    network::{Host, Network},
    outcome::verdict,
    server::{Process, Programs, Server},
};
use socket2::{Domain, Socket, Type};

const PORT: u16 = 5064;
/// How many names a server has.
const NAME_COUNT: u32 = 10_000;
const WMEM_MAX: &str = "/proc/sys/net/core/wmem_max";
/// What `net.core.wmem_max` is where nobody changed it.
const USUAL_WMEM_MAX: &str = "212992";
/// How often each healthy client asks.
const ASK_EVERY: Duration = Duration::from_millis(10);
/// An answer that takes longer counts as lost.
const LATE: Duration = Duration::from_secs(1);
/// How often askers that are gone ask, all together.
const GONE_ASK_EVERY: Duration = Duration::from_millis(1);

/// Asks a server from hosts that are gone, and counts what healthy clients still hear.
///
/// Four healthy clients ask 100 times per second each: two on the NIC of the hosts that are gone,
/// by unicast and by broadcast, and two on another NIC. Needs root, `ip` and `tc`. For the
/// unprivileged servers it needs `setpriv`, and net.core.wmem_max is 212,992 while they run.
#[derive(Debug, Parser)]
struct Arguments {
    /// How long to measure each row, in seconds
    #[arg(long, default_value_t = 10)]
    duration_s: u64,
    /// Only nicring, not the servers of EPICS Base and pvxs
    #[arg(long)]
    only_nicring: bool,
}

/// What takes the server's answers away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// So many hosts ask 1,000 times per second in all, and do not say where they are (ARP).
    Gone(u32),
    /// The first NIC sends 64 kbit/s, and is asked 2,000 times per second.
    Slow,
}

const TROUBLES: [Trouble; 5] =
    [Trouble::Gone(0), Trouble::Gone(1), Trouble::Gone(20), Trouble::Gone(150), Trouble::Slow];

pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    verdict(
        "gone",
        affinity::pin_to_first_cpu().map_err(Into::into).and_then(|()| measure_all(&arguments)),
    )
}

fn measure_all(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    let nicring = [Backend::IoUring, Backend::Portable].map(Server::Nicring);
    let peers: &[Server] = if arguments.only_nicring { &[] } else { &[Server::Rsrv, Server::Pvxs] };
    let mut programs = Programs::prepare(&nicring)?;
    println!("| server | beside | unicast | broadcast | other NIC, unicast | broadcast |");
    println!("|---|---|---:|---:|---:|---:|");
    let mut is_good = true;
    for is_privileged in [true, false] {
        let _limit = if is_privileged { None } else { Some(Limit::set()?) };
        if !is_privileged {
            programs.start_by(&["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]);
        }
        for server in nicring.iter().chain(peers.iter().filter(|_| is_privileged)) {
            for trouble in TROUBLES {
                let shares = measure(*server, trouble, &programs, arguments)?;
                let is_ours = matches!(server, Server::Nicring(_));
                is_good &= !is_ours || shares.iter().flatten().all(|share| *share >= 0.99);
                print_row(*server, is_privileged, trouble, shares);
            }
        }
    }
    Ok(is_good)
}

/// Lowers net.core.wmem_max until it is dropped.
struct Limit {
    before: String,
}

impl Limit {
    fn set() -> io::Result<Self> {
        let before = fs::read_to_string(WMEM_MAX)?;
        fs::write(WMEM_MAX, USUAL_WMEM_MAX)?;
        Ok(Self { before })
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        if let Err(error) = fs::write(WMEM_MAX, &self.before) {
            eprintln!("gone: net.core.wmem_max stays at {USUAL_WMEM_MAX}: {error}");
        }
    }
}

/// The share of answers that each healthy client heard: none where it would share the slow NIC.
type Shares = [Option<f64>; 4];

fn measure(
    server: Server,
    trouble: Trouble,
    programs: &Programs,
    arguments: &Arguments,
) -> Result<Shares, Box<dyn Error>> {
    let network = Network::new(2)?;
    if trouble == Trouble::Slow {
        slow_down(&network)?;
    }
    let protocol = if server == Server::Pvxs { Protocol::Pva } else { Protocol::Ca };
    let _process = Process::start(server, protocol, NAME_COUNT, PORT, programs, &network)?;
    network.prime()?;
    let (is_over, duration) = (AtomicBool::new(false), Duration::from_secs(arguments.duration_s));
    let counted = thread::scope(|scope| {
        let troubled = scope.spawn(|| make_trouble(&network, trouble, protocol, &is_over));
        thread::sleep(Duration::from_secs(1));
        let is_asked = |nic: u8| trouble != Trouble::Slow || nic == 1;
        let clients = [(0, false), (0, true), (1, false), (1, true)].map(|(nic, is_broadcast)| {
            let network = &network;
            let ask = move || ask(network, (nic, is_broadcast), protocol, duration);
            is_asked(nic).then(|| scope.spawn(ask))
        });
        let shares = clients.map(|client| client.map(|client| client.join().expect("no panic")));
        is_over.store(true, Relaxed);
        troubled.join().expect("no panic").map(|()| shares)
    })?;
    let mut shares = [None; 4];
    for (share, counted) in shares.iter_mut().zip(counted) {
        *share = counted.transpose()?;
    }
    Ok(shares)
}

fn slow_down(network: &Network) -> io::Result<()> {
    let mut command = Command::new("tc");
    command.args(["-n", &network.namespace(Host::Server), "qdisc", "add", "dev", "nic0", "root"]);
    command.args(["tbf", "rate", "64kbit", "burst", "2000", "limit", "100000000"]);
    match command.status()? {
        status if status.success() => Ok(()),
        status => Err(io::Error::other(format!("tc: {status}"))),
    }
}

/// Questions for one name after the other.
fn questions(protocol: Protocol) -> SearchLoad<impl FnMut(u64, bool, &mut String)> {
    let mix =
        SearchMix { protocol, hits: 1.0, names_per_datagram: 1, timeout: LATE, open_max: 1 << 20 };
    SearchLoad::new(mix, 0, |number, _, to| to.push_str(&name(number as u32 % NAME_COUNT)))
}

/// Asks at a NIC. Returns the share that was answered.
fn ask(
    network: &Network,
    (nic, is_broadcast): (u8, bool),
    protocol: Protocol,
    duration: Duration,
) -> io::Result<f64> {
    network.enter(Host::Client)?;
    let socket = UdpSocket::bind((Network::client_address(nic), 0))?;
    socket.set_broadcast(true)?;
    let address = match is_broadcast {
        true => Network::broadcast_address(nic),
        false => Network::server_address(nic),
    };
    let (mut load, start) = (questions(protocol), Instant::now());
    let (mut next_at, own_port) = (start, socket.local_addr()?.port());
    while start.elapsed() < duration + LATE {
        let now = Instant::now();
        if now >= next_at && now < start + duration {
            let question = load.compose(!is_broadcast, own_port, now);
            socket.send_to(question, SocketAddrV4::new(address, PORT))?;
            next_at += ASK_EVERY;
        }
        let wait = next_at.saturating_duration_since(now).min(ASK_EVERY);
        socket.set_read_timeout(Some(wait.max(Duration::from_micros(100))))?;
        let mut payload = [0; 2048];
        match socket.recv(&mut payload) {
            Ok(len) => load.answer(&payload[..len], Instant::now(), |_| {}),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    let counts = load.finish();
    Ok(counts.answered_count as f64 / counts.expected_count as f64)
}

fn make_trouble(
    network: &Network,
    trouble: Trouble,
    protocol: Protocol,
    is_over: &AtomicBool,
) -> io::Result<()> {
    network.enter(Host::Client)?;
    let mut load = questions(protocol);
    let (to, mut number) = (SocketAddrV4::new(Network::broadcast_address(0), PORT), 0_u32);
    let spoofer = raw_socket()?;
    let plain = UdpSocket::bind((Network::client_address(0), 0))?;
    plain.set_broadcast(true)?;
    let mut next_at = Instant::now();
    while !is_over.load(Relaxed) {
        let every = match trouble {
            Trouble::Gone(0) => Duration::from_millis(100),
            Trouble::Gone(_) => GONE_ASK_EVERY,
            Trouble::Slow => GONE_ASK_EVERY / 2,
        };
        let source = match trouble {
            Trouble::Gone(0) => None,
            Trouble::Gone(count) => Some(Ipv4Addr::new(10, 77, 0, 100 + (number % count) as u8)),
            Trouble::Slow => Some(Network::client_address(0)),
        };
        if let Some(source) = source {
            let from = SocketAddrV4::new(source, 4000);
            let question = load.compose(false, from.port(), Instant::now());
            match trouble {
                Trouble::Slow => plain.send_to(question, to)?,
                Trouble::Gone(_) => spoofer.send_to(&packet(question, from, to), &to.into())?,
            };
            number += 1;
        }
        next_at += every;
        thread::sleep(next_at.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

fn raw_socket() -> io::Result<Socket> {
    // IPPROTO_RAW: the IP header is part of what is sent (raw(7)).
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(255.into()))?;
    socket.set_broadcast(true)?;
    Ok(socket)
}

/// A datagram with its headers.
fn packet(payload: &[u8], from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    // The kernel fills in length, identification and checksum.
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend(from.ip().octets());
    packet.extend(to.ip().octets());
    for field in [from.port(), to.port(), 8 + payload.len() as u16, 0] {
        packet.extend(field.to_be_bytes()); // a checksum of 0 is none
    }
    packet.extend(payload);
    packet
}

fn print_row(server: Server, is_privileged: bool, trouble: Trouble, shares: Shares) {
    let server = match server {
        Server::Nicring(backend) => format!("nicring, {backend}"),
        Server::NicringNoDelay => "nicring, no delay".to_owned(),
        Server::Rsrv => "rsrv".to_owned(),
        Server::Pvxs => "pvxs".to_owned(),
        Server::Caproto => "caproto".to_owned(),
    };
    let rights = if is_privileged { "" } else { ", unprivileged" };
    let beside = match trouble {
        Trouble::Gone(0) => "nobody".to_owned(),
        Trouble::Gone(1) => "1 that is gone".to_owned(),
        Trouble::Gone(count) => format!("{count} that are gone"),
        Trouble::Slow => "a slow NIC".to_owned(),
    };
    let share = |share: Option<f64>| {
        share.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", 100.0 * share))
    };
    let [a, b, c, d] = shares.map(share);
    println!("| {server}{rights} | {beside} | {a} | {b} | {c} | {d} |");
}
