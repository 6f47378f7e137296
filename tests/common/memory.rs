//! The resident memory of this process without pages of files. Those are loaded when code of the
//! program first runs, and the page cache decides how many at a time. Socket buffers belong to the
//! kernel and are not included either.

use std::fs;

/// Resident bytes, counted exactly. `/proc/self/statm` is only approximate.
pub fn resident() -> usize {
    bytes_of("/proc/self/smaps_rollup", "Anonymous:")
}

/// The peak in bytes since the last [`forget_peak`], by the kernel's approximate count.
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
