//! What the benches share: a network to measure in, loads, contestants, and clocks.
//!
//! Everything here but the names is for Linux: the peers run there, and only there can the machine
//! be measured like this.

#[cfg(target_os = "linux")]
pub mod affinity;
#[cfg(target_os = "linux")]
pub mod allocations;
#[cfg(target_os = "linux")]
pub mod clock;
#[cfg(target_os = "linux")]
pub mod contestant;
#[cfg(target_os = "linux")]
pub mod crowd;
#[cfg(target_os = "linux")]
pub mod filling;
#[cfg(target_os = "linux")]
pub mod load;
#[cfg(target_os = "linux")]
mod memory;
pub mod names;
#[cfg(target_os = "linux")]
pub mod network;
#[cfg(target_os = "linux")]
pub mod outcome;
#[cfg(target_os = "linux")]
pub mod privilege;
#[cfg(target_os = "linux")]
pub mod questions;
#[cfg(target_os = "linux")]
pub mod queued_batch;
#[cfg(target_os = "linux")]
pub mod receiver;
#[cfg(target_os = "linux")]
mod segments;
#[cfg(target_os = "linux")]
pub mod sender;
#[cfg(target_os = "linux")]
pub mod server;
#[cfg(target_os = "linux")]
pub mod service;
#[cfg(target_os = "linux")]
pub mod statistics;
#[cfg(target_os = "linux")]
pub mod storm;
#[cfg(target_os = "linux")]
pub mod surge;
#[cfg(target_os = "linux")]
pub mod syscalls;
