//! What is to be run: rows, each of which is one work over a number of NICs.

use std::{error::Error, time::Duration};

use nicring_bench::{contestant, contestant::Contestant, server::Server};

use super::{
    Arguments,
    workload::{Choices, Workload},
};

/// What is to be run.
#[derive(Debug)]
pub struct Schedule {
    /// Sorted by their number of NICs.
    pub rows: Vec<Row>,
    pub round_count: u32,
    pub lengths: Lengths,
}

/// How long the parts of a turn last.
#[derive(Debug)]
pub struct Lengths {
    /// Before each slice.
    pub warm_up: Duration,
    /// CPU time, allocations, rate and delays.
    pub slice: Duration,
    pub slice_count: u32,
    /// For system calls, measured separately because counting them costs time.
    pub syscalls: Duration,
}

impl Lengths {
    const LONG: Self = Self {
        warm_up: Duration::from_millis(60),
        slice: Duration::from_millis(190),
        slice_count: 8,
        syscalls: Duration::from_millis(400),
    };
    const SHORT: Self = Self {
        warm_up: Duration::from_millis(60),
        slice: Duration::from_millis(180),
        slice_count: 4,
        syscalls: Duration::from_millis(250),
    };

    /// What comes at a steady rate all day finds a receiver that has learned the rate. So there are
    /// fewer slices of such work, each as much longer.
    pub fn of(&self, work: Workload) -> Self {
        let Self { warm_up, slice, slice_count, syscalls } = *self;
        match work.has_fixed_rate() {
            true => Self {
                warm_up: STEADY_WARM_UP,
                slice: slice * slice_count / STEADY_SLICE_COUNT,
                slice_count: STEADY_SLICE_COUNT,
                syscalls,
            },
            false => Self { warm_up, slice, slice_count, syscalls },
        }
    }
}

const STEADY_WARM_UP: Duration = Duration::from_millis(500);
const STEADY_SLICE_COUNT: u32 = 2;

/// One workload over a number of NICs.
#[derive(Debug)]
pub struct Row {
    pub nic_count: u8,
    pub work: Workload,
    /// All of them can do the work.
    pub contestants: Vec<Contestant>,
    /// The contestant with whose CPU time the others' is compared; one of `contestants`.
    pub against: Contestant,
}

/// What users get stands first.
const DEFAULT_CONTESTANTS: [&str; 7] =
    ["nicring", "nicring-portable", "nicring-no-delay", "epoll", "tokio", "seed", "libcom"];

/// caproto is slower than the rates.
const DEFAULT_SERVERS_OF_MISSES: [&str; 5] =
    ["serve", "serve-portable", "serve-no-delay", "rsrv", "pvxs"];

impl Schedule {
    pub fn new(arguments: &Arguments) -> Result<Self, Box<dyn Error>> {
        let mut rows = Vec::new();
        for work in works(arguments)? {
            let contestants = contestants(arguments, work)?;
            for nic_count in nic_counts(arguments, work) {
                let against = arguments.against.filter(|named| work.suits(*named));
                let against = against.unwrap_or_else(|| work.against());
                let mut contestants = contestants.clone();
                if !contestants.contains(&against) {
                    contestants.push(against);
                }
                rows.push(Row { nic_count, work, contestants, against });
            }
        }
        rows.sort_by_key(|row| row.nic_count);
        let (round_count, lengths) = match arguments.quick {
            true => (arguments.rounds.unwrap_or(3), Lengths::SHORT),
            false => (arguments.rounds.unwrap_or(7), Lengths::LONG),
        };
        Ok(Self { rows, round_count, lengths })
    }

    /// The servers among the contestants.
    pub fn servers(&self) -> Vec<Server> {
        let contestants = self.rows.iter().flat_map(|row| &row.contestants);
        let server = |contestant: &Contestant| match contestant {
            Contestant::Server(server) => Some(*server),
            _ => None,
        };
        contestants.filter_map(server).collect()
    }

    pub fn measurement_count(&self) -> usize {
        let counts = self.rows.iter().map(|row| row.contestants.len());
        counts.sum::<usize>() * self.round_count as usize
    }
}

fn works(arguments: &Arguments) -> Result<Vec<Workload>, String> {
    let names: Vec<&str> = match (&arguments.work[..], arguments.full) {
        ([], true) => Workload::NAMES.to_vec(),
        ([], false) => vec!["storm", "paced"],
        (names, _) => names.iter().map(String::as_str).collect(),
    };
    let windows = match (&arguments.window[..], arguments.full) {
        ([], true) => &[1, 16, 64, 256],
        ([], false) => &[64][..],
        (windows, _) => windows,
    };
    let choices = Choices {
        windows,
        hits: &arguments.hits,
        names_per_datagram: &arguments.names_per_datagram,
        name_counts: &arguments.names,
        rates: &arguments.rates,
        source_count: arguments.senders,
    };
    let works = names.iter().map(|name| Workload::named(name, &choices));
    Ok(works.collect::<Result<Vec<_>, String>>()?.concat())
}

/// The numbers of NICs to measure with. Servers are compared on one NIC: they run the same code for
/// any number.
fn nic_counts(arguments: &Arguments, work: Workload) -> Vec<u8> {
    match (&arguments.nics[..], arguments.full, arguments.quick) {
        ([], ..) if work.is_for_servers() => vec![1],
        ([], true, _) => vec![1, 4, 16, 64],
        ([], _, true) => vec![4],
        ([], ..) => vec![4, 16],
        (nics, ..) => nics.to_vec(),
    }
}

fn contestants(arguments: &Arguments, work: Workload) -> Result<Vec<Contestant>, String> {
    let all = || contestant::ALL.iter().map(|(_, contestant)| *contestant);
    let named = |names: &[&str]| names.iter().map(|name| name.parse().expect("a name")).collect();
    let candidates: Vec<Contestant> = match (&arguments.contestants[..], arguments.full) {
        ([], true) => all().collect(),
        ([], false) if work.is_closed_loop() && work.is_for_servers() => all().collect(),
        ([], false) if work.is_for_servers() => named(&DEFAULT_SERVERS_OF_MISSES),
        ([], false) => named(&DEFAULT_CONTESTANTS),
        (contestants, _) => contestants.to_vec(),
    };
    let suited: Vec<_> = candidates.into_iter().filter(|one| work.suits(*one)).collect();
    if suited.is_empty() {
        let names = all().filter(|one| work.suits(*one)).map(|one| one.to_string());
        let names = names.collect::<Vec<_>>().join(", ");
        return Err(format!("no contestant that was named does {work}; these do: {names}"));
    }
    Ok(suited)
}
