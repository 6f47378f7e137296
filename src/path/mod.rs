//! The way of a datagram, in the order of passing:
//!
//! 1. [`sockets`]: which sockets hear what arrives.
//! 2. [`backend`]: the contract of who receives and sends on them; `uring/` and `fallback/` keep
//!    it.
//! 3. [`admit`]: guard, class, NIC, counters.
//! 4. [`batch`]: what the handler gets, and replies into.
//! 5. [`route`]: which way a reply leaves.
//! 6. [`dispatch`]: which socket sends it, and what became of it.
//!
//! [`pace`] says when to wait for more.

mod admit;
mod backend;
mod batch;
#[cfg(all(test, target_os = "linux"))]
mod by_address;
mod dispatch;
mod pace;
mod route;
mod sockets;

pub(crate) use admit::Admission;
pub use backend::BackendSetup;
pub(crate) use backend::{BackendDriver, BackendSettings, SLOT_COUNT_MAX, Turn, Wake};
pub use batch::{Batch, Datagrams};
pub(crate) use dispatch::{Dispatch, Sent};
pub use pace::Coalesce;
pub(crate) use pace::{Pace, sleep};
pub use sockets::{FailedNic, Hears, Listen, OnFailedNic, SocketInfo, Unicast};
pub(crate) use sockets::{ListenSettings, ListenSocket, SocketLayout, SocketPlan, open_port, plan};
#[allow(unused_imports, reason = "for the feature udp-v4")]
pub(crate) use sockets::{Role, SocketOptions, open};
