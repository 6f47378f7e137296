//! Finds out whether io_uring works here, by using it, and if not, why.
//!
//! The kernel's version would not tell: distributions carry fixes back, and break things.

use std::{
    io,
    os::{fd::AsFd, unix::net::UnixDatagram},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    arms::{BufferLayout, HEADER_BYTES, parse},
    buffers::{BufferRing, GROUP, Slab},
    kernel::{Completion, Kernel},
    ring::Ring,
    user_data::UserData,
};
use crate::error::Unavailable;

/// How long the kernel may take to move one datagram.
const TIME_MAX: Duration = Duration::from_secs(1);
/// How often to try while memory is short: rings that were just closed may be late to give back
/// memory that is charged to this user.
const ENOMEM_ATTEMPT_MAX: u32 = 20;
const ENOMEM_PAUSE: Duration = Duration::from_millis(10);

/// Sets up a small ring with a buffer ring, and moves a datagram through a multishot receive.
pub(super) fn preflight() -> Result<(), Unavailable> {
    let mut attempt_count = 0;
    loop {
        attempt_count += 1;
        match attempt() {
            Err((_, error))
                if error.raw_os_error() == Some(libc::ENOMEM)
                    && attempt_count < ENOMEM_ATTEMPT_MAX =>
            {
                std::thread::sleep(ENOMEM_PAUSE);
            }
            result => return result.map_err(|(operation, error)| explain(operation, error)),
        }
    }
}

type Failure = (&'static str, io::Error);

/// Dropped in this order, so that the kernel has let go of the ring before its memory is freed.
struct Small {
    ring: Ring,
    buffers: BufferRing,
}

fn attempt() -> Result<(), Failure> {
    let failed = |operation| move |error| (operation, error);
    let mut ring = Ring::open(8, 16).map_err(failed("io_uring_setup"))?;
    ring.register_files(1).map_err(failed("io_uring_register (files)"))?;
    // A pair of Unix sockets: UDP over loopback would need the interface to be up.
    let (ours, theirs) = UnixDatagram::pair().map_err(failed("socketpair"))?;
    ring.set_file(0, Some(ours.as_fd())).map_err(failed("io_uring_register (file)"))?;
    let slab = Slab::new(4, HEADER_BYTES + 64).map_err(failed("allocating buffers"))?;
    let buffers = BufferRing::register(&mut ring, Arc::new(slab), 1)
        .map_err(failed("io_uring_register (buffer ring)"))?;
    let Small { ring, buffers } = &mut Small { ring, buffers };
    ring.enable().map_err(failed("io_uring_register (enable)"))?;
    let layout = BufferLayout::new();
    let user_data = UserData::Receive { slot: 0, generation: 0 };
    // If this fails, the kernel has taken nothing yet.
    let submitted = layout.push_receive(ring, 0, user_data).and_then(|()| ring.submit());
    submitted.map_err(failed("io_uring_enter"))?;
    let moved = move_datagram(ring, buffers, &theirs);
    let at_rest = moved.and_then(|()| rest(ring, buffers));
    if at_rest.is_err() {
        // The kernel may still hold the receive: its memory must stay.
        ring.leak();
        buffers.leak();
    }
    at_rest.map_err(failed("io_uring_enter"))
}

/// Receives a datagram by the receive that was submitted.
fn move_datagram(
    ring: &mut Ring,
    buffers: &mut BufferRing,
    theirs: &UnixDatagram,
) -> io::Result<()> {
    theirs.send(b"nicring")?;
    let completion = wait(ring)?;
    if completion.result < 0 {
        return Err(io::Error::from_raw_os_error(-completion.result));
    }
    let payload_len = completion.buffer().and_then(|buffer| {
        let is_taken = buffers.take(buffer);
        let bytes = is_taken.then(|| buffers.slab().bytes(buffer, completion.result as usize))?;
        parse(bytes).map(|(_, payload_len)| payload_len)
    });
    if payload_len != Some(b"nicring".len()) || !completion.has_more() {
        let reason = format!("a multishot receive brought {completion:?}");
        return Err(io::Error::other(reason));
    }
    Ok(())
}

/// Cancels the receive and awaits its end, after which the kernel writes no more.
fn rest(ring: &mut Ring, buffers: &mut BufferRing) -> io::Result<()> {
    ring.push_cancel_all(UserData::Cancel.encode())?;
    loop {
        let completion = wait(ring)?;
        let is_receive = completion.user_data != UserData::Cancel.encode();
        if let Some(buffer) = completion.buffer() {
            buffers.reclaim(buffer);
        }
        if is_receive && !completion.has_more() {
            return ring.unregister_buffer_ring(GROUP);
        }
    }
}

fn wait(ring: &mut Ring) -> io::Result<Completion> {
    let end = Instant::now() + TIME_MAX;
    loop {
        if let Some(completion) = ring.next_completion() {
            return Ok(completion);
        }
        if Instant::now() > end {
            return Err(io::ErrorKind::TimedOut.into());
        }
        ring.submit_and_wait(Some(end))?;
    }
}

/// Explains the errors that are known to happen: name, cause and remedy.
pub(super) fn explain(operation: &'static str, source: io::Error) -> Unavailable {
    let (errno, remedy) = match source.raw_os_error() {
        Some(libc::EPERM) => ("EPERM", remedy_for_eperm(disabled_by_sysctl().as_deref())),
        Some(libc::EACCES) => ("EACCES", "denied by a security module; see the audit log"),
        Some(libc::ENOSYS) => (
            "ENOSYS",
            "this kernel was built without io_uring, or a sandbox hides it: use a kernel with \
             CONFIG_IO_URING outside the sandbox",
        ),
        Some(libc::ENOMEM) => (
            "ENOMEM",
            "the limit of locked memory is too small for the rings: raise RLIMIT_MEMLOCK \
             (`ulimit -l`, LimitMEMLOCK=), or grant CAP_IPC_LOCK",
        ),
        Some(libc::EINVAL) => (
            "EINVAL",
            "this kernel lacks something: Linux 6.0 or later is needed, and Ubuntu's 6.8.0-136 to \
             -139 refuse buffer rings",
        ),
        Some(libc::EAGAIN) => (
            "EAGAIN",
            "no more threads may be started: raise RLIMIT_NPROC (`ulimit -u`), or TasksMax= in a \
             unit of systemd",
        ),
        Some(libc::EAFNOSUPPORT) => (
            "EAFNOSUPPORT",
            "a sandbox forbids Unix sockets, with which io_uring is tried: allow AF_UNIX \
             (RestrictAddressFamilies= in a unit of systemd)",
        ),
        Some(libc::EMFILE) => ("EMFILE", "too many open files: raise RLIMIT_NOFILE (`ulimit -n`)"),
        Some(libc::ENFILE) => ("ENFILE", "too many open files on this host: raise fs.file-max"),
        _ => ("", "io_uring does not work as it should on this kernel"),
    };
    Unavailable { operation, source, errno, remedy }
}

fn disabled_by_sysctl() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()
}

