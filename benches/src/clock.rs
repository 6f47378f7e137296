//! CPU time, read from outside, so that reading it costs the measured process nothing, and the time
//! that all processes share.

use std::{fs, io, time::Duration};

use nix::{
    time::{ClockId, clock_getcpuclockid},
    unistd::Pid,
};

/// The time since a moment that is the same for all processes (`CLOCK_MONOTONIC`).
///
/// # Errors
///
/// If the system has no such clock.
pub fn shared_time() -> io::Result<Duration> {
    Ok(ClockId::CLOCK_MONOTONIC.now()?.into())
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

/// How long the threads of a process have waited for a CPU that others used, since they started
/// (`/proc/PID/task/TID/schedstat`, Documentation/scheduler/sched-stats.rst).
///
/// # Errors
///
/// If the process has ended.
pub fn waited_for_cpu(pid: u32) -> io::Result<Duration> {
    let mut waited = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        let ns = text.split_whitespace().nth(1).and_then(|ns| ns.parse().ok());
        let ns = ns.ok_or_else(|| io::Error::other("schedstat has another form"))?;
        waited += Duration::from_nanos(ns);
    }
    Ok(waited)
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
