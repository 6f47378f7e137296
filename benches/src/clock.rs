//! The CPU time of a thread, asked from outside, so that asking costs the thread nothing.

use std::{fs, io, process, time::Duration};

use nix::unistd::gettid;

/// A thread of this process.
#[derive(Debug, Clone, Copy)]
pub struct ThreadClock {
    tid: i32,
}

impl ThreadClock {
    /// The calling thread's.
    pub fn of_this_thread() -> Self {
        Self { tid: gettid().as_raw() }
    }

    /// How long the thread has run on a CPU (`/proc/PID/task/TID/schedstat`, proc(5)).
    ///
    /// # Errors
    ///
    /// The thread has ended, or the kernel keeps no such account.
    pub fn cpu_time(&self) -> io::Result<Duration> {
        let path = format!("/proc/{}/task/{}/schedstat", process::id(), self.tid);
        let text = fs::read_to_string(path)?;
        let run_ns = text.split_whitespace().next().and_then(|field| field.parse().ok());
        let run_ns = run_ns.ok_or_else(|| io::Error::other("schedstat has another form"))?;
        Ok(Duration::from_nanos(run_ns))
    }
}
