//! The buffers that the kernel receives into, and the ring by which it is given them.
//!
//! Each buffer belongs to exactly one side at any time. It belongs to the kernel from
//! [`BufferRing::restock`] on until a completion names it, and to us from then on. A buffer that is
//! given back is spare until [`BufferRing::restock`] hands it to the kernel again.
//!
//! The kernel takes buffers in the order in which it was given them. If it had all of them it would
//! write to each in turn, and find none of them in the cache. So it gets a small stock of them: the
//! spare ones that were used last.
#![allow(unsafe_code)]

use std::{
    alloc::{self, Layout},
    fmt, io,
    mem::{self, ManuallyDrop},
    ptr::NonNull,
    slice,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use io_uring::types::BufRingEntry;

use super::kernel::Kernel;
use crate::datagram::{LentBuffers, Record};

const PAGE_BYTES: usize = 4096;
const CACHE_LINE_BYTES: usize = 64;

/// Page-aligned zeroed memory, freed on drop.
struct Pages {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the memory is owned by this value alone, and is reached through its methods' callers,
// who keep to the rule at the top of this file.
unsafe impl Send for Pages {}
// SAFETY: as above; shared access only reads buffers that belong to us.
unsafe impl Sync for Pages {}

impl Pages {
    fn new(len: usize) -> io::Result<Self> {
        let layout = Layout::from_size_align(len.max(1), PAGE_BYTES)
            .map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        // SAFETY: the layout's size is not 0.
        let start = unsafe { alloc::alloc_zeroed(layout) };
        let start = NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, layout })
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout; whoever gave the kernel a pointer into it
        // has ended the kernel's access before (see `drain`).
        unsafe { alloc::dealloc(self.start.as_ptr(), self.layout) }
    }
}

/// The memory of all buffers. Batches share it, so that it can outlive the ring.
pub(super) struct Slab {
    pages: Pages,
    /// How many bytes of each buffer the kernel may use.
    len: usize,
    stride: usize,
    count: usize,
}

impl Slab {
    /// `len` bytes for each of `count` buffers.
    pub fn new(count: usize, len: usize) -> io::Result<Self> {
        // An odd number of cache lines, so that headers do not crowd the same cache sets.
        let stride = (len.div_ceil(CACHE_LINE_BYTES) | 1) * CACHE_LINE_BYTES;
        let pages = Pages::new(count * stride)?;
        Ok(Self { pages, len, stride, count })
    }

    pub fn count(&self) -> usize {
        self.count
    }

    fn address(&self, buffer: u16) -> *mut u8 {
        assert!(usize::from(buffer) < self.count, "buffer {buffer} of {}", self.count);
        // SAFETY: within the allocation, by the assertion above.
        unsafe { self.pages.start.as_ptr().add(usize::from(buffer) * self.stride) }
    }

    /// The first `len` bytes of a buffer that belongs to us: the kernel named it in a completion,
    /// and it has not been given back.
    pub fn bytes(&self, buffer: u16, len: usize) -> &[u8] {
        let start = self.address(buffer);
        // SAFETY: the bytes are initialised when allocated, and lie within the buffer. Nobody
        // writes to them while the buffer belongs to us: the kernel's writing ended with the
        // completion, and only the holder of the record gives the buffer back, who can hold no
        // slice of it then.
        unsafe { slice::from_raw_parts(start, len.min(self.len)) }
    }
}

impl LentBuffers for Slab {
    fn payload(&self, record: &Record) -> &[u8] {
        let (start, len) = (record.span.start as usize, record.span.len as usize);
        &self.bytes(record.span.buffer, start + len)[start..]
    }
}

impl fmt::Debug for Slab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} buffers of {} bytes", self.count, self.len)
    }
}

/// The ring of provided buffers (io_uring_register_buf_ring(3), Linux 5.19).
pub(super) struct BufferRing {
    slab: Arc<Slab>,
    entries: ManuallyDrop<Pages>,
    is_leaked: bool,
    mask: u16,
    /// Where the next buffer goes.
    tail: u16,
    /// Which buffers belong to the kernel, and how many.
    is_given: Box<[bool]>,
    given_count: usize,
    /// Buffers that belong to us and hold nothing. The last one was used last.
    spare: Vec<u16>,
    stock: Stock,
}

/// How many buffers the kernel has at once: up to four times what a turn takes, but no more than a
/// batch holds, or 64 where a batch holds fewer. Datagrams that do not fit a batch can as well wait
/// in the sockets.
#[derive(Debug)]
struct Stock {
    size: usize,
    size_max: usize,
    /// How many turns in a row took less than a quarter of it.
    slack_count: u32,
}

