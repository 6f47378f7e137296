//! The bench on Linux.

use std::{
    env,
    process::ExitCode,
    sync::{Arc, atomic::Ordering::Relaxed, mpsc},
    thread,
    time::Duration,
};

use nicring_bench::{
    affinity,
    contestant::{Contestant, Setup},
    network::{self, Host, Network},
    privilege,
    queued_batch::QueuedBatch,
    service::{Progress, Service, Task},
    statistics::{median, ratio},
};

const NIC_COUNTS: [u8; 2] = [4, 16];
/// How many datagrams wait in each socket.
const DEPTHS: [usize; 4] = [1, 4, 16, 64];
const CONTESTANTS: &[&str] = if cfg!(feature = "peers") {
    &[
        "epoll",
        "nicring-no-delay",
        "nicring-portable-no-delay",
        "tokio",
        "tokio-told",
        "udp-v4-ready",
        "udp-v4-batch",
    ]
} else {
    &["epoll", "nicring-no-delay", "nicring-portable-no-delay"]
};
const ROUND_COUNT: usize = 8;
const SLICE: Duration = Duration::from_millis(40);

pub fn main() -> ExitCode {
    if let Err(code) = privilege::take() {
        return code;
    }
    let arguments: Vec<String> = env::args().skip(1).collect();
    let is_test = arguments.iter().any(|argument| argument == "--test");
    let is_broadcast = arguments.iter().any(|argument| argument == "--broadcast");
    let named = arguments.iter().filter(|argument| !argument.starts_with("--"));
    let mut contestants: Vec<String> = named.cloned().collect();
    if contestants.is_empty() {
        contestants = CONTESTANTS.iter().map(|name| (*name).to_owned()).collect();
    }
    let (nic_counts, depths) =
        if is_test { (&NIC_COUNTS[..1], &DEPTHS[..1]) } else { (&NIC_COUNTS[..], &DEPTHS[..]) };
    let rounds = arguments.iter().find_map(|argument| argument.strip_prefix("--rounds="));
    let rounds = rounds.map(|count| count.parse().expect("a number of rounds"));
    let round_count = if is_test { 1 } else { rounds.unwrap_or(ROUND_COUNT) };
    // The receivers then use the other CPUs.
    let _ = affinity::pin_to_first_cpu();
    for nic_count in nic_counts {
        let network = match Network::new(*nic_count) {
            Ok(network) => network,
            Err(error) => {
                eprintln!("turn: {error}");
                return ExitCode::FAILURE;
            }
        };
        // Each contestant has its own port: some end only with the program.
        let mut ports = 5076..;
        for depth in depths {
            let names = contestants.iter();
            let racers: Vec<_> = names
                .zip(&mut ports)
                .map(|(name, port)| start(&network, name, port, *depth, is_broadcast))
                .collect();
            let rows = race(&racers, round_count);
            let title = format!("{nic_count} NICs, {depth} waiting at each: ns per datagram");
            match is_test {
                // One round on a cold machine measures nothing.
                true => println!("turn, {title}: success"),
                false => show(&title, &contestants, &rows),
            }
            racers.iter().for_each(|racer| racer.stop.store(true, Relaxed));
        }
    }
    ExitCode::SUCCESS
}

/// What each took per datagram, in ns, round by round.
fn race(racers: &[Arc<Progress>], round_count: usize) -> Vec<Vec<f64>> {
    let mut rows = vec![Vec::new(); racers.len()];
    for round in 0..round_count {
        for number in 0..racers.len() {
            let number = (number + round) % racers.len();
            rows[number].push(slice(&racers[number]));
        }
    }
    rows
}

fn slice(racer: &Progress) -> f64 {
    let batch = batch_of(racer);
    batch.go_on();
    thread::sleep(SLICE / 8);
    let state = || (racer.received_count.load(Relaxed) as f64, batch.spent_ns() as f64);
    let (count_before, spent_before) = state();
    thread::sleep(SLICE);
    let (count_after, spent_after) = state();
    batch.pause();
    thread::sleep(SLICE / 8);
    (spent_after - spent_before) / (count_after - count_before)
}

/// Prints medians and ratios. The ratios are to the first contestant.
fn show(title: &str, names: &[String], rows: &[Vec<f64>]) {
    println!("\n{title}");
    for (name, row) in names.iter().zip(rows) {
        let pairs: Vec<_> = row.iter().copied().zip(rows[0].iter().copied()).collect();
        let ratio = ratio(&pairs).map_or("-".into(), |ratio| format!("{ratio:.2}"));
        println!("{name:28} {:6.0}  {ratio}", median(row.iter().copied()));
    }
}

/// Starts a contestant in its own thread, which ends with the program at the latest. It has no
/// batch to receive yet.
fn start(
    network: &Network,
    name: &str,
    port: u16,
    depth: usize,
    is_broadcast: bool,
) -> Arc<Progress> {
    let contestant: Contestant = name.parse().expect("a contestant");
    let (ready, is_ready) = mpsc::channel();
    let namespace = network.namespace(Host::Server);
    let addresses: Vec<_> = network.server_addresses().collect();
    thread::spawn(move || {
        network::enter(&namespace).expect("the server's namespace");
        affinity::leave_first_cpu_if_pinned().expect("a CPU");
        let broadcasts = (0..addresses.len() as u8).map(Network::broadcast_address);
        let batch = match is_broadcast {
            true => QueuedBatch::new(broadcasts, port, depth),
            false => QueuedBatch::new(addresses.iter().copied(), port, depth),
        };
        let batch = batch.expect("sockets");
        let progress = Arc::new(Progress { queued_batch: Some(batch), ..Progress::default() });
        let service = Service::new(Task::Count, Arc::clone(&progress));
        let look_every = Some(Duration::from_millis(20));
        let setup = Setup { addresses, port, service, look_every };
        let ready = &mut || ready.send(Arc::clone(&progress)).expect("a listener");
        contestant.serve(setup, ready).expect("receiving");
    });
    is_ready.recv().expect("the contestant starts")
}

fn batch_of(progress: &Progress) -> &QueuedBatch {
    progress.queued_batch.as_ref().expect("made with one")
}
