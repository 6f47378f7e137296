//! The way of a datagram, from the socket to the handler and back. The modules, in the order in
//! which it passes them:
//!
//! 1. [`sockets`]: which sockets hear what arrives.
//! 2. [`backend`]: the contract of the backends, which receive and send on the sockets. `uring/`
//!    and `fallback/` keep it.
//! 3. [`admit`]: drops what cannot be answered, finds class and NIC, counts.
//! 4. [`batch`]: what the handler gets, and where it queues its replies.
//! 5. [`route`]: which NIC and which source address a reply leaves by; [`strangers`]: whether one
//!    to an address of no subnet may; [`host`]: what the engine knows for that.
//! 6. [`dispatch`]: which socket sends a reply, and whether it was sent.
//!
//! [`pace`] decides when to wait for more datagrams, and how long.

mod admit;
mod backend;
mod batch;
#[cfg(all(test, target_os = "linux"))]
mod by_address_tests;
mod dispatch;
mod host;
mod pace;
mod route;
mod sockets;
mod strangers;

pub(crate) use admit::Admission;
pub use backend::BackendSetup;
pub(crate) use backend::{
    BackendDriver, BackendSettings, ERROR_COUNT_MAX, SLOT_COUNT_MAX, Turn, Wake,
};
pub use batch::{Batch, Datagrams};
pub(crate) use dispatch::{Dispatch, Sent};
pub(crate) use host::Host;
pub(crate) use pace::{DELAY_MAX_DEFAULT, Pace, sleep};
pub use sockets::{FailedNic, Hears, Join, Listen, OnFailedNic, SocketInfo, Unicast};
pub(crate) use sockets::{
    Followed, ListenSettings, ListenSocket, Listeners, Role, SharedDrops, SocketLayout, SocketPlan,
    SocketPlanKey, SubnetSockets, spare_sender_count,
};
#[allow(unused_imports, reason = "for the feature udp-v4")]
pub(crate) use sockets::{SocketOptions, open};
pub(crate) use strangers::Strangers;
