//! The contract of a backend, and the choice between the two.
//!
//! A backend owns the receiving and sending on a set of sockets, each in a numbered slot. It is
//! opened on any thread and from its first turn on belongs to one. It promises:
//!
//! - **Turn.** [`BackendDriver::turn`] takes back the buffers of the batch it is given, sends what the
//!   batch's outbox and the posted outboxes hold, waits for datagrams, a wake or the deadline, and
//!   fills the batch with at most its capacity of records. Datagrams of one socket stay in order;
//!   no socket is served twice while another waits; an empty batch means a wake or the deadline.
//! - **Nothing lost.** A datagram that the kernel delivered is in a batch, or counted; one that
//!   finds no free buffer stays in its socket's queue.
//! - **Sending never blocks receiving.** What a socket does not take at once is counted.
//! - **Slots.** [`BackendDriver::add`] and [`BackendDriver::remove`] work between any two turns. After a
//!   removal the socket is closed as soon as nothing of it is under way; what was received before
//!   may still be in the next batch.
//! - **Close.** When [`BackendDriver::close`] returns every socket is closed and its port free. Buffers
//!   that are still lent stay readable.

use std::{
    fmt, io,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    admit::Admission,
    batch::Batch,
    error::{Error, Result, Unavailable},
    fallback::Portable,
    listen::ListenSocket,
    outbox::Outbox,
    stats::StatsTable,
};

/// Which backend an engine runs on.
///
/// ```
/// # use nicring::Backend;
/// assert_eq!("portable".parse(), Ok(Backend::Portable));
/// assert!("iouring?".parse::<Backend>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Backend {
    /// [`Backend::IoUring`] where it works, else [`Backend::Portable`]; the environment variable
    /// `NICRING_BACKEND` (`io_uring` or `portable`) takes precedence.
    #[default]
    Auto,
    /// io_uring, Linux 6.0 or later; an error where it cannot be used.
    IoUring,
    /// Readiness and `recvmmsg` on Linux; what the system has elsewhere.
    Portable,
}

impl Backend {
    /// The environment variable that [`Backend::Auto`] obeys.
    pub const ENVIRONMENT_VARIABLE: &str = "NICRING_BACKEND";
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::IoUring => "io_uring",
            Self::Portable => "portable",
        })
    }
}

impl std::str::FromStr for Backend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" | "" => Ok(Self::Auto),
            "io_uring" => Ok(Self::IoUring),
            "portable" => Ok(Self::Portable),
            _ => Err(format!("{text:?}: expected auto, io_uring or portable")),
        }
    }
}

/// Which backend runs, and why it is not the first choice.
///
/// ```
/// # let engine = nicring::Engine::builder().port(0).nic("127.0.0.1".parse()?).open()?;
/// println!("running on {}", engine.handle().backend());
/// # Ok::<(), nicring::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct BackendReport {
    /// The backend that runs; never [`Backend::Auto`].
    pub backend: Backend,
    /// Why [`Backend::Auto`] did not choose io_uring.
    pub unavailable: Option<Arc<Unavailable>>,
    /// How the backend is set up, such as the ring's flags that this kernel grants.
    pub details: String,
}

impl fmt::Display for BackendReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.unavailable {
            Some(unavailable) => write!(f, "{unavailable}; running on the portable backend"),
            None => write!(f, "{} ({})", self.backend, self.details),
        }
    }
}

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
    pub slot_max: usize,
}

