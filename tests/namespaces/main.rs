//! Several NICs and real packets: engines in network namespaces joined by veth. Needs root and
//! `ip`; without them each test is skipped and prints why. The table in tests/README.md names the
//! scenarios and what each asserts.
#![cfg(target_os = "linux")]

#[path = "../common/mod.rs"]
mod common;

mod announce;
mod beside;
mod change;
mod classes;
mod filter;
mod follow;
mod groups;
mod paths;
mod segments;
mod shards;
mod star;
