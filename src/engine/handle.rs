//! What other threads have of an engine.

use std::{
    iter,
    net::{Ipv4Addr, SocketAddrV4},
    sync::{
        Arc, Condvar, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use super::choose::BackendReport;
use crate::{
    datagram::{Egress, Outbox, Queued, ReplyPath},
    events::{Events, Subscribers},
    lock::lock,
    nics::Nics,
    path::{FailedNic, Host, Listen, ListenSocket, SharedDrops, SocketInfo, SocketLayout, Wake},
    stats::{Stats, StatsTable},
    sys::process::Opener,
};

/// Stops an engine, watches it, sends and answers for it, from any thread.
///
/// In a process that was forked from the engine's it does nothing, and shows nothing.
///
/// ```
/// # let engine = nicring::Engine::builder().port(0).nic("127.0.0.1").open()?;
/// let handle = engine.handle();
/// let server = std::thread::spawn(move || engine.run(|_| std::ops::ControlFlow::Continue(())));
/// println!("{}", handle.stats());
/// handle.stop();
/// server.join().unwrap()?;
/// # Ok::<(), nicring::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    /// The other shards; none of an engine that is alone.
    others: Arc<[Arc<Shared>]>,
}

impl Handle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, others: Arc::default() }
    }

    /// A handle of several shards.
    pub(super) fn of_shards(first: Arc<Shared>, others: Vec<Arc<Shared>>) -> Self {
        Self { shared: first, others: others.into() }
    }

    fn shards(&self) -> impl Iterator<Item = &Arc<Shared>> {
        iter::once(&self.shared).chain(&*self.others)
    }

    /// Ends the engine; see [`Engine::run`](crate::Engine::run). What was queued before still
    /// leaves. What handles queue later is refused, and counted
    /// ([`Stats::stopped_count`](crate::Stats::stopped_count)).
    ///
    /// ```no_run
    /// # fn on_ctrl_c(_: impl FnMut() + Send + 'static) {}
    /// let engine = nicring::Engine::builder().port(5076).open()?;
    /// let handle = engine.handle();
    /// on_ctrl_c(move || handle.stop()); // such as `ctrlc::set_handler` of the crate ctrlc
    /// let stats = engine.run(|_| std::ops::ControlFlow::Continue(()))?;
    /// println!("{stats}");
    /// # Ok::<(), nicring::Error>(())
    /// ```
    pub fn stop(&self) {
        self.shards().for_each(|shard| shard.stop());
    }

    /// What the engine has counted so far. Asks the kernel for the drops of each socket.
    #[must_use]
    pub fn stats(&self) -> Stats {
        if !self.shared.opener.is_this() {
            return Stats::default();
        }
        self.shards().for_each(|shard| shard.refresh_drop_counts());
        self.shared.shared_drops.settle();
        let mut stats = self.shared.stats_as_known();
        self.others.iter().for_each(|shard| stats += shard.stats_as_known());
        stats
    }

    /// The NICs as the engine knows them, including those that it does not listen on.
    #[must_use]
    pub fn nics(&self) -> Arc<Nics> {
        if !self.shared.opener.is_this() {
            return Arc::default();
        }
        Arc::clone(&self.shared.host().nics)
    }

    /// The NICs that the engine listens on, each with those of its addresses that it listens at.
    #[must_use]
    pub fn heard_nics(&self) -> Arc<Nics> {
        if !self.shared.opener.is_this() {
            return Arc::default();
        }
        Arc::clone(&self.shared.host().heard)
    }

    /// Which backend runs, and why [`Backend::Auto`](crate::Backend::Auto) did not choose io_uring.
    #[must_use]
    pub fn backend(&self) -> &BackendReport {
        &self.shared.report
    }

    /// What [`Listen::Auto`] chose.
    #[must_use]
    pub fn listen(&self) -> Listen {
        self.shared.layout.listen()
    }

    /// Where the engine listens; empty once it has closed.
    #[must_use]
    pub fn sockets(&self) -> Vec<SocketInfo> {
        if !self.shared.opener.is_this() {
            return Vec::new();
        }
        self.shards().flat_map(|shard| lock(&shard.infos).clone()).collect()
    }

    /// What stays unheard because its socket could not be opened, or its group not be joined. The
    /// engine tries again and again, at intervals of up to a second.
    #[must_use]
    pub fn failed_nics(&self) -> Vec<FailedNic> {
        if !self.shared.opener.is_this() {
            return Vec::new();
        }
        self.shards().flat_map(|shard| lock(&shard.failed_nics).clone()).collect()
    }

    /// What becomes of the NICs, sockets and groups from now on. [`Handle::sockets`] are those that
    /// there are, [`Handle::failed_nics`] what is not heard. When something is told,
    /// [`Handle::heard_nics`] has it, and datagrams can be sent by it. Events do not call the
    /// handler of an engine: take them on another thread, in a task, or at a
    /// [tick](crate::Builder::tick).
    #[must_use]
    pub fn events(&self) -> Events {
        if !self.shared.opener.is_this() {
            return Events::over();
        }
        self.shared.subscribers.add()
    }

    /// Tells the engine to list the NICs again, and to open and close sockets to match. Nothing is
    /// lost on the sockets that stay.
    pub fn rescan(&self) {
        for shard in self.shards() {
            shard.wants_rescan.store(true, Ordering::SeqCst);
            shard.wake();
        }
    }

    pub(super) fn stats_table(&self) -> &StatsTable {
        &self.shared.stats
    }

    /// Whether the engine is of this process, and not of one that it was forked from.
    pub(super) fn is_of_this_process(&self) -> bool {
        self.shared.opener.is_this()
    }

    /// Ends the turn that waits. If none waits, the next one does not wait.
    pub(super) fn wake(&self) {
        self.shared.wake();
    }

    /// Queues a datagram that answers nothing, such as a beacon: from the first port, unless the
    /// egress names another.
    #[must_use]
    pub fn send(&self, egress: Egress, destination: SocketAddrV4, payload: &[u8]) -> Queued {
        self.post(|shared| shared.host().send(&shared.posted, egress, destination, payload))
    }

    /// Queues a datagram that answers nothing once for each NIC that the engine listens on, by
    /// which it leaves: to a group, or to 255.255.255.255. All of them leave by one submission, and
    /// none is queued if there is no room for all.
    ///
    /// The NICs are those of [`Nics::outward`]. Where the payload or the destination differs from
    /// NIC to NIC, such as the broadcast address of each subnet, go over these and use
    /// [`Handle::send`].
    ///
    /// ```
    /// use nicring::{Egress, Engine};
    ///
    /// # let engine = Engine::builder().port(0).nic("127.0.0.1").open()?;
    /// let handle = engine.handle();
    /// let everyone = "224.0.0.251:5353".parse().expect("an address");
    /// let egress = Egress::by_route().with_ttl(255);
    /// assert!(handle.fan_out(egress, everyone, b"I am here").is_queued());
    /// # Ok::<(), nicring::Error>(())
    /// ```
    #[must_use]
    pub fn fan_out(&self, egress: Egress, destination: SocketAddrV4, payload: &[u8]) -> Queued {
        self.post(|shared| shared.host().fan_out(&shared.posted, egress, destination, payload))
    }

    /// Queues an answer to `destination`, for a datagram that came by `path`, when its batch may be
    /// long gone: as [`Batch::reply_by`](crate::Batch::reply_by), from any thread.
    ///
    /// It leaves with the engine's next submission, whatever batches are kept. Up to
    /// [`Builder::replies_max`](crate::Builder::replies_max) wait for it; what is refused is
    /// counted as a reply of a batch is. After [`Handle::stop`] all is refused.
    ///
    /// ```
    /// # use nicring::{AsyncEngine, Handle};
    /// # async fn look_up(_: Vec<u8>) -> Option<Vec<u8>> { None }
    /// # async fn serve(engine: AsyncEngine) -> nicring::Result<()> {
    /// let handle = engine.handle();
    /// while let Some(batch) = engine.recv_batch().await? {
    ///     for datagram in batch.iter() {
    ///         let (path, asker) = (datagram.reply_path(), datagram.source());
    ///         let (handle, question) = (handle.clone(), datagram.payload().to_vec());
    ///         tokio::spawn(async move {
    ///             if let Some(answer) = look_up(question).await {
    ///                 let _ = handle.reply_by(path, asker, &answer);
    ///             }
    ///         });
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn reply_by(&self, path: ReplyPath, destination: SocketAddrV4, payload: &[u8]) -> Queued {
        let way = self.way(&path, destination);
        self.post(|Shared { posted, .. }| match way {
            Some(egress) => lock(posted).push(Some(path.origin()), egress, destination, payload),
            None => lock(posted).refuse(),
        })
    }

    /// As [`Handle::reply_by`], with an answer that `write` composes: it gets `len_max` bytes, all
    /// zeros, and returns how many of them it wrote.
    ///
    /// ```
    /// # fn answer(handle: &nicring::Handle, path: nicring::ReplyPath) {
    /// let asker = "192.0.2.99:40000".parse().expect("an address");
    /// let queued = handle.reply_with(path, asker, 5, |buffer| {
    ///     buffer.copy_from_slice(b"hello");
    ///     5
    /// });
    /// # }
    /// ```
    #[must_use]
    pub fn reply_with(
        &self,
        path: ReplyPath,
        destination: SocketAddrV4,
        len_max: usize,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) -> Queued {
        let way = self.way(&path, destination);
        self.post(|Shared { posted, .. }| match way {
            Some(egress) => {
                Outbox::compose(posted, path.origin(), (egress, destination), len_max, write)
            }
            None => lock(posted).refuse(),
        })
    }

    /// How an answer for a datagram that came by `path` leaves when it is sent to `destination`: as
    /// [`Batch::egress`](crate::Batch::egress), when the batch may be long gone.
    ///
    /// ```
    /// # use std::net::SocketAddrV4;
    /// # fn later(handle: &nicring::Handle, path: nicring::ReplyPath, asker: SocketAddrV4) {
    /// let own = handle.egress(path, *asker.ip()).source; // what the asker sees
    /// let answer = format!("I am at {own:?}");
    /// let _ = handle.reply_by(path, asker, answer.as_bytes());
    /// # }
    /// ```
    #[must_use]
    pub fn egress(&self, path: ReplyPath, destination: Ipv4Addr) -> Egress {
        if !self.shared.opener.is_this() {
            return Egress::default();
        }
        self.shared.host().egress(&path, destination)
    }

    /// How an answer leaves, if it may.
    fn way(&self, path: &ReplyPath, destination: SocketAddrV4) -> Option<Egress> {
        if !self.shared.opener.is_this() {
            return None;
        }
        self.shared.host().way(path, destination)
    }

    fn post(&self, push: impl FnOnce(&Shared) -> Queued) -> Queued {
        if !self.shared.opener.is_this() {
            return Queued::Stopped;
        }
        if self.shared.is_stopping() {
            self.shared.stats.stopped_count.fetch_add(1, Ordering::Relaxed);
            return Queued::Stopped;
        }
        let queued = push(&self.shared);
        self.shared.has_posted.store(true, Ordering::SeqCst);
        self.shared.wake();
        queued
    }
}

