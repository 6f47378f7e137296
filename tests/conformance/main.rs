//! What every backend promises, on the loopback NIC, without privileges. Each case is a test of its
//! own for each backend, and stands in one of two modules: `api`, or `os_semantics` where the
//! system decides.

#[path = "../common/mod.rs"]
mod common;

mod api;
mod os_semantics;
