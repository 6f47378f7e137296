//! One turn of one contestant.

use std::{
    error::Error,
    sync::atomic::Ordering::Relaxed,
    thread,
    time::{Duration, Instant},
};

use nicring_bench::{
    clock::machine_busy_time,
    contestant::Contestant,
    load::{Outcome, Running},
    network::Network,
    receiver::{PORT, Snapshot},
    server::Programs,
    syscalls,
};

use super::{side::Side, work::Work};

/// How long the parts of a turn last.
#[derive(Debug)]
pub struct Lengths {
    warm_up: Duration,
    /// CPU time, allocations, rate and delays.
    window: Duration,
    /// System calls: apart, because counting them costs.
    syscalls: Duration,
}

impl Lengths {
    pub const LONG: Self = Self {
        warm_up: Duration::from_millis(400),
        window: Duration::from_millis(1500),
        syscalls: Duration::from_millis(400),
    };
    pub const SHORT: Self = Self {
        warm_up: Duration::from_millis(250),
        window: Duration::from_millis(700),
        syscalls: Duration::from_millis(250),
    };
}

/// What was measured, or why nothing was.
#[derive(Debug)]
pub struct Turn {
    pub work: Work,
    pub nic_count: u8,
    pub contestant: Contestant,
    pub round: u32,
    pub result: Result<Figures, String>,
}

/// Costs are a datagram's: one received, or for fan-out one sent.
#[derive(Debug, Clone)]
pub struct Figures {
    pub cpu_ns: f64,
    pub machine_ns: f64,
    /// `None` where `perf` does not count.
    pub syscalls: Option<f64>,
    /// `None` of a program that does not count them.
    pub allocations: Option<f64>,
    pub per_second: f64,
    /// Answers that came, none twice, where a closed loop waits for them.
    pub answers_per_second: f64,
    /// The share of the time that the client did not wait.
    pub client_busy: f64,
    pub loss: f64,
    pub duplicate_count: u64,
    pub rss_bytes: u64,
    /// Beyond what the process had before the contestant opened anything, where that is known.
    pub own_rss_bytes: Option<u64>,
    /// p50, p99 and p99.9 where datagrams come back.
    pub delays_us: Option<[f64; 3]>,
}

impl Turn {
    pub fn take(
        work: Work,
        contestant: Contestant,
        round: u32,
        network: &Network,
        programs: &Programs,
        lengths: &Lengths,
    ) -> Self {
        let side = Side::start(work, contestant, network, programs);
        let result = side.and_then(|side| measure(work, side, network, lengths));
        let result = result.map_err(|error| error.to_string());
        Self { work, nic_count: network.nic_count(), contestant, round, result }
    }
}

/// The books at one moment.
struct Moment {
    at: Instant,
    receiver: Snapshot,
    machine: Duration,
    waited: Duration,
    answered_count: u64,
}

impl Moment {
    fn now(side: &mut Side, load: &Running) -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            receiver: side.snapshot(load)?,
            at: Instant::now(),
            machine: machine_busy_time()?,
            waited: Duration::from_nanos(load.counters.waited_ns.load(Relaxed)),
            answered_count: load.counters.answered_count.load(Relaxed),
        })
    }
}

fn measure(
    work: Work,
    mut side: Side,
    network: &Network,
    lengths: &Lengths,
) -> Result<Figures, Box<dyn Error>> {
    let nic_count = network.nic_count();
    let load = work.load().start(network, PORT);
    thread::sleep(lengths.warm_up);
    load.counters.is_measuring.store(true, Relaxed);
    let before = Moment::now(&mut side, &load)?;
    thread::sleep(lengths.window);
    let after = Moment::now(&mut side, &load)?;
    load.counters.is_measuring.store(false, Relaxed);
    let units = work.unit_count(nic_count) as f64;
    let syscalls = count_syscalls(&mut side, &load, lengths.syscalls)?.map(|count| count / units);
    let rss_bytes = side.rss_bytes()?;
    let outcome = load.stop()?;
    let received_count = side.drained_count()?;

    let datagrams = after.receiver.received_count - before.receiver.received_count;
    if datagrams == 0 {
        return Err("received nothing".into());
    }
    let seconds = (after.at - before.at).as_secs_f64();
    let per_unit = |amount: f64| amount / (datagrams as f64 * units);
    let waited = after.waited - before.waited;
    let busy = (after.machine - before.machine).saturating_sub(waited);
    let allocations = after.receiver.allocation_count - before.receiver.allocation_count;
    Ok(Figures {
        cpu_ns: per_unit((after.receiver.cpu_ns - before.receiver.cpu_ns) as f64),
        machine_ns: per_unit(busy.as_nanos() as f64),
        syscalls,
        allocations: side.counts_allocations().then(|| per_unit(allocations as f64)),
        per_second: datagrams as f64 * units / seconds,
        answers_per_second: (after.answered_count - before.answered_count) as f64 / seconds,
        client_busy: 1.0 - waited.as_secs_f64() / seconds,
        loss: loss(work, nic_count, received_count, &outcome),
        duplicate_count: outcome.duplicate_count,
        rss_bytes,
        own_rss_bytes: side.own_bytes(rss_bytes),
        delays_us: (work.answer_count(nic_count) == 1).then(|| percentiles(outcome.delays)),
    })
}

/// System calls a datagram received; the rate is that while they were counted.
fn count_syscalls(
    side: &mut Side,
    load: &Running,
    duration: Duration,
) -> Result<Option<f64>, Box<dyn Error>> {
    let (began, before) = (Instant::now(), side.snapshot(load)?);
    let Ok(count) = syscalls::count(side.pid(), duration) else {
        return Ok(None);
    };
    let (after, elapsed) = (side.snapshot(load)?, began.elapsed());
    let datagrams = (after.received_count - before.received_count) as f64;
    let per_second = datagrams / elapsed.as_secs_f64();
    Ok(Some(count.syscall_count as f64 / (per_second * count.duration.as_secs_f64())))
}

/// The share of the whole turn's datagrams that did not arrive, or were not answered.
fn loss(work: Work, nic_count: u8, received_count: u64, outcome: &Outcome) -> f64 {
    let (expected, arrived) = match work.answer_count(nic_count) {
        _ if work.is_for_servers() => (outcome.expected_count, outcome.answered_count),
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
