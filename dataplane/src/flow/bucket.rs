//! The index's buckets: one cache line each, eight tags and eight record slots. Owner thread only; all tags are
//! searched at once.

use super::record::Slot;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Entries of a bucket.
pub(super) const LANES: usize = 8;

/// Sixteen bits repeated in each quarter of a word.
#[cfg(any(test, not(target_arch = "x86_64")))]
const EACH: u64 = 0x0001_0001_0001_0001;

/// One cache line of the index: tags of up to eight flows and where their records are.
#[repr(C, align(64))]
#[derive(Default)]
pub(super) struct Bucket {
    /// Eight 16-bit tags; zero is an empty lane.
    tags: [AtomicU64; 2],
    /// The slot word of each lane, see [`Entry`].
    slots: [AtomicU32; LANES],
    /// Flows whose home is this bucket but that stand in their other one. Zero: a miss here is a miss.
    pub(super) overflow: AtomicU32,
    /// Room for an epoch.
    _spare: [AtomicU32; 3],
}

/// One lane of a bucket: bit 31 of the word says IPv6, bit 30 that this is not the flow's home bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Never zero.
    pub(super) tag: u16,
    pub(super) slot: Slot,
    /// Whether the entry stands in its alternative bucket.
    pub(super) displaced: bool,
}

const _: () = assert!(size_of::<Bucket>() == 64);

impl Entry {
    const DISPLACED: u32 = 1 << 30;

    const fn word(self) -> u32 {
        self.slot.raw() | if self.displaced { Self::DISPLACED } else { 0 }
    }
}

impl Bucket {
    /// Lanes whose tag is `tag`, one bit each. Exact, also for tag zero (the empty lanes).
    #[inline]
    pub(super) fn matches(&self, tag: u16) -> u32 {
        let [low, high] = &self.tags;
        matches(low.load(Relaxed), high.load(Relaxed), tag)
    }

    /// The slot of the first lane with this tag.
    #[inline]
    pub(super) fn first(&self, tag: u16) -> Option<Slot> {
        let lanes = self.matches(tag);
        (lanes != 0).then(|| self.slot(lanes.trailing_zeros() as usize))
    }

    /// A lane that holds nothing.
    pub(super) fn empty_lane(&self) -> Option<usize> {
        let empty = self.matches(0);
        (empty != 0).then(|| empty.trailing_zeros() as usize)
    }

    /// The slot in a lane, whatever its tag.
    #[inline]
    pub(super) fn slot(&self, lane: usize) -> Slot {
        Slot::from_raw(self.slots[lane].load(Relaxed) & !Entry::DISPLACED)
    }

    /// What stands in a lane.
    pub(super) fn entry(&self, lane: usize) -> Option<Entry> {
        let tag = self.tags[lane / 4].load(Relaxed) >> (lane % 4 * 16);
        #[expect(clippy::cast_possible_truncation, reason = "one of the four tags of the word")]
        let tag = tag as u16;
        let displaced = self.slots[lane].load(Relaxed) & Entry::DISPLACED != 0;
        (tag != 0).then(|| Entry { tag, slot: self.slot(lane), displaced })
    }

    pub(super) fn put(&self, lane: usize, entry: Entry) {
        self.slots[lane].store(entry.word(), Relaxed);
        self.set_tag(lane, entry.tag);
    }

    pub(super) fn clear(&self, lane: usize) {
        self.set_tag(lane, 0);
    }

    fn set_tag(&self, lane: usize, tag: u16) {
        let word = &self.tags[lane / 4];
        let shift = lane % 4 * 16;
        let others = word.load(Relaxed) & !(0xffff << shift);
        word.store(others | u64::from(tag) << shift, Relaxed);
    }

    /// One more or one less flow that belongs here stands elsewhere.
    pub(super) fn add_overflow(&self, by: i32) {
        self.overflow.store(self.overflow.load(Relaxed).wrapping_add_signed(by), Relaxed);
    }
}

/// Which of eight tags in two words are `tag`, one bit each.
#[cfg(target_arch = "x86_64")]
#[inline]
#[allow(unsafe_code, reason = "vector instructions")]
fn matches(low: u64, high: u64, tag: u16) -> u32 {
    use std::arch::x86_64::{
        _mm_cmpeq_epi16, _mm_movemask_epi8, _mm_packs_epi16, _mm_set_epi64x, _mm_set1_epi16,
        _mm_setzero_si128,
    };
    // SAFETY: SSE2 is part of every x86-64, and none of these reads memory.
    unsafe {
        let tags = _mm_set_epi64x(high.cast_signed(), low.cast_signed());
        let equal = _mm_cmpeq_epi16(tags, _mm_set1_epi16(tag.cast_signed()));
        _mm_movemask_epi8(_mm_packs_epi16(equal, _mm_setzero_si128())).cast_unsigned()
    }
}

/// The same.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn matches(low: u64, high: u64, tag: u16) -> u32 {
    plain_matches(low, high, tag)
}

/// The same in plain words, four tags at a time.
#[cfg(any(test, not(target_arch = "x86_64")))]
#[inline]
fn plain_matches(low: u64, high: u64, tag: u16) -> u32 {
    let wanted = u64::from(tag).wrapping_mul(EACH);
    zero_quarters(low ^ wanted) | zero_quarters(high ^ wanted) << 4
}

/// Which of the four 16-bit quarters of `x` are zero, one bit each.
#[cfg(any(test, not(target_arch = "x86_64")))]
#[inline]
const fn zero_quarters(x: u64) -> u32 {
    const LOW: u64 = 0x7fff * EACH;
    // No carry leaves a quarter, so unlike the shorter formula this one has no false positives.
    let high_bits = !(((x & LOW) + LOW) | x | LOW) >> 15;
    // The flags stand 16 bits apart, at 0, 16, 32 and 48; the multiplication brings them to 48..=51.
    (high_bits.wrapping_mul(0x0001_0002_0004_0008) >> 48 & 0xf) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Family;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn tag_search_agrees_with_looking_at_each_lane(tags in any::<[u16; 8]>(), near in 0..8_usize, nudge in 0..3_u16) {
            let bucket = Bucket::default();
            for (lane, &tag) in tags.iter().enumerate() {
                bucket.put(lane, Entry { tag, slot: Slot::new(Family::V4, 5), displaced: false });
            }
            for wanted in [0, 1, 0x8000, 0xffff, tags[near], tags[near].wrapping_add(nudge)] {
                let naive = tags.iter().enumerate().fold(0, |m, (i, &t)| m | u32::from(t == wanted) << i);
                prop_assert_eq!(bucket.matches(wanted), naive);
                let [low, high] = &bucket.tags;
                prop_assert_eq!(plain_matches(low.load(Relaxed), high.load(Relaxed), wanted), naive);
            }
        }
    }
}
