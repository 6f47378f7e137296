//! Where and when something was measured.

use std::{fs, process::Command, thread};

/// The machine and the day.
#[derive(Debug)]
pub struct Header {
    pub kernel: String,
    pub cpu: String,
    pub cpu_count: usize,
    pub date: String,
    /// Whether the client runs on the first CPU only, and receivers on the others.
    pub is_pinned: bool,
}

pub fn describe(wants_pinned: bool) -> Header {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpu_info = read("/proc/cpuinfo");
    let model = cpu_info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let date = Command::new("date").args(["-u", "+%Y-%m-%d"]).output();
    let cpu_count = thread::available_parallelism().map_or(1, usize::from);
    Header {
        kernel: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
        cpu: model.map_or("unknown CPU", |(_, name)| name).to_owned(),
        cpu_count,
        is_pinned: wants_pinned && cpu_count > 1,
        date: date
            .map(|date| String::from_utf8_lossy(&date.stdout).trim().to_owned())
            .unwrap_or_default(),
    }
}

impl std::fmt::Display for Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kernel, cpu, cpu_count, date, is_pinned } = self;
        let pinned = if *is_pinned { ", client on one CPU, receiver on the others" } else { "" };
        write!(f, "{kernel}, {cpu_count} x {cpu}, {date}{pinned}")
    }
}
