//! What the threads of a name have used so far, by the kernel's word: a thread that spins shows.

use std::{
    fs,
    ops::Sub,
    thread,
    time::{Duration, Instant},
};

#[derive(Debug, Clone, Copy, Default)]
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

/// What the threads of this name use while nothing is asked of them for `time`.
pub fn during(name: &str, time: Duration) -> ThreadUse {
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
    let used = during(name, Duration::from_millis(400));
    assert!(used.cpu_time < Duration::from_millis(20), "{used:?}");
    assert!(used.switch_count < 100, "{used:?}");
}

fn of(name: &str) -> ThreadUse {
    let mut sum = ThreadUse::default();
    let mut thread_count = 0;
    for task in fs::read_dir("/proc/self/task").expect("/proc").flatten() {
        let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
        if read("comm").trim() != name {
            continue;
        }
        thread_count += 1;
        let schedstat = read("schedstat");
        let nanoseconds = schedstat.split(' ').next().and_then(|field| field.parse().ok());
        sum.cpu_time += Duration::from_nanos(nanoseconds.expect("schedstat"));
        let status = read("status");
        let switches = status.lines().filter(|line| line.contains("ctxt_switches"));
        let counts =
            switches.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        sum.switch_count += counts.sum::<u64>();
    }
    assert_eq!(thread_count, 1, "threads with the name {name}");
    sum
}
