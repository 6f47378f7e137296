//! What an engine counts, per NIC and in total.

use std::{
    collections::BTreeMap,
    fmt,
    ops::{AddAssign, Deref},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use crate::{
    datagram::{Class, Refusals},
    lock::lock,
    nics::{Nics, printable},
    platform::COUNTS_KERNEL_DROPS,
};

/// How many NICs that are gone keep counters of their own.
const GONE_COUNT_MAX: usize = 16;
/// The name of what belongs to no NIC.
const NO_NIC: &str = "(any)";

/// Makes the atomic counters of a NIC, their snapshot and their sum from one list.
macro_rules! counters {
    ($($(#[doc = $about:literal])* $visible:vis $name:ident,)*) => {
        /// What happened on one NIC, or on all of them.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Counts {
            received_by_class: [u64; 4],
            /// Whether the drops of some sockets cannot be told from what a filter drops.
            hides_drops: bool,
            $($(#[doc = $about])* $visible $name: u64,)*
        }

        impl Counts {
            /// What there is beside the datagrams received in each class.
            const OTHERS: &[Count] = &[
                $(Count {
                    name: stringify!($name),
                    about: concat!($($about),*),
                    of: |counts| counts.$name,
                },)*
            ];
        }

        impl AddAssign for Counts {
            fn add_assign(&mut self, other: Self) {
                for (own, other) in self.received_by_class.iter_mut().zip(other.received_by_class) {
                    *own += other;
                }
                self.hides_drops |= other.hides_drops;
                $(self.$name += other.$name;)*
            }
        }

        /// Read by any thread. Only the engine's thread writes, except that any thread may add to
        /// `kernel_drop_count`.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            pub received_by_class: [AtomicU64; 4],
            pub hides_drops: AtomicBool,
            $(pub $name: AtomicU64,)*
        }

        impl Counters {
            fn snapshot(&self) -> Counts {
                Counts {
                    received_by_class: std::array::from_fn(|class| {
                        self.received_by_class[class].load(Relaxed)
                    }),
                    hides_drops: self.hides_drops.load(Relaxed),
                    $($name: self.$name.load(Relaxed),)*
                }
            }
        }
    };
}

counters! {
    /// Payload bytes received.
    pub received_bytes,
    /// Datagrams that were longer than a buffer.
    pub truncated_count,
    /// Datagrams that the kernel dropped because a socket's receive buffer was full.
    pub(crate) kernel_drop_count,
    /// Datagrams not handed out because no answer to them can be right: their source port is 0, or
    /// their source address is a multicast, broadcast or unspecified one.
    pub guarded_count,
    /// Datagrams not handed out because a filter keeps others only
    /// ([`Builder::filter`](crate::Builder::filter)). What the kernel drops for it is counted
    /// nowhere.
    pub filtered_count,
    /// Datagrams not handed out because they came to a NIC, to an address or to a group that was
    /// not chosen: what a socket hears that is not bound to one of these alone.
    pub unchosen_count,
    /// Datagrams not handed out because another socket of the engine hears them too: the copies of
    /// a broadcast that a socket on 0.0.0.0 gets, or on Windows the further addresses of a NIC.
    pub copy_count,
    /// Datagrams that were still queued in a socket when it was closed, and so were not received.
    pub left_count,
    /// Datagrams whose control messages did not fit, and completions that make no sense.
    pub malformed_count,
    /// How often receiving paused because no buffer was free; the datagrams wait in the socket.
    pub starved_count,
    /// How often a receive was armed again after something ended it.
    pub rearmed_count,
    /// Receives that ended with an error of the socket.
    pub receive_error_count,
    /// ICMP errors that answer what was sent earlier, and that the system reported to a receive.
    /// They say nothing about what is received. Linux reports none.
    pub icmp_error_count,
    /// Datagrams that the kernel accepted for sending.
    pub sent_count,
    /// Datagrams not sent because the socket's send buffer was full.
    pub would_block_count,
    /// Datagrams not sent for another reason: an unreachable network, for example, or a socket that
    /// was closed after it had heard the question.
    pub send_error_count,
}

/// One of the [`Counts`].
pub(crate) struct Count {
    pub name: &'static str,
    /// Its documentation.
    #[allow(dead_code, reason = "for the feature metrics")]
    pub about: &'static str,
    pub of: fn(&Counts) -> u64,
}

impl Counts {
    /// Every count that this platform has, with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let [unicast, subnet, limited, group] = self.received_by_class;
        let received = [
            ("received_unicast_count", unicast),
            ("received_subnet_count", subnet),
            ("received_limited_count", limited),
            ("received_group_count", group),
        ];
        let others = Self::others().filter_map(|count| Some((count.name, self.value(count)?)));
        received.into_iter().chain(others)
    }

    /// A count, if it can be told.
    pub(crate) fn value(&self, count: &Count) -> Option<u64> {
        let is_hidden = self.hides_drops && count.name == "kernel_drop_count";
        (!is_hidden).then(|| (count.of)(self))
    }

    /// What this platform has beside the datagrams received in each class.
    pub(crate) fn others() -> impl Iterator<Item = &'static Count> {
        let has = |count: &&Count| COUNTS_KERNEL_DROPS || count.name != "kernel_drop_count";
        Self::OTHERS.iter().filter(has)
    }

    /// Datagrams received, over all classes.
    #[must_use]
    pub fn received_count(&self) -> u64 {
        self.received_by_class.iter().sum()
    }

    /// Datagrams that the kernel dropped because a socket's receive buffer was full (`SO_MEMINFO`,
    /// Linux 4.12; as `SK_MEMINFO_DROPS` of
    /// [sock_diag(7)](https://man7.org/linux/man-pages/man7/sock_diag.7.html)). `None` where the
    /// platform has no such counter (only Linux has one), and where the kernel drops what a filter
    /// does not keep ([`Builder::filter`](crate::Builder::filter)): it counts both as one. With
    /// [shards](crate::Builder::shards) it tells of lost broadcasts when their sockets have been
    /// empty, and while more comes of a few too few: never of too many. What comes while not all
    /// shards listen to an address is not told of. Where a subnet of the host itself, such as
    /// 127.0.0.0/8, has a socket of its own, copies of broadcasts that find that one full are told
    /// of too.
    #[must_use]
    pub fn kernel_drop_count(&self) -> Option<u64> {
        (COUNTS_KERNEL_DROPS && !self.hides_drops).then_some(self.kernel_drop_count)
    }

    /// Datagrams received in one class.
    #[must_use]
    pub fn received_in(&self, class: Class) -> u64 {
        self.received_by_class[class as usize]
    }
}

/// A snapshot of an engine's counters. No counter ever goes down, but for the two that say how
/// it is now: [`Stats::lent_count`] and [`Stats::posted_count`].
///
/// ```
/// # let engine = nicring::Engine::builder().port(0).nic("127.0.0.1").open()?;
/// let stats = engine.handle().stats();
/// assert_eq!(stats.total().received_count(), 0);
/// for nic in &stats.nics {
///     println!("{}: {} received", nic.name, nic.counts.received_count());
/// }
/// # Ok::<(), nicring::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Stats {
    /// One entry per NIC that the engine listens on, or has listened on lately. If anything was
    /// counted that belongs to no known NIC, or to NICs that are long gone, there is an entry with
    /// the index 0 for it.
    pub nics: Vec<NicStats>,
    /// Datagrams refused by the outbox ([`Queued::Full`](crate::Queued::Full)).
    pub outbox_full_count: u64,
    /// Answers refused because they were for no host ([`Queued::NoHost`](crate::Queued::NoHost)).
    pub no_host_count: u64,
    /// Datagrams of handles refused because the engine was told to stop
    /// ([`Queued::Stopped`](crate::Queued::Stopped)).
    pub stopped_count: u64,
    /// How often an [`AsyncEngine`](crate::AsyncEngine) came to have nothing to receive into,
    /// because tasks kept all of its batches, or took too few of those that were ready.
    pub lease_wait_count: u64,
    /// Batches that tasks keep now: each [`BatchLease`](crate::BatchLease) that is not dropped. An
    /// engine lends 64 at the most, and fewer where these hold all buffers
    /// ([`Counts::starved_count`]). A value that stays high means that tasks keep batches while
    /// they wait for something else, and soon the engine has nothing to receive into. The remedy:
    /// take what is needed from the datagrams, drop the batch, and answer by
    /// [`Handle::reply_by`](crate::Handle::reply_by). Where the value is low and
    /// [`Stats::lease_wait_count`] grows, tasks take too few batches: let more of them receive.
    pub lent_count: u64,
    /// The highest [`Stats::lent_count`] so far. Near 64 it tells of a stall that is over.
    pub lent_peak_count: u64,
    /// Datagrams that handles have queued ([`Handle::reply_by`](crate::Handle::reply_by),
    /// [`Handle::send`](crate::Handle::send)) and the engine's thread has not taken yet. It takes
    /// all of them in each turn, so a value that stays high means that there is no turn: a handler
    /// or a waker blocks that thread. The remedy: move what blocks to another thread.
    pub posted_count: u64,
    /// The highest [`Stats::posted_count`] so far. At
    /// [`Builder::replies_max`](crate::Builder::replies_max) there was no room for another
    /// ([`Stats::outbox_full_count`]). The remedy: a higher limit, or fewer at once.
    pub posted_peak_count: u64,
    /// Turns of the engine's loop: submissions, waits and batches.
    pub turn_count: u64,
    /// Completion queue overflows (io_uring only; the queue is sized so that receives cannot
    /// cause one).
    pub overflow_count: u64,
}

