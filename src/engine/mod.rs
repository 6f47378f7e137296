//! Who drives the way of a datagram: the engines, their settings, their handles.
//!
//! In this order: [`builder`], the settings; [`choose`], io_uring or portable; [`listening`], the
//! sockets as NICs come and go ([`rescan_timer`] says when to look); [`core`], one turn; [`run`],
//! the engine in the calling thread; [`lease`], the one for async tasks; [`handle`], what other
//! threads have of either.

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
