//! Counts all system calls of a process by tracepoint. `strace` would slow the process a
//! thousandfold.

use std::{io, process::Command, time::Duration};

/// What was counted, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Count {
    /// System calls of all threads.
    pub syscall_count: u64,
    /// How long they were counted.
    pub duration: Duration,
}

/// Counts for `duration`, with `perf`.
///
/// # Errors
///
/// If there is no `perf`, or it may not count.
pub fn count(pid: u32, duration: Duration) -> io::Result<Count> {
    let output = Command::new("perf")
        .env("LC_ALL", "C")
        .args(["stat", "-e", "raw_syscalls:sys_enter", "-p", &pid.to_string()])
        .args(["--", "sleep", &duration.as_secs_f64().to_string()])
        .output()
        .map_err(|error| io::Error::other(format!("perf: {error}: install linux-perf")))?;
    let report = String::from_utf8_lossy(&output.stderr);
    // Not the event duration_time: for a process, perf adds it up over all threads.
    let first_of = |text: &str| {
        let line = report.lines().find(|line| line.contains(text))?;
        line.split_whitespace().next()
    };
    let not_counted = || io::Error::other(format!("perf counted nothing: {}", report.trim()));
    let count = first_of("raw_syscalls").and_then(|count| count.parse().ok());
    let seconds = first_of("seconds time elapsed").and_then(|seconds| seconds.parse().ok());
    Ok(Count {
        syscall_count: count.ok_or_else(not_counted)?,
        duration: Duration::from_secs_f64(seconds.ok_or_else(not_counted)?),
    })
}
