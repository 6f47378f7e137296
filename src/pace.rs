//! When to wait a little for more datagrams.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::backend::Coalesce;

/// Above this rate waiting pays: a turn then takes 5 datagrams or more at once.
const ON_PER_S: u64 = 50_000;
/// Below this rate it does not, and the lower bound keeps the choice from flickering.
const OFF_PER_S: u64 = 30_000;
/// How long the wait is then, and how much later than at once an answer may leave.
const WAIT_MAX: Duration = Duration::from_micros(100);
/// A wait ends early once so many sockets have something.
const DATAGRAM_COUNT: u32 = 256;
/// The rate is taken over at least this long.
const WINDOW_MIN: Duration = Duration::from_millis(5);

/// Watches the rate at which datagrams come.
#[derive(Debug)]
pub(crate) struct Pace {
    coalesce: Coalesce,
    window_start: Option<Instant>,
    window_count: u64,
    is_fast: bool,
}

impl Pace {
    pub fn new(coalesce: Coalesce) -> Self {
        Self { coalesce, window_start: None, window_count: 0, is_fast: false }
    }

    /// Notes the datagrams of a turn that ended at `now`.
    pub fn note(&mut self, now: impl FnOnce() -> Instant, count: usize) {
        if self.coalesce != Coalesce::Adaptive {
            return;
        }
        let now = now();
        self.window_count += count as u64;
        let elapsed = now.duration_since(*self.window_start.get_or_insert(now));
        if elapsed < WINDOW_MIN {
            return;
        }
        let threshold = if self.is_fast { OFF_PER_S } else { ON_PER_S };
        let per_s = self.window_count as u128 * 1_000_000_000 / elapsed.as_nanos();
        self.is_fast = per_s >= u128::from(threshold);
        (self.window_start, self.window_count) = (Some(now), 0);
    }

    /// For how many datagrams to wait, and how long; `None` for the first that comes.
    pub fn wait(&self) -> Option<(u32, Duration)> {
        match self.coalesce {
            Coalesce::Off => None,
            Coalesce::Adaptive => self.is_fast.then_some((DATAGRAM_COUNT, WAIT_MAX)),
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
        assert_eq!(pace.wait(), None, "25,000 a second");
        feed(&mut pace, &mut now, 1, Duration::from_micros(10));
        assert_eq!(pace.wait(), Some((DATAGRAM_COUNT, WAIT_MAX)), "100,000 a second");
        feed(&mut pace, &mut now, 4, Duration::from_micros(100));
        assert!(pace.wait().is_some(), "40,000 a second: as before");
        feed(&mut pace, &mut now, 1, Duration::from_micros(50));
        assert_eq!(pace.wait(), None, "20,000 a second");
    }

    #[test]
    fn a_pause_ends_the_waiting() {
        let mut pace = Pace::new(Coalesce::Adaptive);
        let mut now = Instant::now();
        feed(&mut pace, &mut now, 64, Duration::from_micros(100));
        assert!(pace.wait().is_some());
        now += Duration::from_secs(1);
        pace.note(|| now, 1);
        assert_eq!(pace.wait(), None);
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