/// Whether to wait a little for more datagrams before a batch is handed out, as NICs coalesce
/// their interrupts: fewer wake-ups, more delay.
///
/// io_uring on Linux 6.12 or later (`IORING_FEAT_MIN_TIMEOUT`) waits for several datagrams by itself;
/// elsewhere the engine sleeps for that long before it asks, whatever comes meanwhile. What it
/// saves: [the guide](crate::guide#coalescing).
///
/// ```
/// use std::time::Duration;
/// use nicring::{Coalesce, Engine};
///
/// let wait_max = Duration::from_micros(200);
/// let builder = Engine::builder().coalesce(Coalesce::Fixed { datagram_count: 256, wait_max });
/// # let _ = builder;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Coalesce {
    /// A batch is handed out as soon as there is a datagram.
    Off,
    /// Off, but while 50,000 datagrams a second or more come, up to 100 µs, unless fewer come
    /// because of that, from clients that wait for their answers, or 16 and more come at once
    /// anyway.
    #[default]
    Adaptive,
    /// Always.
    Fixed {
        /// The wait ends when so many sockets have something (not where it is a sleep); 1 to 32,768.
        datagram_count: u32,
        /// The wait ends after so long if there is a datagram by then, else with the first one; up
        /// to 100 ms. [`Handle::stop`](crate::Handle::stop) and
        /// [`Handle::send`](crate::Handle::send) may take as long to be noticed.
        wait_max: Duration,
    },
}

/// One turn's circumstances.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    pub admission: &'a Admission,
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
    #[allow(dead_code, reason = "for the ring of udp_v4, which only Linux has")]
    fn is_silent(&self, _slot: u16) -> bool {
        false
    }

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

/// Opens the backend that `choice` and the environment ask for.
pub(crate) fn open(
    choice: Backend,
    settings: &BackendSettings,
) -> Result<(Box<dyn BackendDriver>, BackendReport)> {
    let portable = |unavailable: Option<Unavailable>| -> Result<_> {
        let driver = Portable::open(settings)?;
        let report = BackendReport {
            backend: Backend::Portable,
            unavailable: unavailable.map(Arc::new),
            details: driver.details(),
        };
        Ok((Box::new(driver) as Box<dyn BackendDriver>, report))
    };
    match resolve(choice, std::env::var(Backend::ENVIRONMENT_VARIABLE).ok())? {
        Backend::Portable => portable(None),
        Backend::IoUring => open_io_uring(settings).map_err(Error::Unavailable),
        Backend::Auto => match open_io_uring(settings) {
            Ok(opened) => Ok(opened),
            Err(unavailable) => {
                tracing::info!(%unavailable, "running on the portable backend");
                portable(Some(unavailable))
            }
        },
    }
}

fn open_io_uring(
    settings: &BackendSettings,
) -> Result<(Box<dyn BackendDriver>, BackendReport), Unavailable> {
    let (driver, details) = crate::uring::open(settings)?;
    let report = BackendReport { backend: Backend::IoUring, unavailable: None, details };
    Ok((driver, report))
}

/// What `choice` stands for in this environment.
#[allow(dead_code, reason = "for the feature udp-v4")]
pub(crate) fn resolve_here(choice: Backend) -> Result<Backend> {
    resolve(choice, std::env::var(Backend::ENVIRONMENT_VARIABLE).ok())
}

fn resolve(choice: Backend, environment: Option<String>) -> Result<Backend> {
    match (choice, environment) {
        (Backend::Auto, Some(text)) => text
            .parse()
            .map_err(|reason: String| Error::setting(Backend::ENVIRONMENT_VARIABLE, reason)),
        _ => Ok(choice),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_overrides_auto_and_nothing_else() {
        let resolve = |choice, text: &str| resolve(choice, Some(text.to_owned()));
        assert_eq!(resolve(Backend::Auto, "portable").unwrap(), Backend::Portable);
        assert_eq!(resolve(Backend::Auto, "io_uring").unwrap(), Backend::IoUring);
        assert_eq!(resolve(Backend::Auto, "").unwrap(), Backend::Auto);
        assert_eq!(resolve(Backend::IoUring, "portable").unwrap(), Backend::IoUring);
        let error = resolve(Backend::Auto, "epoll").unwrap_err();
        assert_eq!(
            error.to_string(),
            "NICRING_BACKEND: \"epoll\": expected auto, io_uring or portable"
        );
    }
}
