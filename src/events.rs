//! What becomes of the NICs, sockets and groups of an engine, told as it happens: to whoever asked
//! for it, and to `tracing`.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    net::SocketAddrV4,
    sync::{Arc, Condvar, Mutex, Weak},
    task::{Poll, Waker},
};

use crate::{
    lock::lock,
    nics::NicId,
    path::{FailedNic, SocketInfo},
    sys::process::Opener,
    wakers::wake,
};

/// What became of a NIC, a socket or a group of an engine; see [`Handle::events`].
///
/// Each is also one event of `tracing`, with the fields that [the table](crate::logs) lists.
///
/// [`Handle::events`]: crate::Handle::events
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// The engine listens on this NIC from now on: it came, or went up, or got an address.
    NicCame(NicId),
    /// The engine no longer listens on this NIC: it went, or went down, or lost its addresses.
    NicWent(NicId),
    /// A socket was opened. It may be one that failed before.
    SocketOpened(SocketInfo),
    /// A socket was closed, because what it was for has gone or because it failed.
    SocketClosed(SocketInfo),
    /// A group was joined.
    #[non_exhaustive]
    GroupJoined {
        /// The group, and the port at which it is heard.
        group: SocketAddrV4,
        /// The index of the NIC.
        ifindex: u32,
    },
    /// A group was left, or went with its NIC.
    #[non_exhaustive]
    GroupLeft {
        /// The group, and the port at which it was heard.
        group: SocketAddrV4,
        /// The index of the NIC.
        ifindex: u32,
    },
    /// A socket could not be opened, a group not be joined, or a socket failed. It is tried again,
    /// and told once until it succeeds.
    Failed(FailedNic),
}

impl Event {
    /// One event of `tracing`. Sockets and groups come with their NIC, which is what people look
    /// for.
    pub(crate) fn trace(&self) {
        match self {
            Self::NicCame(nic) => {
                tracing::info!(target: TARGET, %nic, ifindex = nic.index, "listening on a NIC");
            }
            Self::NicWent(nic) => {
                tracing::info!(target: TARGET, %nic, ifindex = nic.index, "a NIC is gone");
            }
            Self::SocketOpened(socket) => {
                let nic = socket.nic.as_ref().map(tracing::field::display);
                let (address, hears) = (socket.address, socket.hears);
                tracing::debug!(target: TARGET, nic, %address, %hears, "a socket was opened");
            }
            Self::SocketClosed(socket) => {
                let nic = socket.nic.as_ref().map(tracing::field::display);
                let (address, hears) = (socket.address, socket.hears);
                tracing::debug!(target: TARGET, nic, %address, %hears, "a socket was closed");
            }
            Self::GroupJoined { group, ifindex } => {
                tracing::debug!(target: TARGET, %group, ifindex, "a group was joined");
            }
            Self::GroupLeft { group, ifindex } => {
                tracing::debug!(target: TARGET, %group, ifindex, "a group was left");
            }
            Self::Failed(FailedNic { nic, address, error }) => {
                let nic = nic.as_ref().map(tracing::field::display);
                tracing::warn!(target: TARGET, nic, %address, %error, "not heard");
            }
        }
    }
}

const TARGET: &str = "nicring::events";

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NicCame(nic) => write!(f, "listening on {nic}"),
            Self::NicWent(nic) => write!(f, "{nic} is gone"),
            Self::SocketOpened(socket) => write!(f, "opened {socket}"),
            Self::SocketClosed(socket) => write!(f, "closed {socket}"),
            Self::GroupJoined { group, ifindex } => {
                write!(f, "joined {group} on interface {ifindex}")
            }
            Self::GroupLeft { group, ifindex } => write!(f, "left {group} on interface {ifindex}"),
            Self::Failed(failed) => write!(f, "not heard: {failed}"),
        }
    }
}

/// How many events wait for one that has asked for them.
const WAITING_COUNT_MAX: usize = 1024;

/// What becomes of an engine's NICs, sockets and groups, from [`Handle::events`] on.
///
/// As an iterator it waits for each event, and ends when the engine has closed. Up to 1,024 wait to
/// be taken; then the oldest is dropped for each that comes, and counted. In a process that was
/// forked since there are none.
///
/// [`Handle::events`]: crate::Handle::events
///
/// ```no_run
/// # let engine = nicring::Engine::builder().port(5076).open()?;
/// let events = engine.handle().events();
/// std::thread::spawn(move || {
///     for event in events {
///         println!("{event}");
///     }
/// });
/// # Ok::<(), nicring::Error>(())
/// ```
#[derive(Debug)]
pub struct Events {
    queue: Arc<Queue>,
    opener: Opener,
}

impl Events {
    /// An event that is there already; `None` if there is none.
    ///
    /// ```
    /// # let engine = nicring::Engine::builder().port(0).nic("127.0.0.1").open()?;
    /// let mut events = engine.handle().events();
    /// while let Some(event) = events.try_next() {
    ///     println!("{event}");
    /// }
    /// # Ok::<(), nicring::Error>(())
    /// ```
    pub fn try_next(&mut self) -> Option<Event> {
        self.opener.is_this().then(|| lock(&self.queue.state).waiting.pop_front())?
    }

