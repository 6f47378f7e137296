//! When to wait a little for more datagrams.

use std::{
    mem, thread,
    time::{Duration, Instant},
};

/// Whether to wait a little for more datagrams before a batch is handed out.
///
/// Waiting saves wake-ups and costs delay, as when a NIC coalesces its interrupts. io_uring on
/// Linux 6.12 or later (`IORING_FEAT_MIN_TIMEOUT`) waits for several datagrams by itself. Elsewhere
/// the engine sleeps for that time before it asks, whatever comes meanwhile. More is in
/// [the guide](crate::guide#coalescing).
///
/// ```
/// use std::time::Duration;
/// use nicring::{Coalesce, Engine};
///
/// let wait_max = Duration::from_micros(200);
/// let builder = Engine::builder().coalesce(Coalesce::Fixed { datagram_count: 256, wait_max });
/// # let _ = builder;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Coalesce {
    /// A batch is handed out as soon as there is a datagram.
    Off,
    /// Waits up to 100 µs for a fuller batch while 50,000 datagrams per second or more arrive.
    ///
    /// It stops below 30,000 per second, and where waiting does not pay: when clients that wait for
    /// answers send less because of it, or when batches of 16 or more form by themselves.
    #[default]
    Adaptive,
    /// Waits before every batch.
    Fixed {
        /// The wait ends when this many sockets have a datagram, 1 to 32,768. A sleep does not end
        /// by it.
        datagram_count: u32,
        /// The wait ends after this time if a datagram has come by then, else with the first one;
        /// up to 100 ms. The engine may notice [`Handle::stop`](crate::Handle::stop) and
        /// [`Handle::send`](crate::Handle::send) only after this time.
        wait_max: Duration,
    },
}

