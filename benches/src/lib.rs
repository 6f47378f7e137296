//! What the benches share: a network to measure in, a sender, contestants, and clocks.
//!
//! Everything here is for Linux, where the peers are and where the machine can be asked.

#[cfg(target_os = "linux")]
pub mod clock;
#[cfg(target_os = "linux")]
pub mod contestant;
#[cfg(target_os = "linux")]
pub mod network;
#[cfg(target_os = "linux")]
pub mod sender;
