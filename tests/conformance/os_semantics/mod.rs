//! Cases that a system's own network stack decides. Wine uses Linux's stack, so they prove nothing
//! about Windows there. tests/README.md says what replaces them on Windows.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod segments;
#[cfg(any(target_os = "linux", target_vendor = "apple"))]
mod sharing;
#[cfg(windows)]
mod windows;
