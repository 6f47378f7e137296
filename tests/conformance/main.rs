//! What every backend promises, on the loopback NIC, without privileges. Each case becomes one test
//! per backend. It is in the module `api`, or in `os_semantics` if the system decides the outcome.

#[path = "../common/mod.rs"]
mod common;

mod api;
mod os_semantics;

fn main() -> std::process::ExitCode {
    common::main()
}
