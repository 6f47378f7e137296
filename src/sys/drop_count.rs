//! How many datagrams a socket has dropped, from counts that wrap.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The latest known value of a 32-bit counter that wraps, and whose values come out of order.
#[derive(Debug, Default)]
pub(crate) struct DropCount {
    last: AtomicU32,
}

impl DropCount {
    /// Returns how many drops are new. A datagram tells the count as of its arrival in the queue,
    /// which may be older than the known one.
    pub fn note(&self, drop_count: u32) -> u32 {
        let mut last = self.last.load(Relaxed);
        loop {
            let added_count = drop_count.wrapping_sub(last);
            if added_count == 0 || added_count > u32::MAX / 2 {
                return 0;
            }
            match self.last.compare_exchange_weak(last, drop_count, Relaxed, Relaxed) {
                Ok(_) => return added_count,
                Err(current) => last = current,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn drop_counts_wrap_and_an_older_count_adds_nothing() {
        let drops = DropCount::default();
        assert_eq!(drops.note(0), 0);
        assert_eq!(drops.note(5), 5);
        assert_eq!(drops.note(3), 0);
        assert_eq!(drops.note(5), 0);
        let drops = DropCount { last: AtomicU32::new(u32::MAX - 1) };
        assert_eq!(drops.note(3), 5);
        assert_eq!(drops.note(u32::MAX), 0);
        // The largest step that counts as new. A larger one counts as older.
        assert_eq!(DropCount::default().note(u32::MAX / 2), u32::MAX / 2);
        assert_eq!(DropCount::default().note(u32::MAX / 2 + 1), 0);
    }

    proptest! {
        /// The kernel counts on by `steps`, through any number of wraps. Each count is noted, and
        /// after it perhaps older ones: datagrams that were queued earlier may be received after
        /// the socket was asked.
        #[test]
        fn drops_add_up_over_any_wraps_and_in_any_order(
            start: u32,
            steps in prop::collection::vec((0..=1_000_000_000u64, 0..4usize), 1..60),
        ) {
            let drops = DropCount { last: AtomicU32::new(start) };
            let mut told = vec![u64::from(start)];
            let mut sum = 0;
            for (step, back) in steps {
                told.push(told[told.len() - 1] + step);
                // An older count is recognised up to half the range back.
                let newest = told[told.len() - 1];
                let older = told.iter().rev().take(back + 1);
                for count in older.take_while(|count| newest - **count < 1 << 31) {
                    sum += u64::from(drops.note(*count as u32));
                }
                prop_assert_eq!(sum, newest - u64::from(start));
            }
        }
    }

    #[test]
    fn drops_told_by_two_threads_at_once_are_counted_once() {
        let drops = DropCount { last: AtomicU32::new(u32::MAX - 5_000) };
        let count = |first: u32| {
            let drops = &drops;
            move || {
                let told = (first..20_000).step_by(2);
                let counts = told.map(|count| drops.note((u32::MAX - 5_000).wrapping_add(count)));
                counts.map(u64::from).sum::<u64>()
            }
        };
        let sum = std::thread::scope(|scope| {
            let threads = [scope.spawn(count(0)), scope.spawn(count(1))];
            threads.map(|thread| thread.join().unwrap()).iter().sum::<u64>()
        });
        assert_eq!(sum, 19_999);
    }
}
