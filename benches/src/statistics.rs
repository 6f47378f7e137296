//! Medians, confidence intervals of their ratios, and how numbers are written.

use std::fmt;

/// The middle value, or the mean of the two in the middle; NaN if there are none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => (values[count / 2 - 1] + values[count / 2]) / 2.0,
    }
}

/// A ratio of medians with its 90 % interval.
#[derive(Debug, Clone, Copy)]
pub struct Ratio {
    /// The ratio of what was measured.
    pub value: f64,
    /// The lower end of the interval.
    pub low: f64,
    /// The upper end of the interval.
    pub high: f64,
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { value, low, high } = self;
        let digits = f.precision().unwrap_or(2);
        write!(f, "{value:.digits$} [{low:.digits$}, {high:.digits$}]")
    }
}

const RESAMPLE_COUNT: usize = 4_000;

/// The ratio of the medians of pairs, with a bootstrap interval. The two values of a pair were
/// measured in the same round. Whole rounds are drawn with replacement, so a disturbance of a round
/// affects both values.
pub fn ratio(pairs: &[(f64, f64)]) -> Option<Ratio> {
    if pairs.is_empty() {
        return None;
    }
    let of = |pairs: &[(f64, f64)]| {
        median(pairs.iter().map(|pair| pair.0)) / median(pairs.iter().map(|pair| pair.1))
    };
    // The draws are always the same, so the same figures give the same interval.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut draw = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        pairs[(state >> 33) as usize % pairs.len()]
    };
    let mut resample = || of(&pairs.iter().map(|_| draw()).collect::<Vec<_>>());
    let mut ratios: Vec<f64> = (0..RESAMPLE_COUNT).map(|_| resample()).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| ratios[(share * RESAMPLE_COUNT as f64) as usize];
    Some(Ratio { value: of(pairs), low: at(0.05), high: at(0.95) })
}

/// Formats a number with its thousands separated by commas.
#[must_use]
pub fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
