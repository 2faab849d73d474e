//! The memory a worker's flows live in: one relocatable mapping of a memfd, with a versioned header, indices instead
//! of pointers, and nothing but atomic words in it. The owning worker writes; any thread may read. Another process
//! that maps the same memfd finds everything it needs in it.
//!
//! ```text
//! header | buckets | live bits v4 | live bits v6 | v4 records | v6 records          each part starts on a page
//! ```
//!
//! All unsafe code of the tracker is here, and it rests on one invariant: `Region::map` places every part, aligned
//! for its type, inside the mapping, and the mapping stays until the region is dropped. All parts are arrays of
//! atomics, for which every bit pattern is valid, so shared references to them are sound whoever writes.
#![allow(unsafe_code, reason = "maps memory and hands out views of it; everything above is safe code")]

use super::bucket::Bucket;
use super::key::{Seed, flow_hash};
use super::record::{Record, RecordV4, RecordV6, SLOTS_MAX, Slot};
use crate::ids::WorkerId;
use crate::packet::{Family, Tuple};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// First word of every region: "PALIFLOW" in ASCII.
const MAGIC: u64 = u64::from_be_bytes(*b"PALIFLOW");

/// Changes whenever the layout of a record or of the header does.
pub const FORMAT_VERSION: u32 = 1;

const PAGE_BYTES: usize = 4096;
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Records per bucket when the table is full: 6.4 of 8 lanes, where two choices and a short search always find room.
const RECORDS_PER_32_BUCKETS: u64 = 205;

/// What kind of pages a region got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backing {
    /// 2 MiB pages from the hugetlb pool.
    HugeTlb,
    /// Transparent 2 MiB pages: the kernel put them together at once.
    TransparentHuge,
    /// 4 KiB pages. The kernel may still join them where its shmem policy allows.
    Plain,
}

/// What stands at the start of a region.
#[repr(C, align(64))]
pub(super) struct Header {
    magic: AtomicU64,
    version: AtomicU32,
    worker: AtomicU32,
    bucket_bytes: AtomicU32,
    v4_bytes: AtomicU32,
    v6_bytes: AtomicU32,
    bucket_count: AtomicU32,
    v4_count: AtomicU32,
    v6_count: AtomicU32,
    seed: [AtomicU64; 4],
    /// Flows now in the table.
    pub(super) flows: AtomicU32,
    /// Most flows of both families together.
    pub(super) max_flows: AtomicU32,
    /// Per family: records from here on were never used.
    pub(super) high_water: [AtomicU32; 2],
    /// Per family: first free record below the high-water mark, plus one; zero is none.
    pub(super) free_head: [AtomicU32; 2],
    /// Flows inserted since the region was made.
    pub(super) inserts: AtomicU64,
}

/// How many of what, and where.
#[derive(Clone, Copy, Debug)]
struct Layout {
    buckets: u32,
    v4: u32,
    v6: u32,
    buckets_at: usize,
    live_at: [usize; 2],
    v4_at: usize,
    v6_at: usize,
    /// Of the whole region, a multiple of 2 MiB.
    bytes: usize,
}

/// A mapped region. See the module's head.
pub struct Region {
    base: NonNull<u8>,
    /// Address space reserved, of which the region is the aligned part.
    reserved: NonNull<u8>,
    reserved_bytes: usize,
    layout: Layout,
    backing: Backing,
    memfd: OwnedFd,
}

// SAFETY: the region owns its mapping and its fd, neither is tied to a thread, and all access to the mapping goes
// through shared references to atomics.
unsafe impl Send for Region {}
// SAFETY: as above; no method gives anything but shared references to atomics.
unsafe impl Sync for Region {}

impl Layout {
    /// Places the parts one after the other.
    fn new(max_flows: u32, max_flows_v6: u32) -> io::Result<Self> {
        if max_flows == 0 || max_flows > SLOTS_MAX || max_flows_v6 > max_flows {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "flow table size out of range"));
        }
        // At most 2^30 * 32 / 205 + 2 buckets.
        let buckets = u32::try_from(u64::from(max_flows) * 32 / RECORDS_PER_32_BUCKETS + 2)
            .map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut end = PAGE_BYTES;
        let mut place = |bytes: usize| {
            let start = end;
            end = (start + bytes).next_multiple_of(PAGE_BYTES);
            start
        };
        let buckets_at = place(buckets as usize * size_of::<Bucket>());
        let live_at = [max_flows, max_flows_v6].map(|n| place((n as usize).div_ceil(64) * 8));
        let v4_at = place(max_flows as usize * size_of::<RecordV4>());
        let v6_at = place(max_flows_v6 as usize * size_of::<RecordV6>());
        let bytes = end.next_multiple_of(HUGE_PAGE_BYTES);
        Ok(Self { buckets, v4: max_flows, v6: max_flows_v6, buckets_at, live_at, v4_at, v6_at, bytes })
    }
}