/// What an engine's thread shares with its handles.
#[derive(Debug)]
pub(super) struct Shared {
    pub opener: Opener,
    pub is_stopping: AtomicBool,
    pub wants_rescan: AtomicBool,
    pub has_posted: AtomicBool,
    /// Whether the next turn must not wait.
    pub has_errand: AtomicBool,
    /// Whether the engine waits, or is about to. Only then must it be woken.
    pub is_waiting: AtomicBool,
    /// Whether an engine for async tasks waits for a batch to come back, or is about to.
    pub waits_for_batch: AtomicBool,
    /// What ends that wait.
    pub batch_returned: Condvar,
    waker: Arc<dyn Wake>,
    /// What ends the wait of an engine that a runtime waits for.
    pub local_waker: OnceLock<Arc<dyn Wake>>,
    pub stats: StatsTable,
    /// What handles have queued.
    pub posted: Mutex<Outbox>,
    /// Empty once the engine has closed.
    pub sockets: Mutex<Vec<Arc<ListenSocket>>>,
    /// What users see of the sockets.
    pub infos: Mutex<Vec<SocketInfo>>,
    pub host: Mutex<Arc<Host>>,
    pub failed_nics: Mutex<Vec<FailedNic>>,
    pub subscribers: Subscribers,
    pub shared_drops: Arc<SharedDrops>,
    pub report: BackendReport,
    pub layout: SocketLayout,
}

