//! The engine for async tasks: its own thread runs the loop and lends batches to the tasks.

#[cfg(all(target_os = "linux", feature = "tokio-uring"))]
pub(super) mod local;

use std::{
    collections::VecDeque,
    future::Future,
    mem,
    ops::Deref,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    core::{Core, DRAIN_TIME_MAX},
    handle::Handle,
    waiters::{Waiters, wake_all},
};
use crate::{
    datagram::Datagram,
    error::{Error, Result},
    lock::lock,
    path::{Batch, Datagrams},
    stats::{Stats, add},
};

/// Hears and answers UDP datagrams on many NICs, from tasks of any async runtime.
///
/// The engine's own thread serves the sockets, and [`AsyncEngine::recv_batch`] hands out what it
/// received. Dropping the engine closes it. It sends what is queued, for up to a second, and the
/// ports are free when `drop` returns. Dropped by a waker on its own thread, the engine ends as
/// soon as the waker returns.
///
/// ```
/// # async fn serve() -> nicring::Result<()> {
/// let engine = nicring::Engine::builder().port(5076).open_async()?;
/// while let Some(batch) = engine.recv_batch().await? {
///     for datagram in batch.iter() {
///         batch.reply(&datagram, b"here");
///     }
/// } // the replies leave when the batch is dropped
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct AsyncEngine {
    handle: Handle,
    ports: Vec<u16>,
    exchange: Arc<Exchange>,
    thread: Option<JoinHandle<()>>,
}

impl AsyncEngine {
    pub(super) fn start(core: Core) -> Result<Self> {
        let handle = Handle::new(Arc::clone(&core.shared));
        let ports = core.ports().to_vec();
        let exchange = Arc::new(Exchange::default());
        let lender = Lender::new(core, Arc::clone(&exchange));
        let thread =
            thread::Builder::new().name("nicring".into()).spawn(move || lender.run()).map_err(
                |source| Error::Backend { operation: "starting the engine's thread", source },
            )?;
        Ok(Self { handle, ports, exchange, thread: Some(thread) })
    }

    /// The ports that it listens on, in the order in which they were asked for.
    #[must_use]
    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// A handle that stops, watches and answers for the engine from any thread.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits for the next batch that has datagrams; `None` once the engine has ended and all
    /// batches were taken. Several tasks may wait; each batch goes to one of them.
    ///
    /// Dropping the future loses nothing. A batch that is kept keeps its buffers and its replies,
    /// and holds back nothing else. When all buffers are kept, or all of 64 batches, datagrams wait
    /// in the sockets: [`Stats::lease_wait_count`](crate::Stats) counts, and after a second a
    /// warning tells; [`Stats::lent_count`](crate::Stats) is how many batches are kept. What
    /// [`Handle::reply_by`] queues leaves meanwhile: it is for answers that take time.
    ///
    /// After [`Handle::stop`] batches have up to 200 ms to come back. The replies of a batch that
    /// comes back later, or after the engine was dropped, are not sent, nor those that a handle
    /// queues after the stop.
    ///
    /// # Errors
    ///
    /// [`Error::Forked`] in a process that was forked since the engine was opened. If an error
    /// ended the engine, one call returns that error.
    pub async fn recv_batch(&self) -> Result<Option<BatchLease>> {
        let received = self.receive().await?;
        Ok(received.map(|batch| self.lease(batch)))
    }

