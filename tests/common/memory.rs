//! What of this process is resident, without pages of files: those come when code of the program
//! first runs, and how many with each is the page cache's choice. The buffers of sockets belong to
//! the kernel and are not among it either.

use std::fs;

/// Bytes, counted exactly; `/proc/self/statm` is only about right.
pub fn resident() -> usize {
    bytes_of("/proc/self/smaps_rollup", "Anonymous:")
}

/// The most bytes since it was last forgotten, by the kernel's count that is about right.
pub fn peak() -> usize {
    let bytes = |field| bytes_of("/proc/self/status", field);
    bytes("VmHWM:") - bytes("RssFile:")
}

pub fn forget_peak() {
    fs::write("/proc/self/clear_refs", "5").expect("/proc");
}

fn bytes_of(path: &str, field: &str) -> usize {
    let text = fs::read_to_string(path).expect("/proc");
    let line = text.lines().find_map(|line| line.strip_prefix(field)).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}