/// The smallest stock, unless there are fewer buffers.
const STOCK_MIN: usize = 64;
/// After so many turns in a row that took less than a quarter of the stock it is halved.
const SLACK_COUNT_MAX: u32 = 256;

impl Stock {
    fn new(batch_max: usize, buffer_count: usize) -> Self {
        let size_max = batch_max.max(STOCK_MIN).min(buffer_count);
        Self { size: STOCK_MIN.min(size_max), size_max, slack_count: 0 }
    }

    /// Adapts the size to a turn that has left `left_count` buffers of the stock.
    fn note(&mut self, left_count: usize) {
        if left_count < self.size / 4 {
            self.size = (2 * self.size).min(self.size_max);
        }
        self.slack_count = if left_count > self.size * 3 / 4 { self.slack_count + 1 } else { 0 };
        if self.slack_count == SLACK_COUNT_MAX {
            self.size = (self.size / 2).max(STOCK_MIN.min(self.size_max));
            self.slack_count = 0;
        }
    }
}

/// The only group of buffers.
pub(super) const GROUP: u16 = 0;

impl BufferRing {
    /// Registers a ring for the buffers of `slab`, and gives the kernel its first stock. The number
    /// of buffers must be a power of two, at most 2^15.
    pub fn register(ring: &mut impl Kernel, slab: Arc<Slab>, batch_max: usize) -> io::Result<Self> {
        let count = slab.count();
        assert!(count.is_power_of_two() && count <= 1 << 15);
        let entries = Pages::new(count * size_of::<BufRingEntry>())?;
        let address = entries.start.as_ptr() as u64;
        // SAFETY: the memory has room for the entries. The backend frees it after the ring has been
        // closed or has let go of it (`drain`, and the order of the fields of its owners), or never
        // ([`BufferRing::leak`]).
        unsafe { ring.register_buffer_ring(address, count as u16, GROUP) }?;
        let entries = ManuallyDrop::new(entries);
        let mut buffers = Self {
            slab,
            entries,
            is_leaked: false,
            mask: count as u16 - 1,
            tail: 0,
            is_given: vec![false; count].into_boxed_slice(),
            given_count: 0,
            spare: (0..count as u16).rev().collect(),
            stock: Stock::new(batch_max, count),
        };
        buffers.fill();
        Ok(buffers)
    }

    /// Leaks the memory that the kernel may still write to.
    pub fn leak(&mut self) {
        mem::forget(Arc::clone(&self.slab));
        self.is_leaked = true;
    }

    pub fn slab(&self) -> &Arc<Slab> {
        &self.slab
    }

    /// How many buffers belong to the kernel.
    pub fn given_count(&self) -> usize {
        self.given_count
    }

    /// Whether there are spare buffers to restock the kernel with.
    pub fn has_spare(&self) -> bool {
        !self.spare.is_empty()
    }

    /// How many buffers hold nothing, the kernel's included.
    pub fn free_count(&self) -> usize {
        self.given_count + self.spare.len()
    }

    /// Whether the count is that of the buffers given, and no spare buffer is among them; see
    /// [`super::audit`].
    pub fn is_balanced(&self) -> bool {
        let given = self.is_given.iter().filter(|is_given| **is_given);
        let is_given = |buffer: &u16| self.is_given[usize::from(*buffer)];
        given.count() == self.given_count && !self.spare.iter().any(is_given)
    }

    /// Takes a buffer that the kernel has named in a completion: it belongs to us now. `false` if
    /// it did not belong to the kernel; then it must not be touched.
    #[must_use]
    pub fn take(&mut self, buffer: u16) -> bool {
        let is_given = self.is_given.get_mut(usize::from(buffer));
        let is_taken = is_given.is_some_and(mem::take);
        self.given_count -= usize::from(is_taken);
        is_taken
    }

    /// Takes back a buffer that came with nothing to hand out.
    pub fn reclaim(&mut self, buffer: u16) {
        if self.take(buffer) {
            self.give_back(buffer);
        }
    }

    /// Makes a buffer of ours spare, because it holds nothing any more.
    pub fn give_back(&mut self, buffer: u16) {
        debug_assert!(!self.is_given[usize::from(buffer)], "buffer {buffer} is the kernel's");
        debug_assert!(!self.spare.contains(&buffer), "buffer {buffer} was given back twice");
        self.spare.push(buffer);
    }

    /// Brings the kernel's stock to its size again; once per turn. `ran_short` says that the last
    /// turn took all of it, even if some buffers count as left: those may have been named by
    /// completions that the kernel lost.
    pub fn restock(&mut self, ran_short: bool) {
        self.stock.note(if ran_short { 0 } else { self.given_count });
        self.fill();
    }

