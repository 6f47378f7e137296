#![doc = include_str!("../README.md")]

mod admit;
mod agenda;
mod async_engine;
mod backend;
mod batch;
mod builder;
mod drops;
mod engine;
mod error;
#[path = "../fallback/mod.rs"]
mod fallback;
mod listen;
mod lock;
mod meta;
mod nics;
mod options;
mod outbox;
mod pace;
mod route;
mod stats;
mod storage;

#[cfg(target_os = "linux")]
mod uring;
#[cfg(not(target_os = "linux"))]
#[path = "no_uring.rs"]
mod uring;

pub mod guide;
pub mod platforms;
#[cfg(feature = "search")]
pub mod search;
#[cfg(feature = "udp-v4")]
pub mod udp_v4;
#[cfg(not(feature = "udp-v4"))]
#[path = "no_udp_v4.rs"]
mod udp_v4;

pub use async_engine::{AsyncEngine, BatchLease};
pub use backend::{Backend, BackendReport, Coalesce};
pub use batch::{Batch, Iter};
pub use builder::Builder;
pub use engine::{Engine, Handle};
pub use error::{Error, Result, Unavailable};
pub use listen::{Listen, OnFailedNic, Unicast};
pub use meta::{Class, Datagram, ReplyPath};
pub use nics::{Nic, NicAddress, NicFilter, Nics};
pub use outbox::Queued;
pub use route::Egress;
pub use stats::{Counts, NicStats, Stats};
#[allow(unused_imports, reason = "nothing without the feature udp-v4")]
pub use udp_v4::*;
