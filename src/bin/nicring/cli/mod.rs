//! What the commands share: their input (options, environment, signals), facts about this host, and
//! text for people.

pub mod environment;
pub mod failure;
#[cfg(target_os = "linux")]
pub mod host;
#[cfg(not(target_os = "linux"))]
#[path = "host_absent.rs"]
pub mod host;
pub mod listen;
pub mod parse;
pub mod port_holders;
pub mod signals;
pub mod text;
