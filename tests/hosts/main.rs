//! Hosts as they are. On each of them a plain server runs beside the engine: one socket on 0.0.0.0.
//! Whatever it hears the engine has to hear, as often, and where unicasts are left to others the
//! plain server has to keep its own. Needs root and `ip`, and `socat` for a tunnel; without them
//! each test is skipped and prints why. The table in tests/README.md names the hosts.
#![cfg(target_os = "linux")]

#[path = "../common/mod.rs"]
mod common;

mod addresses;
mod answers;
mod exceptions;
mod host;
mod many;
mod odd;
mod oracle;
mod routers;
mod while_running;
