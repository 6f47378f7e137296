//! Which sockets hear what arrives, and how they are opened.
//!
//! In reading order:
//!
//! 1. [`settings`]: what the user chooses; [`join`]: the groups.
//! 2. [`plan`]: which sockets there should be. A pure function.
//! 3. [`rest`]: those of them that hear whole subnets; [`senders`]: those that send.
//! 4. [`open`]: opens a socket, for engines and for `AsyncUdpV4` alike.
//! 5. [`socket`]: an open socket with its counters; [`shared_drops`]: those of shards.
//!
//! [The guide](crate::guide#one-socket-per-class-and-nic) says why there is one socket per class
//! and NIC.

#[cfg(all(target_os = "linux", feature = "udp-v4"))]
mod adopt;
mod join;
mod open;
mod plan;
mod rest;
mod senders;
mod settings;
mod shared_drops;
mod socket;

pub use join::Join;
pub(crate) use open::{SocketOptions, open};
pub(crate) use plan::{Listeners, Role, SocketLayout, SocketPlan, SocketPlanKey, SubnetSockets};
pub(crate) use senders::spare_sender_count;
pub(crate) use settings::ListenSettings;
pub use settings::{Listen, OnFailedNic, Unicast};
pub(crate) use shared_drops::SharedDrops;
pub use socket::{FailedNic, Hears, SocketInfo};
pub(crate) use socket::{Followed, ListenSocket};
