//! Machines that refuse io_uring. The engine falls back and works, and it reports what was refused,
//! why, and what to do. The refusals are real: seccomp filters on the thread that opens the engine,
//! and a limit on locked memory.

#[cfg(target_os = "linux")]
mod cases;
#[path = "../common/mod.rs"]
mod common;

fn main() -> std::process::ExitCode {
    common::main()
}
