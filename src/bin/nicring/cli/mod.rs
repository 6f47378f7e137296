//! What the commands share: what they are told (options, environment, signals), what this host
//! says, and how they speak to people.

pub mod environment;
pub mod failure;
pub mod holder;
#[cfg(target_os = "linux")]
pub mod host;
#[cfg(not(target_os = "linux"))]
#[path = "host_absent.rs"]
pub mod host;
pub mod listen;
pub mod parse;
pub mod signals;
pub mod text;