fn remedy_for_eperm(disabled: Option<&str>) -> &'static str {
    match disabled.map(str::trim) {
        Some("2") => {
            "blocked by kernel.io_uring_disabled=2: `sysctl kernel.io_uring_disabled=0` allows it"
        }
        Some("1") => {
            "blocked by kernel.io_uring_disabled=1: join the group of kernel.io_uring_group, or \
             `sysctl kernel.io_uring_disabled=0`"
        }
        Some(_) => {
            "blocked by seccomp, as by most containers: allow io_uring_setup, io_uring_enter and \
             io_uring_register in its profile"
        }
        None => {
            "blocked by seccomp, or by kernel.io_uring_disabled: allow the io_uring system calls \
             in the sandbox's profile, or set the sysctl to 0"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_errno_is_explained_with_a_remedy() {
        let explained = |errno| explain("io_uring_setup", io::Error::from_raw_os_error(errno));
        for errno in [libc::EPERM, libc::ENOSYS, libc::ENOMEM, libc::EINVAL, libc::EMFILE] {
            let unavailable = explained(errno);
            assert!(!unavailable.errno.is_empty());
            let text = unavailable.to_string();
            assert!(text.starts_with("io_uring_setup: E"), "{text}");
        }
        let unknown = explained(libc::EIO).to_string();
        assert!(unknown.contains("os error 5"), "{unknown}");
    }

    #[test]
    fn a_sysctl_that_forbids_is_told_from_seccomp() {
        assert!(remedy_for_eperm(Some("2\n")).contains("io_uring_disabled=2"));
        assert!(remedy_for_eperm(Some("1\n")).contains("io_uring_group"));
        assert!(remedy_for_eperm(Some("0\n")).contains("seccomp"));
        assert!(remedy_for_eperm(None).contains("seccomp"));
    }
}
