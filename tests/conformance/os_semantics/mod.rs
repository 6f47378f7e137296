//! Cases that a system's own network stack decides. Wine brings Linux's along, so that none of them
//! proves anything there; tests/README.md says what stands for them on Windows.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(any(target_os = "linux", target_vendor = "apple"))]
mod sharing;
#[cfg(target_os = "linux")]
mod trains;
#[cfg(windows)]
mod windows;
