//! `SO_MEMINFO`: what a socket has dropped, without waiting for a datagram to tell.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd};

/// Positions in the array that `SO_MEMINFO` fills (linux/sock_diag.h): the bytes that are queued to
/// be received, and the drop count.
const SK_MEMINFO_RMEM_ALLOC: usize = 0;
const SK_MEMINFO_DROPS: usize = 8;
const SK_MEMINFO_VARS: usize = 9;

/// The cumulative drop count of a socket, and whether datagrams are queued in it; `None` before
/// Linux 4.12, which has no `SO_MEMINFO`.
pub(crate) fn drop_count(socket: &impl AsFd) -> Option<(u32, bool)> {
    let mut values = [0u32; SK_MEMINFO_VARS];
    let mut len = size_of_val(&values) as libc::socklen_t;
    // SAFETY: both pointers are to locals that outlive the call, and `len` is the size of the
    // array; the kernel writes no more than that, and only during the call.
    let status = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &mut len,
        )
    };
    let is_complete = status == 0 && len as usize == size_of_val(&values);
    is_complete.then_some((values[SK_MEMINFO_DROPS], values[SK_MEMINFO_RMEM_ALLOC] > 0))
}
