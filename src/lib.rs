//! One io_uring for all NICs: hears and answers UDP SEARCH traffic on many network interfaces at a
//! high rate.
//!
//! A server of broadcast discovery, such as a name server of EPICS, must hear each datagram exactly
//! once, know which NIC and which address it was sent to, and answer from that address. With plain
//! sockets that takes dozens of them, a system call for each datagram, and a good deal of care.
//! Here one [`Engine`] serves every class of destination on every NIC: the replies to all of them,
//! and the wait for the next datagrams, are one system call.
//!
//! ```no_run
//! use std::ops::ControlFlow;
//!
//! let engine = nicring::Engine::builder().port(5076).open()?;
//! let stats = engine.run(|batch| {
//!     for datagram in batch.iter() {
//!         batch.reply(&datagram, b"here"); // from the address that was asked
//!     }
//!     ControlFlow::Continue(())
//! })?;
//! println!("{stats}");
//! # Ok::<(), nicring::Error>(())
//! ```
//!
//! | to | see |
//! |---|---|
//! | serve from a thread of your own | [`Engine::run`] |
//! | serve from several threads, where one is too slow | [`Shards`] |
//! | serve from async tasks, of any runtime | [`AsyncEngine::recv_batch`] |
//! | stop and watch any of them from any thread, end on Ctrl-C | [`Handle`] |
//! | send beacons and announcements | [`Handle::fan_out`], [`Egress`] |
//! | drop early what is of no interest | [`Builder::filter`] |
//! | choose NICs, groups, sizes | [`Builder`] |
//! | answer SEARCH of EPICS | `search::Answerer` (feature `search`, on by default) |
//! | ask, parse, keep a million names | `search` |
//! | take batches as a `Stream` | `stream` (feature `stream`) |
//! | replace the `AsyncUdpV4` of epics-base-rs | `udp_v4` (feature `udp-v4`) |
//! | understand how it works | [`guide`] |
//! | know what was measured | [`guide::measured`] |
//! | follow NICs that come and go | [`Handle::events`] |
//! | read its logs | [`logs`] |
//! | know what each system keeps | [`platforms`] |
//!
//! Where io_uring is refused (most containers, Enterprise Linux 8 and 9, other systems) the
//! portable backend takes over, and [`Handle::backend`] says why. It keeps the same promises, but
//! for the few that [`platforms`] names. The environment variable `NICRING_BACKEND` (`io_uring` or
//! `portable`) decides what [`Backend::Auto`] means.
//!
//! # Features
//!
//! | feature | what it brings | dependencies |
//! |---|---|---|
//! | `search` (default) | a name server, name table, parsers and writers for CA and PVA SEARCH | `foldhash`, `arrayvec` |
//! | `stream` | the batches of an `AsyncEngine` as a `Stream` | `futures-core` |
//! | `tokio-uring` | shards with async handlers: [`Shards`]`::run_async` | `tokio`, `tokio-uring` |
//! | `udp-v4` | the drop-in for `AsyncUdpV4` | `tokio` |
//! | `serde` | `serde::Serialize` for [`Stats`] and what a [`Handle`] tells | `serde` |
//! | `metrics` | [`Stats`] as metrics of OpenMetrics: `Collector` for [`Handle`] | `prometheus-client` 0.26 |
//! | `cli` | the program `nicring` | `clap`, `serde_json`, `signal-hook`, `tracing-subscriber` |
//!
//! # Versions
//!
//! Rust 1.85 or later. A newer minimum comes with a new minor version only, and is at least six
//! months old by then. Before 1.0 a minor version may change the API; the changelog says what, and
//! how to follow.

mod datagram;
mod engine;
mod error;
mod events;
// At the top of the repository, beside `src`: the one part that all systems have.
#[path = "../fallback/mod.rs"]
mod fallback;
mod filter;
mod lock;
#[cfg(feature = "metrics")]
mod metrics;
mod nics;
mod path;
mod platform;
mod stats;
mod sys;
mod wakers;

#[cfg(target_os = "linux")]
mod uring;
#[cfg(not(target_os = "linux"))]
#[path = "uring_absent.rs"]
mod uring;

pub mod guide;
pub mod logs;
pub mod platforms;
#[cfg(feature = "search")]
pub mod search;
#[cfg(feature = "serde")]
mod serialize;
#[cfg(feature = "stream")]
pub mod stream;
#[cfg(feature = "udp-v4")]
pub mod udp_v4;

/// The examples of README.md, compiled.
#[cfg(doctest)]
mod readme {
    #![doc = include_str!("../README.md")]
}

pub use datagram::{Class, Datagram, Egress, Queued, ReplyPath};
pub use engine::{
    AsyncEngine, Backend, BackendReport, BatchLease, Builder, Engine, Handle, HandlerRuntime,
    Shards,
};
pub use error::{Error, Result, Unavailable};
pub use events::{Event, Events};
pub use filter::{Filter, Pattern};
pub use nics::{Nic, NicAddress, NicFilter, NicId, Nics, Subnet, SubnetError};
pub use path::{
    BackendSetup, Batch, Datagrams, FailedNic, Hears, Join, Listen, OnFailedNic, SocketInfo,
    Unicast,
};
pub use stats::{Counts, NicStats, Stats};
