//! A round: one turn per contestant, in slices that alternate. A machine that is slow for a second
//! is then slow for all contestants.

use std::{
    error::Error,
    sync::atomic::Ordering::Relaxed,
    thread,
    time::{Duration, Instant},
};

use nicring_bench::{
    clock::machine_busy_time,
    contestant::Contestant,
    load::Running,
    network::Network,
    outcome::Outcome,
    receiver::{PORT, Snapshot},
    server::Programs,
    syscalls,
};

use super::{
    measured_process::MeasuredProcess,
    schedule::{Lengths, Row},
    workload::Workload,
};

/// What was measured, or why nothing was.
#[derive(Debug)]
pub struct Measurement {
    pub work: Workload,
    pub nic_count: u8,
    pub contestant: Contestant,
    pub round: u32,
    pub result: Result<Figures, String>,
}

/// Costs are per [`Workload::unit`].
#[derive(Debug, Clone)]
pub struct Figures {
    pub cpu_ns: f64,
    pub machine_ns: f64,
    /// `None` where `perf` cannot count.
    pub syscalls: Option<f64>,
    /// `None` for a program that does not count them.
    pub allocations: Option<f64>,
    pub per_second: f64,
    /// Answers per second, duplicates not counted, where a closed loop waits for them.
    pub answers_per_second: f64,
    /// The share of the time in which the client did not wait.
    pub client_busy: f64,
    pub loss: f64,
    pub duplicate_count: u64,
    pub rss_bytes: u64,
    /// How much of `rss_bytes` the process did not have before the contestant opened anything;
    /// `None` where that is unknown.
    pub own_rss_bytes: Option<u64>,
    /// p50, p99 and p99.9; `None` where datagrams do not come back.
    pub delays_us: Option<[f64; 3]>,
}

/// Gives each contestant a turn. Each slice and each round begins with another contestant.
pub fn take_round(
    row: &Row,
    round: u32,
    network: &Network,
    programs: &Programs,
    lengths: &Lengths,
) -> Vec<Measurement> {
    let mut order = row.contestants.clone();
    order.rotate_left(round as usize % row.contestants.len());
    let racers = order
        .iter()
        .zip(PORT..)
        .map(|(contestant, port)| Racer::start(row.work, *contestant, port, network, programs));
    let results = race(row.work, racers.collect(), network, lengths);
    let measurement =
        |(contestant, result): (Contestant, Result<Figures, Box<dyn Error>>)| Measurement {
            work: row.work,
            nic_count: network.nic_count(),
            contestant,
            round,
            result: result.map_err(|error| error.to_string()),
        };
    order.into_iter().zip(results).map(measurement).collect()
}

/// Runs the slices of all contestants until each has been measured.
fn race(
    work: Workload,
    mut racers: Vec<Result<Racer, Box<dyn Error>>>,
    network: &Network,
    lengths: &Lengths,
) -> Vec<Result<Figures, Box<dyn Error>>> {
    for slice in 0..lengths.slice_count as usize {
        for number in 0..racers.len() {
            let number = (number + slice) % racers.len();
            let racer = &mut racers[number];
            if let Ok(running) = racer
                && let Err(error) = running.take_slice(work, network, lengths)
            {
                *racer = Err(error);
            }
        }
    }
    racers.into_iter().map(|racer| racer?.figures(work, network, lengths)).collect()
}

/// A contestant, and what was measured of it so far.
struct Racer {
    contestant: Contestant,
    process: MeasuredProcess,
    port: u16,
    sums: Sums,
}

/// The sums over the slices of a contestant.
#[derive(Default)]
struct Sums {
    datagram_count: u64,
    cpu_ns: u64,
    allocation_count: u64,
    answered_count: u64,
    elapsed: Duration,
    machine: Duration,
    waited: Duration,
    /// Of whole loads, warm-up included.
    outcome: Outcome,
    /// How many datagrams found the sockets full meanwhile, if the sender counts.
    dropped_count: u64,
}

/// All counters at one moment.
struct Moment {
    at: Instant,
    receiver: Snapshot,
    machine: Duration,
    waited: Duration,
    answered_count: u64,
}

impl Moment {
    fn now(process: &mut MeasuredProcess, load: &Running) -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            receiver: process.snapshot(load)?,
            at: Instant::now(),
            machine: machine_busy_time()?,
            waited: Duration::from_nanos(load.counters.waited_ns.load(Relaxed)),
            answered_count: load.counters.answered_count.load(Relaxed),
        })
    }
}

impl Racer {
    fn start(
        work: Workload,
        contestant: Contestant,
        port: u16,
        network: &Network,
        programs: &Programs,
    ) -> Result<Self, Box<dyn Error>> {
        let process = MeasuredProcess::start(work, contestant, port, network, programs)?;
        process.freeze()?;
        Ok(Self { contestant, process, port, sums: Sums::default() })
    }

