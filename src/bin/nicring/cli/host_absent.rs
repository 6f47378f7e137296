//! The host's facts on systems other than Linux, where most are not known.

use std::time::Duration;

use super::port_holders::Holder;

/// Whether the loopback interface hears 127.255.255.255.
pub const HAS_LOOPBACK_BROADCAST: bool = false;

/// The CPU time of the calling thread: not known here.
pub fn thread_cpu() -> Option<Duration> {
    None
}

/// Nothing to raise here.
pub fn raise_open_files_limit() {}

/// Facts that decide what works here.
pub fn facts() -> Vec<(&'static str, String)> {
    vec![("system", format!("{}, {}", std::env::consts::OS, std::env::consts::ARCH))]
}

/// Whether somebody holds a UDP port: not known here.
pub fn is_held(_port: u16) -> Option<bool> {
    None
}

/// Who holds a UDP port: not known here.
pub fn port_holders(_port: u16) -> Vec<Holder> {
    Vec::new()
}
