//! The engine: sockets on every NIC, a backend that serves them, and the loop that hands out
//! batches.

use std::{
    io,
    net::SocketAddrV4,
    ops::ControlFlow,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    admit::Admission,
    agenda::{Agenda, Due},
    backend::{self, BackendDriver, BackendReport, Turn, Wake},
    batch::Batch,
    builder::Builder,
    error::{Error, Result},
    listen::{self, Layout, Listen, ListenSocket, Wanted},
    lock::lock,
    nics::Nics,
    outbox::{Outbox, Queued},
    route::Egress,
    stats::{Stats, StatsTable, add},
};

/// Hears and answers UDP datagrams on many NICs, in the calling thread.
///
/// Open it with [`Engine::builder`] on any thread, then give a thread to [`Engine::run`].
/// For async tasks there is [`AsyncEngine`](crate::AsyncEngine).
///
/// ```no_run
/// use std::ops::ControlFlow;
///
/// let engine = nicring::Engine::builder().port(5076).open()?;
/// let stats = engine.run(|batch| {
///     for datagram in batch.iter() {
///         if datagram.payload() == b"ping" {
///             batch.reply(&datagram, b"pong");
///         }
///     }
///     ControlFlow::Continue(())
/// })?;
/// println!("{stats}");
/// # Ok::<(), nicring::Error>(())
/// ```
#[derive(Debug)]
pub struct Engine {
    core: Core,
    tick: Option<Duration>,
}

impl Engine {
    /// Settings to open an engine with.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn open(builder: Builder) -> Result<Self> {
        let tick = builder.tick;
        Ok(Self { core: Core::open(builder)?, tick })
    }

    /// The ports that it listens on, in the order in which they were asked for.
    pub fn ports(&self) -> &[u16] {
        &self.core.ports
    }

    /// A handle to stop and watch it from any thread.
    pub fn handle(&self) -> Handle {
        Handle { shared: Arc::clone(&self.core.shared) }
    }

    /// Serves until the handler breaks or [`Handle::stop`] is called, and then closes. After a stop
    /// what was received by then still goes to the handler, for up to 200 ms; after a break it is
    /// discarded. The replies are sent, and the ports are free when this returns.
    ///
    /// The handler gets each batch of datagrams, and an empty one at a
    /// [tick](Builder::tick) on which nothing came. If it panics the engine is closed too.
    ///
    /// Linux takes an io_uring apart shortly after it was closed, which may interrupt one system
    /// call that this thread waits in after this has returned (`EINTR`).
    ///
    /// # Errors
    ///
    /// [`Error::Backend`] if the backend fails for good, for example because a sandbox that
    /// forbids its system calls was applied after it had been opened.
    pub fn run<H>(mut self, mut handler: H) -> Result<Stats>
    where
        H: FnMut(&Batch) -> ControlFlow<()>,
    {
        let core = &mut self.core;
        let mut batch = core.driver.new_batch();
        let mut next_tick = self.tick.map(|tick| Instant::now() + tick);
        while !core.shared.is_stopping() {
            core.turn(&mut batch, next_tick)?;
            let now = next_tick.map(|_| Instant::now());
            let is_tick = next_tick <= now && next_tick.is_some();
            if is_tick {
                next_tick = now.zip(self.tick).map(|(now, tick)| now + tick);
            }
            let is_due = is_tick || !batch.is_empty();
            if is_due && handler(&batch).is_break() {
                return core.finish(&mut batch);
            }
        }
        core.drain(&mut batch, |batch| handler(batch).is_continue())?;
        core.finish(&mut batch)
    }

    pub(crate) fn into_core(self) -> Core {
        self.core
    }
}

/// Stops and watches an engine from any thread.
///
/// ```
/// # let engine = nicring::Engine::builder().port(0).nic("127.0.0.1".parse()?).open()?;
/// let handle = engine.handle();
/// let server = std::thread::spawn(move || engine.run(|_| std::ops::ControlFlow::Continue(())));
/// println!("{}", handle.stats());
/// handle.stop();
/// server.join().unwrap()?;
/// # Ok::<(), nicring::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
}

impl Handle {
    /// Ends the engine: see [`Engine::run`].
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// What it has counted so far, drops asked of the kernel included.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// The NICs as the engine knows them, those that it does not listen on included.
    pub fn nics(&self) -> Arc<Nics> {
        Arc::clone(&lock(&self.shared.nics))
    }

    /// Which backend runs, and why it is not the first choice.
    pub fn backend(&self) -> &BackendReport {
        &self.shared.report
    }

