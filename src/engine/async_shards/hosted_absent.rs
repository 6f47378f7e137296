//! Elsewhere there is no tokio-uring.

use crate::{
    engine::{async_engine::BatchLease, run::Engine},
    error::Result,
};

pub(super) enum Runtime {}

impl Runtime {
    pub fn for_engine(_engine: &Engine) -> Option<Self> {
        None
    }

    pub fn serve<H: FnMut(BatchLease) -> bool>(
        self,
        _: Engine,
        _: impl FnOnce() -> H,
    ) -> Result<()> {
        match self {}
    }
}
