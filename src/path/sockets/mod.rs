//! Which sockets hear what arrives, and how they are opened.
//!
//! In this order: [`settings`], what the user says; [`plan`], which sockets there should be, a pure
//! function; [`open`], the sockets themselves, as engines and `AsyncUdpV4` alike have them;
//! [`socket`], an open one with its counters. Why one socket per class and NIC:
//! [the guide](crate::guide#one-socket-per-class-and-nic).

#[cfg(all(target_os = "linux", feature = "udp-v4"))]
mod adopt;
mod open;
mod plan;
mod settings;
mod socket;

pub(crate) use open::{SocketOptions, open};
pub(crate) use plan::{Role, SocketLayout, SocketPlan, plan};
pub(crate) use settings::ListenSettings;
pub use settings::{Listen, OnFailedNic, Unicast};
pub use socket::{FailedNic, Hears, SocketInfo};
pub(crate) use socket::{ListenSocket, open_port};