    /// What [`Listen::Auto`] chose.
    pub fn listen(&self) -> Listen {
        self.shared.layout.listen()
    }

    /// Where the engine listens, as one line a socket.
    pub fn sockets(&self) -> Vec<String> {
        let sockets = lock(&self.shared.sockets);
        sockets.iter().map(|socket| socket.to_string()).collect()
    }

    /// NICs that stay unheard because their sockets could not be opened
    /// ([`OnFailedNic::Warn`](crate::OnFailedNic::Warn)).
    pub fn failed_nics(&self) -> Vec<String> {
        lock(&self.shared.failed_nics).clone()
    }

    /// Lists the NICs again, and opens and closes sockets to match: nothing on the others is lost.
    pub fn rescan(&self) {
        self.shared.wants_rescan.store(true, Ordering::SeqCst);
        self.shared.wake();
    }

    /// Queues a datagram that answers nothing, such as a beacon, from the first port.
    pub fn send(&self, egress: Egress, destination: SocketAddrV4, payload: &[u8]) -> Queued {
        if self.shared.is_stopping() {
            return Queued::Stopped;
        }
        let queued = {
            let mut inbox = lock(&self.shared.inbox);
            inbox.push(None, egress, destination, payload)
        };
        self.shared.has_inbox.store(true, Ordering::SeqCst);
        self.shared.wake();
        queued
    }
}

/// What an engine's thread shares with its handles.
#[derive(Debug)]
pub(crate) struct Shared {
    is_stopping: AtomicBool,
    wants_rescan: AtomicBool,
    has_inbox: AtomicBool,
    /// Whether someone wants a turn that does not wait.
    has_errand: AtomicBool,
    /// Whether the engine waits, or is about to: only then must it be woken.
    is_waiting: AtomicBool,
    waker: Arc<dyn Wake>,
    stats: StatsTable,
    inbox: Mutex<Outbox>,
    /// Empty once the engine has closed.
    sockets: Mutex<Vec<Arc<ListenSocket>>>,
    nics: Mutex<Arc<Nics>>,
    failed_nics: Mutex<Vec<String>>,
    report: BackendReport,
    layout: Layout,
}

impl Shared {
    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::SeqCst)
    }

    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Makes the next turn, or the one that waits, come back at once. What the engine is to see
    /// must be stored before.
    pub fn wake(&self) {
        self.has_errand.store(true, Ordering::SeqCst);
        if self.is_waiting.swap(false, Ordering::SeqCst) {
            self.waker.wake();
        }
    }

    fn refresh_drop_counts(&self) {
        lock(&self.sockets).iter().for_each(|socket| socket.refresh_drop_count());
    }

    fn stats(&self) -> Stats {
        self.refresh_drop_counts();
        self.stats.snapshot()
    }
}

/// How long an engine that is told to stop goes on handing out what was received.
pub(crate) const DRAIN_TIME_MAX: Duration = Duration::from_millis(200);
/// After so many turns the kernel is asked for its drops though nobody wants to know: it counts by 32
/// bits, and more than half of that at once would pass for a step back.
const DROPS_EVERY: u64 = 4096;

/// The parts of an engine that its thread owns.
#[derive(Debug)]
pub(crate) struct Core {
    settings: listen::ListenSettings,
    ports: Vec<u16>,
    /// By slot.
    sockets: Vec<Option<Arc<ListenSocket>>>,
    admission: Admission,
    pub driver: Box<dyn BackendDriver>,
    pub shared: Arc<Shared>,
    posted: Outbox,
    slot_max: usize,
    agenda: Agenda,
    is_closed: bool,
}

