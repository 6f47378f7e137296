//! When to wait a little for more datagrams, and how long.
//!
//! Waiting saves wake-ups and costs delay, as when a NIC coalesces its interrupts. io_uring on
//! Linux 6.12 or later (`IORING_FEAT_MIN_TIMEOUT`) waits for several datagrams by itself. Elsewhere
//! the engine sleeps for that time before it asks, whatever comes meanwhile.
//!
//! - [`Pace`] takes the rate over windows of time, and waits where it is high enough.
//! - [`trials`] finds out whether senders send less because of it.

#[cfg(test)]
mod tests;
mod trials;

use std::{
    collections::BTreeMap,
    mem, thread,
    time::{Duration, Instant},
};

use self::trials::Trials;
use crate::platform::SLEEP_EXCESS;

/// How long an answer may wait unless the user says otherwise. On a virtual machine a timer is
/// dear: 50 µs cost more than they save below 100,000 datagrams per second.
pub(crate) const DELAY_MAX_DEFAULT: Duration = Duration::from_micros(100);

/// Waiting pays, and begins, where so many datagrams are expected to come within ten waits.
const BEGIN_COUNT: u64 = 40;
/// It ends below so many: the lower bound keeps the choice from flickering.
const END_COUNT: u64 = 25;
/// A wait ends early once so many sockets have something.
const DATAGRAM_COUNT: u32 = 256;
/// Where turns bring so many by themselves, waking up costs next to nothing a datagram, and a wait
/// would only delay the answers.
const CROWD_COUNT: u64 = 16;
/// The rate is taken over at least this long, and over so many waits.
const WINDOW_MIN: Duration = Duration::from_millis(5);
const WINDOW_WAITS: u32 = 8;
/// What a datagram takes of a receive buffer: a page fragment of 2 KiB, which drivers receive a
/// frame into, and the kernel's note of it (`skb->truesize`, include/linux/skbuff.h). Over loopback
/// it is a third of that.
const CHARGE_BYTES: usize = 2304;
/// How fast datagrams may come all of a sudden. One sender can do so much.
const BURST_PER_S: u64 = 1_000_000;

/// Watches the rate at which datagrams come, and what waiting does to it.
#[derive(Debug)]
pub(crate) struct Pace {
    delay_max: Duration,
    /// A wait that is not longer than this is none: a sleep might take twice as long.
    excess: Duration,
    /// What every wait is, whatever comes: for tests.
    fixed: Option<(u32, Duration)>,
    /// The receive buffer of each socket that hears, by its slot.
    buffers: BTreeMap<u16, usize>,
    /// The highest rate so far.
    per_s_max: u64,
    /// How long to wait, if at all: as long as allowed, unless buffers could overflow meanwhile.
    time: Duration,
    /// Whether `time` is to be worked out again.
    is_stale: bool,
    window_start: Option<Instant>,
    window_count: u64,
    /// How many turns of the window brought anything.
    turn_count: u64,
    is_fast: bool,
    is_waiting: bool,
    /// Whether crowds came in the last window without waiting.
    is_crowded: bool,
    trials: Trials,
}

impl Pace {
    pub fn new(delay_max: Duration) -> Self {
        Self {
            delay_max,
            excess: SLEEP_EXCESS,
            fixed: None,
            buffers: BTreeMap::new(),
            per_s_max: BURST_PER_S,
            time: Duration::ZERO,
            is_stale: true,
            window_start: None,
            window_count: 0,
            turn_count: 0,
            is_fast: false,
            is_waiting: false,
            is_crowded: false,
            trials: Trials::new(),
        }
    }

    /// The socket in this slot hears, and may queue so many bytes, as the kernel counts them.
    pub fn add(&mut self, slot: u16, recv_buffer_bytes: usize) {
        self.buffers.insert(slot, recv_buffer_bytes);
        self.is_stale = true;
    }

    pub fn remove(&mut self, slot: u16) {
        self.buffers.remove(&slot);
        self.is_stale = true;
    }

    /// For how many datagrams to wait, and how long; `None` for the first that comes.
    pub fn wait(&self) -> Option<(u32, Duration)> {
        self.fixed.or_else(|| self.is_waiting.then_some((DATAGRAM_COUNT, self.time)))
    }

    /// Notes the datagrams of a turn that ended at `now`.
    pub fn note(&mut self, now: impl FnOnce() -> Instant, count: usize) {
        if self.delay_max.is_zero() {
            return;
        }
        let now = now();
        self.window_count += count as u64;
        self.turn_count += u64::from(count > 0);
        let elapsed = now.duration_since(*self.window_start.get_or_insert(now));
        if elapsed < self.window() {
            return;
        }
        let (count, turn_count) =
            (mem::take(&mut self.window_count), mem::take(&mut self.turn_count));
        self.window_start = Some(now);
        if elapsed > 2 * self.window() {
            // It has a pause in it, and says nothing of the choice that it was for.
            (self.is_fast, self.is_waiting) = (false, false);
            self.trials.interrupt();
            return;
        }
        if !self.is_waiting {
            self.is_crowded = turn_count > 0 && count >= CROWD_COUNT * turn_count;
        }
        self.choose(count, elapsed);
    }

    /// A window has ended: whether to wait in the next one.
    fn choose(&mut self, count: u64, elapsed: Duration) {
        let per_s = (u128::from(count) * 1_000_000_000 / elapsed.as_nanos()) as u64;
        self.limit(per_s);
        let was_fast = self.is_fast;
        let enough = if was_fast { END_COUNT } else { BEGIN_COUNT };
        self.is_fast = u128::from(per_s) * 10 * self.time.as_nanos()
            >= u128::from(enough) * 1_000_000_000
            && self.time > self.excess;
        self.trials.note(self.is_waiting, count, elapsed);
        if !self.is_fast {
            self.trials.end_stretch();
            self.is_waiting = false;
        } else if !was_fast || self.trials.is_stretch_long() {
            self.trials.end_stretch();
            self.trials.forget_other_load();
            let pays = !self.is_crowded && !self.trials.brings_less();
            // Where crowds come no trial is needed: a turn that waits for nothing shows them.
            self.is_waiting = pays != (!self.is_crowded && self.trials.is_next_trial());
        }
    }

    /// No wait may last longer than half of what the smallest buffer can take.
    fn limit(&mut self, per_s: u64) {
        if per_s > self.per_s_max {
            self.per_s_max = per_s;
            self.is_stale = true;
        }
        if mem::take(&mut self.is_stale) {
            self.time = self.buffers.values().min().map_or(self.delay_max, |bytes| {
                let datagram_count = (bytes / CHARGE_BYTES) as u64;
                let half = Duration::from_nanos(datagram_count * 500_000_000 / self.per_s_max);
                half.min(self.delay_max)
            });
        }
    }

    fn window(&self) -> Duration {
        WINDOW_MIN.max(WINDOW_WAITS * self.time)
    }
}

/// Lets datagrams come for `wait`, where the kernel cannot wait for several: by sleeping.
pub(crate) fn sleep(wait: Duration, deadline: Option<Instant>) {
    let remaining = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
    let wait = deadline.map_or(wait, |deadline| wait.min(remaining(deadline)));
    thread::sleep(wait.saturating_sub(SLEEP_EXCESS));
}
