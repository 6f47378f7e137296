//! Cases that a system's own network stack decides. Wine brings Linux's along, so that none of them
//! proves anything there; tests/README.md says what stands for them on Windows.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod segments;
#[cfg(any(target_os = "linux", target_vendor = "apple"))]
mod sharing;
#[cfg(windows)]
mod windows;
