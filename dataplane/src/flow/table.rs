//! The flow table: an index of cache-line buckets over dense record slots, both in a [`Region`]. Owner thread only.
//!
//! A flow has two possible buckets: its home, from the hash, and an alternative, computed from the bucket it stands
//! in and its 16-bit tag alone (`alt(alt(b)) = b`), so entries move without their hash being known. An insert goes
//! home if there is room, else to the alternative, else a bounded breadth-first search moves a few entries aside.
//!
//! Always true:
//! * every entry of a bucket names a live record, and every live record has exactly one entry, in its home bucket
//!   or, marked `displaced`, in its alternative;
//! * a bucket's `overflow` is how many flows have their home there and stand elsewhere: at zero, a miss is final;
//! * free records form a list through their `ports` word, and from the high-water mark on none was ever used.

use super::bucket::{Bucket, Entry, LANES};
use super::key::{Seed, flow_hash};
use super::record::{ProbeV4, ProbeV6, Record, RecordV4, RecordV6, Slot};
use super::region::{Region, family_index};
use super::tracked::Direction;
use crate::packet::{Family, Hint, Packet, Tuple};
use crate::prefetch::{FAR, NEAR, prefetch};
use crate::rules::conn::Zone;
use std::sync::Arc;
use std::sync::atomic::{Ordering, Ordering::Relaxed, fence};

/// Most buckets an insert looks into for one with room.
const SEARCH_MAX: usize = 128;

/// Buckets an eviction looks through (the kernel's `NF_CT_EVICTION_RANGE`).
const EVICTION_BUCKETS: usize = 8;

/// See the module's head.
#[derive(Debug)]
pub(super) struct Table {
    region: Arc<Region>,
    seed: Seed,
    bucket_count: u32,
}

/// Why an insert failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// No record is free.
    Records,
    /// Records are, but both buckets and all around them are full.
    Buckets,
}

/// A bucket of the search for room, and how the search came to it.
#[derive(Clone, Copy, Default)]
struct Step {
    bucket: u32,
    /// Position in the search of the bucket whose entry could move here.
    from: usize,
    /// That entry's lane.
    lane: usize,
}

/// The records of a table, live or not, in slot order.
#[derive(Clone, Copy)]
pub(crate) struct Records<'a> {
    v4: &'a [RecordV4],
    v6: &'a [RecordV6],
}

impl<'a> Records<'a> {
    /// The flow that a TCP or UDP packet outside of all zones belongs to, if it is where it was guessed to be. A free record
    /// names no protocol, and a hint to the other family or to nothing lies beyond the slab.
    #[inline(always)]
    pub(super) fn plain_at(&self, hint: Hint, tuple: &Tuple) -> Option<(Slot, Record<'a>, Direction)> {
        let (record, direction) = match tuple.family {
            Family::V4 => {
                let record = self.v4.get(hint.0 as usize)?;
                (record.parts(), record.plain_direction(tuple)?)
            }
            Family::V6 => {
                let record = self.v6.get((hint.0 ^ Slot::V6) as usize)?;
                (record.parts(), record.plain_direction(tuple)?)
            }
        };
        Some((Slot::from_raw(hint.0), record, direction))
    }

    /// Asks the CPU to fetch all lines of a record, if there is one.
    #[inline(always)]
    fn prefetch<const LEVEL: i32>(&self, hint: Hint) {
        if let Some(record) = self.v4.get(hint.0 as usize) {
            prefetch::<LEVEL>(std::ptr::from_ref(record).cast(), size_of::<RecordV4>());
        } else if let Some(record) = self.v6.get((hint.0 ^ Slot::V6) as usize) {
            prefetch::<LEVEL>(std::ptr::from_ref(record).cast(), size_of::<RecordV6>());
        }
    }

    /// Brings a record nearer that [`Table::prefetch`] has fetched: 2 ns less a packet.
    #[inline(always)]
    pub(crate) fn prefetch_near(&self, hint: Hint) {
        self.prefetch::<NEAR>(hint);
    }
}

