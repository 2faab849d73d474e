//! The memory a worker's flows live in: one relocatable mapping of a memfd, with a versioned header, indices instead
//! of pointers, and nothing but atomic words in it. The owning worker writes; any thread may read. Another process
//! that maps the same memfd finds everything it needs in it.
//!
//! ```text
//! header | buckets | live bits v4 | live bits v6 | v4 records | v6 records          each part starts on a page
//! ```
//!
//! Labels, which few gateways give to flows, are in a second mapping: for each record of either family one pair of words,
//! of plain pages that cost nothing until they are written.
//!
//! All unsafe code of the tracker is here, and it rests on one invariant: `Region::map` places every part, aligned
//! for its type, inside a mapping, and the mappings stay until the region is dropped. All parts are arrays of
//! atomics, for which every bit pattern is valid, so shared references to them are sound whoever writes.
#![allow(unsafe_code, reason = "maps memory and hands out views of it; everything above is safe code")]

mod memory;

use super::bucket::Bucket;
use super::key::{Seed, flow_hash};
use super::record::{LabelWords, Record, RecordV4, RecordV6, SLOTS_MAX, Slot};
use crate::ids::WorkerId;
use crate::packet::{Family, Tuple};
use crate::pages::HUGE_PAGE_BYTES;
use crate::prefetch::{FAR, prefetch};
use memory::Memory;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// First word of every region: "PALIFLOW" in ASCII.
const MAGIC: u64 = u64::from_be_bytes(*b"PALIFLOW");

/// Changes whenever the layout of a record or of the header does.
pub const FORMAT_VERSION: u32 = 2;

const PAGE_BYTES: usize = 4096;

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
    memory: Memory,
    labels: Memory,
    layout: Layout,
    backing: Backing,
}

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
        let map = |hugetlb| Memory::map(c"palisade-flows", layout.bytes, hugetlb, prefault);
        let from_pool = if huge { map(true).ok() } else { None };
        let (memory, backing) = match from_pool {
            Some(memory) => (memory, Backing::HugeTlb),
            None => (map(false)?, Backing::Plain),
        };
        let label_bytes = (layout.v4 as usize + layout.v6 as usize) * size_of::<LabelWords>();
        let labels = Memory::map(c"palisade-labels", label_bytes.next_multiple_of(PAGE_BYTES), false, false)?;
        let mut region = Self { memory, labels, layout, backing };
        if region.backing == Backing::Plain {
            region.advise(huge, prefault);
        }
        region.write_header(max_flows, worker, seed);
        Ok(region)
    }

    /// Takes all memory now and asks for huge pages, as far as the kernel goes along. Memory that is there already
    /// is put together at once (`MADV_COLLAPSE`, Linux 6.1, works whatever the shmem policy says short of `deny`).
    fn advise(&mut self, huge: bool, prefault: bool) {
        let advised = huge && self.memory.advise(libc::MADV_HUGEPAGE);
        let populated = prefault && self.memory.advise(libc::MADV_POPULATE_WRITE);
        if advised && populated && self.memory.advise(libc::MADV_COLLAPSE) {
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
        unsafe { std::slice::from_raw_parts(self.memory.base().as_ptr().add(offset).cast::<T>(), count) }
    }

    #[inline]
    pub(super) fn header(&self) -> &Header {
        // SAFETY: the first page of the mapping is the header's, and `Header` is smaller than that.
        unsafe { &*self.memory.base().as_ptr().cast::<Header>() }
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

    /// The labels of the flow in a slot, if it can have any; `None` if the region has no such slot.
    pub(super) fn labels(&self, slot: Slot) -> Option<&LabelWords> {
        let Layout { v4, v6, .. } = self.layout;
        let (first, count) = match slot.family() {
            Family::V4 => (0, v4 as usize),
            Family::V6 => (v4 as usize, v6 as usize),
        };
        // SAFETY: the mapping holds a pair of words for each record of both families, and lives as long as `self`.
        let all = unsafe {
            std::slice::from_raw_parts(
                self.labels.base().as_ptr().cast::<LabelWords>(),
                v4 as usize + v6 as usize,
            )
        };
        all.get(first..first + count)?.get(slot.index())
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

    /// What kind of pages the region got.
    #[must_use]
    pub const fn backing(&self) -> Backing {
        self.backing
    }

    /// Bytes mapped, but for labels. Memory is taken as flows come, unless prefaulted or from the hugetlb pool.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.memory.bytes()
    }

    /// Bytes that one flow of the family costs when the table is full: its record, its share of the index and its
    /// live bit, rounded up. One that has labels costs 16 more.
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
        self.memory.memfd().as_fd()
    }

    /// The worker whose flows these are.
    #[must_use]
    pub fn worker(&self) -> WorkerId {
        WorkerId(u8::try_from(self.header().worker.load(Relaxed)).unwrap_or(u8::MAX))
    }

    /// The secret hash of a flow's tuple, see [`flow_hash`].
    #[must_use]
    pub fn hash(&self, tuple: &Tuple) -> u64 {
        flow_hash(&self.seed(), tuple)
    }

    /// The secret that flows are hashed with.
    pub(super) fn seed(&self) -> Seed {
        Seed(self.header().seed.each_ref().map(|word| word.load(Relaxed)))
    }

    /// Most flows of both families together.
    pub(super) fn max_flows(&self) -> u32 {
        self.header().max_flows.load(Relaxed)
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
    fn every_record_has_labels_of_its_own() {
        let region = map((70, 3), (true, false)).unwrap();
        let slots = || {
            (0..70)
                .map(|index| Slot::new(Family::V4, index))
                .chain((0..3).map(|index| Slot::new(Family::V6, index)))
        };
        for (slot, labels) in slots().zip(1..) {
            region.labels(slot).unwrap().set(labels << 100 | labels);
        }
        for (slot, labels) in slots().zip(1..) {
            assert_eq!(region.labels(slot).unwrap().get(), labels << 100 | labels);
        }
        assert!(region.labels(Slot::new(Family::V4, 70)).is_none());
        assert!(region.labels(Slot::new(Family::V6, 3)).is_none());
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
            assert_eq!(region.memory.base().as_ptr().align_offset(HUGE_PAGE_BYTES), 0);
            println!("prefault {prefault}: {:?}", region.backing());
        }
    }
}