impl Region {
    /// Maps a new, empty region. With `huge`, 2 MiB pages are tried first; with `prefault`, memory is taken now
    /// rather than as flows come.
    ///
    /// # Errors
    /// When the sizes are out of range or the system has not the memory.
    pub(super) fn map(
        (max_flows, max_flows_v6): (u32, u32),
        worker: WorkerId,
        seed: &Seed,
        (huge, prefault): (bool, bool),
    ) -> io::Result<Self> {
        let layout = Layout::new(max_flows, max_flows_v6)?;
        let from_pool = if huge { Self::map_memfd(layout, true, prefault).ok() } else { None };
        let mut region = match from_pool {
            Some(region) => region,
            None => Self::map_memfd(layout, false, prefault)?,
        };
        if region.backing == Backing::Plain {
            region.advise(huge, prefault);
        }
        region.write_header(max_flows, worker, seed);
        Ok(region)
    }

    fn map_memfd(layout: Layout, hugetlb: bool, prefault: bool) -> io::Result<Self> {
        let flags = libc::MFD_CLOEXEC | if hugetlb { libc::MFD_HUGETLB | libc::MFD_HUGE_2MB } else { 0 };
        // SAFETY: the name is a NUL-terminated string that outlives the call.
        let fd = unsafe { libc::memfd_create(c"palisade-flows".as_ptr(), flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above just made `fd`, and nobody else knows of it.
        let memfd = unsafe { OwnedFd::from_raw_fd(fd) };
        let bytes = i64::try_from(layout.bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: no memory is involved.
        if unsafe { libc::ftruncate(memfd.as_raw_fd(), bytes) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // One huge page more than needed, so that an aligned start can be chosen.
        let reserved_bytes = layout.bytes + HUGE_PAGE_BYTES;
        let reserve = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let reserved =
            unsafe { libc::mmap(std::ptr::null_mut(), reserved_bytes, libc::PROT_NONE, reserve, -1, 0) };
        if reserved == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let reserved = NonNull::new(reserved.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let offset = reserved.as_ptr().align_offset(HUGE_PAGE_BYTES);
        // SAFETY: `offset` is below one huge page, which the reservation has beyond the region's own size.
        let base = unsafe { reserved.add(offset) };
        // From here on dropping the region undoes everything.
        let region = Self {
            base,
            reserved,
            reserved_bytes,
            layout,
            backing: if hugetlb { Backing::HugeTlb } else { Backing::Plain },
            memfd,
        };
        let flags =
            libc::MAP_SHARED | libc::MAP_FIXED | if prefault && hugetlb { libc::MAP_POPULATE } else { 0 };
        // SAFETY: the fixed range lies inside the reservation made above, which nothing else uses.
        let mapped = unsafe {
            libc::mmap(
                base.as_ptr().cast(),
                layout.bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                region.memfd.as_raw_fd(),
                0,
            )
        };
        if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(region) }
    }

    /// Takes all memory now and asks for huge pages, as far as the kernel goes along. Memory that is there already
    /// is put together at once (`MADV_COLLAPSE`, Linux 6.1, works whatever the shmem policy says short of `deny`).
    fn advise(&mut self, huge: bool, prefault: bool) {
        let advise = |advice| {
            // SAFETY: the range is this region's own mapping; none of the advices used changes what it holds.
            unsafe { libc::madvise(self.base.as_ptr().cast(), self.layout.bytes, advice) == 0 }
        };
        let advised = huge && advise(libc::MADV_HUGEPAGE);
        let populated = prefault && advise(libc::MADV_POPULATE_WRITE);
        if advised && populated && advise(libc::MADV_COLLAPSE) {
            self.backing = Backing::TransparentHuge;
        }
    }

    fn write_header(&self, max_flows: u32, worker: WorkerId, seed: &Seed) {
        let size = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let header = self.header();
        header.version.store(FORMAT_VERSION, Relaxed);
        header.worker.store(u32::from(worker.0), Relaxed);
        header.bucket_bytes.store(size(size_of::<Bucket>()), Relaxed);
        header.v4_bytes.store(size(size_of::<RecordV4>()), Relaxed);
        header.v6_bytes.store(size(size_of::<RecordV6>()), Relaxed);
        header.bucket_count.store(self.layout.buckets, Relaxed);
        header.v4_count.store(self.layout.v4, Relaxed);
        header.v6_count.store(self.layout.v6, Relaxed);
        header.max_flows.store(max_flows, Relaxed);
        for (word, value) in header.seed.iter().zip(seed.0) {
            word.store(value, Relaxed);
        }
        header.magic.store(MAGIC, Relaxed);
    }

    /// A part of the region as a slice.
    ///
    /// # Safety
    /// `layout` must have placed `count` values of `T` at `offset`, and `T` must consist of atomics only.
    #[inline]
    unsafe fn part<T>(&self, offset: usize, count: usize) -> &[T] {
        // SAFETY: the caller vouches that the part lies inside the mapping; parts start on pages, which aligns them
        // for any `T` here (at most 64); the mapping lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(offset).cast::<T>(), count) }
    }

    #[inline]
    pub(super) fn header(&self) -> &Header {
        // SAFETY: the first page of the mapping is the header's, and `Header` is smaller than that.
        unsafe { &*self.base.as_ptr().cast::<Header>() }
    }

    #[inline]
    pub(super) fn buckets(&self) -> &[Bucket] {
        // SAFETY: as placed by the layout.
        unsafe { self.part(self.layout.buckets_at, self.layout.buckets as usize) }
    }

    /// One bit per record of the family: set while it is a flow.
    pub(super) fn live_bits(&self, family: Family) -> &[AtomicU64] {
        let which = family_index(family);
        let count = self.capacity(family).div_ceil(64) as usize;
        // SAFETY: as placed by the layout.
        unsafe { self.part(self.layout.live_at[which], count) }
    }

    #[inline]
    pub(super) fn v4(&self) -> &[RecordV4] {
        // SAFETY: as placed by the layout.
        unsafe { self.part(self.layout.v4_at, self.layout.v4 as usize) }
    }

    #[inline]
    pub(super) fn v6(&self) -> &[RecordV6] {
        // SAFETY: as placed by the layout.
        unsafe { self.part(self.layout.v6_at, self.layout.v6 as usize) }
    }

    /// The record in a slot, live or not; `None` if the region has no such slot.
    #[inline]
    pub(super) fn record(&self, slot: Slot) -> Option<Record<'_>> {
        match slot.family() {
            Family::V4 => self.v4().get(slot.index()).map(RecordV4::parts),
            Family::V6 => self.v6().get(slot.index()).map(RecordV6::parts),
        }
    }

    /// The tuple of the packet that created the flow in a slot, or of what it was before; `None` without such a slot.
    pub(super) fn orig(&self, slot: Slot) -> Option<Tuple> {
        match slot.family() {
            Family::V4 => self.v4().get(slot.index()).map(RecordV4::orig),
            Family::V6 => self.v6().get(slot.index()).map(RecordV6::orig),
        }
    }

    /// Records of the family there is room for.
    pub(super) const fn capacity(&self, family: Family) -> u32 {
        match family {
            Family::V4 => self.layout.v4,
            Family::V6 => self.layout.v6,
        }
    }

    /// Asks the CPU to fetch a bucket.
    #[inline]
    pub(super) fn prefetch_bucket(&self, index: usize) {
        if let Some(bucket) = self.buckets().get(index) {
            prefetch::<FAR>(std::ptr::from_ref(bucket).cast(), size_of::<Bucket>());
        }
    }

    /// Asks the CPU to fetch all lines of a record.
    #[inline]
    pub(super) fn prefetch_record<const LEVEL: i32>(&self, slot: Slot) {
        match slot.family() {
            Family::V4 => {
                if let Some(record) = self.v4().get(slot.index()) {
                    prefetch::<LEVEL>(std::ptr::from_ref(record).cast(), size_of::<RecordV4>());
                }
            }
            Family::V6 => {
                if let Some(record) = self.v6().get(slot.index()) {
                    prefetch::<LEVEL>(std::ptr::from_ref(record).cast(), size_of::<RecordV6>());
                }
            }
        }
    }

    /// What kind of pages the region got.
    #[must_use]
    pub const fn backing(&self) -> Backing {
        self.backing
    }

    /// Bytes mapped. Memory is taken as flows come, unless prefaulted or from the hugetlb pool.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.layout.bytes
    }

    /// Bytes that one flow of the family costs when the table is full: its record, its share of the index and its
    /// live bit, rounded up.
    #[must_use]
    pub const fn bytes_per_flow(&self, family: Family) -> usize {
        let record = match family {
            Family::V4 => size_of::<RecordV4>(),
            Family::V6 => size_of::<RecordV6>(),
        };
        let index = self.layout.buckets as usize * size_of::<Bucket>() + self.layout.v4 as usize / 8;
        record + index.div_ceil(self.layout.v4 as usize)
    }

    /// The memfd behind the region: whoever maps it sees the same flows.
    #[must_use]
    pub fn memfd(&self) -> BorrowedFd<'_> {
        self.memfd.as_fd()
    }

    /// The worker whose flows these are.
    #[must_use]
    pub fn worker(&self) -> WorkerId {
        WorkerId(u8::try_from(self.header().worker.load(Relaxed)).unwrap_or(u8::MAX))
    }

    /// The secret hash of a flow's tuple, see [`flow_hash`].
    #[must_use]
    pub fn hash(&self, tuple: &Tuple) -> u64 {
        flow_hash(&Seed(self.header().seed.each_ref().map(|word| word.load(Relaxed))), tuple)
    }

    /// Buckets of the index.
    #[must_use]
    pub const fn bucket_count(&self) -> u32 {
        self.layout.buckets
    }

    /// Flows now in the table.
    #[must_use]
    pub fn flow_count(&self) -> u32 {
        self.header().flows.load(Relaxed)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the whole reservation is this region's, and no reference into it can outlive `self`.
        unsafe { libc::munmap(self.reserved.as_ptr().cast(), self.reserved_bytes) };
    }
}

impl std::fmt::Debug for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Region").field("layout", &self.layout).field("backing", &self.backing).finish()
    }
}

