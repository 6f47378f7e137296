//! What every backend promises, on the loopback NIC, without privileges. Each case is a test of its
//! own for each backend.

mod common;

#[path = "conformance/life.rs"]
mod life;
#[path = "conformance/receive.rs"]
mod receive;
#[path = "conformance/reply.rs"]
mod reply;
#[path = "conformance/settings.rs"]
mod settings;

#[cfg(target_os = "linux")]
#[path = "conformance/linux.rs"]
mod linux;
