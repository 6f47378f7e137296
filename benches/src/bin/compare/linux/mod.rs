//! The comparison on Linux, each contestant in its own process.

mod machine;
mod measured_process;
mod plot;
mod round;
mod scaling;
mod schedule;
mod table;
mod workload;

use std::{
    error::Error, fs, io::Write, path::PathBuf, process::ExitCode, time::Duration, time::Instant,
};

use clap::Parser;
use nicring_bench::{
    affinity, contestant::Contestant, network::Network, questions::NAMES_PER_DATAGRAM_MAX,
    receiver, server::Programs,
};
use round::Measurement;
use schedule::Schedule;

/// Races contestants in turn, in network namespaces with N veth NICs, and prints a table.
///
/// Needs root and `ip`; `perf` to count system calls. Each contestant receives in a process of its
/// own; a round is a turn of each, and every round begins with another one.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many NICs [default: 4,16; for servers 1]
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u8).range(1..=100))]
    nics: Vec<u8>,
    /// storm, broadcast, foreign, burst, paced, search, trickle, fanout; or for servers, which are
    /// programs of their own: pva-broadcast, pva-unicast, ca-broadcast, ca-unicast, or servers for
    /// these four; misses and misses-unicast [default: storm,paced]
    #[arg(long, value_delimiter = ',')]
    work: Vec<String>,
    /// Who takes part [default: nicring,nicring-portable,nicring-no-delay,epoll,tokio,seed,libcom;
    /// of the servers all: serve,serve-portable,serve-no-delay,pvxs,rsrv,caproto, and
    /// echo,echo-segment, which show what the load can do]
    ///
    /// nicring and nicring-portable take settings after their names, such as
    /// nicring+spin=200+buffer_count=256: a wrong one is answered by a list of all.
    #[arg(long, value_delimiter = ',')]
    contestants: Vec<Contestant>,
    /// Whose CPU time the others' is compared with [default: epoll; of the servers pvxs, for CA
    /// rsrv]
    #[arg(long)]
    against: Option<Contestant>,
    /// How many measurements each contestant has of everything [default: 7]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// How many datagrams of `search` and to servers are on their way at once [default: 64]
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=4096))]
    window: Vec<u16>,
    /// Which share of the names is known, in percent, rounded to one in so many [default: 100; for
    /// servers 100,5]
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(2..=100))]
    hits: Vec<u16>,
    /// How many names each datagram of `search` and to servers asks for
    #[arg(long, value_delimiter = ',', default_value = "1",
          value_parser = clap::value_parser!(u16).range(1..=i64::from(NAMES_PER_DATAGRAM_MAX)))]
    names_per_datagram: Vec<u16>,
    /// How many names a server has, and those of `search`; pvxs, rsrv and caproto always have
    /// 10,000
    #[arg(long, value_delimiter = ',', default_value = "10000",
          value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    names: Vec<u32>,
    /// How many datagrams of `paced` and misses are sent per second [default: 1000,5000,20000; of
    /// misses 5000,20000]
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..))]
    rates: Vec<u32>,
    /// How many ports `storm`, `broadcast` and `foreign` come from, on each NIC. Shards divide what
    /// comes by its sender
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=4096))]
    senders: u16,
    /// Lets the kernel choose everyone's CPU; unless given, the client keeps to the first CPU and
    /// receivers to the others
    #[arg(long)]
    unpinned: bool,
    /// Prints every turn as JSON in place of the table
    #[arg(long)]
    json: bool,
    /// Draws the receivers' CPU time too
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// All contestants, all work, 1, 4, 16 and 64 NICs, windows of 1, 16, 64 and 256, unless named;
    /// takes hours
    #[arg(long, conflicts_with = "quick")]
    full: bool,
    /// 3 short rounds with 4 NICs, unless named
    #[arg(long)]
    quick: bool,
}

pub fn main() -> ExitCode {
    if let Some(code) = receiver::serve_if_asked() {
        return code;
    }
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let schedule = Schedule::new(arguments)?;
    let header = machine::describe(!arguments.unpinned);
    if header.is_pinned {
        affinity::pin_to_first_cpu()?;
    }
    let measurements = take_turns(&schedule)?;
    if arguments.json {
        println!("{:#}", table::json(&header, &measurements));
    } else {
        let growth = scaling::text(&schedule, &measurements);
        println!("{}{growth}", table::text(&header, &schedule, &measurements));
    }
    if let Some(file) = &arguments.plot {
        fs::write(file, plot::draw(&header, &schedule, &measurements))
            .map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(())
}

/// Takes all measurements of all rounds. Shows progress on standard error.
fn take_turns(schedule: &Schedule) -> Result<Vec<Measurement>, Box<dyn Error>> {
    let programs = Programs::prepare(&schedule.servers())?;
    let measurement_count = schedule.measurement_count();
    let began = Instant::now();
    let mut measurements = Vec::with_capacity(measurement_count);
    for rows in schedule.rows.chunk_by(|one, next| one.nic_count == next.nic_count) {
        let network = Network::new(rows[0].nic_count)?;
        network.prime()?;
        for (row, round) in
            rows.iter().flat_map(|row| (0..schedule.round_count).map(move |r| (row, r)))
        {
            show_progress(began, measurements.len(), measurement_count, |f| {
                write!(f, "{}, {} NICs, round {}", row.work, row.nic_count, round + 1)
            });
            measurements.extend(round::take_round(
                row,
                round,
                &network,
                &programs,
                &schedule.lengths.of(row.work),
            ));
        }
    }
    eprintln!("\r\x1b[K{measurement_count} measurements in {} s", began.elapsed().as_secs());
    Ok(measurements)
}

fn show_progress(
    began: Instant,
    done_count: usize,
    measurement_count: usize,
    what: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) {
    let elapsed = began.elapsed();
    let left = match done_count {
        0 => Duration::ZERO,
        _ => elapsed.mul_f64((measurement_count - done_count) as f64 / done_count as f64),
    };
    let mut stderr = std::io::stderr().lock();
    let _ =
        write!(stderr, "\r\x1b[K[{done_count}/{measurement_count}, {} s left] ", left.as_secs());
    let _ = what(&mut stderr);
    let _ = stderr.flush();
}
