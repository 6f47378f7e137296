//! Examples as their users have them, with real peers in network namespaces. The gate runs those
//! that answer on loopback, and `epics/example.rs` the name server. `cargo test` builds the
//! examples, but not `cargo test --test examples`.

#[cfg(target_os = "linux")]
mod cases;
#[path = "../common/mod.rs"]
mod common;

fn main() -> std::process::ExitCode {
    common::main_with_namespaces()
}
