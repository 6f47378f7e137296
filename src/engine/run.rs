//! The engine that runs in the calling thread.

use std::{
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{core::Core, handle::Handle};
use crate::{error::Result, path::Batch, stats::Stats};

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
    pub(super) fn new(core: Core, tick: Option<Duration>) -> Self {
        Self { core, tick }
    }

    /// The ports that it listens on, in the order in which they were asked for.
    #[must_use]
    pub fn ports(&self) -> &[u16] {
        self.core.ports()
    }

    /// A handle to stop and watch it from any thread.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle::new(Arc::clone(&self.core.shared))
    }

    /// Serves until the handler breaks or [`Handle::stop`] is called, and then closes. After a stop
    /// what was received by then still goes to the handler, for up to 200 ms; after a break it is
    /// discarded. The replies are sent, and the ports are free when this returns.
    ///
    /// The handler gets each batch of datagrams, and an empty one at a
    /// [tick](crate::Builder::tick) on which nothing came. If it panics the engine is closed too.
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
}
