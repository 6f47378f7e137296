//! What only Linux has. Both backends use it; `mmsg` is for the portable one and `AsyncUdpV4`.
//!
//! - [`cmsg`]: control messages, decoded and written.
//! - [`segments`]: replies that leave by one `sendmsg` (GSO).
//! - [`mmsg`]: `recvmmsg` and `sendmmsg`.
//! - [`meminfo`]: what a socket has dropped.
//! - [`socket_filter`]: what the kernel drops before it is queued.
//! - [`fork_mark`]: memory that a forked child finds empty.
//! - [`netlink`]: what the kernel tells of links, addresses and routes.
//! - [`nic_watch`]: the NICs that follow from it.

pub(crate) mod cmsg;
#[cfg(all(test, feature = "tokio-uring"))]
mod fork_async_tests;
pub(crate) mod fork_mark;
#[cfg(test)]
mod fork_tests;
pub(crate) mod meminfo;
pub(crate) mod mmsg;
mod netlink;
pub(crate) mod nic_watch;
pub(crate) mod segments;
pub(crate) mod socket_filter;