impl Core {
    fn open(builder: Builder) -> Result<Self> {
        let settings = builder.listen;
        let layout = Layout::of_system(settings.listen, settings.unicast)?;
        tracing::debug!(?layout, "chose how to listen");
        let nics = Arc::new(Nics::enumerate()?);
        let selected = settings.select(&nics);
        if selected.is_empty() {
            let reason = "no NIC that is up has an address that was chosen and not excluded";
            return Err(Error::setting("nic", reason));
        }
        let stats = StatsTable::default();
        let mut sockets = Vec::new();
        let mut ports = Vec::new();
        let mut failed_nics = Vec::new();
        let wanted = listen::plan(&selected, &settings.groups, settings.unicast, layout);
        for &port in &settings.ports {
            let (opened, failures) = listen::open_port(&wanted, port, &settings, &stats)?;
            failed_nics.extend(failures.iter().map(Error::to_string));
            ports.push(opened[0].port);
            sockets.extend(opened.into_iter().map(|socket| Some(Arc::new(socket))));
        }
        if sockets.len() > builder.sizes.slot_max {
            let reason = format!("{} sockets are needed, 4,096 is the most", sockets.len());
            return Err(Error::setting("nic", reason));
        }
        let (mut driver, report) = backend::open(builder.backend, &builder.sizes)?;
        for (slot, socket) in sockets.iter().enumerate() {
            let added = socket
                .as_ref()
                .map_or(Ok(()), |socket| driver.add(slot as u16, Arc::clone(socket)));
            added.map_err(|source| Error::Backend {
                operation: "adding a socket to the backend",
                source,
            })?;
        }
        let shared = Arc::new(Shared {
            is_stopping: AtomicBool::new(false),
            wants_rescan: AtomicBool::new(false),
            has_inbox: AtomicBool::new(false),
            has_errand: AtomicBool::new(false),
            is_waiting: AtomicBool::new(false),
            waker: driver.waker(),
            stats,
            inbox: Mutex::new(Outbox::new(builder.sizes.replies_max)),
            sockets: Mutex::new(sockets.iter().flatten().map(Arc::clone).collect()),
            nics: Mutex::new(Arc::clone(&nics)),
            failed_nics: Mutex::new(failed_nics),
            report,
            layout,
        });
        Ok(Self {
            admission: Admission::new(nics, selected, &sockets, &shared.stats),
            settings,
            ports,
            sockets,
            driver,
            shared,
            posted: Outbox::new(builder.sizes.replies_max),
            slot_max: builder.sizes.slot_max,
            agenda: Agenda::new(builder.follow_nics),
            is_closed: false,
        })
    }

    /// One turn of the backend: takes the batch back, sends, waits, fills the batch.
    pub fn turn(&mut self, batch: &mut Batch, deadline: Option<Instant>) -> Result<()> {
        self.turn_or_poll(batch, deadline, false)
    }

    /// `is_polling`: comes back without waiting.
    pub fn turn_or_poll(
        &mut self,
        batch: &mut Batch,
        deadline: Option<Instant>,
        is_polling: bool,
    ) -> Result<()> {
        if self.shared.wants_rescan.swap(false, Ordering::SeqCst) || self.is_rescan_due() {
            self.rescan();
        }
        if (self.shared.stats.turn_count.load(Ordering::Relaxed) + 1) % DROPS_EVERY == 0 {
            self.shared.refresh_drop_counts();
        }
        self.count_refusals(batch);
        // Whoever stores an errand after this sees that the engine waits, and wakes it.
        self.shared.is_waiting.store(true, Ordering::SeqCst);
        let is_polling = self.shared.has_errand.swap(false, Ordering::SeqCst) || is_polling;
        self.take_inbox();
        let turn = Turn {
            admission: &self.admission,
            stats: &self.shared.stats,
            deadline: deadline.into_iter().chain(self.agenda.next_at()).min(),
            is_polling,
            posted: &mut self.posted,
        };
        let result = self.driver.turn(turn, batch);
        self.shared.is_waiting.store(false, Ordering::SeqCst);
        add(&self.shared.stats.turn_count, 1);
        batch.nics = Arc::clone(&self.admission.nics);
        result
    }

    /// Takes what handles have queued, once what was taken before is sent.
    fn take_inbox(&mut self) {
        if self.posted.is_empty() && self.shared.has_inbox.swap(false, Ordering::SeqCst) {
            std::mem::swap(&mut *lock(&self.shared.inbox), &mut self.posted);
            add(&self.shared.stats.outbox_full_count, self.posted.take_full_count());
        }
    }

    fn count_refusals(&self, batch: &mut Batch) {
        let full_count = batch.outbox_mut().take_full_count();
        if full_count > 0 {
            add(&self.shared.stats.outbox_full_count, full_count);
        }
    }

    /// Hands out what was received before the engine was told to stop, within a bound.
    pub fn drain(
        &mut self,
        batch: &mut Batch,
        mut hand_out: impl FnMut(&Batch) -> bool,
    ) -> Result<()> {
        let end = Instant::now() + DRAIN_TIME_MAX;
        loop {
            self.turn_or_poll(batch, None, true)?;
            if batch.is_empty() || !hand_out(batch) || Instant::now() > end {
                return Ok(());
            }
        }
    }