impl Table {
    pub(super) fn new(region: Arc<Region>, seed: Seed) -> Self {
        let bucket_count = u32::try_from(region.buckets().len()).unwrap_or(u32::MAX);
        Self { region, seed, bucket_count }
    }

    pub(super) fn region(&self) -> &Arc<Region> {
        &self.region
    }

    pub(super) fn seed(&self) -> &Seed {
        &self.seed
    }

    pub(super) fn flow_count(&self) -> u32 {
        self.region.header().flows.load(Relaxed)
    }

    /// Flows inserted so far: while this stands still, a lookup that missed will miss again.
    pub(super) fn inserts(&self) -> u64 {
        self.region.header().inserts.load(Relaxed)
    }

    /// Tags are never zero; that is an empty lane.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "a tag is 16 bits of the hash")]
    const fn tag(hash: u64) -> u16 {
        let tag = hash as u16;
        if tag == 0 { 1 } else { tag }
    }

    /// Bits 16 to 47 choose the bucket. Not the highest ones: they may have chosen the worker, so here they are all alike.
    #[inline]
    const fn home(&self, hash: u64) -> u32 {
        (((hash >> 16 & 0xffff_ffff) * self.bucket_count as u64) >> 32) as u32
    }

    /// The other bucket of an entry with this tag: reflects `bucket` about a point chosen by the tag.
    #[inline]
    const fn alternative(&self, bucket: u32, tag: u16) -> u32 {
        let spread = (tag as u32).wrapping_mul(0x9e37_79b1);
        let centre = ((spread as u64 * self.bucket_count as u64) >> 32) as u32;
        if centre >= bucket { centre - bucket } else { centre + (self.bucket_count - bucket) }
    }

    #[inline]
    fn bucket(&self, index: u32) -> &Bucket {
        &self.region.buckets()[index as usize]
    }

    /// Starts fetching the index line of a flow.
    #[inline]
    pub(super) fn prefetch_index(&self, hash: u64) {
        self.region.prefetch_bucket(self.home(hash) as usize);
    }

    /// Starts fetching the records that the index lines of a burst's flows point at; [`Self::prefetch_index`] has fetched
    /// those. [`Packet::hint`] says afterwards where a flow probably is: in the first record whose tag is alike.
    #[inline]
    pub(super) fn prefetch(&self, packets: &mut [Packet]) {
        let mut are_all_home = true;
        for packet in packets.iter_mut() {
            packet.hint = self.guess(self.home(packet.hash), packet.hash);
            are_all_home &= packet.hint != Hint::ELSEWHERE;
            self.records().prefetch::<FAR>(packet.hint);
        }
        if !are_all_home {
            self.prefetch_displaced(packets);
        }
    }

    /// What the home bucket says. If that is to look into the alternative, that one is fetched.
    #[inline]
    fn guess(&self, home: u32, hash: u64) -> Hint {
        let (bucket, tag) = (self.bucket(home), Self::tag(hash));
        if let Some(slot) = bucket.first(tag) {
            return Hint(slot.raw());
        }
        if bucket.overflow.load(Relaxed) == 0 {
            return Hint::NONE;
        }
        self.region.prefetch_bucket(self.alternative(home, tag) as usize);
        Hint::ELSEWHERE
    }

    /// The same for flows that are not in their home buckets.
    #[inline(never)]
    fn prefetch_displaced(&self, packets: &mut [Packet]) {
        for packet in packets.iter_mut().filter(|packet| packet.hint == Hint::ELSEWHERE) {
            let tag = Self::tag(packet.hash);
            let bucket = self.bucket(self.alternative(self.home(packet.hash), tag));
            packet.hint = bucket.first(tag).map_or(Hint::NONE, |slot| Hint(slot.raw()));
            self.records().prefetch::<FAR>(packet.hint);
        }
    }

