//! Hosts as they are. On each of them a plain server runs beside the engine: one socket on 0.0.0.0.
//! Whatever it hears the engine has to hear, as often, and where unicasts are left to others the
//! plain server has to keep its own. Needs network namespaces, and `socat` for a tunnel; without
//! them each test is ignored. The table in tests/README.md names the hosts.

#[path = "../common/mod.rs"]
mod common;

#[cfg(target_os = "linux")]
mod addresses;
#[cfg(target_os = "linux")]
mod answers;
#[cfg(target_os = "linux")]
mod exceptions;
#[cfg(target_os = "linux")]
mod host;
#[cfg(target_os = "linux")]
mod many;
#[cfg(target_os = "linux")]
mod odd;
#[cfg(target_os = "linux")]
mod oracle;
#[cfg(target_os = "linux")]
mod routers;
#[cfg(target_os = "linux")]
mod while_running;

fn main() -> std::process::ExitCode {
    common::main_with_namespaces()
}
