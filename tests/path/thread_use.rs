//! What the thread of a name has used so far, by the kernel's word: a thread that spins shows.

use std::{
    fs,
    ops::Sub,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use crate::common::wait_until;

#[derive(Debug, Clone, Copy)]
pub struct ThreadUse {
    pub cpu_time: Duration,
    /// How often it was taken off a CPU, of its own accord (a wait) or not.
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

/// What the thread of this name uses while nothing is asked of it for `time`.
pub fn during(name: &str, time: Duration) -> ThreadUse {
    // One of an earlier test that was joined may take a moment to leave /proc.
    wait_until("one thread has the name", || tasks(name).len() == 1);
    let before = of(name);
    let start = Instant::now();
    thread::sleep(time);
    let used = of(name) - before;
    eprintln!("{name}: {used:?} in {:?}", start.elapsed());
    used
}

/// Nothing is done: a few wake-ups are no spin.
#[track_caller]
pub fn assert_rest(name: &str) {
    let rests = || {
        let used = during(name, Duration::from_millis(400));
        used.cpu_time < Duration::from_millis(20) && used.switch_count < 100
    };
    // What spins does so all the time; what was under way ends.
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
