//! When to wait a little for more datagrams, and how long.
//!
//! Waiting saves wake-ups and costs delay, as when a NIC coalesces its interrupts. io_uring on
//! Linux 6.12 or later (`IORING_FEAT_MIN_TIMEOUT`) waits for several datagrams by itself. Elsewhere
//! the engine sleeps for that time before it asks, whatever comes meanwhile.

#[cfg(test)]
mod tests;

use std::{
    mem, thread,
    time::{Duration, Instant},
};

/// How long an answer may wait unless the user says otherwise. On a virtual machine a timer is
/// dear: 50 µs cost more than they save below 100,000 datagrams per second.
pub(crate) const DELAY_MAX_DEFAULT: Duration = Duration::from_micros(100);

/// Waiting pays, and begins, where so many are expected to come within a wait.
const BEGIN_COUNT: u64 = 5;
/// It ends below so many: the lower bound keeps the choice from flickering.
const END_COUNT: u64 = 3;
/// A wait ends early once so many sockets have something.
const DATAGRAM_COUNT: u32 = 256;
/// Where turns bring so many by themselves, waking up costs next to nothing a datagram, and a wait
/// would only delay the answers.
const CROWD_COUNT: u64 = 16;
/// The rate is taken over at least this long, and over so many waits.
const WINDOW_MIN: Duration = Duration::from_millis(5);
const WINDOW_WAITS: u32 = 8;

/// After so many windows it is tried for one whether the other choice brings more.
const TRIAL_EVERY: u32 = 64;
/// The same while waiting has not been tried yet.
const FIRST_TRIAL: u32 = 2;

/// Watches the rate at which datagrams come, and what waiting does to it.
///
/// Senders that wait for answers send less while we wait: they would be slowed down, and nothing
/// saved. So every now and then the other choice is tried for one window, and waiting is given up
/// for a while where a quarter more comes without it. It is given up, too, where whole crowds come
/// at once without it.
#[derive(Debug)]
pub(crate) struct Pace {
    delay_max: Duration,
    /// What every wait is, whatever comes: for tests.
    fixed: Option<(u32, Duration)>,
    window_start: Option<Instant>,
    window_count: u64,
    /// How many turns of the window brought anything.
    turn_count: u64,
    is_fast: bool,
    is_waiting: bool,
    /// Whether crowds came in the last window without waiting.
    is_crowded: bool,
    /// Of the last window without waiting, and of the last one with it.
    rates: [u64; 2],
    /// Until the other choice is tried; none while it is.
    window_count_left: u32,
}

impl Pace {
    pub fn new(delay_max: Duration) -> Self {
        Self {
            delay_max,
            fixed: None,
            window_start: None,
            window_count: 0,
            turn_count: 0,
            is_fast: false,
            is_waiting: false,
            is_crowded: false,
            rates: [0; 2],
            window_count_left: TRIAL_EVERY,
        }
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
            self.slow_down();
            return;
        }
        if !self.is_waiting {
            self.is_crowded = turn_count > 0 && count >= CROWD_COUNT * turn_count;
        }
        let per_s = u128::from(count) * 1_000_000_000 / elapsed.as_nanos();
        self.choose(per_s as u64);
    }

    /// A window has ended: whether to wait in the next one.
    fn choose(&mut self, per_s: u64) {
        self.rates[usize::from(self.is_waiting)] = per_s;
        let was_fast = self.is_fast;
        if per_s < self.per_s(if was_fast { END_COUNT } else { BEGIN_COUNT }) {
            self.slow_down();
            return;
        }
        self.is_fast = true;
        let was_trial = self.window_count_left == 0;
        if was_trial || !was_fast {
            let [without, with] = self.rates;
            let is_known = with != 0;
            let brings_less = is_known && without > with + with / 4;
            self.is_waiting = !brings_less && !self.is_crowded;
            // Short runs, too, come to a trial together.
            if was_trial || !is_known {
                self.window_count_left = if is_known { TRIAL_EVERY } else { FIRST_TRIAL };
            }
            return;
        }
        self.window_count_left -= 1;
        if self.window_count_left == 0 {
            self.is_waiting = !self.is_waiting;
        }
    }

    /// Too few come for a wait to pay.
    fn slow_down(&mut self) {
        let end_per_s = self.per_s(END_COUNT);
        let [_, with] = &mut self.rates;
        // It stays slow without waiting, so it was not waiting that made it slow.
        if !self.is_fast && *with < end_per_s {
            *with = 0;
        }
        (self.is_fast, self.is_waiting) = (false, false);
    }

    /// For how many datagrams to wait, and how long; `None` for the first that comes.
    pub fn wait(&self) -> Option<(u32, Duration)> {
        self.fixed.or_else(|| self.is_waiting.then_some((DATAGRAM_COUNT, self.delay_max)))
    }

    fn window(&self) -> Duration {
        WINDOW_MIN.max(WINDOW_WAITS * self.delay_max)
    }

    /// The rate at which `count` datagrams come within a wait.
    fn per_s(&self, count: u64) -> u64 {
        count * 1_000_000_000 / self.delay_max.as_nanos().max(1) as u64
    }
}

/// What Linux adds to a sleep (the timer slack, prctl(2)).
const SLACK: Duration = Duration::from_micros(50);

/// Lets datagrams come for about `wait_max`, where the kernel cannot wait for several: by sleeping.
pub(crate) fn sleep(wait_max: Duration, deadline: Option<Instant>) {
    let remaining = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
    let wait = deadline.map_or(wait_max, |deadline| wait_max.min(remaining(deadline)));
    thread::sleep(wait.saturating_sub(SLACK));
}
