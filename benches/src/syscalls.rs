//! All system calls of a process, by tracepoint: `strace` would slow it a thousandfold.

use std::{io, process::Command, time::Duration};

/// What was counted, and in what time.
#[derive(Debug, Clone, Copy)]
pub struct Count {
    /// System calls of all threads.
    pub syscall_count: u64,
    /// For how long they were counted.
    pub duration: Duration,
}

/// Counts for a while, by `perf`.
///
/// # Errors
///
/// There is no `perf`, or it may not count.
pub fn count(pid: u32, duration: Duration) -> io::Result<Count> {
    let output = Command::new("perf")
        .args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter,duration_time"])
        .args(["-p", &pid.to_string()])
        .args(["--", "sleep", &duration.as_secs_f64().to_string()])
        .output()
        .map_err(|error| io::Error::other(format!("perf: {error}: install linux-perf")))?;
    let report = String::from_utf8_lossy(&output.stderr);
    let value = |event: &str| {
        let line = report.lines().find(|line| line.contains(event))?;
        line.split(',').next()?.parse::<u64>().ok()
    };
    let not_counted = || io::Error::other(format!("perf counted nothing: {}", report.trim()));
    Ok(Count {
        syscall_count: value("raw_syscalls").ok_or_else(not_counted)?,
        duration: Duration::from_nanos(value("duration_time").ok_or_else(not_counted)?),
    })
}
