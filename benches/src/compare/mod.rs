//! Contestants side by side.

mod machine;
mod plot;
mod statistics;
mod table;
mod turn;
mod work;

use std::{
    error::Error, fs, io::Write, path::PathBuf, process::ExitCode, time::Duration, time::Instant,
};

use clap::Parser;
use nicring_bench::{
    affinity,
    contestant::{self, Contestant},
    network::Network,
    receiver,
};
use turn::{Lengths, Turn};
use work::Work;

/// Races contestants in turn, in network namespaces with N veth NICs, and prints a table.
///
/// Needs root and `ip`; `perf` to count system calls. Each contestant receives in a process of its
/// own; a round is a turn of each, and every round begins with another one.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many NICs [default: 4,16]
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u8).range(1..=100))]
    nics: Vec<u8>,
    /// storm, paced, search, trickle, fanout [default: storm,paced]
    #[arg(long, value_delimiter = ',')]
    work: Vec<String>,
    /// Who takes part [default: run,run-adaptive,portable,epoll,tokio,seed]
    #[arg(long, value_delimiter = ',')]
    contestants: Vec<Contestant>,
    /// Whose CPU time the others' is compared with
    #[arg(long, default_value = "epoll")]
    against: Contestant,
    /// How many turns each contestant has of everything [default: 7]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// How many questions of `search` are on their way at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    window: u16,
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
    /// All contestants, all work, 1, 4, 16 and 64 NICs, unless named; takes hours
    #[arg(long, conflicts_with = "quick")]
    full: bool,
    /// 3 short rounds with 4 NICs, unless named
    #[arg(long)]
    quick: bool,
}

const DEFAULT_CONTESTANTS: [&str; 6] =
    ["run", "run-adaptive", "portable", "epoll", "tokio", "seed"];

/// What is to be run.
#[derive(Debug)]
struct Plan {
    nics: Vec<u8>,
    works: Vec<Work>,
    contestants: Vec<Contestant>,
    against: Contestant,
    round_count: u32,
    lengths: Lengths,
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
    let plan = plan(arguments)?;
    let header = machine::describe(!arguments.unpinned);
    if header.is_pinned {
        affinity::pin_to_first_cpu()?;
    }
    let turns = take_turns(&plan)?;
    if arguments.json {
        println!("{:#}", table::json(&header, &turns));
    } else {
        println!("{}", table::text(&header, &plan, &turns));
    }
    if let Some(file) = &arguments.plot {
        fs::write(file, plot::draw(&header, &plan, &turns))
            .map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(())
}

fn plan(arguments: &Arguments) -> Result<Plan, Box<dyn Error>> {
    let Arguments { full, quick, .. } = *arguments;
    let nics = match (&arguments.nics[..], full, quick) {
        ([], true, _) => vec![1, 4, 16, 64],
        ([], _, true) => vec![4],
        ([], ..) => vec![4, 16],
        (nics, ..) => nics.to_vec(),
    };
    let works: Vec<Work> = match (&arguments.work[..], full) {
        ([], true) => Work::all(arguments.window),
        ([], false) => vec![Work::Storm, Work::Paced],
        (names, _) => {
            let works = names.iter().map(|name| Work::named(name, arguments.window));
            works.collect::<Result<Vec<_>, String>>()?.concat()
        }
    };
    let mut contestants: Vec<Contestant> = match (&arguments.contestants[..], full) {
        ([], true) => contestant::ALL.iter().map(|(_, contestant)| *contestant).collect(),
        ([], false) => DEFAULT_CONTESTANTS.map(|name| name.parse().expect("a name")).to_vec(),
        (contestants, _) => contestants.to_vec(),
    };
    if !contestants.contains(&arguments.against) {
        contestants.push(arguments.against);
    }
    let (round_count, lengths) = match quick {
        true => (arguments.rounds.unwrap_or(3), Lengths::SHORT),
        false => (arguments.rounds.unwrap_or(7), Lengths::LONG),
    };
    Ok(Plan { nics, works, contestants, against: arguments.against, round_count, lengths })
}

/// All turns of all rounds, each round from another contestant on; progress on standard error.
fn take_turns(plan: &Plan) -> Result<Vec<Turn>, Box<dyn Error>> {
    let turn_count =
        plan.nics.len() * plan.works.len() * plan.contestants.len() * plan.round_count as usize;
    let began = Instant::now();
    let mut turns = Vec::with_capacity(turn_count);
    for nic_count in &plan.nics {
        let network = Network::new(*nic_count)?;
        network.prime()?;
        for work in &plan.works {
            for round in 0..plan.round_count {
                let mut order = plan.contestants.clone();
                order.rotate_left(round as usize % plan.contestants.len());
                for contestant in order {
                    show_progress(began, turns.len(), turn_count, |f| {
                        write!(f, "{work}, {nic_count} NICs, round {}: {contestant}", round + 1)
                    });
                    turns.push(Turn::take(*work, contestant, round, &network, &plan.lengths));
                }
            }
        }
    }
    eprintln!("\r\x1b[K{turn_count} turns in {} s", began.elapsed().as_secs());
    Ok(turns)
}

fn show_progress(
    began: Instant,
    done_count: usize,
    turn_count: usize,
    what: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) {
    let elapsed = began.elapsed();
    let left = match done_count {
        0 => Duration::ZERO,
        _ => elapsed.mul_f64((turn_count - done_count) as f64 / done_count as f64),
    };
    let mut stderr = std::io::stderr().lock();
    let _ = write!(stderr, "\r\x1b[K[{done_count}/{turn_count}, {} s left] ", left.as_secs());
    let _ = what(&mut stderr);
    let _ = stderr.flush();
}
