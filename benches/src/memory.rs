//! The memory of a process.

use std::{fs, io};

/// The resident memory of a process: VmRSS (proc(5)).
pub(crate) fn rss_bytes(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: Option<u64> =
        line.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other("the process has ended"))
}
