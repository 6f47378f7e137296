//! A million names in 100 files, one of them broken at each reload, while searches come.
//!
//! `cargo run --release -p nicring-bench --bin reload` exits with 0 if every search was answered.

#[cfg(target_os = "linux")]
mod linux;

fn main() -> std::process::ExitCode {
    #[cfg(target_os = "linux")]
    return linux::main();
    #[cfg(not(target_os = "linux"))]
    {
        eprintln!("reload: needs Linux: network namespaces");
        std::process::ExitCode::FAILURE
    }
}