    pub(crate) fn receive(&self) -> Receive<'_> {
        Receive { exchange: &self.exchange, handle: &self.handle, place: None }
    }

    /// Ends the engine and waits for it, as [`Handle::stop`] and dropping it do, but without
    /// blocking the task. Batches that nobody took are discarded. When this returns, all replies
    /// have left and the ports are free.
    ///
    /// # Errors
    ///
    /// As [`AsyncEngine::recv_batch`].
    ///
    /// ```
    /// # async fn serve() -> nicring::Result<()> {
    /// let engine = nicring::Engine::builder().port(5076).open_async()?;
    /// let stats = engine.shutdown().await?;
    /// println!("{stats}");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn shutdown(self) -> Result<Stats> {
        self.handle.stop();
        while self.recv_batch().await?.is_some() {}
        Ok(self.handle.stats())
    }

    /// A batch that is there already; `None` if there is none.
    ///
    /// # Errors
    ///
    /// As [`AsyncEngine::recv_batch`], and [`Error::Stopped`] where that would return `None`.
    ///
    /// ```
    /// # let engine = nicring::Engine::builder().port(0).nic("127.0.0.1").open_async()?;
    /// while let Some(batch) = engine.try_recv_batch()? {
    ///     println!("{} datagrams", batch.len());
    /// }
    /// # Ok::<(), nicring::Error>(())
    /// ```
    pub fn try_recv_batch(&self) -> Result<Option<BatchLease>> {
        if !self.handle.is_of_this_process() {
            return Err(Error::Forked);
        }
        let mut found = self.exchange.look(None);
        if let Look::Enough = found {
            found = self.exchange.look(None); // nobody else gets a turn by this
        }
        match found {
            Look::Found(batch) => match batch? {
                Some(batch) => Ok(Some(self.lease(batch))),
                None => Err(Error::Stopped),
            },
            Look::Nothing(_) | Look::Enough => Ok(None),
        }
    }

    pub(crate) fn lease(&self, batch: Batch) -> BatchLease {
        // Where no batch is free, the engine may make one more now that fewer wait to be taken.
        if self.exchange.wants_returns.load(Ordering::SeqCst) {
            self.handle.wake();
        }
        BatchLease::new(batch, Arc::clone(&self.exchange), self.handle.clone())
    }
}

impl Drop for AsyncEngine {
    fn drop(&mut self) {
        if !self.handle.is_of_this_process() {
            // Its thread is the parent's, which may have held any lock at the fork.
            mem::forget(self.thread.take());
            return;
        }
        self.exchange.is_dropped.store(true, Ordering::SeqCst);
        self.handle.stop();
        let Some(thread) = self.thread.take() else {
            return;
        };
        // A waker may drop the engine on the engine's own thread. That thread cannot wait for
        // itself; it ends by itself.
        if thread.thread().id() != thread::current().id() {
            let _ = thread.join();
        }
        // Nobody can take what is left. A lease that outlives the engine must not keep it.
        let mut queues = lock(&self.exchange.queues);
        queues.received.clear();
        queues.returned.clear();
    }
}

/// A batch that an [`AsyncEngine`] has lent. When it is dropped, its replies leave and its buffers
/// go back. It may outlive the engine.
#[derive(Debug)]
pub struct BatchLease {
    batch: Option<Batch>,
    exchange: Arc<Exchange>,
    handle: Handle,
}

impl BatchLease {
    fn new(batch: Batch, exchange: Arc<Exchange>, handle: Handle) -> Self {
        handle.stats_table().note_lent();
        Self { batch: Some(batch), exchange, handle }
    }
}

impl Deref for BatchLease {
    type Target = Batch;

    fn deref(&self) -> &Batch {
        self.batch.as_ref().expect("taken only on drop")
    }
}

impl<'a> IntoIterator for &'a BatchLease {
    type Item = Datagram<'a>;
    type IntoIter = Datagrams<'a>;

    fn into_iter(self) -> Datagrams<'a> {
        self.iter()
    }
}

impl Drop for BatchLease {
    fn drop(&mut self) {
        let Some(mut batch) = self.batch.take() else {
            return;
        };
        if !self.handle.is_of_this_process() {
            return;
        }
        self.handle.stats_table().note_returned();
        let has_replies = has_replies(&mut batch);
        lock(&self.exchange.queues).returned.push(batch);
        if has_replies || self.exchange.wants_returns.load(Ordering::SeqCst) {
            self.handle.wake();
        }
    }
}