/// Position of a family in per-family arrays.
#[inline]
pub(super) const fn family_index(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

/// Into the second level of cache. Some processors have too few fill buffers of the first level for a burst's lines and
/// drop what does not fit: all into the first level, packets of 1 million flows cost 101 ns instead of 42, of 10 million
/// 83 instead of 52 (`./scripts/bench figures --only conntrack` on an AMD EPYC).
pub(super) const FAR: i32 = 2;

/// Into the first level.
pub(super) const NEAR: i32 = 3;

#[inline]
fn prefetch<const LEVEL: i32>(start: *const u8, bytes: usize) {
    for offset in (0..bytes).step_by(64) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch of any address is harmless, and SSE is part of every x86-64.
        unsafe {
            core::arch::x86_64::_mm_prefetch::<LEVEL>(start.wrapping_add(offset).cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (start, offset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(max: (u32, u32), huge: (bool, bool)) -> io::Result<Region> {
        Region::map(max, WorkerId(3), &Seed([1, 2, 3, 4]), huge)
    }

    #[test]
    fn a_new_region_is_empty_and_says_what_it_is() {
        let region = map((1000, 10), (false, false)).unwrap();
        assert_eq!(region.backing(), Backing::Plain);
        assert_eq!(region.worker(), WorkerId(3));
        assert_eq!(region.flow_count(), 0);
        assert_eq!(region.header().magic.load(Relaxed), MAGIC);
        assert_eq!((region.v4().len(), region.v6().len()), (1000, 10));
        assert!(region.record(Slot::new(Family::V6, 9)).is_some_and(|record| !record.is_live()));
        assert!(region.record(Slot::new(Family::V6, 10)).is_none());
        assert!(region.record(Slot::new(Family::V4, 1000)).is_none());
    }

    #[test]
    fn parts_do_not_overlap_and_fit() {
        for max in [(1, 0), (1, 1), (65, 64), (100_000, 100_000), (SLOTS_MAX, SLOTS_MAX)] {
            let layout = Layout::new(max.0, max.1).unwrap();
            let ends = [
                (layout.buckets_at, layout.buckets as usize * 64),
                (layout.live_at[0], (max.0 as usize).div_ceil(64) * 8),
                (layout.live_at[1], (max.1 as usize).div_ceil(64) * 8),
                (layout.v4_at, max.0 as usize * 128),
                (layout.v6_at, max.1 as usize * 192),
                (layout.bytes, 0),
            ];
            assert!(ends[0].0 >= size_of::<Header>());
            for pair in ends.windows(2) {
                assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{layout:?}");
            }
        }
    }

    #[test]
    fn sizes_that_make_no_sense_are_refused() {
        for max in [(0, 0), (10, 11), (SLOTS_MAX + 1, 0)] {
            assert_eq!(map(max, (false, false)).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn a_flow_costs_no_more_than_it_may() {
        let region = map((100_000, 100_000), (false, false)).unwrap();
        assert!(region.bytes_per_flow(Family::V4) <= 160, "{}", region.bytes_per_flow(Family::V4));
        assert!(region.bytes_per_flow(Family::V6) <= 208, "{}", region.bytes_per_flow(Family::V6));
    }

    #[test]
    fn asking_for_huge_pages_never_fails_for_lack_of_them() {
        for prefault in [false, true] {
            let region = map((5000, 50), (true, prefault)).unwrap();
            assert_eq!(region.base.as_ptr().align_offset(HUGE_PAGE_BYTES), 0);
            println!("prefault {prefault}: {:?}", region.backing());
        }
    }
}