    /// Sends what is queued and closes.
    pub fn finish(&mut self, batch: &mut Batch) -> Result<Stats> {
        self.count_refusals(batch);
        self.take_inbox();
        let turn = Turn {
            admission: &self.admission,
            stats: &self.shared.stats,
            deadline: None,
            is_polling: true,
            posted: &mut self.posted,
        };
        let flushed = self.driver.flush(turn, batch);
        let stats = self.shared.stats();
        self.close();
        flushed.map(|()| stats)
    }

    /// Closes every socket: when it returns the ports are free.
    pub fn close(&mut self) {
        if std::mem::replace(&mut self.is_closed, true) {
            return;
        }
        self.shared.is_stopping.store(true, Ordering::SeqCst);
        self.shared.refresh_drop_counts();
        lock(&self.shared.sockets).clear();
        self.sockets.clear();
        self.driver.close();
    }

    fn is_rescan_due(&mut self) -> bool {
        match self.agenda.due() {
            Due::Nothing => false,
            Due::Look => Nics::enumerate().is_ok_and(|nics| nics != *self.admission.nics),
            Due::Retry => true,
        }
    }

    /// Lists the NICs again, closes the sockets that are no longer wanted, opens the new ones.
    fn rescan(&mut self) {
        let nics = match Nics::enumerate() {
            Ok(nics) => Arc::new(nics),
            Err(error) => {
                tracing::warn!(%error, "keeping the NICs as they were");
                return;
            }
        };
        let selected = self.settings.select(&nics);
        let layout = self.shared.layout;
        let (groups, unicast) = (&self.settings.groups, self.settings.unicast);
        let wanted = listen::plan(&selected, groups, unicast, layout);
        self.shared.refresh_drop_counts();
        // So that those which are removed close, and their addresses can be bound again.
        lock(&self.shared.sockets).clear();
        for slot in 0..self.sockets.len() {
            let is_stale = |socket: &Arc<ListenSocket>| {
                !wanted.iter().any(|wanted| wanted.differs_at_most_in_joins(&socket.wanted))
            };
            if let Some(socket) = self.sockets[slot].take_if(|socket| is_stale(socket)) {
                tracing::info!(%socket, "no longer heard: its NIC or address has gone");
                socket.refresh_drop_count();
                drop(socket);
                self.driver.remove(slot as u16);
                self.agenda.note_closed();
            }
        }
        lock(&self.shared.failed_nics).clear();
        let ports = self.ports.clone();
        for port in ports {
            self.add_missing(&wanted, port);
        }
        *lock(&self.shared.sockets) = self.sockets.iter().flatten().map(Arc::clone).collect();
        *lock(&self.shared.nics) = Arc::clone(&nics);
        self.admission = Admission::new(nics, selected, &self.sockets, &self.shared.stats);
    }

    fn add_missing(&mut self, wanted: &[Wanted], port: u16) {
        for wanted in wanted {
            let is_it = |socket: &&Arc<ListenSocket>| {
                socket.port == port && wanted.differs_at_most_in_joins(&socket.wanted)
            };
            // A port that was not named is one that nobody used, and stays so.
            let is_exclusive = self.settings.is_exclusive || !self.settings.ports.contains(&port);
            let stats = &self.shared.stats;
            let done = match self.sockets.iter().flatten().find(is_it) {
                Some(socket) => socket.follow(&wanted.joins),
                None => ListenSocket::open(wanted, port, &self.settings, is_exclusive, stats)
                    .map_err(io::Error::from)
                    .and_then(|socket| self.add(Arc::new(socket))),
            };
            if let Err(error) = done {
                if error.kind() == io::ErrorKind::AddrInUse && self.agenda.may_retry() {
                    continue;
                }
                tracing::warn!(%error, "a NIC stays unheard");
                lock(&self.shared.failed_nics).push(error.to_string());
            }
        }
    }

    fn add(&mut self, socket: Arc<ListenSocket>) -> io::Result<()> {
        let is_free = |slot: &usize| {
            self.sockets.get(*slot).is_none_or(Option::is_none) && self.driver.is_free(*slot as u16)
        };
        let slot = (0..self.slot_max)
            .find(is_free)
            .ok_or_else(|| io::Error::other("no slot is free: 4,096 sockets are the most"))?;
        self.driver.add(slot as u16, Arc::clone(&socket))?;
        if slot >= self.sockets.len() {
            self.sockets.resize(slot + 1, None);
        }
        tracing::info!(%socket, "heard from now on");
        self.sockets[slot] = Some(socket);
        Ok(())
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.close();
    }
}