/// How many batches one engine lends out at once.
const BATCH_COUNT_MAX: usize = 64;
/// So many are enough for tasks that keep none. They are made when they are needed.
const BATCH_COUNT_USUAL: usize = 8;
/// More of them are made only while fewer than these wait to be taken, so while tasks keep the
/// others.
const READY_COUNT_ENOUGH: usize = 4;
/// How long the engine waits for one to come back before it looks what else there is to do.
const RETURN_WAIT: Duration = Duration::from_millis(10);
/// After this many batches without a pause, a task lets others run.
const READY_COUNT_MAX: u32 = 64;

/// What passes between the engine's thread and the tasks.
#[derive(Debug, Default)]
struct Exchange {
    queues: Mutex<Queues>,
    /// Whether the engine needs a returned batch even if it carries no reply.
    wants_returns: AtomicBool,
    /// Whether the [`AsyncEngine`] was dropped. Then nobody takes batches any more.
    is_dropped: AtomicBool,
}

#[derive(Debug)]
struct Queues {
    received: VecDeque<Batch>,
    returned: Vec<Batch>,
    waiters: Waiters,
    /// How many times in a row a task found a batch ready.
    ready_count: u32,
    end: Option<Result<(), Error>>,
}

impl Default for Queues {
    fn default() -> Self {
        Self {
            // Room for every batch there is.
            received: VecDeque::with_capacity(BATCH_COUNT_MAX),
            returned: Vec::with_capacity(BATCH_COUNT_MAX),
            waiters: Waiters::default(),
            ready_count: 0,
            end: None,
        }
    }
}

impl Exchange {
    fn poll_batch(
        &self,
        context: &Context<'_>,
        place: &mut Option<usize>,
    ) -> Poll<Result<Option<Batch>>> {
        match self.look(None) {
            Look::Found(ready) => return Poll::Ready(ready),
            Look::Enough => {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            Look::Nothing(_) => {}
        }
        // A batch may have come meanwhile.
        match self.look(Some((place, context.waker().clone()))) {
            Look::Found(ready) => Poll::Ready(ready),
            Look::Enough | Look::Nothing(_) => Poll::Pending,
        }
    }

    /// Looks whether there is a batch. If not, and a waker is given, it waits for one. What is
    /// returned may hold a waker, and is dropped after the lock.
    fn look(&self, waiter: Option<(&mut Option<usize>, Waker)>) -> Look {
        let mut queues = lock(&self.queues);
        if waiter.is_none() && queues.ready_count >= READY_COUNT_MAX {
            queues.ready_count = 0;
            return Look::Enough;
        }
        if let Some(batch) = queues.received.pop_front() {
            queues.ready_count += 1;
            drop(queues);
            return Look::Found(Ok(Some(batch)));
        }
        queues.ready_count = 0;
        if let Some(end) = &mut queues.end {
            let end = mem::replace(end, Ok(())).map(|()| None);
            drop(queues);
            return Look::Found(end);
        }
        let Some((place, waker)) = waiter else {
            return Look::Nothing(None);
        };
        let (own, replaced) = queues.waiters.put(*place, waker);
        *place = Some(own);
        drop(queues);
        Look::Nothing(replaced)
    }
}

/// What a look at the queues found.
enum Look {
    /// A batch, or the end.
    Found(Result<Option<Batch>>),
    /// Nothing; a waker that is no longer needed.
    Nothing(#[allow(dead_code, reason = "to be dropped")] Option<Waker>),
    /// Others are to have their turn first.
    Enough,
}

/// The future of [`AsyncEngine::recv_batch`].
#[derive(Debug)]
pub(crate) struct Receive<'a> {
    exchange: &'a Exchange,
    handle: &'a Handle,
    /// Its place among those that wait.
    place: Option<usize>,
}

impl Future for Receive<'_> {
    type Output = Result<Option<Batch>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { exchange, handle, place } = &mut *self;
        if !handle.is_of_this_process() {
            return Poll::Ready(Err(Error::Forked));
        }
        exchange.poll_batch(context, place)
    }
}

impl Drop for Receive<'_> {
    fn drop(&mut self) {
        // In a forked child nobody may release the lock any more.
        if let Some(place) = self.place.filter(|_| self.handle.is_of_this_process()) {
            let waker = lock(&self.exchange.queues).waiters.leave(place);
            drop(waker); // after the lock
        }
    }
}

