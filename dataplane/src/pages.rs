//! Memory from the kernel, on pages of 2 MiB where there are any: what is looked up at random from more than a few
//! megabytes otherwise waits for the page table, too. Any thread.
//!
//! Invariant: a [`Mapping`] is `bytes` of private memory of this process, zero at first, that stays where it is until the
//! mapping is dropped. [`crate::flow::Region`] is another thing: another process may map it.
#![allow(unsafe_code, reason = "maps memory and hands out views of it; everything above is safe code")]

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// The larger page.
pub const HUGE_PAGE_BYTES: usize = 2 << 20;

/// A piece of memory.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping is plain memory that lives as long as the value and is tied to no thread; safe code gets shared
// references to atomics only, and `base` is for unsafe code with a proof of its own.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Huge pages from the pool that the system set aside (`vm.nr_hugepages`).
    ///
    /// # Errors
    /// If there are too few of them.
    pub fn from_pool(bytes: usize) -> io::Result<Self> {
        let bytes = bytes.next_multiple_of(HUGE_PAGE_BYTES);
        Ok(Self { base: map(bytes, libc::MAP_HUGETLB)?, bytes })
    }

    /// Ordinary memory on ordinary pages, taken as it is written to. For what must not wait: to get a page of 2 MiB took 3
    /// to 6 ms (virtual machine, Linux 6.18, busy).
    ///
    /// # Errors
    /// If there is no memory.
    pub fn plain(bytes: usize) -> io::Result<Self> {
        let bytes = bytes.max(1);
        Ok(Self { base: map(bytes, 0)?, bytes })
    }

    /// Ordinary memory, taken as it is written to. From 2 MiB on it is aligned to huge pages, and the kernel is asked for
    /// them.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn new(bytes: usize) -> io::Result<Self> {
        if bytes < HUGE_PAGE_BYTES {
            return Self::plain(bytes);
        }
        let bytes = bytes.next_multiple_of(HUGE_PAGE_BYTES);
        let reserved = map(bytes + HUGE_PAGE_BYTES, 0)?;
        let head = reserved.as_ptr().align_offset(HUGE_PAGE_BYTES);
        // SAFETY: `head` is below one huge page, which was mapped beyond what is needed.
        let base = unsafe { reserved.add(head) };
        for (from, len) in [(0, head), (head + bytes, HUGE_PAGE_BYTES - head)] {
            if len > 0 {
                // SAFETY: the ends of the mapping just made, of which nobody knows; both begin and end on pages.
                unsafe { libc::munmap(reserved.add(from).as_ptr().cast(), len) };
            }
        }
        // SAFETY: advice about the mapping just made; its failure changes nothing.
        unsafe { libc::madvise(base.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
        Ok(Self { base, bytes })
    }

    /// Where it begins.
    #[inline]
    #[must_use]
    pub const fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Its size.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The whole of it as words. Of a mapping so used nothing may be reached by [`Self::base`].
    #[inline]
    #[must_use]
    pub const fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is that long, begins on a page, and lives as long as `self`; every bit pattern is an atomic
        // word, and shared references to atomics are sound whoever writes.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().cast(), self.bytes / size_of::<AtomicU64>()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, unmapped once, and no reference into it outlives `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

fn map(bytes: usize, flags: i32) -> io::Result<NonNull<u8>> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags;
    // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches no memory of ours.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(address.cast()).ok_or_else(|| io::Error::other("the kernel mapped page zero"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn memory_is_zero_aligned_and_ours_to_the_last_word() {
        for bytes in [1, 4096, HUGE_PAGE_BYTES - 8, HUGE_PAGE_BYTES, 3 * HUGE_PAGE_BYTES + 1] {
            let mapping = Mapping::new(bytes).unwrap();
            assert!(mapping.bytes() >= bytes);
            if bytes >= HUGE_PAGE_BYTES {
                assert_eq!(mapping.base().as_ptr().align_offset(HUGE_PAGE_BYTES), 0);
            }
            for word in mapping.words() {
                assert_eq!(word.swap(7, Relaxed), 0);
            }
        }
    }

    #[test]
    fn what_there_is_not_is_refused() {
        assert!(Mapping::new(1 << 60).is_err());
        assert!(Mapping::from_pool(1 << 50).is_err());
    }
}
