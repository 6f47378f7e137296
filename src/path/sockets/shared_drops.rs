//! The drops of sockets that hear a part each of the same datagrams.
//!
//! What a socket filter drops counts among the drops of the socket. Of a broadcast to n shards,
//! n - 1 sockets drop their copy by the filter, and the last one queues it or drops it because its
//! receive buffer is full. So with D drops and A received datagrams on all n of them,
//! (D - (n - 1) A) / n were lost in full buffers. That holds for datagrams that came to all n, and
//! when all that was queued has been received. So:
//!
//! - It is counted from a look at which all n are open, an era, until the first of them closes or
//!   changes its groups.
//! - D is that of one look, and A that of a later one, when the sockets have been empty and what
//!   was under way from the kernel to the handlers has been counted too. What was received in
//!   between makes it too few, never too many; where nothing was, it is exact.

use std::{
    collections::HashMap,
    fmt::Debug,
    net::SocketAddrV4,
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::{Duration, Instant},
};

use crate::{
    lock::lock,
    stats::{NicCounters, add},
    sys::shard::Shard,
};

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

/// A socket that can be asked for its drops.
pub(crate) trait Asked: Debug + Send + Sync {
    /// Asks the kernel, and notes it in the socket's [`Part`].
    fn refresh_drop_count(&self);
}

/// What one of them counts. Dropped when the socket is.
#[derive(Debug)]
pub(crate) struct Part {
    member: Arc<Member>,
    key: Key,
    drops: Arc<SharedDrops>,
}

/// It stays when the socket has gone.
#[derive(Debug, Default)]
struct Member {
    dropped_count: AtomicU64,
    received_count: AtomicU64,
    /// Whether datagrams were queued in it at the last look.
    has_queued: AtomicBool,
    /// Whether nobody can ask it any more, nor will it count anything.
    has_gone: AtomicBool,
    /// Whether it hears nothing, though it is still open.
    is_deaf: AtomicBool,
    socket: OnceLock<Weak<dyn Asked>>,
}

/// The sockets that share one port and plan.
#[derive(Debug)]
struct Pool {
    members: Vec<Arc<Member>>,
    /// What those that have gone counted.
    gone: Counted,
    shard_count: u64,
    /// Where losses count. They go with the NIC.
    counters: Weak<NicCounters>,
    era: Option<Era>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    dropped_count: u64,
    received_count: u64,
}

/// The time in which all hear.
#[derive(Debug)]
struct Era {
    begin: Counted,
    /// The drops at the last look of it.
    last: u64,
    /// The drops that are to be judged, and when the sockets were first seen empty after that.
    judged: (u64, Option<Instant>),
    /// Whether one of them has gone, or hears something else.
    is_over: bool,
    lost_count: u64,
}

impl SharedDrops {
    /// The part of a socket that is to be opened.
    pub fn join(self: &Arc<Self>, key: Key, shard: Shard, counters: &Arc<NicCounters>) -> Part {
        let mut pools = lock(&self.pools);
        // Those of NICs that have gone, if nobody has asked for the statistics since.
        forget_gone(&mut pools);
        let pool = pools.entry(key).or_insert_with(|| Pool {
            members: Vec::new(),
            gone: Counted::default(),
            shard_count: shard.count.into(),
            counters: Weak::new(),
            era: None,
        });
        pool.fold_gone();
        pool.counters = Arc::downgrade(counters);
        let member = Arc::default();
        pool.members.push(Arc::clone(&member));
        Part { member, key, drops: Arc::clone(self) }
    }

    /// Counts what was lost in full buffers, as far as it can be told now.
    pub fn settle(&self) {
        let keys: Vec<Key> = lock(&self.pools).keys().copied().collect();
        keys.into_iter().for_each(|key| self.look(key, Instant::now()));
        forget_gone(&mut lock(&self.pools));
    }