/// The engine's thread.
struct Lender {
    core: Core,
    exchange: Arc<Exchange>,
    free: VecDeque<Batch>,
    made_count: usize,
    /// For what is sent while all others are lent, and at the end.
    never_lent: Option<Batch>,
    /// Whether there was none to receive into.
    is_short: bool,
    starvation: Starvation,
}

impl Lender {
    fn new(core: Core, exchange: Arc<Exchange>) -> Self {
        Self {
            core,
            exchange,
            free: VecDeque::with_capacity(BATCH_COUNT_MAX),
            made_count: 0,
            never_lent: None,
            is_short: false,
            starvation: Starvation::default(),
        }
    }

    fn run(mut self) {
        let mut waiting = Vec::new();
        let result = loop {
            if self.core.shared.is_stopping() {
                break self.drain(&mut waiting);
            }
            let next = self.next_batch();
            let is_starved = next.is_none() || self.core.driver.is_starved();
            self.starvation.note(is_starved);
            let was_short = mem::replace(&mut self.is_short, next.is_none());
            let Some(mut batch) = next else {
                add(&self.core.shared.stats.lease_wait_count, u64::from(!was_short));
                if let Err(error) = self.send_posted() {
                    break Err(error);
                }
                self.wait_for_return();
                continue;
            };
            let has_more_to_send = self.free.iter_mut().any(has_replies);
            if let Err(error) = self.core.turn_or_poll(&mut batch, None, has_more_to_send) {
                break Err(error);
            }
            self.hand_out(batch, &mut waiting);
        };
        // The ports are free before the tasks learn of the end.
        self.core.close();
        lock(&self.exchange.queues).end = Some(result);
    }

    /// A batch to receive into. One that has replies goes first.
    fn next_batch(&mut self) -> Option<Batch> {
        // An early return helps only a starved backend, or one without a batch. The store comes
        // before the look at `returned`: a task that returns a batch after the look sees it.
        let is_short = self.free.is_empty();
        let wants_returns = is_short || self.core.driver.is_starved();
        self.exchange.wants_returns.store(wants_returns, Ordering::SeqCst);
        let first_returned = self.free.len();
        let mut queues = lock(&self.exchange.queues);
        let has_enough_ready = queues.received.len() >= READY_COUNT_ENOUGH;
        self.free.extend(queues.returned.drain(..));
        drop(queues);
        for batch in self.free.iter_mut().skip(first_returned) {
            self.core.driver.take_back(batch);
        }
        let with_replies = self.free.iter_mut().position(has_replies);
        let batch = match with_replies {
            Some(at) => self.free.remove(at),
            // That which was used last is still in the cache.
            None => self.free.pop_back(),
        };
        batch.or_else(|| {
            let count_max = if has_enough_ready { BATCH_COUNT_USUAL } else { BATCH_COUNT_MAX };
            let may_make = self.made_count < count_max;
            self.made_count += usize::from(may_make);
            may_make.then(|| self.core.driver.new_batch())
        })
    }

    /// Sends what handles have queued while all batches are lent.
    fn send_posted(&mut self) -> Result<()> {
        if !self.core.has_posted() {
            return Ok(());
        }
        let batch = self.never_lent.get_or_insert_with(|| self.core.driver.new_batch());
        self.core.flush(batch)
    }

    /// Waits a little for a batch to come back, or for an errand. Not long, because an errand that
    /// comes just before the wait does not end it.
    fn wait_for_return(&self) {
        let shared = &self.core.shared;
        shared.waits_for_batch.store(true, Ordering::SeqCst);
        let queues = lock(&self.exchange.queues);
        if queues.returned.is_empty() && !shared.has_errand.swap(false, Ordering::SeqCst) {
            drop(shared.batch_returned.wait_timeout(queues, RETURN_WAIT));
        }
        shared.waits_for_batch.store(false, Ordering::SeqCst);
    }

