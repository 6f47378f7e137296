//! The drops of sockets that hear a part each of the same datagrams.
//!
//! What a socket filter drops counts among the drops of the socket. Of a broadcast to n shards,
//! n - 1 sockets drop their copy by the filter, and the last one queues it or drops it because its
//! receive buffer is full. So with D drops and A received datagrams on all n of them,
//! (D - (n - 1) A) / n were lost in full buffers. That holds when all that was queued has been
//! received. So D is that of a look at empty sockets, and A that of a later one, when what was
//! under way from the kernel to the handlers has been counted too. What was received in between
//! makes it too few, never too many; where nothing was, it is exact.

use std::{
    collections::HashMap,
    net::SocketAddrV4,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::{lock::lock, stats::NicCounters, sys::shard::Shard};

/// No datagram is under way from the kernel to a handler for as long as this, unless the handler
/// itself blocks.
const UNDER_WAY_MAX: Duration = Duration::from_millis(100);

/// All such sockets of the shards of an engine.
#[derive(Debug, Default)]
pub(crate) struct SharedDrops {
    pools: Mutex<HashMap<Key, Pool>>,
}

/// What such sockets have in common: where they are bound, and the NIC, by index and predecessors.
pub(crate) type Key = (SocketAddrV4, Option<(u32, u32)>);

/// The sockets that share one port and plan.
#[derive(Debug)]
struct Pool {
    members: Vec<Arc<Member>>,
    /// The drops and the received datagrams of those that have gone.
    gone: (u64, u64),
    shard_count: u64,
    /// Where losses count. They go with the NIC.
    counters: Weak<NicCounters>,
    /// The last look at empty sockets: when, and how many drops they had.
    last: Option<(Instant, u64)>,
    lost_count: u64,
}

/// What is counted of one such socket. It stays when the socket has gone.
#[derive(Debug, Default)]
pub(crate) struct Member {
    pub dropped_count: AtomicU64,
    pub received_count: AtomicU64,
    /// Whether datagrams were queued in it at the last look.
    pub has_queued: AtomicBool,
}

impl SharedDrops {
    /// A member for a socket that is to be opened.
    pub fn join(&self, key: Key, shard: Shard, counters: &Arc<NicCounters>) -> Arc<Member> {
        let mut pools = lock(&self.pools);
        // Those of NICs that have gone, if nobody has asked for the statistics since.
        pools.retain(|other, pool| *other == key || pool.is_in_use());
        let pool = pools.entry(key).or_insert_with(|| Pool {
            members: Vec::new(),
            gone: (0, 0),
            shard_count: shard.count.into(),
            counters: Weak::new(),
            last: None,
            lost_count: 0,
        });
        pool.fold_gone();
        pool.counters = Arc::downgrade(counters);
        let member = Arc::default();
        pool.members.push(Arc::clone(&member));
        member
    }

    /// Counts what was lost in full buffers, as far as it can be told now.
    pub fn settle(&self) {
        self.settle_at(Instant::now());
    }

    fn settle_at(&self, now: Instant) {
        lock(&self.pools).retain(|_, pool| {
            let is_in_use = pool.is_in_use();
            pool.settle(now, is_in_use);
            is_in_use
        });
    }
}

impl Pool {
    /// Whether any of its sockets is open.
    fn is_in_use(&self) -> bool {
        self.members.iter().any(|member| Arc::strong_count(member) > 1)
    }

    /// Keeps of those that have gone only what they counted.
    fn fold_gone(&mut self) {
        let Self { members, gone, .. } = self;
        members.retain(|member| {
            let is_open = Arc::strong_count(member) > 1;
            if !is_open {
                gone.0 += member.dropped_count.load(Relaxed);
                gone.1 += member.received_count.load(Relaxed);
            }
            is_open
        });
    }

    /// Once no socket is open, all has been counted.
    fn settle(&mut self, now: Instant, is_in_use: bool) {
        let sum = |of: fn(&Member) -> &AtomicU64| {
            self.members.iter().map(|member| of(member).load(Relaxed)).sum::<u64>()
        };
        let dropped_count = self.gone.0 + sum(|member| &member.dropped_count);
        let received_count = self.gone.1 + sum(|member| &member.received_count);
        if !is_in_use {
            self.count(dropped_count, received_count);
        } else if self.members.iter().all(|member| !member.has_queued.load(Relaxed)) {
            let (at, dropped_before) = *self.last.get_or_insert((now, dropped_count));
            if now.saturating_duration_since(at) >= UNDER_WAY_MAX {
                self.count(dropped_before, received_count);
                self.last = Some((now, dropped_count));
            }
        }
    }

    fn count(&mut self, dropped_count: u64, received_count: u64) {
        let filtered_count = (self.shard_count - 1) * received_count;
        let lost_count = dropped_count.saturating_sub(filtered_count) / self.shard_count;
        let new_count = lost_count.saturating_sub(self.lost_count);
        if let Some(counters) = self.counters.upgrade() {
            counters.kernel_drop_count.fetch_add(new_count, Relaxed);
        }
        self.lost_count += new_count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::StatsTable;

    #[test]
    fn what_filters_drop_is_not_counted_and_what_is_lost_is() {
        let (stats, drops) = (StatsTable::default(), SharedDrops::default());
        let counters = stats.nic(2, "eth0");
        let key = (SocketAddrV4::new([255; 4].into(), 5064), Some((2, 0)));
        let shard = |index| Shard { index, count: 3 };
        let [a, b, c] = [0, 1, 2].map(|index| drops.join(key, shard(index), &counters));
        let lost = || counters.kernel_drop_count.load(Relaxed);
        // 10 came: a received 4, b 3, and c 2 of 3.
        for (member, received_count, dropped_count) in [(&a, 4, 6), (&b, 3, 7), (&c, 2, 8)] {
            member.received_count.fetch_add(received_count, Relaxed);
            member.dropped_count.fetch_add(dropped_count, Relaxed);
        }
        let mut now = Instant::now();
        let mut settle_after = |delay| {
            now += delay;
            drops.settle_at(now);
        };
        let soon = UNDER_WAY_MAX / 2;
        settle_after(soon);
        settle_after(soon);
        assert_eq!(lost(), 0, "more may be under way");
        c.has_queued.store(true, Relaxed);
        (0..3).for_each(|_| settle_after(UNDER_WAY_MAX));
        assert_eq!(lost(), 0, "more is queued");
        c.has_queued.store(false, Relaxed);
        settle_after(UNDER_WAY_MAX);
        assert_eq!(lost(), 1);
        // One more, which b receives later.
        for member in [&a, &c] {
            member.dropped_count.fetch_add(1, Relaxed);
        }
        settle_after(soon);
        b.received_count.fetch_add(1, Relaxed);
        (0..3).for_each(|_| settle_after(UNDER_WAY_MAX));
        assert_eq!(lost(), 1);
        // Of 30 more, all to a, 20 are lost, while others come all the time.
        let came = |received: [u64; 3], dropped: [u64; 3]| {
            for ((member, received), dropped) in [&a, &b, &c].into_iter().zip(received).zip(dropped)
            {
                member.received_count.fetch_add(received, Relaxed);
                member.dropped_count.fetch_add(dropped, Relaxed);
            }
        };
        came([10, 0, 0], [20, 30, 30]);
        for _ in 0..5 {
            settle_after(UNDER_WAY_MAX);
            came([1, 2, 0], [2, 1, 3]);
        }
        assert_eq!(lost(), 1 + 20 - 2, "as many too few as two thirds of what comes meanwhile");
        (0..2).for_each(|_| settle_after(UNDER_WAY_MAX));
        assert_eq!(lost(), 1 + 20);
        assert_eq!(lock(&drops.pools).len(), 1);
        drop((a, b, c));
        drops.settle();
        assert!(lock(&drops.pools).is_empty(), "nothing is kept of sockets that have gone");
        for number in 0..100 {
            let other = (key.0, Some((number, 0)));
            drop(drops.join(other, shard(0), &counters)); // and nobody asks for statistics
            drop(drops.join(key, shard(0), &counters));
        }
        let pools = lock(&drops.pools);
        assert!(pools.len() <= 2 && pools.values().all(|pool| pool.members.len() <= 1));
    }
}
