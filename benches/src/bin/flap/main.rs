//! What a NIC that comes and goes costs the others, and how soon it is heard.
//!
//! `cargo run --release -p nicring-bench --bin flap -- --nics 500` exits with 0 if on both backends
//! no datagram of the other NICs was lost or handed out too late, and the NIC was heard in time.

#[cfg(target_os = "linux")]
mod linux;

fn main() -> std::process::ExitCode {
    #[cfg(target_os = "linux")]
    return linux::main();
    #[cfg(not(target_os = "linux"))]
    {
        eprintln!("flap: needs Linux: network namespaces");
        std::process::ExitCode::FAILURE
    }
}
