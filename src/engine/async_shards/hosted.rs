//! Linux: the runtime is tokio-uring's.

use tokio_uring::{Runtime as Uring, builder};

use crate::{
    engine::{
        async_engine::{BatchLease, local},
        choose::Backend,
        run::Engine,
    },
    error::{Error, Result},
};

/// A runtime of tokio-uring, on the thread that made it.
pub(super) struct Runtime(Uring);

impl Runtime {
    /// `None` if the engine runs on the portable backend, or io_uring is refused to the runtime.
    pub fn for_engine(engine: &Engine) -> Option<Self> {
        if engine.handle().backend().backend != Backend::IoUring {
            return None;
        }
        // `tokio_uring::start` would panic.
        let made = Uring::new(&builder());
        made.inspect_err(|error| tracing::warn!(%error, "tokio hosts the handlers")).ok().map(Self)
    }

    /// Serves until the engine is stopped, by what `hand_out_of` makes within the runtime.
    pub fn serve<H: FnMut(BatchLease) -> bool>(
        self,
        engine: Engine,
        hand_out_of: impl FnOnce() -> H,
    ) -> Result<()> {
        let delay_max = engine.delay_max();
        let ended = self
            .0
            .block_on(async { local::serve(engine.into_core(), delay_max, hand_out_of()).await });
        if let Err(Error::Forked) = ended {
            // Its poller is the parent's too.
            std::mem::forget(self.0);
        }
        ended
    }
}
