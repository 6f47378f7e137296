//! Several NICs and real packets: engines in network namespaces joined by veth. Without
//! namespaces each test is ignored. The table in tests/README.md names the scenarios and what each
//! asserts.

#[path = "../common/mod.rs"]
mod common;

#[cfg(target_os = "linux")]
mod announce;
#[cfg(target_os = "linux")]
mod beside;
#[cfg(target_os = "linux")]
mod change;
#[cfg(target_os = "linux")]
mod classes;
#[cfg(target_os = "linux")]
mod filter;
#[cfg(target_os = "linux")]
mod follow;
#[cfg(target_os = "linux")]
mod groups;
#[cfg(target_os = "linux")]
mod paths;
#[cfg(target_os = "linux")]
mod segments;
#[cfg(target_os = "linux")]
mod shards;
#[cfg(target_os = "linux")]
mod star;

fn main() -> std::process::ExitCode {
    common::main_with_namespaces()
}
