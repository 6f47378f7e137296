//! Closing. The ports are free at once, even for a socket that does not share them. No descriptor,
//! no thread and no memory is left behind. This holds for every way in which an engine ends, a
//! thousand times under traffic.

#[cfg(target_os = "linux")]
mod cases;
#[path = "../common/mod.rs"]
mod common;

fn main() -> std::process::ExitCode {
    common::main()
}