    /// Asks all sockets of a pool, and counts.
    fn look(&self, key: Key, now: Instant) {
        let (sockets, begin) = match lock(&self.pools).get(&key) {
            // Before the sockets are asked: what is received meanwhile belongs to an era that
            // begins here, and its drops do not.
            Some(pool) if pool.era.is_some() || pool.is_full() => {
                (pool.sockets(), pool.is_full().then(|| pool.counted().received_count))
            }
            // There is nothing to count, and nothing begins.
            _ => return,
        };
        // Not under the lock: whoever holds a socket last closes it, and so comes back here.
        sockets.iter().filter_map(Weak::upgrade).for_each(|socket| socket.refresh_drop_count());
        if let Some(pool) = lock(&self.pools).get_mut(&key) {
            pool.settle(now, begin);
        }
    }
}

fn forget_gone(pools: &mut HashMap<Key, Pool>) {
    pools.retain(|_, pool| {
        let is_in_use = pool.members.iter().any(|member| !member.has_gone());
        if !is_in_use {
            pool.settle(Instant::now(), None);
        }
        is_in_use
    });
}

impl Part {
    /// From now on it hears, and the others can ask it.
    pub fn opened(&self, socket: Weak<dyn Asked>) {
        let _ = self.member.socket.set(socket); // once
        self.drops.look(self.key, Instant::now());
    }

    /// It is about to close, or to hear something else, if it `hears` anything then.
    pub fn changes(&self, hears: bool) {
        let has_era = |pools: &HashMap<Key, Pool>| {
            pools.get(&self.key).is_some_and(|pool| pool.era.is_some())
        };
        if has_era(&lock(&self.drops.pools)) {
            self.drops.look(self.key, Instant::now());
        }
        let mut pools = lock(&self.drops.pools);
        self.member.is_deaf.store(!hears, Relaxed);
        if let Some(pool) = pools.get_mut(&self.key) {
            pool.era.iter_mut().for_each(Era::end);
        }
    }

    pub fn note_dropped(&self, count: u32) {
        self.member.dropped_count.fetch_add(count.into(), Relaxed);
    }

    #[inline]
    pub fn note_received(&self, count: u64) {
        add(&self.member.received_count, count);
    }

    pub fn note_queued(&self, has_queued: bool) {
        self.member.has_queued.store(has_queued, Relaxed);
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // After all that it has counted.
        self.member.has_gone.store(true, Release);
    }
}

impl Member {
    fn counted(&self) -> Counted {
        Counted {
            dropped_count: self.dropped_count.load(Relaxed),
            received_count: self.received_count.load(Relaxed),
        }
    }

    fn has_gone(&self) -> bool {
        self.has_gone.load(Acquire)
    }

    fn hears(&self) -> bool {
        let is_open = self.socket.get().is_some() && !self.has_gone();
        is_open && !self.is_deaf.load(Relaxed)
    }
}

impl std::ops::AddAssign for Counted {
    fn add_assign(&mut self, other: Self) {
        self.dropped_count += other.dropped_count;
        self.received_count += other.received_count;
    }
}

impl Era {
    /// What comes from now on does not come to all.
    fn end(&mut self) {
        if !std::mem::replace(&mut self.is_over, true) {
            self.judged = (self.last, None);
        }
    }
}

impl Pool {
    /// Whether all hear.
    fn is_full(&self) -> bool {
        self.members.iter().filter(|member| member.hears()).count() as u64 == self.shard_count
    }

    fn sockets(&self) -> Vec<Weak<dyn Asked>> {
        self.members.iter().filter_map(|member| member.socket.get().cloned()).collect()
    }

    fn counted(&self) -> Counted {
        let mut counted = self.gone;
        self.members.iter().for_each(|member| counted += member.counted());
        counted
    }

    /// Keeps of those that have gone only what they counted.
    fn fold_gone(&mut self) {
        let Self { members, gone, .. } = self;
        members.retain(|member| {
            let has_gone = member.has_gone();
            if has_gone {
                *gone += member.counted();
            }
            !has_gone
        });
    }

