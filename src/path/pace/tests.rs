//! Loads as `Pace` sees them.

use super::*;

impl Pace {
    /// Waits for `count` datagrams before every batch.
    #[allow(dead_code, reason = "for io_uring, which only Linux has")]
    pub fn always(count: u32, time: Duration) -> Self {
        Self { fixed: Some((count, time)), ..Self::new(Duration::ZERO) }
    }

    pub fn smallest_buffer(&self) -> Option<usize> {
        self.buffers.values().min().copied()
    }
}

/// As on Linux, whatever sleeps do here.
fn new_pace(delay_max: Duration) -> Pace {
    Pace { excess: Duration::from_micros(50), ..Pace::new(delay_max) }
}

/// Turns of `count` datagrams, `gap` apart, for a while.
fn feed(pace: &mut Pace, now: &mut Instant, count: usize, gap: Duration) {
    for _ in 0..1000 {
        *now += gap;
        pace.note(|| *now, count);
    }
}

#[test]
fn waiting_begins_at_a_high_rate_and_ends_at_a_low_one() {
    let mut pace = new_pace(DELAY_MAX_DEFAULT);
    let mut now = Instant::now();
    feed(&mut pace, &mut now, 1, Duration::from_micros(40));
    assert_eq!(pace.wait(), None, "25,000 per second");
    feed(&mut pace, &mut now, 1, Duration::from_micros(10));
    assert_eq!(pace.wait(), Some((DATAGRAM_COUNT, DELAY_MAX_DEFAULT)), "100,000 per second");
    feed(&mut pace, &mut now, 4, Duration::from_micros(100));
    assert!(pace.wait().is_some(), "40,000 per second: as before");
    feed(&mut pace, &mut now, 1, Duration::from_micros(50));
    assert_eq!(pace.wait(), None, "20,000 per second");
}

#[test]
fn a_pause_ends_the_waiting() {
    let mut pace = new_pace(DELAY_MAX_DEFAULT);
    let mut now = Instant::now();
    feed(&mut pace, &mut now, 4, Duration::from_micros(10));
    assert!(pace.wait().is_some());
    now += Duration::from_secs(1);
    pace.note(|| now, 1);
    assert_eq!(pace.wait(), None);
}

#[test]
fn a_pause_while_waiting_does_not_count_against_waiting() {
    let mut pace = new_pace(DELAY_MAX_DEFAULT);
    let mut now = Instant::now();
    let mut waiting_count = 0;
    for _ in 0..20 {
        waiting_count += waiting_in_run(&mut pace, &mut now, 10, Duration::from_micros(6));
        now += Duration::from_secs(1);
    }
    assert!(waiting_count > 150, "after {waiting_count} of 200 times 6 ms at 166,000 per second");
}

#[test]
fn a_pause_does_not_make_forget_that_waiting_brings_less() {
    let mut pace = new_pace(DELAY_MAX_DEFAULT);
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
fn waiting_in_run(pace: &mut Pace, now: &mut Instant, feed_count: usize, gap: Duration) -> usize {
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
        let count = waiting_count(&mut new_pace(DELAY_MAX_DEFAULT), per_s, per_s);
        assert!(count > 950, "{per_s}/s: {count}");
    }
}

#[test]
fn a_load_that_ebbs_does_not_count_against_waiting() {
    for ebb_us in [60, 90, 150] {
        let mut pace = new_pace(DELAY_MAX_DEFAULT);
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
    let mut pace = new_pace(DELAY_MAX_DEFAULT);
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
        let count = waiting_count(&mut new_pace(DELAY_MAX_DEFAULT), without, with);
        assert!(count < 50, "{without}/s, {with}/s: {count}");
    }
}

#[test]
fn senders_that_change_their_ways_are_followed() {
    let mut pace = new_pace(DELAY_MAX_DEFAULT);
    assert!(waiting_count(&mut pace, 300_000, 100_000) < 50);
    assert!(waiting_count(&mut pace, 100_000, 100_000) > 850);
    assert!(waiting_count(&mut pace, 300_000, 100_000) < 130);
}