    fn take_slice(
        &mut self,
        work: Workload,
        network: &Network,
        lengths: &Lengths,
    ) -> Result<(), Box<dyn Error>> {
        self.process.thaw()?;
        let dropped_count = self.process.dropped_count()?;
        let load = work.load(self.contestant).start(network, self.port);
        thread::sleep(lengths.warm_up);
        load.counters.is_measuring.store(true, Relaxed);
        let before = Moment::now(&mut self.process, &load)?;
        thread::sleep(lengths.slice);
        let after = Moment::now(&mut self.process, &load)?;
        load.counters.is_measuring.store(false, Relaxed);
        self.sums.add(&before, &after);
        self.sums.outcome.add(load.stop()?);
        self.sums.dropped_count += self.process.dropped_count()? - dropped_count;
        self.process.rest()?;
        Ok(self.process.freeze()?)
    }

    fn figures(
        mut self,
        work: Workload,
        network: &Network,
        lengths: &Lengths,
    ) -> Result<Figures, Box<dyn Error>> {
        let nic_count = network.nic_count();
        let units = work.unit_count(nic_count) as f64;
        self.process.thaw()?;
        let dropped_count = self.process.dropped_count()?;
        let load = work.load(self.contestant).start(network, self.port);
        thread::sleep(lengths.warm_up);
        let syscalls = count_syscalls(&mut self.process, &load, lengths.syscalls)?;
        let rss_bytes = self.process.rss_bytes()?;
        let Self { mut process, mut sums, .. } = self;
        sums.outcome.add(load.stop()?);
        sums.dropped_count += process.dropped_count()? - dropped_count;
        let received_count = process.drained_count()?;
        if sums.datagram_count == 0 {
            return Err("received nothing".into());
        }
        let seconds = sums.elapsed.as_secs_f64();
        let datagrams = sums.datagram_count as f64;
        let per_unit = |amount: f64| amount / (datagrams * units);
        let busy = sums.machine.saturating_sub(sums.waited);
        let allocations = sums.allocation_count as f64;
        Ok(Figures {
            cpu_ns: per_unit(sums.cpu_ns as f64),
            machine_ns: per_unit(busy.as_nanos() as f64),
            syscalls: syscalls.map(|count| count / units),
            allocations: process.counts_allocations().then(|| per_unit(allocations)),
            per_second: datagrams * units / seconds,
            answers_per_second: sums.answered_count as f64 / seconds,
            client_busy: 1.0 - sums.waited.as_secs_f64() / seconds,
            loss: loss(work, nic_count, received_count, &sums),
            duplicate_count: sums.outcome.duplicate_count,
            rss_bytes,
            own_rss_bytes: process.own_bytes(rss_bytes),
            delays_us: work.has_delays(nic_count).then(|| percentiles(sums.outcome.delays)),
        })
    }
}

impl Sums {
    fn add(&mut self, before: &Moment, after: &Moment) {
        let (first, last) = (&before.receiver, &after.receiver);
        self.datagram_count += last.received_count - first.received_count;
        self.cpu_ns += last.cpu_ns - first.cpu_ns;
        self.allocation_count += last.allocation_count - first.allocation_count;
        self.answered_count += after.answered_count - before.answered_count;
        self.elapsed += after.at - before.at;
        self.machine += after.machine - before.machine;
        self.waited += after.waited - before.waited;
    }
}

/// System calls per datagram received. The datagram rate is measured while they are counted.
fn count_syscalls(
    process: &mut MeasuredProcess,
    load: &Running,
    duration: Duration,
) -> Result<Option<f64>, Box<dyn Error>> {
    let (began, before) = (Instant::now(), process.snapshot(load)?);
    let Ok(count) = syscalls::count(process.pid(), duration) else {
        return Ok(None);
    };
    let (after, elapsed) = (process.snapshot(load)?, began.elapsed());
    let datagrams = (after.received_count - before.received_count) as f64;
    let per_second = datagrams / elapsed.as_secs_f64();
    Ok(Some(count.syscall_count as f64 / (per_second * count.duration.as_secs_f64())))
}

/// The share of a whole turn's datagrams that did not arrive or were not answered.
fn loss(work: Workload, nic_count: u8, received_count: u64, sums: &Sums) -> f64 {
    let outcome = &sums.outcome;
    let (expected, arrived) = match work.answer_count(nic_count) {
        _ if work.is_closed_loop() => (outcome.expected_count, outcome.answered_count),
        // Nobody answers, and nobody tells what was received.
        0 if work.is_counted_by_sender() => {
            (outcome.sent_count, outcome.sent_count.saturating_sub(sums.dropped_count))
        }
        0 => (outcome.sent_count, received_count),
        count => (outcome.sent_count * count, outcome.answered_count),
    };
    1.0 - arrived as f64 / expected.max(1) as f64
}

fn percentiles(mut delays: Vec<Duration>) -> [f64; 3] {
    delays.sort_unstable();
    [0.5, 0.99, 0.999].map(|share| {
        let position = (delays.len() as f64 * share) as usize;
        let delay = delays.get(position.min(delays.len().saturating_sub(1)));
        delay.map_or(f64::NAN, |delay| delay.as_secs_f64() * 1e6)
    })
}
