//! The system's own calls and options. Only this module and [`platform`](crate::platform) tell
//! systems apart by `cfg`, if module lines are not counted. Only this module and `uring/` contain
//! unsafe code.
//!
//! - [`options`]: socket options, set before and after binding.
//! - [`drop_count`]: how many datagrams a socket has dropped; the kernel's count wraps.
//! - [`nic_watch`]: lists the NICs, and hears when they change.
//! - [`process`]: whether this is a process that was forked from the one that opened something.
//! - [`shard`]: which of several engines hears a sender's broadcasts.
//! - [`linux`]: control messages, many datagrams per call, segments, filters, netlink.

pub(crate) mod drop_count;
#[cfg(target_os = "linux")]
pub(crate) mod linux;
#[cfg(not(target_os = "linux"))]
#[path = "nic_watch_elsewhere.rs"]
pub(crate) mod nic_watch;
pub(crate) mod options;
pub(crate) mod process;
pub(crate) mod shard;

/// What tells a runtime that there is something to do.
#[cfg(target_os = "linux")]
pub(crate) type Signal = nix::sys::eventfd::EventFd;
/// Nothing does.
#[cfg(not(target_os = "linux"))]
pub(crate) enum Signal {}

#[cfg(target_os = "linux")]
pub(crate) use linux::nic_watch;
