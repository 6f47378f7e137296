//! Which CPUs the client and the receivers run on.

use std::{collections::BTreeSet, fs, io, thread};

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

const THIS_THREAD: Pid = Pid::from_raw(0);

/// Pins the calling thread, and what it starts from now on, to the first CPU. Receivers then use
/// the others ([`leave_first_cpu_if_pinned`]).
///
/// # Errors
///
/// If there is no other CPU.
pub fn pin_to_first_cpu() -> io::Result<()> {
    if cpu_count() < 2 {
        return Err(io::Error::other("pinning takes two CPUs"));
    }
    pin_to(0)
}

/// Pins the calling thread, and what it starts from now on, to the CPU with this number.
///
/// # Errors
///
/// If there is no such CPU.
pub fn pin_to(cpu: usize) -> io::Result<()> {
    let mut own = CpuSet::new();
    own.set(cpu)?;
    Ok(sched_setaffinity(THIS_THREAD, &own)?)
}

/// Keeps all threads that a process has on the CPU with this number.
///
/// # Errors
///
/// If there is no such CPU, or the process has ended.
pub fn pin_process(pid: u32, cpu: usize) -> io::Result<()> {
    let mut own = CpuSet::new();
    own.set(cpu)?;
    let mut pinned = BTreeSet::new();
    // A thread that is started meanwhile may have the CPUs that its parent had.
    loop {
        let pinned_count = pinned.len();
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let number = thread?.file_name().to_string_lossy().parse().map_err(io::Error::other)?;
            sched_setaffinity(Pid::from_raw(number), &own)?;
            pinned.insert(number);
        }
        if pinned.len() == pinned_count {
            return Ok(());
        }
    }
}

/// Moves the calling thread, and what it starts from now on, to all CPUs but the first, if the
/// first was its only one.
///
/// # Errors
///
/// If the system refuses.
pub fn leave_first_cpu_if_pinned() -> io::Result<()> {
    if thread::available_parallelism()?.get() > 1 {
        return Ok(());
    }
    let allowed = sched_getaffinity(THIS_THREAD)?;
    let mut others = CpuSet::new();
    for cpu in 1..cpu_count() {
        others.set(cpu)?;
    }
    match allowed.is_set(0)? && cpu_count() > 1 {
        true => Ok(sched_setaffinity(THIS_THREAD, &others)?),
        false => Ok(()),
    }
}

/// The number of CPUs of the machine, not of this process.
#[must_use]
pub fn cpu_count() -> usize {
    use nix::unistd::{SysconfVar, sysconf};
    let count = sysconf(SysconfVar::_NPROCESSORS_ONLN).ok().flatten();
    count.and_then(|count| usize::try_from(count).ok()).unwrap_or(1)
}
