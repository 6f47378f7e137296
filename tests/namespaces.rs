//! Several NICs, real packets: engines in network namespaces joined by veth. Needs root and `ip`;
//! without them each test skips and says so. The table in tests/README.md names the scenarios and
//! what each asserts.
#![cfg(target_os = "linux")]

mod common;

#[path = "namespaces/beside.rs"]
mod beside;
#[path = "namespaces/change.rs"]
mod change;
#[path = "namespaces/classes.rs"]
mod classes;
#[path = "namespaces/follow.rs"]
mod follow;
#[path = "namespaces/paths.rs"]
mod paths;
#[path = "namespaces/star.rs"]
mod star;
#[path = "namespaces/trains.rs"]
mod trains;
