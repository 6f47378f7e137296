//! One io_uring for every NIC.
#[cfg(feature = "search")]
pub mod search;
