//! The measurement behind the program `paced`.

use std::{
    error::Error,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use nicring_bench::{
    contestant::Contestant,
    load::Load,
    network::Network,
    outcome::verdict,
    receiver::{self, PORT, Receiver},
    service::Task,
    syscalls,
};

/// Counts the system calls of a receiver at a steady rate over several NICs.
///
/// Needs root, `ip` and `perf`. The receiver is a process of its own in a network namespace of its
/// own; the sender spaces its datagrams evenly.
#[derive(Debug, Parser)]
struct Arguments {
    /// A contestant of `compare`; io_uring stands for nicring
    #[arg(long, default_value = "io_uring", value_parser = contestant)]
    backend: Contestant,
    /// How many NICs
    #[arg(long, default_value_t = 4)]
    nics: u8,
    /// Datagrams per second over all NICs
    #[arg(long, default_value_t = 200_000)]
    rate: u32,
    /// How long to measure, in seconds
    #[arg(long, default_value_t = 10)]
    duration_s: u64,
    /// Fails above so many system calls per datagram
    #[arg(long, default_value_t = 0.2)]
    syscalls_max: f64,
    /// Fails above this share of datagrams lost
    #[arg(long, default_value_t = 0.001)]
    loss_max: f64,
}

fn contestant(text: &str) -> Result<Contestant, String> {
    match text {
        "io_uring" => "nicring".parse(),
        _ => text.parse(),
    }
}

pub fn main() -> ExitCode {
    if let Some(code) = receiver::serve_if_asked() {
        return code;
    }
    verdict("paced", measure(&Arguments::parse()))
}

fn measure(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    let network = Network::new(arguments.nics)?;
    let mut receiver = Receiver::start(arguments.backend, &Task::Count, PORT, &network)?;
    let load = Load::Flood(Some(arguments.rate)).start(&network, PORT);
    // The first second warms up.
    thread::sleep(Duration::from_secs(1));
    let (began, before) = (Instant::now(), receiver.snapshot()?);
    let count = syscalls::count(receiver.pid(), Duration::from_secs(arguments.duration_s))?;
    let (duration, after) = (began.elapsed(), receiver.snapshot()?);
    let sent_count = load.stop()?.sent_count;
    // What is in the sockets still arrives. After that the counts of the whole run are final.
    thread::sleep(Duration::from_millis(200));
    let received_count = receiver.snapshot()?.received_count;
    let datagrams = (after.received_count - before.received_count) as f64;
    let per_second = datagrams / duration.as_secs_f64();
    let syscalls = count.syscall_count as f64 / (per_second * count.duration.as_secs_f64());
    let cpu_ns = (after.cpu_ns - before.cpu_ns) as f64 / datagrams;
    let loss = 1.0 - received_count as f64 / sent_count as f64;
    println!(
        "{}, {} NICs: {per_second:.0} datagrams/s, {syscalls:.4} system calls and {cpu_ns:.0} ns \
         of CPU per datagram, {:.4} % lost of {sent_count}",
        arguments.backend,
        arguments.nics,
        100.0 * loss,
    );
    Ok(syscalls < arguments.syscalls_max && loss < arguments.loss_max)
}
