//! The engines, their settings and their handles.
//!
//! In reading order:
//!
//! 1. [`builder`]: the settings.
//! 2. [`choose`]: io_uring or portable.
//! 3. [`listening`]: the sockets, as NICs come and go. [`rescan_timer`] decides when to look.
//! 4. [`core`]: one turn.
//! 5. [`run`]: the engine in the calling thread.
//! 6. [`lease`]: the engine for async tasks.
//! 7. [`handle`]: what other threads have of either engine.

mod builder;
mod choose;
mod core;
mod handle;
mod lease;
mod listening;
mod rescan_timer;
mod run;

pub use builder::Builder;
#[allow(unused_imports, reason = "for the feature udp-v4")]
pub(crate) use choose::resolve_here;
pub use choose::{Backend, BackendReport};
pub use handle::Handle;
pub use lease::{AsyncEngine, BatchLease};
pub use run::Engine;