impl Shared {
    pub fn new(
        waker: Arc<dyn Wake>,
        report: BackendReport,
        stats: StatsTable,
        layout: SocketLayout,
        replies_max: usize,
        shared_drops: Arc<SharedDrops>,
    ) -> Self {
        Self {
            opener: Opener::this(),
            is_stopping: AtomicBool::new(false),
            wants_rescan: AtomicBool::new(false),
            has_posted: AtomicBool::new(false),
            has_errand: AtomicBool::new(false),
            is_waiting: AtomicBool::new(false),
            waits_for_batch: AtomicBool::new(false),
            batch_returned: Condvar::new(),
            waker,
            local_waker: OnceLock::new(),
            stats,
            posted: Mutex::new(Outbox::new(replies_max)),
            sockets: Mutex::default(),
            infos: Mutex::default(),
            host: Mutex::default(),
            failed_nics: Mutex::default(),
            subscribers: Subscribers::default(),
            shared_drops,
            report,
            layout,
        }
    }

    /// What the engine knows of its host now.
    pub fn host(&self) -> Arc<Host> {
        Arc::clone(&lock(&self.host))
    }

    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::SeqCst)
    }

    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Ends the turn that waits. If none waits, the next one does not wait. The caller has stored
    /// before what the engine is to see.
    pub fn wake(&self) {
        if !self.opener.is_this() {
            return;
        }
        self.has_errand.store(true, Ordering::SeqCst);
        if self.is_waiting.swap(false, Ordering::SeqCst) {
            self.local_waker.get().unwrap_or(&self.waker).wake();
        } else if self.waits_for_batch.load(Ordering::SeqCst) {
            self.batch_returned.notify_one();
        }
    }

    pub fn refresh_drop_counts(&self) {
        lock(&self.sockets).iter().for_each(|socket| socket.refresh_drop_count());
    }

    pub fn stats(&self) -> Stats {
        if !self.opener.is_this() {
            return Stats::default();
        }
        self.refresh_drop_counts();
        self.stats_as_known()
    }

    /// The counts, without asking the kernel for drops.
    pub fn stats_as_known(&self) -> Stats {
        let posted_count = lock(&self.posted).len();
        self.stats.note_posted(posted_count);
        Stats { posted_count: posted_count as u64, ..self.stats.snapshot() }
    }
}
