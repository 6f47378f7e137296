//! One io_uring for the sockets of all bundles that chose it, served by one thread of the process.
//!
//! The thread starts with the first such bundle that receives, and ends a second after the last one
//! was dropped. Wakers run on it only while it holds no lock and no borrow: they may do anything,
//! such as drop a bundle.

mod thread;

use std::{
    cell::RefCell,
    io,
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::feed::{Feed, Feeder};
use crate::{error::Error, lock::lock, path::Wake};
use thread::RingThread;

/// How long dropping a bundle waits for the ring to let go of its sockets.
const LEAVE_TIME_MAX: Duration = Duration::from_secs(2);

static HUB: Mutex<Weak<Hub>> = Mutex::new(Weak::new());

thread_local! {
    /// What the thread owns; not borrowed while wakers run.
    static OWNED: RefCell<Option<RingThread>> = const { RefCell::new(None) };
}

/// Whether io_uring works here.
pub(super) fn check() -> io::Result<()> {
    static WORKS: OnceLock<()> = OnceLock::new();
    if WORKS.get().is_none() {
        crate::uring::check().map_err(Error::Unavailable)?;
        let _ = WORKS.set(());
    }
    Ok(())
}

/// Gives the sockets of a bundle to the ring's thread. Starts the thread if there is none.
///
/// # Errors
///
/// If the ring cannot be opened or the thread cannot be started.
pub(super) fn attach(feed: &Arc<Feed>) -> io::Result<Arc<dyn Feeder>> {
    let mut current = lock(&HUB);
    if let Some(hub) = current.upgrade() {
        if hub.call(feed) {
            return Ok(hub);
        }
    }
    let hub = thread::start()?;
    hub.call(feed);
    *current = Arc::downgrade(&hub);
    Ok(hub)
}

/// What the thread shares with the bundles.
#[derive(Debug)]
struct Hub {
    calls: Mutex<Calls>,
    has_calls: AtomicBool,
    /// Whether the thread waits, or is about to: only then must it be woken.
    is_waiting: AtomicBool,
    waker: Arc<dyn Wake>,
}

/// The bundles that the thread has to look at.
#[derive(Debug, Default)]
struct Calls {
    feeds: Vec<Arc<Feed>>,
    is_over: bool,
}

impl Hub {
    fn new(waker: Arc<dyn Wake>) -> Arc<Self> {
        Arc::new(Self {
            calls: Mutex::default(),
            has_calls: AtomicBool::new(false),
            is_waiting: AtomicBool::new(false),
            waker,
        })
    }
}

impl Feeder for Hub {
    fn call(&self, feed: &Arc<Feed>) -> bool {
        let mut calls = lock(&self.calls);
        if calls.is_over {
            return false;
        }
        calls.feeds.push(Arc::clone(feed));
        drop(calls);
        self.has_calls.store(true, Ordering::SeqCst);
        if self.is_waiting.swap(false, Ordering::SeqCst) {
            self.waker.wake();
        }
        true
    }

    fn leave(&self, feed: &Arc<Feed>) -> io::Result<()> {
        self.call(feed);
        let on_its_thread = OWNED.with(|owned| match owned.try_borrow_mut() {
            Ok(mut owned) => owned.as_mut().map(|owned| owned.let_go(feed)),
            // A waker was dropped in the middle of a turn, and the bundle with it.
            Err(_) => Some(Err(io::Error::other("the thread of the ring cannot wait for itself"))),
        });
        on_its_thread.unwrap_or_else(|| feed.detached.wait(LEAVE_TIME_MAX))
    }
}
