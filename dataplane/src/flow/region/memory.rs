//! One mapping of a memfd. Shared by whoever holds the region; unmapped with it.
#![allow(unsafe_code, reason = "maps memory")]

use super::HUGE_PAGE_BYTES;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

/// A mapping, aligned to 2 MiB.
pub(super) struct Memory {
    base: NonNull<u8>,
    bytes: usize,
    /// Address space reserved, of which the mapping is the aligned part.
    reserved: NonNull<u8>,
    reserved_bytes: usize,
    memfd: OwnedFd,
}

// SAFETY: it owns its mapping and its fd, and neither is tied to a thread.
unsafe impl Send for Memory {}
// SAFETY: as above; no method gives access to what is mapped, only its address.
unsafe impl Sync for Memory {}

impl Memory {
    /// Maps `bytes` of zeroes, a multiple of the page size: from the hugetlb pool, then all at once if `populate`, or of
    /// plain pages that are taken as they are touched.
    pub(super) fn map(name: &CStr, bytes: usize, hugetlb: bool, populate: bool) -> io::Result<Self> {
        let flags = libc::MFD_CLOEXEC | if hugetlb { libc::MFD_HUGETLB | libc::MFD_HUGE_2MB } else { 0 };
        // SAFETY: the name is a NUL-terminated string that outlives the call.
        let fd = unsafe { libc::memfd_create(name.as_ptr(), flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above just made `fd`, and nobody else knows of it.
        let memfd = unsafe { OwnedFd::from_raw_fd(fd) };
        let file_bytes = i64::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: no memory is involved.
        if unsafe { libc::ftruncate(memfd.as_raw_fd(), file_bytes) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // One huge page more than needed, so that an aligned start can be chosen.
        let reserved_bytes = bytes + HUGE_PAGE_BYTES;
        let reserve = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let reserved =
            unsafe { libc::mmap(std::ptr::null_mut(), reserved_bytes, libc::PROT_NONE, reserve, -1, 0) };
        if reserved == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let reserved = NonNull::new(reserved.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let offset = reserved.as_ptr().align_offset(HUGE_PAGE_BYTES);
        // SAFETY: `offset` is below one huge page, which the reservation has beyond the mapping's own size.
        let base = unsafe { reserved.add(offset) };
        // From here on dropping it undoes everything.
        let memory = Self { base, bytes, reserved, reserved_bytes, memfd };
        let populate = if populate && hugetlb { libc::MAP_POPULATE } else { 0 };
        // SAFETY: the fixed range lies inside the reservation made above, which nothing else uses.
        let mapped = unsafe {
            libc::mmap(
                base.as_ptr().cast(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_FIXED | populate,
                memory.memfd.as_raw_fd(),
                0,
            )
        };
        if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(memory) }
    }

    /// Where it begins. Good for [`Self::bytes`] bytes, for as long as `self` lives.
    #[inline]
    pub(super) const fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// How many bytes are mapped.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The memfd behind it.
    pub(super) const fn memfd(&self) -> &OwnedFd {
        &self.memfd
    }

    /// Gives the kernel advice that changes nothing of what the memory holds; whether it takes it.
    pub(super) fn advise(&self, advice: libc::c_int) -> bool {
        // SAFETY: the range is this mapping; no advice used changes what it holds.
        unsafe { libc::madvise(self.base.as_ptr().cast(), self.bytes, advice) == 0 }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the whole reservation is its own, and no reference into it can outlive it.
        unsafe { libc::munmap(self.reserved.as_ptr().cast(), self.reserved_bytes) };
    }
}
