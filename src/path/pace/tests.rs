//! Loads as `Pace` sees them.

use super::*;

impl Pace {
    /// Waits for `count` datagrams before every batch.
    pub fn always(count: u32, time: Duration) -> Self {
        Self { fixed: Some((count, time)), ..Self::new(Duration::ZERO) }
    }
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
    let mut pace = Pace::new(DELAY_MAX_DEFAULT);
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
    let mut pace = Pace::new(DELAY_MAX_DEFAULT);
    let mut now = Instant::now();
    feed(&mut pace, &mut now, 4, Duration::from_micros(10));
    assert!(pace.wait().is_some());
    now += Duration::from_secs(1);
    pace.note(|| now, 1);
    assert_eq!(pace.wait(), None);
}

#[test]
fn a_pause_while_waiting_does_not_count_against_waiting() {
    let mut pace = Pace::new(DELAY_MAX_DEFAULT);
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
    let mut pace = Pace::new(DELAY_MAX_DEFAULT);
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
        let count = waiting_count(&mut Pace::new(DELAY_MAX_DEFAULT), per_s, per_s);
        assert!(count > 950, "{per_s}/s: {count}");
    }
}

#[test]
fn a_load_that_ebbs_does_not_count_against_waiting() {
    for ebb_us in [60, 90, 150] {
        let mut pace = Pace::new(DELAY_MAX_DEFAULT);
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
    let mut pace = Pace::new(DELAY_MAX_DEFAULT);
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
        let count = waiting_count(&mut Pace::new(DELAY_MAX_DEFAULT), without, with);
        assert!(count < 50, "{without}/s, {with}/s: {count}");
    }
}

#[test]
fn senders_that_change_their_ways_are_followed() {
    let mut pace = Pace::new(DELAY_MAX_DEFAULT);
    assert!(waiting_count(&mut pace, 300_000, 100_000) < 50);
    assert!(waiting_count(&mut pace, 100_000, 100_000) > 850);
    assert!(waiting_count(&mut pace, 300_000, 100_000) < 130);
}

#[test]
fn crowds_are_not_waited_for() {
    let mut pace = Pace::new(DELAY_MAX_DEFAULT);
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
    let mut pace = Pace::new(Duration::ZERO);
    pace.note(|| unreachable!("no clock is needed"), 1);
    assert_eq!(pace.wait(), None);
}