    /// Lets the stock grow beyond a batch after completions were lost. The buffers that those named
    /// count as given for good, and must not use the stock up.
    pub fn expect_losses(&mut self) {
        self.stock.size_max = self.slab.count;
    }

    fn fill(&mut self) {
        let tail = self.tail;
        while self.given_count < self.stock.size {
            let Some(buffer) = self.spare.pop() else {
                break;
            };
            if !mem::replace(&mut self.is_given[usize::from(buffer)], true) {
                self.put(buffer);
            }
        }
        if self.tail != tail {
            self.publish();
        }
    }

    /// Adds a buffer at the tail. The kernel may write to it once the new tail is published.
    fn put(&mut self, buffer: u16) {
        let index = usize::from(self.tail & self.mask);
        let address = self.slab.address(buffer) as u64;
        let start = self.entries.start.as_ptr();
        // `struct io_uring_buf` (linux/io_uring.h): u64 addr, u32 len, u16 bid, u16 resv. Written
        // field by field: the `resv` of entry 0 is the tail, which the kernel may read meanwhile.
        let entry = start.wrapping_add(index * size_of::<BufRingEntry>());
        // SAFETY: the index is masked to the number of entries that were allocated, and each is
        // aligned to 8 bytes. The kernel does not read this before the tail that covers it is
        // published.
        unsafe { entry.cast::<u64>().write(address) };
        // SAFETY: as above.
        unsafe { entry.wrapping_add(8).cast::<u32>().write(self.slab.len as u32) };
        // SAFETY: as above.
        unsafe { entry.wrapping_add(12).cast::<u16>().write(buffer) };
        self.tail = self.tail.wrapping_add(1);
        self.given_count += 1;
    }

    /// Lets the kernel see the buffers put so far.
    fn publish(&mut self) {
        let entries = self.entries.start.as_ptr().cast::<BufRingEntry>();
        // SAFETY: `entries` is the address of the ring's entry 0, which is initialised, as `tail`
        // asks.
        let tail = unsafe { BufRingEntry::tail(entries) };
        // SAFETY: aligned (offset 14 in a page), valid while `entries` lives, and from
        // registration on accessed atomically only, by us and by the kernel, which loads it with
        // acquire before it reads the entries.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        if !self.is_leaked {
            // SAFETY: dropped here and nowhere else, and not used after.
            unsafe { ManuallyDrop::drop(&mut self.entries) }
        }
    }
}

impl fmt::Debug for BufferRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (given_count, spare_count) = (self.given_count, self.spare.len());
        write!(f, "BufferRing({:?}; {given_count} given, {spare_count} spare)", self.slab)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_lie_side_by_side_and_are_zeroed() {
        let slab = Slab::new(4, 200).unwrap();
        let distance = slab.address(3) as usize - slab.address(0) as usize;
        assert_eq!(distance, 3 * 5 * CACHE_LINE_BYTES);
        assert_eq!(slab.address(0) as usize % PAGE_BYTES, 0);
        assert!(slab.bytes(3, 200).iter().all(|byte| *byte == 0));
        assert_eq!(slab.bytes(0, 10_000).len(), 200, "never beyond the buffer");
    }

    #[test]
    fn a_stock_doubles_when_less_than_a_quarter_is_left_and_halves_when_long_more_than_three_are() {
        let mut stock = Stock::new(200, 1024);
        let mut after = |left_count| {
            stock.note(left_count);
            stock.size
        };
        assert_eq!(
            [after(16), after(15), after(32), after(31)],
            [64, 128, 128, 200],
            "at most 200"
        );
        assert_eq!(after(0), 200);
        assert!((0..1_000).all(|_| after(150) == 200), "three quarters");
        assert!((1..SLACK_COUNT_MAX).all(|_| after(151) == 200));
        assert_eq!(after(150), 200, "begins anew");
        assert!((1..SLACK_COUNT_MAX).all(|_| after(151) == 200));
        assert_eq!(after(151), 100);
        assert!((1..SLACK_COUNT_MAX).all(|_| after(76) == 100), "begins anew");
        assert_eq!(after(76), 64, "at least 64");
        assert!((0..2 * SLACK_COUNT_MAX).all(|_| after(64) == 64));
    }

    #[test]
    #[should_panic(expected = "buffer 4 of 4")]
    fn a_buffer_that_does_not_exist_is_never_read() {
        Slab::new(4, 192).unwrap().bytes(4, 1);
    }
}
