//! Several engines that share the work, each on a thread of its own.

use std::{ops::ControlFlow, panic::resume_unwind, sync::Arc, thread};

use super::{handle::Handle, run::Engine};
use crate::{
    error::{Error, Result},
    path::Batch,
    stats::Stats,
    sys::process,
};

/// Several rings on as many threads, which hear each datagram once between them.
///
/// One ring on one thread answers about a million searches per second. Where that is not enough,
/// and processors are to spare, open more by [`Builder::shards`](crate::Builder::shards):
///
/// - Broadcasts and groups: every shard has the sockets, and a filter of the kernel drops what is
///   another's, by a hash of the sender's address and port. A copy per shard is made and dropped in
///   the kernel: count all of the machine's time
///   ([the guide](crate::guide#more-than-one-core)).
/// - Unicasts: the kernel gives each sender to one of the sockets of an address and port
///   (`SO_REUSEPORT`).
///
/// So a sender's broadcasts and groups are heard by one shard, in order, and so are its unicasts to
/// one address and port, as long as no server comes or goes there. Where the system has no such
/// filters (all but Linux) there is one shard, however many are asked for.
///
/// ```no_run
/// use std::ops::ControlFlow;
///
/// let shards = nicring::Engine::builder().port(5076).shards(4).open_shards()?;
/// let stats = shards.run(|_| {
///     let mut heard_count = 0_u64; // each shard has its own
///     move |batch: &nicring::Batch| {
///         heard_count += batch.len() as u64;
///         batch.iter().for_each(|datagram| _ = batch.reply(&datagram, b"here"));
///         ControlFlow::Continue(())
///     }
/// })?;
/// println!("{stats}");
/// # Ok::<(), nicring::Error>(())
/// ```
#[derive(Debug)]
pub struct Shards {
    engines: Vec<Engine>,
    pins: bool,
}

impl Shards {
    /// There is at least one engine.
    pub(super) fn new(engines: Vec<Engine>, pins: bool) -> Self {
        Self { engines, pins }
    }

    /// How many there are.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.engines.len()
    }

    /// The ports that all of them listen on, in the order in which they were asked for.
    #[must_use]
    pub fn ports(&self) -> &[u16] {
        self.engines[0].ports()
    }

    /// A handle of all of them: it stops all, and its statistics are the sum of theirs. What it
    /// sends leaves by the first; its [events](Handle::events) are those of the first.
    #[must_use]
    pub fn handle(&self) -> Handle {
        let mut shared = self.engines.iter().map(Engine::shared);
        let first = shared.next().expect("there is at least one");
        Handle::of_shards(first, shared.collect())
    }

    /// Serves on a thread for each shard until a handler breaks or [`Handle::stop`] is called, as
    /// [`Engine::run`] does on one. `handler_of` makes the handler of the shard with the number
    /// that it gets, on the shard's own thread. When one shard ends, for whatever reason, all do.
    ///
    /// # Errors
    ///
    /// As [`Engine::run`]: that of the first shard that has one. [`Error::Backend`] also if a
    /// thread cannot be started.
    pub fn run<F, H>(self, handler_of: F) -> Result<Stats>
    where
        F: Fn(usize) -> H + Sync,
        H: FnMut(&Batch) -> ControlFlow<()>,
    {
        self.on_threads(|number, engine| engine.run(handler_of(number)).map(drop))
    }

    /// Serves each engine on a thread of its own. When one ends, all do.
    pub(super) fn on_threads(
        self,
        serve: impl Fn(usize, Engine) -> Result<()> + Sync,
    ) -> Result<Stats> {
        let (handle, pins, serve) = (self.handle(), self.pins, &serve);
        let results: Vec<_> = thread::scope(|scope| {
            let start = |(number, engine): (usize, Engine)| {
                let all = StopOnDrop(handle.clone());
                let run = move || {
                    let _all = all;
                    if pins {
                        process::pin_thread(number);
                    }
                    serve(number, engine)
                };
                let named = thread::Builder::new().name(format!("nicring-{number}"));
                named.spawn_scoped(scope, run).map_err(|source| Error::Backend {
                    operation: "starting the thread of a shard",
                    source,
                })
            };
            let threads: Vec<_> = self.engines.into_iter().enumerate().map(start).collect();
            threads.into_iter().map(|started| started.map(|thread| thread.join())).collect()
        });
        let mut first = Ok(());
        for result in results {
            let ended = result.and_then(|ended| ended.unwrap_or_else(|panic| resume_unwind(panic)));
            first = first.and(ended);
        }
        first?;
        Ok(handle.stats())
    }
}

/// The runtime that hosts the handlers of a shard; see `Shards::run_async` (feature
/// `tokio-uring`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandlerRuntime {
    /// tokio-uring: its files, sockets and tasks, and tokio's timers. Files complete on a ring.
    TokioUring,
    /// tokio with one thread, where io_uring is refused, and on other systems: use `tokio::fs`.
    Tokio,
}

/// Ends all shards when one of them ends.
struct StopOnDrop(Handle);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// What a handle needs of an engine.
impl Engine {
    fn shared(&self) -> Arc<super::handle::Shared> {
        Arc::clone(&self.core().shared)
    }
}
