//! The engine that runs in the calling thread.

use std::{
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{core::Core, handle::Handle};
use crate::{
    error::{Error, Result},
    path::Batch,
    stats::Stats,
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
    pub(super) fn new(core: Core, tick: Option<Duration>) -> Self {
        Self { core, tick }
    }

    #[allow(dead_code, reason = "for the feature tokio-uring")]
    pub(super) fn into_core(self) -> Core {
        self.core
    }

    #[allow(dead_code, reason = "for the feature tokio-uring")]
    pub(super) fn delay_max(&self) -> Duration {
        self.core.delay_max()
    }

    pub(super) fn core(&self) -> &Core {
        &self.core
    }

    /// The ports that it listens on, in the order in which they were asked for.
    #[must_use]
    pub fn ports(&self) -> &[u16] {
        self.core.ports()
    }

    /// A handle that stops and watches the engine from any thread.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle::new(Arc::clone(&self.core.shared))
    }

    /// Serves until the handler breaks or [`Handle::stop`] is called, and then closes.
    ///
    /// The handler gets each batch of datagrams, and an empty batch at a
    /// [tick](crate::Builder::tick) if nothing came. After a stop the handler still gets what was
    /// received by then, for up to 200 ms. After a break that is discarded. The replies are sent,
    /// and the ports are free when this returns. If the handler panics, the engine closes too.
    ///
    /// Linux takes an io_uring apart shortly after it was closed. After this has returned, that may
    /// interrupt one system call in which this thread waits (`EINTR`).
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend) if the backend fails for good, for example because
    /// a sandbox that forbids its system calls was applied after it had been opened.
    /// [`Error::Forked`](crate::Error::Forked) in a process that was forked since the engine was
    /// opened. The engine of its parent goes on undisturbed.
    pub fn run<H>(mut self, mut handler: H) -> Result<Stats>
    where
        H: FnMut(&Batch) -> ControlFlow<()>,
    {
        let core = &mut self.core;
        let mut batch = core.driver.new_batch();
        let mut next_tick = self.tick.and_then(|tick| Instant::now().checked_add(tick));
        while !core.shared.is_stopping() {
            core.check_process()?;
            core.turn(&mut batch, next_tick)?;
            let now = next_tick.map(|_| Instant::now());
            let is_tick = next_tick <= now && next_tick.is_some();
            if is_tick {
                next_tick = now.zip(self.tick).and_then(|(now, tick)| now.checked_add(tick));
            }
            let is_due = is_tick || !batch.is_empty();
            if is_due && handler(&batch).is_break() {
                return core.finish(&mut batch);
            }
        }
        core.drain(&mut batch, |batch| handler(batch).is_continue())?;
        core.finish(&mut batch)
    }

    /// As [`Engine::run`], with a handler that may fail. Its error ends the engine as a break does,
    /// and is returned.
    ///
    /// # Errors
    ///
    /// The handler's, or one of [`Engine::run`].
    ///
    /// ```no_run
    /// use std::{io, ops::ControlFlow};
    ///
    /// # fn log(_: &[u8]) -> io::Result<()> { Ok(()) }
    /// let engine = nicring::Engine::builder().port(5076).open()?;
    /// engine.try_run(|batch| {
    ///     for datagram in batch.iter() {
    ///         log(datagram.payload())?;
    ///     }
    ///     Ok::<_, Box<dyn std::error::Error>>(ControlFlow::Continue(()))
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_run<H, E>(self, mut handler: H) -> Result<Stats, E>
    where
        H: FnMut(&Batch) -> Result<ControlFlow<()>, E>,
        E: From<Error>,
    {
        let mut failed = None;
        let stats = self.run(|batch| {
            handler(batch).unwrap_or_else(|error| {
                failed = Some(error);
                ControlFlow::Break(())
            })
        });
        // What went wrong first is the cause of what followed.
        match failed {
            Some(error) => Err(error),
            None => Ok(stats?),
        }
    }
}
