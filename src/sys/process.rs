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