    /// The flow a tuple belongs to in a zone, in either direction, if it is where it was guessed to be: saves the second
    /// look into the bucket.
    #[inline]
    pub(super) fn find_at(&self, hint: Hint, tuple: &Tuple, zone: Zone) -> Option<(Slot, Direction)> {
        let slot = Slot::from_raw(hint.0);
        if hint == Hint::NONE || slot.family() != tuple.family {
            return None;
        }
        let direction = match tuple.family {
            Family::V4 => self.region.v4().get(slot.index())?.direction(&ProbeV4::new(tuple, zone))?,
            Family::V6 => self.region.v6().get(slot.index())?.direction(&ProbeV6::new(tuple, zone))?,
        };
        // A free record may look like the flow it was.
        self.live_record(slot).map(|_| (slot, direction))
    }

    /// All records, for looking at many.
    #[inline]
    pub(super) fn records(&self) -> Records<'_> {
        Records { v4: self.region.v4(), v6: self.region.v6() }
    }

    /// The flow a tuple belongs to in a zone, in either direction.
    #[inline]
    pub(super) fn find(&self, hash: u64, tuple: &Tuple, zone: Zone) -> Option<(Slot, Direction)> {
        // Decided once, so that the loop below knows the size of what it compares.
        match tuple.family {
            Family::V4 => {
                let probe = ProbeV4::new(tuple, zone);
                self.find_with(hash, Family::V4, |index| self.region.v4()[index].direction(&probe))
            }
            Family::V6 => {
                let probe = ProbeV6::new(tuple, zone);
                self.find_with(hash, Family::V6, |index| self.region.v6()[index].direction(&probe))
            }
        }
    }

    #[inline]
    fn find_with(
        &self,
        hash: u64,
        family: Family,
        direction: impl Fn(usize) -> Option<Direction>,
    ) -> Option<(Slot, Direction)> {
        let (home, tag) = (self.home(hash), Self::tag(hash));
        let mut bucket = self.bucket(home);
        let mut is_last = bucket.overflow.load(Relaxed) == 0;
        loop {
            let mut lanes = bucket.matches(tag);
            while lanes != 0 {
                let slot = bucket.slot(lanes.trailing_zeros() as usize);
                lanes &= lanes - 1;
                if slot.family() == family
                    && let Some(direction) = direction(slot.index())
                {
                    return Some((slot, direction));
                }
            }
            if is_last {
                return None;
            }
            bucket = self.bucket(self.alternative(home, tag));
            is_last = true;
        }
    }

    /// Inserts a flow that is not there yet. `fill` writes the record's other fields before it becomes visible.
    pub(super) fn insert(
        &self,
        hash: u64,
        orig: &Tuple,
        zone: Zone,
        fill: impl FnOnce(Slot, Record<'_>),
    ) -> Result<Slot, NoRoom> {
        let slot = self.allocate(orig.family).ok_or(NoRoom::Records)?;
        if !self.place(hash, slot) {
            self.free(slot);
            return Err(NoRoom::Buckets);
        }
        let record = match slot.family() {
            Family::V4 => {
                let record = &self.region.v4()[slot.index()];
                record.reset(orig, zone);
                record.parts()
            }
            Family::V6 => {
                let record = &self.region.v6()[slot.index()];
                record.reset(orig, zone);
                record.parts()
            }
        };
        fill(slot, record);
        self.mark_live(slot, true);
        // Odd now: a reader that sees it sees all of the above.
        record.common.seq.store(record.common.seq.load(Relaxed).wrapping_add(1), Ordering::Release);
        let header = self.region.header();
        header.flows.store(header.flows.load(Relaxed).wrapping_add(1), Relaxed);
        header.inserts.store(header.inserts.load(Relaxed).wrapping_add(1), Relaxed);
        Ok(slot)
    }

    /// Removes a flow; `false` if there is none in the slot.
    pub(super) fn remove(&self, slot: Slot) -> bool {
        let Some(record) = self.region.record(slot).filter(Record::is_live) else { return false };
        let hash = flow_hash(&self.seed, &self.orig(slot));
        let (home, tag) = (self.home(hash), Self::tag(hash));
        if !self.take_entry(home, tag, slot) {
            let taken = self.take_entry(self.alternative(home, tag), tag, slot);
            debug_assert!(taken, "every live record has an entry in one of its two buckets");
        }
        // Even now. The fence keeps what is written next, into the same record, from being seen before it.
        record.common.seq.store(record.common.seq.load(Relaxed).wrapping_add(1), Relaxed);
        fence(Ordering::Release);
        self.mark_live(slot, false);
        self.free(slot);
        let header = self.region.header();
        header.flows.store(header.flows.load(Relaxed).wrapping_sub(1), Relaxed);
        true
    }

    /// The record of a flow that the index has just given.
    #[inline]
    pub(super) fn record(&self, slot: Slot) -> Record<'_> {
        match slot.family() {
            Family::V4 => self.region.v4()[slot.index()].parts(),
            Family::V6 => self.region.v6()[slot.index()].parts(),
        }
    }

    /// The record of a flow, if there still is one in the slot.
    #[inline]
    pub(super) fn live_record(&self, slot: Slot) -> Option<Record<'_>> {
        self.region.record(slot).filter(Record::is_live)
    }

    /// The tuple of the packet that created the flow in a slot.
    pub(super) fn orig(&self, slot: Slot) -> Tuple {
        match slot.family() {
            Family::V4 => self.region.v4()[slot.index()].orig(),
            Family::V6 => self.region.v6()[slot.index()].orig(),
        }
    }

    /// The first flow that `fits`, in the two buckets of `hash` and their neighbours.
    pub(super) fn find_victim(&self, hash: u64, fits: impl Fn(Slot, Record<'_>) -> bool) -> Option<Slot> {
        let home = self.home(hash);
        let other = self.alternative(home, Self::tag(hash));
        let around = (1..EVICTION_BUCKETS - 1).map(|i| (home as usize + i) % self.bucket_count as usize);
        [home as usize, other as usize].into_iter().chain(around).find_map(|index| {
            let bucket = &self.region.buckets()[index];
            let slots = || (0..LANES).filter_map(|lane| bucket.entry(lane)).map(|entry| entry.slot);
            slots().for_each(|slot| self.records().prefetch::<FAR>(Hint(slot.raw())));
            slots().find(|&slot| self.region.record(slot).is_some_and(|record| fits(slot, record)))
        })
    }

    /// The slot a sweep looks at next, IPv4 ones first, round and round; `None` if none was ever used.
    pub(super) fn next_slot(&self, hand: &mut u32) -> Option<Slot> {
        let used = |family| self.region.header().high_water[family_index(family)].load(Relaxed);
        let (v4, v6) = (used(Family::V4), used(Family::V6));
        let at = hand.checked_rem(v4 + v6)?;
        *hand = at + 1;
        Some(if at < v4 { Slot::new(Family::V4, at) } else { Slot::new(Family::V6, at - v4) })
    }

    /// Clears the entry of `slot` if it is in this bucket.
    fn take_entry(&self, index: u32, tag: u16, slot: Slot) -> bool {
        let bucket = self.bucket(index);
        let mut lanes = bucket.matches(tag);
        while lanes != 0 {
            let lane = lanes.trailing_zeros() as usize;
            lanes &= lanes - 1;
            if let Some(entry) = bucket.entry(lane).filter(|entry| entry.slot == slot) {
                bucket.clear(lane);
                if entry.displaced {
                    self.bucket(self.alternative(index, tag)).add_overflow(-1);
                }
                return true;
            }
        }
        false
    }

    /// Puts an entry into one of its two buckets, moving others aside if need be.
    fn place(&self, hash: u64, slot: Slot) -> bool {
        let (home, tag) = (self.home(hash), Self::tag(hash));
        let entry = Entry { tag, slot, displaced: false };
        if let Some(lane) = self.bucket(home).empty_lane() {
            self.bucket(home).put(lane, entry);
            return true;
        }
        let other = self.alternative(home, tag);
        let displaced = Entry { displaced: true, ..entry };
        if let Some(lane) = self.bucket(other).empty_lane() {
            self.bucket(other).put(lane, displaced);
            self.bucket(home).add_overflow(1);
            return true;
        }
        let Some((root, lane)) = self.make_room(home, other) else { return false };
        if root == home {
            self.bucket(home).put(lane, entry);
        } else {
            self.bucket(other).put(lane, displaced);
            self.bucket(home).add_overflow(1);
        }
        true
    }

    /// Frees a lane in one of two full buckets. Breadth first, so the chain of moves is the shortest there is; no
    /// bucket is on it twice, for then a shorter one would have been found before.
    #[cold]
    fn make_room(&self, home: u32, other: u32) -> Option<(u32, usize)> {
        let mut steps = [Step::default(); SEARCH_MAX];
        steps[0].bucket = home;
        steps[1].bucket = other;
        let mut known = 2;
        for at in 0..SEARCH_MAX {
            if at == known {
                break;
            }
            for lane in 0..LANES {
                let Some(entry) = self.bucket(steps[at].bucket).entry(lane) else { continue };
                let next = self.alternative(steps[at].bucket, entry.tag);
                if let Some(free) = self.bucket(next).empty_lane() {
                    self.move_entry((steps[at].bucket, lane), (next, free), entry);
                    return Some(self.move_chain(&steps, at, lane));
                }
                if known < SEARCH_MAX {
                    steps[known] = Step { bucket: next, from: at, lane };
                    known += 1;
                }
            }
        }
        None
    }

    /// Moves entries up the chain that led to `steps[at]`, whose `lane` has just become free; gives the lane that is
    /// free in the end.
    fn move_chain(&self, steps: &[Step; SEARCH_MAX], mut at: usize, mut lane: usize) -> (u32, usize) {
        while at > 1 {
            let Step { bucket, from, lane: upper } = steps[at];
            let above = steps[from].bucket;
            if let Some(entry) = self.bucket(above).entry(upper) {
                self.move_entry((above, upper), (bucket, lane), entry);
            }
            (at, lane) = (from, upper);
        }
        (steps[at].bucket, lane)
    }

    /// Moves an entry between its two buckets.
    fn move_entry(&self, (from, lane): (u32, usize), (to, free): (u32, usize), entry: Entry) {
        self.bucket(to).put(free, Entry { displaced: !entry.displaced, ..entry });
        self.bucket(from).clear(lane);
        if entry.displaced {
            self.bucket(to).add_overflow(-1);
        } else {
            self.bucket(from).add_overflow(1);
        }
    }

    /// Takes a free record: the one freed last, or the first never used.
    fn allocate(&self, family: Family) -> Option<Slot> {
        let header = self.region.header();
        let which = family_index(family);
        let head = header.free_head[which].load(Relaxed);
        if head != 0 {
            let slot = Slot::new(family, head - 1);
            let next = self.region.record(slot)?.common.ports.load(Relaxed);
            header.free_head[which].store(u32::try_from(next).unwrap_or(0), Relaxed);
            return Some(slot);
        }
        let fresh = header.high_water[which].load(Relaxed);
        if fresh >= self.region.capacity(family) {
            return None;
        }
        header.high_water[which].store(fresh + 1, Relaxed);
        Some(Slot::new(family, fresh))
    }

    fn free(&self, slot: Slot) {
        let head = &self.region.header().free_head[family_index(slot.family())];
        if let (Some(record), Ok(index)) = (self.region.record(slot), u32::try_from(slot.index())) {
            record.common.ports.store(u64::from(head.load(Relaxed)), Relaxed);
            head.store(index + 1, Relaxed);
        }
    }

    fn mark_live(&self, slot: Slot, live: bool) {
        let word = &self.region.live_bits(slot.family())[slot.index() / 64];
        let bit = 1 << (slot.index() % 64);
        let bits = word.load(Relaxed);
        word.store(if live { bits | bit } else { bits & !bit }, Relaxed);
    }
}

#[cfg(test)]
mod tests;
