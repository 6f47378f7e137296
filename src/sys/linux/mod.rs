//! What only Linux has, for both backends:
//!
//! - [`cmsg`]: control messages, decoded and written.
//! - [`segments`]: replies that leave by one `sendmsg` (GSO).
//! - [`mmsg`]: `recvmmsg` and `sendmmsg`.
//! - [`meminfo`]: what a socket has dropped.

pub(crate) mod cmsg;
pub(crate) mod meminfo;
pub(crate) mod mmsg;
pub(crate) mod segments;