    /// Gives a batch to the tasks. Wakers run after the lock is released, because they may do
    /// anything.
    fn hand_out(&mut self, batch: Batch, waiting: &mut Vec<Waker>) {
        if batch.is_empty() {
            self.free.push_back(batch);
            return;
        }
        let mut queues = lock(&self.exchange.queues);
        queues.received.push_back(batch);
        queues.waiters.take(waiting);
        drop(queues);
        wake_all(waiting);
    }

    /// Hands out what was received before the stop, and sends what is queued. Unless the engine was
    /// dropped, lent batches have [`DRAIN_TIME_MAX`] to come back with their replies.
    fn drain(&mut self, waiting: &mut Vec<Waker>) -> Result<()> {
        let end = Instant::now() + DRAIN_TIME_MAX;
        loop {
            let is_over = self.exchange.is_dropped.load(Ordering::SeqCst) || Instant::now() >= end;
            if let Some(mut batch) = self.next_batch() {
                self.core.turn_or_poll(&mut batch, None, true)?;
                let has_more = !batch.is_empty() || self.free.iter_mut().any(has_replies);
                self.hand_out(batch, waiting);
                if has_more && !is_over {
                    continue;
                }
            }
            if is_over || self.free.len() == self.made_count {
                return self.finish();
            }
            self.wait_for_return();
        }
    }

    /// Sends what is queued, and closes.
    fn finish(&mut self) -> Result<()> {
        while let Some(position) = self.free.iter_mut().position(has_replies) {
            let Some(mut batch) = self.free.remove(position) else { break };
            self.core.flush(&mut batch)?;
        }
        let mut last = self.never_lent.take().unwrap_or_else(|| self.core.driver.new_batch());
        self.core.finish(&mut last).map(drop)
    }
}

impl Drop for Lender {
    /// Runs when the thread ends.
    fn drop(&mut self) {
        self.core.close();
        let mut queues = lock(&self.exchange.queues);
        queues.end.get_or_insert(Err(Error::Stopped));
        let mut waiting = Vec::new();
        queues.waiters.take(&mut waiting);
        drop(queues);
        wake_all(&mut waiting);
    }
}

/// Warns once if tasks keep what the engine needs to go on.
#[derive(Debug, Default)]
struct Starvation {
    since: Option<Instant>,
    was_told: bool,
}

impl Starvation {
    /// How long tasks may keep everything without a warning.
    const TIME_MAX: Duration = Duration::from_secs(1);

    fn note(&mut self, is_starved: bool) {
        if self.was_told || !is_starved {
            self.since = None;
            return;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() > Self::TIME_MAX {
            self.was_told = true;
            tracing::warn!(
                "tasks keep all batches or buffers of this engine: it receives nothing until they \
                 drop some"
            );
        }
    }
}

fn has_replies(batch: &mut Batch) -> bool {
    !batch.outbox_mut().is_empty()
}

#[cfg(test)]
mod tests {
    use std::{
        net::{Ipv4Addr, UdpSocket},
        time::{Duration, Instant},
    };

    use super::*;
    use crate::{Backend, Engine};

    #[test]
    fn a_lease_that_outlives_its_engine_keeps_no_other_batch() {
        let builder = Engine::builder().backend(Backend::Portable).nic("127.0.0.1").port(0);
        let engine = builder.batch_max(1).open_async().expect("an engine");
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
        for _ in 0..5 {
            client.send_to(b"x", (Ipv4Addr::LOCALHOST, engine.ports()[0])).expect("loopback");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let lease = runtime.block_on(engine.recv_batch());
        let lease = lease.expect("a batch").expect("it runs");
        let deadline = Instant::now() + Duration::from_secs(5);
        while lock(&lease.exchange.queues).received.len() < 4 {
            assert!(Instant::now() < deadline, "the others do not come");
            thread::sleep(Duration::from_millis(1));
        }
        drop(engine);
        assert_eq!(lease.iter().len(), 1);
        let queues = lock(&lease.exchange.queues);
        assert!(queues.received.is_empty() && queues.returned.is_empty());
    }
}
