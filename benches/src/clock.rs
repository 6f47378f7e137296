//! CPU time, read from outside, so that reading it costs the measured thread or process nothing.

use std::{fs, io, process, time::Duration};

use nix::{
    time::{ClockId, clock_getcpuclockid},
    unistd::{Pid, gettid},
};

/// The CPU clock of a thread of this process.
#[derive(Debug, Clone, Copy)]
pub struct ThreadClock {
    tid: i32,
}

impl ThreadClock {
    /// The clock of the calling thread.
    #[must_use]
    pub fn of_this_thread() -> Self {
        Self { tid: gettid().as_raw() }
    }

    /// How long the thread has run on a CPU (`/proc/PID/task/TID/schedstat`, proc(5)).
    ///
    /// # Errors
    ///
    /// If the thread has ended, or the kernel keeps no such account.
    pub fn cpu_time(&self) -> io::Result<Duration> {
        let path = format!("/proc/{}/task/{}/schedstat", process::id(), self.tid);
        let text = fs::read_to_string(path)?;
        let run_ns = text.split_whitespace().next().and_then(|field| field.parse().ok());
        let run_ns = run_ns.ok_or_else(|| io::Error::other("schedstat has another form"))?;
        Ok(Duration::from_nanos(run_ns))
    }
}

/// The CPU clock of all threads of a process, including the kernel's io_uring workers for it.
#[derive(Debug, Clone, Copy)]
pub struct ProcessClock {
    clock: ClockId,
}

impl ProcessClock {
    /// The clock of a process.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn of(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).map_err(io::Error::other)?;
        Ok(Self { clock: clock_getcpuclockid(Pid::from_raw(pid))? })
    }

    /// How long it has run on CPUs.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn cpu_time(&self) -> io::Result<Duration> {
        Ok(self.clock.now()?.into())
    }
}

/// How long all CPUs of this machine have been busy since it started, in steps of 10 ms
/// (`/proc/stat`, proc(5)).
///
/// # Errors
///
/// If the file cannot be read.
pub fn machine_busy_time() -> io::Result<Duration> {
    let text = fs::read_to_string("/proc/stat")?;
    let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<u64> = fields.map_while(|field| field.parse().ok()).collect();
    // user, nice, system, (idle, iowait,) irq, softirq. Stolen time is left out: others used it.
    let [user, nice, system, _, _, irq, softirq, ..] = ticks[..] else {
        return Err(io::Error::other("/proc/stat has another form"));
    };
    Ok(Duration::from_millis(10 * (user + nice + system + irq + softirq)))
}
