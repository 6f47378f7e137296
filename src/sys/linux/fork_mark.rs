//! A page of memory that a forked child finds empty (MADV_WIPEONFORK, madvise(2), Linux 4.14). To
//! read it is all that it takes to know whether this process is such a child: no system call.
#![allow(unsafe_code)]

use std::{
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

const PAGE_BYTES: usize = 4096;

/// How many processes have had a number, from the first one to this.
static COUNT: AtomicU32 = AtomicU32::new(0);
static MARK: OnceLock<Option<&'static AtomicU32>> = OnceLock::new();

/// This process's number among itself and those that it was forked from. `None` if the kernel
/// cannot wipe pages.
#[inline]
pub(crate) fn number() -> Option<u32> {
    let mark = (*MARK.get_or_init(page))?;
    match mark.load(Relaxed) {
        0 => Some(first_number(mark)),
        number => Some(number),
    }
}

#[cold]
fn first_number(mark: &AtomicU32) -> u32 {
    let number = COUNT.fetch_add(1, Relaxed) + 1;
    // Another thread may have been first.
    mark.compare_exchange(0, number, Relaxed, Relaxed).map_or_else(|other| other, |_| number)
}

/// The page, for good.
fn page() -> Option<&'static AtomicU32> {
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE);
    // SAFETY: new memory at an address that the kernel chooses touches no other memory.
    let page = unsafe {
        libc::mmap(ptr::null_mut(), PAGE_BYTES, access, kind | libc::MAP_ANONYMOUS, -1, 0)
    };
    if page == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: the page was mapped above, and nothing is in it yet.
    if unsafe { libc::madvise(page, PAGE_BYTES, libc::MADV_WIPEONFORK) } != 0 {
        // SAFETY: as above; nobody has a pointer to it.
        unsafe { libc::munmap(page, PAGE_BYTES) };
        return None;
    }
    // SAFETY: aligned, zeroed, and mapped for as long as the process lives. It is accessed
    // atomically only. The kernel writes to it in a new child, before that runs.
    Some(unsafe { AtomicU32::from_ptr(page.cast()) })
}
