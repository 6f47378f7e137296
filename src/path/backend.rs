//! The contract of a backend: who receives and sends on a set of sockets.
//!
//! A backend owns the receiving and sending on a set of sockets, each in a numbered slot. It is
//! opened on any thread and from its first turn on belongs to one. It promises:
//!
//! - **Turn.** [`BackendDriver::turn`] takes back the buffers of the batch it is given, sends what
//!   the batch's outbox and the posted outboxes hold, waits for datagrams, a wake or the deadline,
//!   and fills the batch with at most its capacity of records. Datagrams of one socket stay in
//!   order; no socket is served twice while another waits; an empty batch means a wake or the
//!   deadline.
//! - **Nothing lost.** A datagram that the kernel delivered is in a batch, or counted; one that
//!   finds no free buffer stays in its socket's queue.
//! - **Sending never blocks receiving.** What a socket does not take at once is counted.
//! - **Slots.** [`BackendDriver::add`] and [`BackendDriver::remove`] work between any two turns.
//!   After a removal the socket is closed as soon as nothing of it is under way; what was received
//!   before may still be in the next batch.
//! - **Close.** When [`BackendDriver::close`] returns every socket is closed and its port free.
//!   Buffers that are still lent stay readable.

use std::{
    fmt, io,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    admit::Admission, batch::Batch, dispatch::Dispatch, pace::Coalesce, sockets::ListenSocket,
};
use crate::{datagram::Outbox, error::Result, stats::StatsTable};

/// How many sockets a backend has room for.
pub(crate) const SLOT_COUNT_MAX: usize = 4096;

/// Sizes and times that a backend is opened with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BackendSettings {
    /// Payload bytes that a buffer holds.
    pub buffer_bytes: usize,
    pub buffer_count: usize,
    pub batch_max: usize,
    pub replies_max: usize,
    pub coalesce: Coalesce,
    /// How long to look for datagrams before sleeping.
    pub spin: Duration,
}

/// How a backend is set up.
///
/// ```
/// use nicring::BackendSetup;
///
/// # let engine = nicring::Engine::builder().port(0).nic("127.0.0.1".parse()?).open()?;
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
        /// How many payload bytes each of them holds.
        buffer_bytes: usize,
        /// Whether the kernel can wait for several datagrams (`IORING_FEAT_MIN_TIMEOUT`, Linux
        /// 6.12); without that the engine coalesces by sleeping.
        waits_for_several: bool,
    },
    /// Readiness, and the system's own calls.
    #[non_exhaustive]
    Portable {
        /// The calls that receive and send.
        calls: &'static str,
        /// How many datagrams one of them carries at most.
        datagrams_per_call_max: usize,
    },
}

impl fmt::Display for BackendSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IoUring { flags, buffer_count, buffer_bytes, waits_for_several } => {
                let coalesces = if *waits_for_several { "" } else { ", coalesces by sleeping" };
                let flags = flags.join(" | ");
                write!(f, "{flags}, {buffer_count} buffers of {buffer_bytes} bytes{coalesces}")
            }
            Self::Portable { calls, .. } => f.write_str(calls),
        }
    }
}

/// One turn's circumstances.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    pub admission: &'a Admission,
    pub dispatch: &'a Dispatch,
    #[allow(dead_code, reason = "for io_uring, which only Linux has")]
    pub stats: &'a StatsTable,
    /// When to come back without datagrams; `None` for never.
    pub deadline: Option<Instant>,
    /// Whether to come back at once.
    pub is_polling: bool,
    /// An outbox beside the batch's own: it is sent and left empty.
    pub posted: &'a mut Outbox,
}

/// See the module's documentation.
pub(crate) trait BackendDriver: Send + fmt::Debug {
    /// A batch for this backend's turns.
    fn new_batch(&self) -> Batch;

    fn add(&mut self, slot: u16, socket: Arc<ListenSocket>) -> io::Result<()>;

    fn remove(&mut self, slot: u16);

    /// Whether nothing is under way in a slot any more.
    fn is_free(&self, slot: u16) -> bool;

    /// Whether the socket in a slot failed for good and is not received from any more.
    #[allow(dead_code, reason = "for sockets that were adopted, which only Linux has")]
    fn is_deaf(&self, slot: u16) -> bool;

    /// Whether receiving waits for buffers to be given back.
    fn is_starved(&self) -> bool;

    fn turn(&mut self, turn: Turn<'_>, batch: &mut Batch) -> Result<()>;

    /// Sends what the batch and the posted outbox hold, and does not receive.
    fn flush(&mut self, turn: Turn<'_>, batch: &mut Batch) -> Result<()>;

    /// Takes back the buffers of a batch that is not given to a turn again.
    fn take_back(&mut self, batch: &mut Batch);

    /// Something that ends the wait of a turn from any thread.
    fn waker(&self) -> Arc<dyn Wake>;

    /// Ends everything; see the contract.
    fn close(&mut self);
}

/// Ends the wait of a turn.
pub(crate) trait Wake: Send + Sync + fmt::Debug {
    fn wake(&self);
}
