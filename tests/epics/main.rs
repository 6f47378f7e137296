//! Real EPICS clients read process variables of real EPICS servers, which they find only through
//! `nicring serve`. None of these programs was written in this project.
//!
//! ```text
//!   client namespace 1            server namespace              client namespace 2
//!        clients           10.77.1.1   nicring   10.77.2.1        clients
//!        10.77.1.2 ------------ nic1    5064/5076    nic2 ------------ 10.77.2.2
//!                          pvxs 5085, softioc 5066 | caproto 5068
//! ```
//!
//! Each server listens only on one NIC's address, at ports where no client searches. So a client on
//! the other NIC succeeds only if it learns the server's own address. nicring knows one of each
//! server's two process variables, so the other must not be found.
//!
//! Needs network namespaces, `timeout` and the packages of tests/requirements.txt for the Python
//! that `NICRING_PYTHON` names (default `.cache/venv/bin/python`). Without them the tests are
//! ignored. `NICRING_REQUIRE=netns,epics,io_uring` turns each of these skips into a failure.

#[cfg(target_os = "linux")]
mod cases;
#[path = "../common/mod.rs"]
mod common;
#[cfg(target_os = "linux")]
mod example;
#[cfg(target_os = "linux")]
mod hosts;
#[cfg(target_os = "linux")]
mod names;

fn main() -> std::process::ExitCode {
    common::main_with_namespaces()
}