    /// `begin` is what had been received when the sockets were to be asked, if all heard then.
    fn settle(&mut self, now: Instant, begin: Option<u64>) {
        let have_all_gone = self.members.iter().all(|member| member.has_gone());
        let is_empty = self.members.iter().all(|member| !member.has_queued.load(Relaxed));
        let is_full = begin.is_some() && self.is_full();
        let Counted { dropped_count, received_count } = self.counted();
        let Some(mut era) = self.era.take() else {
            self.era = begin.filter(|_| is_full).map(|received_count| Era {
                begin: Counted { dropped_count, received_count },
                last: dropped_count,
                judged: (dropped_count, is_empty.then_some(now)),
                is_over: false,
                lost_count: 0,
            });
            return;
        };
        match is_full && !era.is_over {
            true => era.last = dropped_count,
            false => era.end(),
        }
        let empty_at = era.judged.1.or(is_empty.then_some(now));
        era.judged.1 = empty_at;
        let is_counted = |at| now.saturating_duration_since(at) >= UNDER_WAY_MAX;
        if have_all_gone || empty_at.is_some_and(is_counted) {
            self.count(&mut era, received_count);
            if era.is_over {
                return;
            }
            era.judged = (era.last, is_empty.then_some(now));
        }
        self.era = Some(era);
    }