/// What happened on one NIC.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NicStats {
    /// The NIC's name.
    pub name: String,
    /// The NIC's index.
    pub index: u32,
    /// Its counts.
    pub counts: Counts,
}

impl Stats {
    /// The sum over all NICs.
    #[must_use]
    pub fn total(&self) -> Counts {
        let mut total = Counts::default();
        for nic in &self.nics {
            total += nic.counts;
        }
        total
    }
}

/// The sum of both, NIC by NIC.
impl AddAssign for Stats {
    fn add_assign(&mut self, other: Self) {
        // Each field is named, so that none is forgotten.
        let Self {
            nics,
            outbox_full_count,
            no_host_count,
            stopped_count,
            lease_wait_count,
            lent_count,
            lent_peak_count,
            posted_count,
            posted_peak_count,
            turn_count,
            overflow_count,
        } = other;
        for nic in nics {
            match self.nics.iter_mut().find(|own| own.index == nic.index) {
                Some(own) => own.counts += nic.counts,
                None => self.nics.push(nic),
            }
        }
        self.nics.sort_by_key(|nic| nic.index);
        self.outbox_full_count += outbox_full_count;
        self.no_host_count += no_host_count;
        self.stopped_count += stopped_count;
        self.lease_wait_count += lease_wait_count;
        self.lent_count += lent_count;
        self.lent_peak_count += lent_peak_count;
        self.posted_count += posted_count;
        self.posted_peak_count += posted_peak_count;
        self.turn_count += turn_count;
        self.overflow_count += overflow_count;
    }
}

