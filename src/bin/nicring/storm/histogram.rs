//! Times in buckets. A bucket is at most 1/32 of its value wide.

use std::time::Duration;

const SUB_BITS: u32 = 5;
const SUB_COUNT: u64 = 1 << SUB_BITS;

/// Counts times without keeping them.
#[derive(Debug, Clone)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: Duration,
}

impl Default for Histogram {
    fn default() -> Self {
        let bucket_count = (64 - SUB_BITS as usize + 1) * SUB_COUNT as usize;
        Self { buckets: vec![0; bucket_count], count: 0, max: Duration::ZERO }
    }
}

impl Histogram {
    pub fn record(&mut self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(ns)] += 1;
        self.count += 1;
        self.max = self.max.max(time);
    }

    pub fn add(&mut self, other: &Self) {
        for (own, other) in self.buckets.iter_mut().zip(&other.buckets) {
            *own += other;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    pub fn max(&self) -> Option<Duration> {
        (self.count > 0).then_some(self.max)
    }

    /// The time that this share of all times does not exceed; `None` without any times.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let rank = ((self.count as f64 * share).ceil() as u64).clamp(1, self.count.max(1));
        let mut below = 0;
        let reaches = |count: &u64| {
            below += count;
            below >= rank
        };
        let position = self.buckets.iter().position(reaches)?;
        Some(Duration::from_nanos(middle(position)).min(self.max))
    }
}

fn bucket(ns: u64) -> usize {
    if ns < SUB_COUNT {
        return ns as usize;
    }
    let shift = 63 - ns.leading_zeros() - SUB_BITS;
    (u64::from(shift + 1) * SUB_COUNT + (ns >> shift) - SUB_COUNT) as usize
}

fn middle(bucket: usize) -> u64 {
    let (octave, sub) = (bucket as u64 / SUB_COUNT, bucket as u64 % SUB_COUNT);
    match octave.checked_sub(1) {
        None => sub,
        Some(shift) => ((SUB_COUNT + sub) << shift) + ((1 << shift) >> 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_has_a_bucket_whose_middle_is_near_it() {
        for shift in 0..64 {
            for ns in [1u64 << shift, (1 << shift) + 1, (1u64 << shift).wrapping_mul(3) / 2] {
                let error = middle(bucket(ns)).abs_diff(ns);
                assert!(error <= ns / 32, "{ns} is off by {error}");
            }
        }
        assert!(bucket(u64::MAX) < Histogram::default().buckets.len());
    }

    #[test]
    fn quantiles_are_ranks() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        for ns in 1..=100 {
            histogram.record(Duration::from_nanos(ns));
        }
        let quantile = |share| histogram.quantile(share).unwrap().as_nanos();
        assert!((49..=51).contains(&quantile(0.5)), "{}", quantile(0.5));
        assert!((97..=100).contains(&quantile(0.99)), "{}", quantile(0.99));
        assert_eq!(quantile(1.0), 100);
    }
}
