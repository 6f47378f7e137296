//! Where and when something was measured.

use std::{fs, process::Command, thread};

/// The machine and the day.
#[derive(Debug)]
pub struct Header {
    pub kernel: String,
    pub cpu: String,
    pub cpu_count: usize,
    pub date: String,
}

pub fn describe() -> Header {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpu_info = read("/proc/cpuinfo");
    let model = cpu_info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let date = Command::new("date").args(["-u", "+%Y-%m-%d"]).output();
    Header {
        kernel: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
        cpu: model.map_or("unknown CPU", |(_, name)| name).to_owned(),
        cpu_count: thread::available_parallelism().map_or(1, usize::from),
        date: date
            .map(|date| String::from_utf8_lossy(&date.stdout).trim().to_owned())
            .unwrap_or_default(),
    }
}

impl std::fmt::Display for Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {} x {}, {}", self.kernel, self.cpu_count, self.cpu, self.date)
    }
}