/// The totals in one line; with `{:#}` a line for each NIC too. What was not sent has its reasons
/// in the counts.
impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.total();
        write!(f, "{} received, {} sent, ", total.received_count(), total.sent_count)?;
        if let Some(drop_count) = total.kernel_drop_count() {
            write!(f, "{drop_count} dropped by the kernel, ")?;
        }
        let by_kernel = total.would_block_count + total.send_error_count;
        let by_engine = self.outbox_full_count + self.no_host_count + self.stopped_count;
        write!(f, "{} not sent", by_kernel + by_engine)?;
        if f.alternate() {
            for NicStats { name, counts, .. } in &self.nics {
                let (name, received) = (printable(name), counts.received_count());
                write!(f, "\n{name}: {received} received, {} sent", counts.sent_count)?;
            }
        }
        Ok(())
    }
}

/// The counters of one NIC.
#[derive(Debug)]
pub(crate) struct NicCounters {
    pub index: u32,
    name: Mutex<String>,
    counters: Counters,
}

impl Deref for NicCounters {
    type Target = Counters;

    fn deref(&self) -> &Counters {
        &self.counters
    }
}

/// All counters of an engine.
#[derive(Debug, Default)]
pub(crate) struct StatsTable {
    nics: Mutex<BTreeMap<u32, Arc<NicCounters>>>,
    /// The counts of NICs that are long gone.
    gone: Mutex<Counts>,
    outbox_full_count: AtomicU64,
    no_host_count: AtomicU64,
    pub stopped_count: AtomicU64,
    pub lease_wait_count: AtomicU64,
    lent_count: AtomicU64,
    lent_peak_count: AtomicU64,
    posted_peak_count: AtomicU64,
    pub turn_count: AtomicU64,
    pub overflow_count: AtomicU64,
}

impl StatsTable {
    /// The counters of a NIC. The first call makes them.
    pub fn nic(&self, index: u32, name: &str) -> Arc<NicCounters> {
        let mut nics = lock(&self.nics);
        let counters = nics.entry(index).or_insert_with(|| {
            let (name, counters) = (Mutex::new(name.to_owned()), Counters::default());
            Arc::new(NicCounters { index, name, counters })
        });
        // It may have another name by now.
        let mut known = lock(&counters.name);
        if *known != name {
            name.clone_into(&mut known);
        }
        drop(known);
        Arc::clone(counters)
    }

    /// The counters of these NICs, which are all that the engine listens on. Of the others the last
    /// few keep theirs.
    pub fn of(&self, nics: &Nics) -> Vec<Arc<NicCounters>> {
        let counters = nics.iter().map(|nic| self.nic(nic.index, &nic.name)).collect();
        self.fold_gone();
        counters
    }

    fn fold_gone(&self) {
        let mut nics = lock(&self.nics);
        // Nobody else has the counters: no socket counts there any more.
        let is_gone = |(index, counters): &(&u32, &Arc<NicCounters>)| {
            **index != 0 && Arc::strong_count(counters) == 1
        };
        let gone: Vec<u32> = nics.iter().filter(is_gone).map(|(index, _)| *index).collect();
        let folded = gone.len().saturating_sub(GONE_COUNT_MAX);
        for index in &gone[..folded] {
            if let Some(counters) = nics.remove(index) {
                *lock(&self.gone) += counters.snapshot();
            }
        }
    }

