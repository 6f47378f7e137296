#![doc = include_str!("../README.md")]

mod datagram;
mod engine;
mod error;
#[path = "../fallback/mod.rs"]
mod fallback;
mod lock;
mod nics;
mod path;
mod platform;
mod stats;
mod sys;

#[cfg(target_os = "linux")]
mod uring;
#[cfg(not(target_os = "linux"))]
#[path = "uring_absent.rs"]
mod uring;

pub mod guide;
pub mod platforms;
#[cfg(feature = "search")]
pub mod search;
#[cfg(feature = "udp-v4")]
pub mod udp_v4;

pub use datagram::{Class, Datagram, Egress, Queued, ReplyPath};
pub use engine::{AsyncEngine, Backend, BackendReport, BatchLease, Builder, Engine, Handle};
pub use error::{Error, Result, Unavailable};
pub use nics::{Nic, NicAddress, NicFilter, NicId, Nics};
pub use path::{
    BackendSetup, Batch, Coalesce, Datagrams, FailedNic, Hears, Listen, OnFailedNic, SocketInfo,
    Unicast,
};
pub use stats::{Counts, NicStats, Stats};
