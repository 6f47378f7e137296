//! What only Linux has. Both backends use it; `mmsg` is for the portable one and `AsyncUdpV4`.
//!
//! - [`cmsg`]: control messages, decoded and written.
//! - [`segments`]: replies that leave by one `sendmsg` (GSO).
//! - [`mmsg`]: `recvmmsg` and `sendmmsg`.
//! - [`meminfo`]: what a socket has dropped.

pub(crate) mod cmsg;
pub(crate) mod meminfo;
pub(crate) mod mmsg;
pub(crate) mod segments;