    pub fn note_refusals(&self, refusals: Refusals) {
        if refusals != Refusals::default() {
            add(&self.outbox_full_count, refusals.full_count);
            add(&self.no_host_count, refusals.no_host_count);
        }
    }

    /// A task has taken a batch.
    pub fn note_lent(&self) {
        let lent_count = self.lent_count.fetch_add(1, Relaxed) + 1;
        self.lent_peak_count.fetch_max(lent_count, Relaxed);
    }

    /// A task has given a batch back.
    pub fn note_returned(&self) {
        self.lent_count.fetch_sub(1, Relaxed);
    }

    /// So many datagrams of handles have waited for a turn.
    pub fn note_posted(&self, posted_count: usize) {
        self.posted_peak_count.fetch_max(posted_count as u64, Relaxed);
    }

    /// Counters for datagrams that belong to no known NIC.
    pub fn unattributed(&self) -> Arc<NicCounters> {
        self.nic(0, NO_NIC)
    }

    /// All but [`Stats::posted_count`], which only the posted outbox knows.
    pub fn snapshot(&self) -> Stats {
        let nics = lock(&self.nics);
        let of_nic = |nic: &Arc<NicCounters>| NicStats {
            name: lock(&nic.name).clone(),
            index: nic.index,
            counts: nic.counters.snapshot(),
        };
        let has_any = |nic: &NicStats| nic.index != 0 || nic.counts != Counts::default();
        let mut nics: Vec<_> = nics.values().map(of_nic).filter(has_any).collect();
        let gone = *lock(&self.gone);
        if gone != Counts::default() {
            if nics.first().is_none_or(|nic| nic.index != 0) {
                let (name, counts) = (NO_NIC.to_owned(), Counts::default());
                nics.insert(0, NicStats { name, index: 0, counts });
            }
            nics[0].counts += gone;
        }
        Stats {
            nics,
            outbox_full_count: self.outbox_full_count.load(Relaxed),
            no_host_count: self.no_host_count.load(Relaxed),
            stopped_count: self.stopped_count.load(Relaxed),
            lease_wait_count: self.lease_wait_count.load(Relaxed),
            lent_count: self.lent_count.load(Relaxed),
            lent_peak_count: self.lent_peak_count.load(Relaxed),
            posted_count: 0,
            posted_peak_count: self.posted_peak_count.load(Relaxed),
            turn_count: self.turn_count.load(Relaxed),
            overflow_count: self.overflow_count.load(Relaxed),
        }
    }
}

/// Adds to a counter that only the calling thread writes: no locked instruction is needed.
pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(count), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_the_sum_over_nics_and_every_count_is_named() {
        let table = StatsTable::default();
        for (index, name) in [(1, "lo"), (2, "eth0"), (1, "lo")] {
            let nic = table.nic(index, name);
            add(&nic.received_by_class[Class::Subnet as usize], 2);
            add(&nic.sent_count, 1);
        }
        let stats = table.snapshot();
        assert_eq!(stats.nics.len(), 2);
        let total = stats.total();
        assert_eq!((total.received_in(Class::Subnet), total.received_count()), (6, 6));
        let named: u64 = total.iter().map(|(_, count)| count).sum();
        assert_eq!(named, 6 + 3);
    }

    #[test]
    fn what_was_refused_is_told_among_what_was_not_sent() {
        let table = StatsTable::default();
        add(&table.nic(2, "eth0").would_block_count, 1);
        table.note_refusals(Refusals { full_count: 2, no_host_count: 3 });
        table.stopped_count.fetch_add(4, Relaxed);
        let stats = table.snapshot();
        assert!(stats.to_string().ends_with(", 10 not sent"), "{stats}");
        assert!(format!("{stats:#}").ends_with("\neth0: 0 received, 0 sent"), "{stats:#}");
    }

    #[test]
    fn nics_that_are_long_gone_share_one_row_and_no_count_is_lost() {
        let (table, mut kept) = (StatsTable::default(), None);
        for index in 1..=1000 {
            let nic = table.nic(index, &format!("veth{index}"));
            add(&nic.sent_count, 1);
            kept = (index == 7).then(|| Arc::clone(&nic)).or(kept);
            drop(nic);
            table.of(&Nics::default());
        }
        let stats = table.snapshot();
        assert_eq!(stats.nics.len(), 1 + 1 + GONE_COUNT_MAX, "the old ones, one in use, the last");
        assert_eq!((stats.nics[0].index, stats.nics[1].index), (0, 7));
        assert_eq!(stats.total().sent_count, 1000);
        drop(kept);
    }
}
