//! What the thread with a given name has used so far, as the kernel counts it. This shows a thread
//! that spins.

use std::{fs, ops::Sub, path::PathBuf, thread, time::Duration};

use crate::common::wait_until;

#[derive(Debug, Clone, Copy)]
pub struct ThreadUse {
    pub cpu_time: Duration,
    /// How often it was taken off a CPU, voluntarily (a wait) or not.
    pub switch_count: u64,
}

impl Sub for ThreadUse {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            cpu_time: self.cpu_time - other.cpu_time,
            switch_count: self.switch_count - other.switch_count,
        }
    }
}

/// What the thread with this name uses in `time` while it is given no work.
pub fn during(name: &str, time: Duration) -> ThreadUse {
    // A joined thread of an earlier test may take a moment to leave /proc.
    wait_until("one thread has the name", || tasks(name).len() == 1);
    let before = of(name);
    thread::sleep(time);
    of(name) - before
}

/// Asserts that the thread rests. A few wake-ups are allowed.
#[track_caller]
pub fn assert_rest(name: &str) {
    let rests = || {
        let used = during(name, Duration::from_millis(400));
        used.cpu_time < Duration::from_millis(20) && used.switch_count < 100
    };
    // A spinning thread spins in every measurement. Work that was still under way ends.
    assert!((0..3).any(|_| rests()), "{name} does not rest");
}

fn of(name: &str) -> ThreadUse {
    let tasks = tasks(name);
    assert_eq!(tasks.len(), 1, "threads with the name {name}");
    let read = |file: &str| fs::read_to_string(tasks[0].join(file)).expect("/proc");
    let schedstat = read("schedstat");
    let nanoseconds = schedstat.split(' ').next().and_then(|field| field.parse().ok());
    let status = read("status");
    let switches = status.lines().filter(|line| line.contains("ctxt_switches"));
    let counts = switches.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    ThreadUse {
        cpu_time: Duration::from_nanos(nanoseconds.expect("schedstat")),
        switch_count: counts.sum(),
    }
}

fn tasks(name: &str) -> Vec<PathBuf> {
    let tasks = fs::read_dir("/proc/self/task").expect("/proc").flatten().map(|task| task.path());
    let comm = |task: &PathBuf| fs::read_to_string(task.join("comm")).unwrap_or_default();
    tasks.filter(|task| comm(task).trim() == name).collect()
}