#[test]
fn crowds_are_not_waited_for() {
    let mut pace = new_pace(DELAY_MAX_DEFAULT);
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
fn without_delay_no_clock_is_asked() {
    let mut pace = new_pace(Duration::ZERO);
    pace.note(|| unreachable!("no clock is needed"), 1);
    assert_eq!(pace.wait(), None);
}

/// What asks one server, as a queue in time.
#[derive(Clone)]
struct Site {
    /// This many askers ask one at a time, and again about so long after their answer.
    asker_count: usize,
    round_trip: f64,
    /// Datagrams per second that wait for nothing, and whether they come at random.
    open_per_s: f64,
    is_random: bool,
}

/// Of a turn, and of each datagram in it, in seconds.
const TURN_S: f64 = 4e-6;
const DATAGRAM_S: f64 = 0.7e-6;

struct Outcome {
    answered_per_s: f64,
    /// Of the time, how much was spent in turns that waited.
    waiting: f64,
    turn_count: usize,
}

impl Site {
    const NOBODY: Self =
        Self { asker_count: 0, round_trip: 40e-6, open_per_s: 0.0, is_random: false };

    /// Serves it for `time` seconds.
    fn serve(&self, pace: &mut Pace, time: f64) -> Outcome {
        let epoch = pace.window_start.unwrap_or_else(Instant::now);
        let mut seed = 1_u64;
        // Exponential, with a mean of 1.
        let mut chance = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            -(1.0 - (seed >> 11) as f64 / (1_u64 << 53) as f64).ln()
        };
        let gap = |chance: f64| if self.is_random { chance } else { 1.0 } / self.open_per_s;
        let mut asks: Vec<f64> = (0..self.asker_count).map(|asker| asker as f64 * 3e-6).collect();
        let mut next_open = gap(chance());
        let (mut now, mut answered, mut waiting, mut turn_count) = (0.0, 0, 0.0, 0);
        while now < time {
            let first = asks.iter().copied().fold(next_open, f64::min);
            let wait = pace.wait().map_or(Duration::ZERO, |(_, wait)| wait);
            assert!(wait <= pace.delay_max);
            let wait = wait.as_secs_f64();
            let start = now;
            turn_count += 1;
            let end = first.max(now + wait);
            let mut count = 0;
            while next_open <= end {
                next_open += gap(chance());
                count += 1;
            }
            let heard = asks.iter().filter(|ask| **ask <= end).count();
            count += heard;
            now = end + TURN_S + count as f64 * DATAGRAM_S;
            for ask in asks.iter_mut().filter(|ask| **ask <= end) {
                *ask = now + self.round_trip * (0.7 + 0.3 * chance());
            }
            answered += count;
            waiting += if wait > 0.0 { now - start } else { 0.0 };
            pace.note(|| epoch + Duration::from_secs_f64(now), count);
        }
        Outcome { answered_per_s: answered as f64 / now, waiting: waiting / now, turn_count }
    }

    /// What part of it is answered with this delay.
    fn answered(&self, delay_max: Duration, time: f64) -> f64 {
        let of = |delay_max| self.serve(&mut new_pace(delay_max), time).answered_per_s;
        of(delay_max) / of(Duration::ZERO)
    }
}

const MS: Duration = Duration::from_millis(1);

#[test]
fn an_open_load_is_waited_for_where_it_brings_four_within_a_wait() {
    for is_random in [false, true] {
        let site = |open_per_s| Site { open_per_s, is_random, ..Site::NOBODY };
        let busy = site(5_000.0).serve(&mut new_pace(MS), 60.0);
        assert!(busy.waiting > 0.9, "5,000/s, random {is_random}: {}", busy.waiting);
        assert!(busy.turn_count < 60 * 5_000 / 4, "{}", busy.turn_count);
        let idle = site(2_000.0).serve(&mut new_pace(MS), 60.0);
        assert!(idle.waiting < 0.02, "2,000/s, random {is_random}: {}", idle.waiting);
    }
}

#[test]
fn the_other_choice_has_little_of_the_time() {
    let open = Site { open_per_s: 20_000.0, is_random: true, ..Site::NOBODY };
    let mut pace = new_pace(MS);
    open.serve(&mut pace, 2.0);
    let waiting = open.serve(&mut pace, 60.0).waiting;
    assert!(waiting > 0.98, "{waiting}");
}