    /// Counts what was lost before the judged look.
    fn count(&self, era: &mut Era, received_count: u64) {
        let received_count = received_count.saturating_sub(era.begin.received_count);
        let filtered_count = (self.shard_count - 1) * received_count;
        let dropped_count = era.judged.0.saturating_sub(era.begin.dropped_count);
        let lost_count = dropped_count.saturating_sub(filtered_count) / self.shard_count;
        let new_count = lost_count.saturating_sub(era.lost_count);
        if let Some(counters) = self.counters.upgrade() {
            counters.kernel_drop_count.fetch_add(new_count, Relaxed);
        }
        era.lost_count += new_count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::StatsTable;

    /// Three shards, whose sockets note by themselves what they drop.
    struct Rig {
        drops: Arc<SharedDrops>,
        counters: Arc<NicCounters>,
        now: Instant,
        socket: Arc<dyn Asked>,
    }

    #[derive(Debug)]
    struct Socket;

    impl Asked for Socket {
        fn refresh_drop_count(&self) {}
    }

    const KEY: Key = (SocketAddrV4::new(std::net::Ipv4Addr::BROADCAST, 5064), Some((2, 0)));
    const SOON: Duration = Duration::from_millis(50);

    impl Rig {
        fn new() -> Self {
            let counters = StatsTable::default().nic(2, "eth0");
            // Later than any look of the code itself.
            let now = Instant::now() + Duration::from_secs(3600);
            Self { drops: Arc::default(), counters, now, socket: Arc::new(Socket) }
        }

        fn open(&self, index: u16) -> Part {
            let part = self.drops.join(KEY, Shard { index, count: 3 }, &self.counters);
            part.opened(Arc::downgrade(&self.socket));
            part
        }

        fn open_all(&mut self) -> [Part; 3] {
            let parts = [0, 1, 2].map(|index| self.open(index));
            self.settle_after(Duration::ZERO);
            parts
        }

        fn settle_after(&mut self, delay: Duration) {
            self.now += delay;
            self.drops.look(KEY, self.now);
        }

        fn lost(&self) -> u64 {
            self.counters.kernel_drop_count.load(Relaxed)
        }
    }

    /// What each of them received and dropped.
    fn came<const N: usize>(parts: [&Part; N], received: [u64; N], dropped: [u32; N]) {
        for ((part, received), dropped) in parts.into_iter().zip(received).zip(dropped) {
            part.note_received(received);
            part.note_dropped(dropped);
        }
    }

    #[test]
    fn what_filters_drop_is_not_counted_and_what_is_lost_is() {
        let mut rig = Rig::new();
        let [a, b, c] = rig.open_all();
        // 10 came: a received 4, b 3, and c 2 of 3.
        came([&a, &b, &c], [4, 3, 2], [6, 7, 8]);
        rig.settle_after(SOON);
        c.note_queued(true);
        rig.settle_after(SOON);
        assert_eq!(rig.lost(), 0, "it is not judged yet");
        (0..3).for_each(|_| rig.settle_after(UNDER_WAY_MAX));
        assert_eq!(rig.lost(), 0, "more is queued");
        c.note_queued(false);
        rig.settle_after(SOON);
        rig.settle_after(UNDER_WAY_MAX);
        rig.settle_after(UNDER_WAY_MAX);
        assert_eq!(rig.lost(), 1);
        // One more, which b receives later.
        came([&a, &c], [0, 0], [1, 1]);
        rig.settle_after(SOON);
        b.note_received(1);
        (0..3).for_each(|_| rig.settle_after(UNDER_WAY_MAX));
        assert_eq!(rig.lost(), 1);
    }

    #[test]
    fn losses_are_told_while_others_come_all_the_time_and_never_too_many() {
        let mut rig = Rig::new();
        let [a, b, c] = rig.open_all();
        // Of 30, all to a, 20 are lost.
        came([&a, &b, &c], [10, 0, 0], [20, 30, 30]);
        for _ in 0..5 {
            rig.settle_after(UNDER_WAY_MAX);
            came([&a, &b, &c], [1, 2, 0], [2, 1, 3]);
            assert!(rig.lost() <= 20);
        }
        assert_eq!(rig.lost(), 20 - 2, "as many too few as two thirds of what comes meanwhile");
        (0..2).for_each(|_| rig.settle_after(UNDER_WAY_MAX));
        assert_eq!(rig.lost(), 20);
    }

    #[test]
    fn what_comes_while_not_all_are_open_is_no_loss_and_hides_none() {
        let mut rig = Rig::new();
        let [a, b] = [rig.open(0), rig.open(1)];
        rig.settle_after(Duration::ZERO);
        // 1,000 to a, and 1,000 to c, which is not open yet.
        came([&a, &b], [1000, 0], [1000, 2000]);
        rig.settle_after(UNDER_WAY_MAX);
        let c = rig.open(2);
        (0..3).for_each(|_| rig.settle_after(UNDER_WAY_MAX));
        assert_eq!(rig.lost(), 0);
        // 5 to a, all lost.
        came([&a, &b, &c], [0, 0, 0], [5, 5, 5]);
        (0..2).for_each(|_| rig.settle_after(UNDER_WAY_MAX));
        assert_eq!(rig.lost(), 5);
        // 7 more, before c leaves, and 100 to a after that.
        came([&a, &b, &c], [0, 0, 0], [7, 7, 7]);
        c.changes(false);
        drop(c);
        came([&a, &b], [100, 0], [0, 100]);
        (0..3).for_each(|_| rig.settle_after(UNDER_WAY_MAX));
        assert!(rig.lost() <= 12, "{} is too many", rig.lost());
        drop((a, b));
        rig.drops.settle();
        assert!(lock(&rig.drops.pools).is_empty(), "nothing is kept of sockets that have gone");
    }

    #[test]
    fn what_was_lost_before_all_close_is_counted_though_others_open_before_anybody_asks() {
        let mut rig = Rig::new();
        let parts = rig.open_all();
        came(parts.each_ref(), [3, 0, 0], [20, 23, 23]);
        for part in parts {
            part.changes(false);
        }
        let other = (KEY.0, Some((3, 0)));
        let _other = rig.drops.join(other, Shard { index: 0, count: 3 }, &rig.counters);
        assert_eq!(rig.lost(), 20);
    }

    #[test]
    fn nothing_is_kept_of_sockets_that_have_gone() {
        let rig = Rig::new();
        for number in 0..100 {
            let other = (KEY.0, Some((number, 0)));
            drop(rig.drops.join(other, Shard { index: 0, count: 3 }, &rig.counters));
            drop(rig.open(0)); // and nobody asks for the statistics
        }
        let pools = lock(&rig.drops.pools);
        assert!(pools.len() <= 2 && pools.values().all(|pool| pool.members.len() <= 1));
    }
}