/// Above this rate waiting pays: a turn then takes 5 datagrams or more at once.
const ON_PER_S: u64 = 50_000;
/// Below this rate it does not, and the lower bound keeps the choice from flickering.
const OFF_PER_S: u64 = 30_000;
/// How long the wait is then, and how much later than at once an answer may leave.
const WAIT_MAX: Duration = Duration::from_micros(100);
/// A wait ends early once so many sockets have something.
const DATAGRAM_COUNT: u32 = 256;
/// Where turns bring so many by themselves, waking up costs next to nothing a datagram, and a wait
/// would only delay the answers.
const CROWD_COUNT: u64 = 16;
/// The rate is taken over at least this long.
const WINDOW_MIN: Duration = Duration::from_millis(5);
/// A window that lasted longer has a pause in it, and says nothing of the choice that it was for.
const WINDOW_MAX: Duration = Duration::from_millis(10);

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
    coalesce: Coalesce,
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
    pub fn new(coalesce: Coalesce) -> Self {
        Self {
            coalesce,
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
        if self.coalesce != Coalesce::Adaptive {
            return;
        }
        let now = now();
        self.window_count += count as u64;
        self.turn_count += u64::from(count > 0);
        let elapsed = now.duration_since(*self.window_start.get_or_insert(now));
        if elapsed < WINDOW_MIN {
            return;
        }
        let (count, turn_count) =
            (mem::take(&mut self.window_count), mem::take(&mut self.turn_count));
        self.window_start = Some(now);
        if elapsed > WINDOW_MAX {
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
        if per_s < if was_fast { OFF_PER_S } else { ON_PER_S } {
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
        let [_, with] = &mut self.rates;
        // It stays slow without waiting, so it was not waiting that made it slow.
        if !self.is_fast && *with < OFF_PER_S {
            *with = 0;
        }
        (self.is_fast, self.is_waiting) = (false, false);
    }

    /// For how many datagrams to wait, and how long; `None` for the first that comes.
    pub fn wait(&self) -> Option<(u32, Duration)> {
        match self.coalesce {
            Coalesce::Off => None,
            Coalesce::Adaptive => self.is_waiting.then_some((DATAGRAM_COUNT, WAIT_MAX)),
            Coalesce::Fixed { datagram_count, wait_max } => Some((datagram_count, wait_max)),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns of `count` datagrams, `gap` apart, for a while.
    fn feed(pace: &mut Pace, now: &mut Instant, count: usize, gap: Duration) {
        for _ in 0..1000 {
            *now += gap;
            pace.note(|| *now, count);
        }
    }

    #[test]
    fn waiting_begins_at_a_high_rate_and_ends_at_a_low_one() {
        let mut pace = Pace::new(Coalesce::Adaptive);
        let mut now = Instant::now();
        feed(&mut pace, &mut now, 1, Duration::from_micros(40));
        assert_eq!(pace.wait(), None, "25,000 per second");
        feed(&mut pace, &mut now, 1, Duration::from_micros(10));
        assert_eq!(pace.wait(), Some((DATAGRAM_COUNT, WAIT_MAX)), "100,000 per second");
        feed(&mut pace, &mut now, 4, Duration::from_micros(100));
        assert!(pace.wait().is_some(), "40,000 per second: as before");
        feed(&mut pace, &mut now, 1, Duration::from_micros(50));
        assert_eq!(pace.wait(), None, "20,000 per second");
    }

    #[test]
    fn a_pause_ends_the_waiting() {
        let mut pace = Pace::new(Coalesce::Adaptive);
        let mut now = Instant::now();
        feed(&mut pace, &mut now, 4, Duration::from_micros(10));
        assert!(pace.wait().is_some());
        now += Duration::from_secs(1);
        pace.note(|| now, 1);
        assert_eq!(pace.wait(), None);
    }

    #[test]
    fn a_pause_while_waiting_does_not_count_against_waiting() {
        let mut pace = Pace::new(Coalesce::Adaptive);
        let mut now = Instant::now();
        let mut waiting_count = 0;
        for _ in 0..20 {
            waiting_count += waiting_in_run(&mut pace, &mut now, 10, Duration::from_micros(6));
            now += Duration::from_secs(1);
        }
        assert!(
            waiting_count > 150,
            "after {waiting_count} of 200 times 6 ms at 166,000 per second"
        );
    }

    #[test]
    fn a_pause_does_not_make_forget_that_waiting_brings_less() {
        let mut pace = Pace::new(Coalesce::Adaptive);
        assert!(waiting_count(&mut pace, 200_000, 80_000) < 50);
        let mut now = pace.window_start.expect("a window");
        let mut waiting_count = 0;
        for _ in 0..20 {
            now += Duration::from_secs(1);
            waiting_count += waiting_in_run(&mut pace, &mut now, 4, Duration::from_micros(5));
        }
        assert!(waiting_count < 10, "after {waiting_count} of 80 times 5 ms");
    }

    /// After how many of `feed_count` times 1,000 datagrams, `gap` apart, it waits.
    fn waiting_in_run(
        pace: &mut Pace,
        now: &mut Instant,
        feed_count: usize,
        gap: Duration,
    ) -> usize {
        let feeds = (0..feed_count).filter(|_| {
            feed(pace, now, 1, gap);
            pace.wait().is_some()
        });
        feeds.count()
    }

    /// How many of 1,000 windows wait, when so many datagrams per second come without waiting and
    /// with it.
    fn waiting_count(pace: &mut Pace, without: u64, with: u64) -> usize {
        let mut now = pace.window_start.unwrap_or_else(Instant::now);
        let windows = (0..1000).filter(|_| {
            let is_waiting = pace.wait().is_some();
            let per_s = if is_waiting { with } else { without };
            let count = per_s * WINDOW_MIN.as_millis() as u64 / 1000;
            (0..count).for_each(|_| pace.note(|| now, 1));
            now += WINDOW_MIN;
            pace.note(|| now, 0);
            is_waiting
        });
        windows.count()
    }

    #[test]
    fn senders_that_do_not_wait_for_answers_are_waited_for() {
        for per_s in [60_000, 200_000, 1_000_000] {
            let count = waiting_count(&mut Pace::new(Coalesce::Adaptive), per_s, per_s);
            assert!(count > 950, "{per_s}/s: {count}");
        }
    }

    #[test]
    fn a_load_that_ebbs_does_not_count_against_waiting() {
        for ebb_us in [60, 90, 150] {
            let mut pace = Pace::new(Coalesce::Adaptive);
            let mut now = Instant::now();
            let mut waiting_count = 0;
            for _ in 0..20 {
                waiting_count += waiting_in_run(&mut pace, &mut now, 10, Duration::from_micros(6));
                (0..120).for_each(|_| {
                    now += Duration::from_micros(ebb_us);
                    pace.note(|| now, 1);
                });
                now += Duration::from_secs(1);
            }
            assert!(waiting_count > 130, "{waiting_count} of 200, ebb {ebb_us} us");
        }
    }

    #[test]
    fn short_runs_at_a_higher_rate_than_before_are_waited_for_again() {
        let mut pace = Pace::new(Coalesce::Adaptive);
        assert!(waiting_count(&mut pace, 60_000, 60_000) > 950);
        let mut now = pace.window_start.expect("a window");
        let mut waiting_count = 0;
        for _ in 0..100 {
            now += Duration::from_secs(1);
            waiting_count += waiting_in_run(&mut pace, &mut now, 4, Duration::from_micros(5));
        }
        assert!(waiting_count > 200, "{waiting_count} of 400 times 5 ms");
    }

    #[test]
    fn senders_that_wait_for_answers_are_not_made_to_wait() {
        for (without, with) in [(60_000, 9_000), (200_000, 80_000), (500_000, 390_000)] {
            let count = waiting_count(&mut Pace::new(Coalesce::Adaptive), without, with);
            assert!(count < 50, "{without}/s, {with}/s: {count}");
        }
    }

    #[test]
    fn senders_that_change_their_ways_are_followed() {
        let mut pace = Pace::new(Coalesce::Adaptive);
        assert!(waiting_count(&mut pace, 300_000, 100_000) < 50);
        assert!(waiting_count(&mut pace, 100_000, 100_000) > 850);
        assert!(waiting_count(&mut pace, 300_000, 100_000) < 130);
    }

    #[test]
    fn crowds_are_not_waited_for() {
        let mut pace = Pace::new(Coalesce::Adaptive);
        let mut now = Instant::now();
        let mut waiting_turns = |count| {
            let turns = (0..100_000).filter(|_| {
                now += Duration::from_micros(20);
                pace.note(|| now, count);
                pace.wait().is_some()
            });
            turns.count()
        };
        assert!(waiting_turns(20) < 3_000, "1,000,000 per second, 20 per turn");
        assert!(waiting_turns(4) > 80_000, "200,000 per second, 4 per turn");
        assert!(waiting_turns(20) < 20_000, "crowds again: noticed at the next trial");
    }

    #[test]
    fn what_is_fixed_asks_no_clock() {
        let wait_max = Duration::from_micros(7);
        let mut pace = Pace::new(Coalesce::Fixed { datagram_count: 3, wait_max });
        pace.note(|| unreachable!("no clock is needed"), 1);
        assert_eq!(pace.wait(), Some((3, wait_max)));
        assert_eq!(Pace::new(Coalesce::Off).wait(), None);
    }
}