    /// Waits for the next event, in a task of any runtime; `None` when the engine has closed and
    /// all were taken. Dropping the future loses nothing.
    ///
    /// ```
    /// # async fn watch(handle: nicring::Handle) {
    /// let mut events = handle.events();
    /// while let Some(event) = events.recv().await {
    ///     println!("{event}");
    /// }
    /// # }
    /// ```
    pub async fn recv(&mut self) -> Option<Event> {
        poll_fn(|context| {
            if !self.opener.is_this() {
                return Poll::Ready(None);
            }
            let waker = context.waker().clone();
            let mut state = lock(&self.queue.state);
            if let Some(event) = state.waiting.pop_front() {
                return Poll::Ready(Some(event));
            }
            if state.is_over {
                return Poll::Ready(None);
            }
            let replaced = state.waker.replace(waker);
            drop(state);
            drop(replaced); // after the lock
            Poll::Pending
        })
        .await
    }

    /// How many events were dropped because nobody took them.
    #[must_use]
    pub fn missed_count(&self) -> u64 {
        if self.opener.is_this() { lock(&self.queue.state).missed_count } else { 0 }
    }

    /// None: for a process that was forked from the engine's.
    pub(crate) fn over() -> Self {
        let state = State { is_over: true, ..State::default() };
        let queue = Arc::new(Queue { state: Mutex::new(state), ..Queue::default() });
        Self { queue, opener: Opener::this() }
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        if !self.opener.is_this() {
            return None;
        }
        let state = lock(&self.queue.state);
        let is_idle = |state: &mut State| state.waiting.is_empty() && !state.is_over;
        let waited = self.queue.arrived.wait_while(state, is_idle);
        waited.unwrap_or_else(|poisoned| poisoned.into_inner()).waiting.pop_front()
    }
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Event>,
    missed_count: u64,
    waker: Option<Waker>,
    is_over: bool,
}

/// Those who have asked for the events of an engine.
#[derive(Debug, Default)]
pub(crate) struct Subscribers {
    queues: Mutex<Vec<Weak<Queue>>>,
    is_over: Mutex<bool>,
}

impl Subscribers {
    pub fn add(&self) -> Events {
        let is_over = lock(&self.is_over);
        if *is_over {
            return Events::over();
        }
        let queue = Arc::default();
        lock(&self.queues).push(Arc::downgrade(&queue));
        Events { queue, opener: Opener::this() }
    }

    /// Tells all of them, and `tracing`.
    pub fn tell(&self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            event.trace();
            self.for_each(|state| {
                if state.waiting.len() == WAITING_COUNT_MAX {
                    state.waiting.pop_front();
                    state.missed_count += 1;
                }
                state.waiting.push_back(event.clone());
            });
        }
    }

    /// There will be no more.
    pub fn close(&self) {
        *lock(&self.is_over) = true;
        self.for_each(|state| state.is_over = true);
    }

    /// Changes the state of each, and wakes it. Wakers run after the locks are released.
    fn for_each(&self, change: impl Fn(&mut State)) {
        let queues: Vec<_> = {
            let mut queues = lock(&self.queues);
            queues.retain(|queue| queue.strong_count() > 0);
            queues.iter().filter_map(Weak::upgrade).collect()
        };
        for queue in queues {
            let mut state = lock(&queue.state);
            change(&mut state);
            let waker = state.waker.take();
            drop(state);
            queue.arrived.notify_one();
            waker.into_iter().for_each(wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use super::*;
    use crate::nics::samples::nic;

    fn came(index: u32) -> Event {
        Event::NicCame(nic("veth", index, &[]).id())
    }

    fn index(event: &Event) -> u32 {
        match event {
            Event::NicCame(nic) => nic.index,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn who_takes_no_events_misses_the_oldest_and_knows_how_many() {
        let subscribers = Subscribers::default();
        let (mut slow, mut quick) = (subscribers.add(), subscribers.add());
        let count = WAITING_COUNT_MAX as u32 + 10;
        for number in 0..count {
            subscribers.tell([came(number)]);
            assert_eq!(quick.try_next().as_ref().map(index), Some(number));
        }
        subscribers.close();
        assert_eq!((slow.missed_count(), quick.missed_count()), (10, 0));
        assert_eq!(
            slow.by_ref().map(|event| index(&event)).collect::<Vec<_>>(),
            Vec::from_iter(10..count)
        );
        assert!(slow.next().is_none() && quick.next().is_none(), "it is over");
        assert!(subscribers.add().next().is_none(), "for who comes later too");
    }

    /// A waker may do anything; this one asks for events.
    #[test]
    fn a_waker_is_called_where_no_lock_is_held() {
        struct Asks(Arc<Subscribers>);
        impl std::task::Wake for Asks {
            fn wake(self: Arc<Self>) {
                drop(self.0.add());
                panic!("and panics");
            }
        }
        let subscribers = Arc::new(Subscribers::default());
        let (mut events, mut other) = (subscribers.add(), subscribers.add());
        let waker = Arc::new(Asks(Arc::clone(&subscribers))).into();
        let mut context = std::task::Context::from_waker(&waker);
        let mut next = std::pin::pin!(events.recv());
        assert!(next.as_mut().poll(&mut context).is_pending());
        std::panic::set_hook(Box::new(|_| {}));
        subscribers.tell([came(1)]);
        let _ = std::panic::take_hook();
        assert!(next.as_mut().poll(&mut context).is_ready());
        assert!(other.try_next().is_some(), "nobody else is harmed");
    }

    #[test]
    fn who_has_gone_is_forgotten() {
        let subscribers = Subscribers::default();
        drop(subscribers.add());
        subscribers.tell([came(1)]);
        assert!(lock(&subscribers.queues).is_empty());
    }
}
