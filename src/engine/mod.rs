//! The engines, their settings and their handles.
//!
//! In reading order:
//!
//! 1. [`builder`]: the settings.
//! 2. [`choose`]: io_uring or portable.
//! 3. [`rescan`]: which NICs are listened on, as they come and go. [`socket_set`] has the sockets,
//!    open and missing, and [`rescan_timer`] decides when to look again.
//! 4. [`core`]: one turn.
//! 5. [`run`]: the engine in the calling thread.
//! 6. [`shards`]: several engines that share the work.
//! 7. [`async_engine`]: the engine for async tasks, and the batches that it lends.
//! 8. [`handle`]: stops and watches either engine from other threads.

mod async_engine;
#[cfg(feature = "tokio-uring")]
mod async_shards;
mod builder;
mod choose;
mod core;
mod handle;
mod rescan;
mod rescan_timer;
mod run;
mod shards;
mod socket_set;
mod waiters;

#[allow(unused_imports, reason = "for the feature stream")]
pub(crate) use async_engine::Receive;
pub use async_engine::{AsyncEngine, BatchLease};
pub use builder::Builder;
#[allow(unused_imports, reason = "for the feature udp-v4")]
pub(crate) use choose::resolve_here;
pub use choose::{Backend, BackendReport};
pub use handle::Handle;
pub use run::Engine;
pub use shards::{HandlerRuntime, Shards};