#[test]
fn a_load_that_is_mostly_closed_is_answered_at_its_rate() {
    for delay_max in [DELAY_MAX_DEFAULT, MS] {
        for (asker_count, round_trip) in [(1, 40e-6), (4, 40e-6), (12, 100e-6), (4, 1e-3)] {
            let closed = Site { asker_count, round_trip, ..Site::NOBODY };
            let rate = closed.serve(&mut new_pace(Duration::ZERO), 0.5).answered_per_s;
            let site = Site { open_per_s: rate / 4.0, is_random: asker_count != 4, ..closed };
            let answered = site.answered(delay_max, 5.0);
            assert!(answered > 0.95, "{asker_count} {round_trip} {delay_max:?}: {answered}");
        }
    }
}

#[test]
fn a_lone_asker_is_not_made_to_wait() {
    for delay_max in [DELAY_MAX_DEFAULT, MS, 10 * MS] {
        let site = Site { asker_count: 1, round_trip: 45e-6, ..Site::NOBODY };
        // Learning takes longer where waits are long.
        let answered = site.answered(delay_max, 3.0 + 2_000.0 * delay_max.as_secs_f64());
        assert!(answered > 0.95, "{delay_max:?}: {answered}");
    }
}

#[test]
fn what_one_load_taught_is_forgotten_when_another_comes() {
    let lone = Site { asker_count: 1, round_trip: 45e-6, ..Site::NOBODY };
    let open = Site { open_per_s: 5_000.0, is_random: true, ..Site::NOBODY };
    let mut pace = new_pace(MS);
    for _ in 0..3 {
        let waiting = lone.serve(&mut pace, 5.0).waiting;
        assert!(waiting < 0.05, "for a lone asker: {waiting}");
        let waiting = open.serve(&mut pace, 5.0).waiting;
        assert!(waiting > 0.85, "for 5,000/s: {waiting}");
    }
}

#[test]
fn few_that_wait_for_answers_do_not_keep_many_from_being_waited_for() {
    let open_per_s = 30_000.0;
    let site = Site { asker_count: 1, round_trip: 1e-3, open_per_s, is_random: true };
    let waiting = site.serve(&mut new_pace(MS), 20.0).waiting;
    assert!(waiting > 0.95, "{waiting}");
}

#[test]
fn a_wait_is_no_longer_than_half_of_what_the_smallest_buffer_can_take() {
    let wait = |buffers: &[usize], per_s: f64| {
        let mut pace = new_pace(MS);
        (0..).zip(buffers).for_each(|(slot, bytes)| pace.add(slot, *bytes));
        Site { open_per_s: per_s, ..Site::NOBODY }.serve(&mut pace, 1.0);
        pace.time
    };
    let unprivileged = 2 * 212_992;
    assert_eq!(wait(&[], 20_000.0), MS);
    assert_eq!(wait(&[8 << 20], 20_000.0), MS);
    assert_eq!(wait(&[8 << 20, unprivileged], 20_000.0), Duration::from_micros(92));
    let (small, faster) = (wait(&[1 << 20], 20_000.0), wait(&[1 << 20], 1_300_000.0));
    assert_eq!(small, Duration::from_micros(227) + Duration::from_nanos(500));
    assert!(faster < small, "{faster:?}");
}

#[test]
fn where_sleeps_take_longer_than_allowed_nothing_waits() {
    let mut pace = Pace { excess: 15 * MS, ..new_pace(10 * MS) };
    let site = Site { open_per_s: 20_000.0, ..Site::NOBODY };
    assert_eq!(site.serve(&mut pace, 1.0).waiting, 0.0);
}

#[test]
fn a_socket_that_left_bounds_no_wait() {
    let mut pace = new_pace(MS);
    pace.add(0, 8 << 20);
    pace.add(1, 4608);
    let site = Site { open_per_s: 20_000.0, ..Site::NOBODY };
    assert_eq!(site.serve(&mut pace, 1.0).waiting, 0.0, "too short for a sleep");
    pace.remove(1);
    assert!(site.serve(&mut pace, 1.0).waiting > 0.8);
}
