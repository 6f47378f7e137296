//! The system's own calls and options. With [`platform`](crate::platform) the only place that tells
//! systems apart by `cfg`, and with `uring/` the only one of unsafe code.
//!
//! - [`options`]: what a socket is told before and after it is bound.
//! - [`drop_count`]: counts of drops that wrap.
//! - [`linux`]: control messages, many datagrams per call, segments.

pub(crate) mod drop_count;
#[cfg(target_os = "linux")]
pub(crate) mod linux;
pub(crate) mod options;
