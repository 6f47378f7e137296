//! The measurement behind the program `surge`.

use std::{error::Error, process::ExitCode, time::Duration};

use clap::Parser;
use nicring_bench::{
    affinity,
    contestant::Contestant,
    network::Network,
    outcome::verdict,
    receiver::{self, PORT, Receiver},
    service::Task,
    statistics::median,
    surge::Surge,
};

/// Sends at a steady rate, then many datagrams at once, and counts what is lost: with a delay and
/// without, on both backends.
///
/// Needs root and `ip`. The receive buffers are those that a program gets without privileges where
/// nobody changed net.core.rmem_max, 212,992 bytes. They are asked for as such, because that limit
/// is the whole machine's.
#[derive(Debug, Parser)]
struct Arguments {
    /// Datagrams per second before the surge
    #[arg(long, default_value_t = 5_000)]
    rate: u32,
    /// How many come at once
    #[arg(long, default_value_t = 2_000)]
    surge: u32,
    /// The delay, in microseconds
    #[arg(long, default_value_t = 1_000)]
    delay_us: u32,
    /// How many surges to measure, each of a receiver of its own
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

const RECV_BUFFER_BYTES: usize = 212_992;
/// How long the rate is steady before the surge.
const STEADY: Duration = Duration::from_millis(1_500);
/// A delay may lose so much more of a surge than the worst round without: chance decides about that
/// much.
const TOLERANCE: f64 = 0.05;

pub fn main() -> ExitCode {
    if let Some(code) = receiver::serve_if_asked() {
        return code;
    }
    verdict("surge", measure(&Arguments::parse()))
}

/// What each round lost: one by one, and in segments.
type LostCounts = [Vec<f64>; 2];

/// All receivers take turns.
fn measure(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    affinity::pin_to_first_cpu()?;
    let network = Network::new(1)?;
    network.prime()?;
    let mut rows = Vec::new();
    for (name, backend) in [("nicring", "io_uring"), ("nicring-portable", "portable")] {
        for delay_us in [arguments.delay_us, 0] {
            let settings = format!("{name}+delay={delay_us}+recv_buffer_bytes={RECV_BUFFER_BYTES}");
            rows.push((settings.parse()?, backend, delay_us, LostCounts::default()));
        }
    }
    for _ in 0..arguments.rounds {
        for (contestant, _, _, lost_counts) in &mut rows {
            for (is_segmented, lost_counts) in [false, true].into_iter().zip(lost_counts) {
                let surge = Surge {
                    rate: arguments.rate,
                    steady: STEADY,
                    count: arguments.surge,
                    is_segmented,
                };
                lost_counts.push(lost_count(*contestant, surge, &network)? as f64);
            }
        }
    }
    let count = arguments.surge;
    println!("| backend | delay | lost of {count}, one by one | lost of {count}, in segments |");
    println!("|---|---:|---:|---:|");
    for (_, backend, delay_us, [one_by_one, segments]) in &rows {
        println!("| {backend} | {delay_us} us | {} | {} |", text(one_by_one), text(segments));
    }
    let allowed = TOLERANCE * f64::from(count);
    let is_good = |delayed: &Vec<f64>, plain: &Vec<f64>| {
        let most = plain.iter().copied().fold(0.0, f64::max);
        median(delayed.iter().copied()) <= most + allowed
    };
    Ok(rows.chunks(2).all(|pair| pair[0].3.iter().zip(&pair[1].3).all(|(d, p)| is_good(d, p))))
}

fn lost_count(
    contestant: Contestant,
    surge: Surge,
    network: &Network,
) -> Result<u64, Box<dyn Error>> {
    let mut receiver = Receiver::start(contestant, &Task::Count, PORT, network)?;
    let sent_count = surge.send(network, PORT)?;
    Ok(sent_count.saturating_sub(receiver.drained_count()?))
}

/// The median, and the range.
fn text(counts: &[f64]) -> String {
    let least = counts.iter().copied().fold(f64::INFINITY, f64::min);
    let most = counts.iter().copied().fold(0.0, f64::max);
    format!("{:.0} ({least:.0} to {most:.0})", median(counts.iter().copied()))
}
