//! Once it is warm, an engine allocates nothing for a datagram, a batch or a reply. The tests count
//! every allocation of the whole process. That includes the client, which allocates nothing either.

#[cfg(target_os = "linux")]
#[path = "../../benches/src/allocations.rs"]
mod allocations;
#[cfg(target_os = "linux")]
mod cases;
#[path = "../common/mod.rs"]
mod common;
#[cfg(all(target_os = "linux", feature = "search"))]
mod search;
#[cfg(all(target_os = "linux", feature = "udp-v4"))]
mod udp_v4;

fn main() -> std::process::ExitCode {
    common::main()
}
