//! How much faster several shards empty full queues than one does: see the package's README.

#[cfg(target_os = "linux")]
mod linux;

fn main() -> std::process::ExitCode {
    #[cfg(target_os = "linux")]
    return linux::main();
    #[cfg(not(target_os = "linux"))]
    {
        eprintln!("shards: needs Linux: network namespaces");
        std::process::ExitCode::FAILURE
    }
}
