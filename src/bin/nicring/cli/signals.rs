//! Signals as flags that the main thread looks at.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

use super::failure::Failure;

/// The number is the same on every Unix. Where the signal does not exist, registering it is
/// refused.
const SIGHUP: i32 = 1;

/// What the program has been told by signals.
#[derive(Debug, Default)]
pub struct Signals {
    stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
}

impl Signals {
    /// Catches SIGINT and SIGTERM; a second one ends the program at once.
    pub fn catch() -> Result<Self, Failure> {
        let signals = Self::default();
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_shutdown(signal, 1, Arc::clone(&signals.stop))
                .and_then(|_| flag::register(signal, Arc::clone(&signals.stop)))
                .map_err(|error| Failure::Run(format!("catching signal {signal}: {error}")))?;
        }
        Ok(signals)
    }

    /// Catches SIGHUP too, where the system has it.
    pub fn catch_reload(&self) {
        if let Err(error) = flag::register(SIGHUP, Arc::clone(&self.reload)) {
            tracing::info!(%error, "no SIGHUP here: the PV file is read once");
        }
    }

    pub fn wants_stop(&self) -> bool {
        self.stop.load(SeqCst)
    }

    /// Whether a reload was asked for since the last call.
    pub fn take_reload(&self) -> bool {
        self.reload.swap(false, SeqCst)
    }
}
