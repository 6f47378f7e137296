//! What a surge after a steady rate loses, with a delay and without: see the package's README.

#[cfg(target_os = "linux")]
mod linux;

fn main() -> std::process::ExitCode {
    #[cfg(target_os = "linux")]
    return linux::main();
    #[cfg(not(target_os = "linux"))]
    {
        eprintln!("surge: needs Linux: network namespaces");
        std::process::ExitCode::FAILURE
    }
}
