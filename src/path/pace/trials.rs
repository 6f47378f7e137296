//! What waiting does to the rate at which datagrams come.
//!
//! Senders that wait for answers send less while the engine waits: they would be slowed down, and
//! nothing saved. A rate of before says little, because loads change by themselves. So every now
//! and then the other choice is tried for a short time, and its rate is compared with those just
//! before and just after it. One comparison is as good as chance makes it, so several are averaged.

use std::{mem, time::Duration};

/// A stretch is as long as it takes until so many datagrams came. Chance changes its rate by a few
/// per cent.
const STRETCH_COUNT: u64 = 500;
/// It is no longer than so many windows.
const STRETCH_WINDOWS: u32 = 16;
/// The first trial comes after so many stretches, and each later one after twice or four times as
/// many,
const INTERVAL_MIN: u32 = 2;
/// up to so many. The worse choice then has 1.2 % of the time.
const INTERVAL_MAX: u32 = 80;
/// Waiting is given up where the logarithm of the rate without it is larger by this much in the
/// long run, which is 3.5 %,
const LOSS_MAX: f64 = 0.035;
/// and by so much more, divided by the number of trials, while there were few of them.
const DOUBT: f64 = 0.15;
/// No single trial counts as more than this.
const LOSS_CLIP: f64 = 0.25;
/// One that differs so much from the mean is a surprise, and is soon followed by another, once.
const SURPRISE: f64 = 0.2;
/// The mean goes back over so many trials.
const MEMORY: f64 = 16.0;
/// If the rates before and after differ by more than this factor, the load has changed by itself.
const CHANGE_MAX: f64 = 1.5;

/// At a rate that differs by this factor from that of the last trial it is another load, of which
/// nothing is known.
const OTHER_LOAD: f64 = 2.5;

/// Windows with one choice, one after the other.
#[derive(Debug, Clone, Copy, Default)]
struct Stretch {
    is_waiting: bool,
    count: u64,
    time: Duration,
    window_count: u32,
}

impl Stretch {
    fn per_s(&self) -> f64 {
        // Of none, the logarithm would be infinite.
        self.count.max(1) as f64 / self.time.as_secs_f64()
    }
}

#[derive(Debug)]
pub(super) struct Trials {
    stretch: Stretch,
    /// The last two before it, the later one first.
    before: [Option<Stretch>; 2],
    /// Until the next trial; none while it is made.
    stretch_count_left: u32,
    interval: u32,
    /// How much less comes with waiting: the mean of the logarithms, and over how many.
    loss: f64,
    loss_count: f64,
    /// The last loss, if it was a surprise.
    surprise: Option<f64>,
    is_repeated: bool,
    /// The rate without waiting, as of the last trial.
    per_s: f64,
}

impl Trials {
    pub fn new() -> Self {
        Self {
            stretch: Stretch::default(),
            before: [None; 2],
            stretch_count_left: INTERVAL_MIN,
            interval: INTERVAL_MIN,
            loss: 0.0,
            loss_count: 0.0,
            surprise: None,
            is_repeated: false,
            per_s: 0.0,
        }
    }

    /// Whether fewer come because of the waiting.
    pub fn brings_less(&self) -> bool {
        self.loss_count > 0.0 && self.loss > LOSS_MAX + DOUBT / self.loss_count
    }

    /// Notes a window.
    pub fn note(&mut self, is_waiting: bool, count: u64, time: Duration) {
        let Stretch { count: before, time: time_before, window_count, .. } = self.stretch;
        self.stretch = Stretch {
            is_waiting,
            count: before + count,
            time: time_before + time,
            window_count: window_count + 1,
        };
    }

    /// Whether the stretch tells enough. A trial takes no longer than the stretch before it.
    pub fn is_stretch_long(&self) -> bool {
        let window_count_max = match self.before[0] {
            Some(before) if self.stretch_count_left == 0 => before.window_count,
            _ => STRETCH_WINDOWS,
        };
        self.stretch.count >= STRETCH_COUNT || self.stretch.window_count >= window_count_max
    }

    /// Ends the stretch, and compares: one of each choice, between two of the other.
    pub fn end_stretch(&mut self) {
        let after = mem::take(&mut self.stretch);
        let before = self.before;
        self.before = [Some(after), before[0]];
        let [Some(middle), Some(first)] = before else {
            return;
        };
        if middle.is_waiting == after.is_waiting || first.is_waiting != after.is_waiting {
            return;
        }
        if !is_within(first.per_s() / after.per_s(), CHANGE_MAX) {
            return;
        }
        let more = middle.per_s().ln() - f64::midpoint(first.per_s().ln(), after.per_s().ln());
        let (loss, without) = if middle.is_waiting { (-more, after) } else { (more, middle) };
        self.per_s = without.per_s();
        self.learn(loss.clamp(-LOSS_CLIP, LOSS_CLIP));
    }

    /// Forgets what the trials told if the last stretch, which waited for nothing, shows another
    /// load.
    pub fn forget_other_load(&mut self) {
        let Some(last) = self.before[0].filter(|last| !last.is_waiting) else {
            return;
        };
        if self.brings_less() && !is_within(last.per_s() / self.per_s, OTHER_LOAD) {
            (self.loss, self.loss_count, self.surprise) = (0.0, 0.0, None);
            (self.interval, self.stretch_count_left) = (INTERVAL_MIN, INTERVAL_MIN);
        }
    }

    fn learn(&mut self, loss: f64) {
        let is_surprise = self.loss_count > 0.0 && (loss - self.loss).abs() > SURPRISE;
        let last = mem::replace(&mut self.surprise, is_surprise.then_some(loss));
        if let (true, Some(last)) = (is_surprise, last) {
            // Two of the same kind, one after the other: the senders have changed their ways.
            if (last > self.loss) == (loss > self.loss) {
                (self.loss, self.loss_count) = (last, 1.0);
                self.surprise = None;
            }
        }
        self.is_repeated = is_surprise && !self.is_repeated;
        if self.is_repeated {
            self.stretch_count_left = self.stretch_count_left.min(INTERVAL_MIN);
        }
        self.loss_count = (self.loss_count + 1.0).min(MEMORY);
        self.loss += (loss - self.loss) / self.loss_count;
    }

    /// Whether the next stretch is to try the other choice.
    pub fn is_next_trial(&mut self) -> bool {
        if self.stretch_count_left == 0 {
            // Where waiting makes no difference, that need not be tried often.
            let is_alike = self.loss_count > 0.0 && self.loss.abs() < LOSS_MAX;
            let factor = if is_alike { 4 } else { 2 };
            self.interval = (factor * self.interval).min(INTERVAL_MAX);
            self.stretch_count_left = self.interval;
            return false;
        }
        self.stretch_count_left -= 1;
        self.stretch_count_left == 0
    }

    /// There was a pause: what came before it is not beside what comes after it.
    pub fn interrupt(&mut self) {
        (self.stretch, self.before) = (Stretch::default(), [None; 2]);
    }
}

fn is_within(ratio: f64, factor: f64) -> bool {
    (1.0 / factor..=factor).contains(&ratio)
}
