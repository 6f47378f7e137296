//! The contract of a backend.
//!
//! A backend receives and sends on a set of sockets, each in a numbered slot. Any thread may open
//! it. From its first turn on it belongs to one thread. It promises:
//!
//! - **Turn.** [`BackendDriver::turn`] takes back the buffers of the batch that it is given. It
//!   sends what the batch's outbox and the posted outbox hold. It waits for datagrams, a wake or
//!   the deadline. It fills the batch with at most as many records as the batch has capacity for.
//!   Datagrams of one socket stay in order. No socket is served twice while another waits. A turn
//!   may end with an empty batch: at a wake, at the deadline, or if all that came was dropped or
//!   was no datagram.
//! - **Nothing lost.** A datagram that the kernel delivered is in a batch, or counted. A datagram
//!   that finds no free buffer stays in its socket's queue.
//! - **Sending never blocks receiving.** What a socket does not take at once is counted, and not
//!   sent.
//! - **Slots.** [`BackendDriver::add`] and [`BackendDriver::remove`] work between any two turns.
//!   After a removal the socket closes as soon as none of its operations is under way. What it
//!   received before may still be in the next batch.
//! - **Close.** When [`BackendDriver::close`] returns, every socket is closed and its port is free.
//!   Buffers that are still lent stay readable.

use std::{
    fmt, io,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{admit::Admission, batch::Batch, dispatch::Dispatch, sockets::ListenSocket};
use crate::{
    datagram::Outbox,
    error::Result,
    stats::StatsTable,
    sys::{Signal, nic_watch::NicWatch},
};

/// How many sockets a backend has room for.
pub(crate) const SLOT_COUNT_MAX: usize = 8192;
/// After so many errors in a row a socket is left alone.
pub(crate) const ERROR_COUNT_MAX: u32 = 8;

/// Sizes and times that a backend is opened with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BackendSettings {
    /// Payload bytes that a buffer holds.
    pub buffer_bytes: usize,
    pub buffer_count: usize,
    pub batch_max: usize,
    pub replies_max: usize,
    /// How long datagrams may wait for more; zero for not at all.
    pub delay_max: Duration,
    /// How long to look for datagrams before sleeping.
    pub spin: Duration,
    /// Whether datagrams to one client may leave as segments of one `sendmsg`.
    pub uses_gso: bool,
}

/// How a backend is set up.
///
/// ```
/// use nicring::BackendSetup;
///
/// # let engine = nicring::Engine::builder().port(0).nic("127.0.0.1").open()?;
/// match &engine.handle().backend().setup {
///     BackendSetup::IoUring { flags, .. } => println!("a ring with {}", flags.join(", ")),
///     BackendSetup::Portable { calls, .. } => println!("{calls}"),
///     other => println!("{other}"),
/// }
/// # Ok::<(), nicring::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackendSetup {
    /// One io_uring for all sockets.
    #[non_exhaustive]
    IoUring {
        /// The optional flags of io_uring_setup(2) that this kernel grants.
        flags: Vec<&'static str>,
        /// How many buffers it receives into.
        buffer_count: usize,
        /// How many payload bytes each buffer holds.
        buffer_bytes: usize,
        /// Whether the kernel can wait for several datagrams (`IORING_FEAT_MIN_TIMEOUT`, Linux
        /// 6.12). If not, the engine waits for them by sleeping.
        waits_for_several: bool,
    },
    /// Waits for readiness, and then receives and sends by the system's own calls.
    #[non_exhaustive]
    Portable {
        /// The calls that receive and send.
        calls: &'static str,
        /// How many datagrams one call carries at most.
        datagrams_per_call_max: usize,
    },
}

impl fmt::Display for BackendSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IoUring { flags, buffer_count, buffer_bytes, waits_for_several } => {
                let waits = if *waits_for_several { "" } else { ", waits for several by sleeping" };
                let flags = flags.join(" | ");
                write!(f, "{flags}, {buffer_count} buffers of {buffer_bytes} bytes{waits}")
            }
            Self::Portable { calls, .. } => f.write_str(calls),
        }
    }
}

/// What a turn is given beside the batch.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    pub admission: &'a Admission,
    pub dispatch: &'a Dispatch,
    #[allow(dead_code, reason = "for io_uring, which only Linux has")]
    pub stats: &'a StatsTable,
    /// When to return even without datagrams; `None` for never.
    pub deadline: Option<Instant>,
    /// Whether to return without waiting.
    pub is_polling: bool,
    /// An outbox beside the batch's own. The turn sends it and leaves it empty. If the backend has
    /// too much under way, it stays as it is, for the next turn.
    pub posted: &'a mut Outbox,
}

/// A backend. Its contract is the module's documentation.
pub(crate) trait BackendDriver: Send + fmt::Debug {
    /// A batch for this backend's turns.
    fn new_batch(&self) -> Batch;

    fn add(&mut self, slot: u16, socket: Arc<ListenSocket>) -> io::Result<()>;

    fn remove(&mut self, slot: u16);

    /// Whether no operation is under way in a slot any more.
    fn is_free(&self, slot: u16) -> bool;

    /// Takes the slot of a socket that failed for good, and why. The backend no longer receives
    /// from it. Each is told once.
    fn take_deaf(&mut self) -> Option<(u16, io::Error)>;

    /// Ends the wait of a turn when there is news of the NICs.
    fn watch_nics(&mut self, nics: &NicWatch) -> io::Result<()>;

    /// Whether there has been such news since the last call.
    fn take_news(&mut self) -> bool;

    /// Whether a turn would wait for a fuller batch.
    #[allow(dead_code, reason = "for the feature tokio-uring")]
    fn expects_more(&self) -> bool;

    /// Signals from now on when there is something for a turn to do. Called by the thread that the
    /// backend belongs to. The error is `Unsupported` where the backend cannot.
    #[allow(dead_code, reason = "for the feature tokio-uring")]
    fn signal(&mut self, _by: &Signal) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Whether receiving has paused until buffers are given back.
    fn is_starved(&self) -> bool;

    fn turn(&mut self, turn: Turn<'_>, batch: &mut Batch) -> Result<()>;

    /// Sends what the batch and the posted outbox hold, and does not receive.
    fn flush(&mut self, turn: Turn<'_>, batch: &mut Batch) -> Result<()>;

    /// Takes back the buffers of a batch at once, and not in the next turn that gets the batch.
    fn take_back(&mut self, batch: &mut Batch);

    /// What ends the wait of a turn from any thread.
    fn waker(&self) -> Arc<dyn Wake>;

    /// Closes every socket; see the contract.
    fn close(&mut self);

    /// In place of [`BackendDriver::close`], in a child that was forked: lets go of what it has,
    /// and touches nothing that its parent has too.
    fn abandon(&mut self);
}

/// Ends the wait of a turn.
pub(crate) trait Wake: Send + Sync + fmt::Debug {
    fn wake(&self);
}
