//! Which process opened something. A child that is forked has copies of all descriptors and all
//! memory, but not of the threads. Whatever it did with them would disturb its parent.

/// The process that made this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opener(u32);

impl Opener {
    /// This process.
    pub fn this() -> Self {
        Self(number())
    }

    /// Whether the calling process is the one, and no child that was forked from it.
    #[inline]
    pub fn is_this(self) -> bool {
        self.0 == number()
    }
}

/// Keeps the calling thread on one of the processors that it may use now: the one with this number
/// among them, beginning again after the last.
#[cfg(target_os = "linux")]
pub(crate) fn pin_thread(number: usize) {
    use nix::{
        sched::{CpuSet, sched_getaffinity, sched_setaffinity},
        unistd::Pid,
    };
    let this = Pid::from_raw(0);
    let pin = || {
        let allowed = sched_getaffinity(this)?;
        let processors = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu) == Ok(true));
        let processors: Vec<_> = processors.collect();
        let mut own = CpuSet::new();
        own.set(processors[number % processors.len()])?;
        sched_setaffinity(this, &own)
    };
    if let Err(error) = pin() {
        tracing::warn!(%error, number, "a shard is not kept on its processor");
    }
}

/// This system keeps no thread on a processor.
#[cfg(not(target_os = "linux"))]
pub(crate) fn pin_thread(_number: usize) {}

/// A number that no process shares with those that it forks.
#[cfg(target_os = "linux")]
#[inline]
fn number() -> u32 {
    super::linux::fork_mark::number().unwrap_or_else(std::process::id)
}

/// A number that no process shares with those that it forks.
#[cfg(not(target_os = "linux"))]
fn number() -> u32 {
    std::process::id()
}
