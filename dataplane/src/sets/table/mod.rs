//! A hash table of atomics that grows a step at a time: any number of readers, one writer at a time, no lock between them.
//!
//! ```text
//! hash -> part -> its directory -> segment (at most 1,024 places) -> place, and those behind it
//! ```
//!
//! The table is in [`SHARDS`] parts. A part has a directory of segments, as many as there are values of some bits of the
//! hash; several neighbours in it may be the same segment. A segment that gets full is replaced by one twice as large
//! or, once it is as large as they get, by two, and the directory is made to name those: extendible hashing. So no edit
//! moves more than one segment's entries, however large the table is: 0.5 ms at most up to a million (when parts doubled
//! as a whole it was 10 ms). A directory that gets too short is doubled: one word for some 400 entries.
//!
//! Within a segment places are probed one after the other. A removal closes the gap by moving entries back, so there are
//! no graves to step over.
//!
//! Readers: a part's `version` is odd while it is edited; a lookup that saw it change is done again, a few times. Every
//! single step of an edit leaves the part whole: an entry that moves is written to its new place before it leaves the
//! old one, and a gap is no end of a probe. Growing disturbs nobody: the segment that is replaced stays as it is, and
//! readers that are in it find there what they would find in its successors. It is used again for something else only
//! behind a step of the version of the part it was in. So even a lookup that gave up looking again is wrong only if the
//! very entry it looks for moved under it.

mod memory;
mod segment;
#[cfg(test)]
mod tests;

use self::memory::Memory;
use self::segment::{PLACES_LOG2_MAX, Places, Segment};
use super::element::Key;
use std::iter;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};

pub use self::memory::NoMemory;
pub(super) use self::segment::{Layout, Value};

/// Parts of a table.
pub(super) const SHARDS: usize = 16;
const SHARD_BITS: u32 = SHARDS.trailing_zeros();
/// Bits of the hash that tell segments of a part from one another, at most: more than there can be entries for.
const DEPTH_MAX: u8 = 24;
/// Times a lookup is done again: far more than a writer that does one edit after the other ever spoils.
const TRIES: usize = 64;

/// A part.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard {
    /// Odd while it is edited.
    version: AtomicU32,
    /// Which of `directories` is in force: one of two to the power of this many segments.
    depth: AtomicU8,
    /// Entries. Written by the writer.
    used: AtomicU32,
    /// Those outgrown stay, since a reader may still be in one; together they are as long as the one in force.
    directories: [OnceLock<Box<[AtomicU64]>>; DEPTH_MAX as usize + 1],
}

/// The table.
#[derive(Debug)]
pub(super) struct Table {
    seed: [u64; 2],
    shards: Box<[Shard]>,
    memory: Memory,
}

/// The part a hash belongs to.
#[inline]
const fn shard_of(hash: u64) -> usize {
    (hash >> (64 - SHARD_BITS)) as usize
}

/// Position in a directory: the bits of the hash behind those of the part.
#[inline]
const fn position(hash: u64, depth: u8) -> usize {
    (((hash << SHARD_BITS) >> 32) >> (32 - depth as u32)) as usize
}

impl Shard {
    #[inline]
    fn directory(&self) -> (u8, &[AtomicU64]) {
        let depth = self.depth.load(Ordering::Acquire);
        (depth, self.directories[usize::from(depth)].get().map_or(&[], |directory| directory))
    }

    /// The segment that a hash belongs to.
    #[inline]
    fn segment(&self, hash: u64) -> Segment {
        let (depth, directory) = self.directory();
        Segment(directory[position(hash, depth)].load(Ordering::Acquire))
    }

    /// All segments. The writer only.
    fn segments(&self) -> impl Iterator<Item = Segment> {
        let (depth, directory) = self.directory();
        let mut at = 0;
        iter::from_fn(move || {
            let segment = Segment(directory.get(at)?.load(Ordering::Acquire));
            at += 1 << (depth - segment.depth());
            Some(segment)
        })
    }

    /// A directory of that depth, as it was left or new.
    fn directory_of(&self, depth: u8) -> &[AtomicU64] {
        let new = || (0..1 << depth).map(|_| AtomicU64::new(0)).collect();
        self.directories[usize::from(depth)].get_or_init(new)
    }

    /// Doubles the directory.
    fn deepen(&self) {
        let (depth, old) = self.directory();
        let new = self.directory_of(depth + 1);
        for (at, entry) in new.iter().enumerate() {
            entry.store(old[at / 2].load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.depth.store(depth + 1, Ordering::Release);
    }

    /// Puts segments, of equal depth, where one was that holds this hash.
    fn replace(&self, old: Segment, hash: u64, new: &[Segment]) {
        let (depth, directory) = self.directory();
        let len = 1 << (depth - old.depth());
        let from = position(hash, depth) & !(len - 1);
        for (at, entry) in directory[from..from + len].iter().enumerate() {
            entry.store(new[at * new.len() / len].0, Ordering::Release);
        }
    }

    /// Edits under an odd version.
    fn edit<T>(&self, edit: impl FnOnce() -> T) -> T {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        let done = edit();
        self.version.store(version.wrapping_add(2), Ordering::Release);
        done
    }
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "folds the halves")]
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    (product >> 64) as u64 ^ product as u64
}

impl Table {
    /// A table with room for about so many entries.
    ///
    /// # Errors
    /// If there is no memory for them.
    pub(super) fn new(layout: Layout, entries: usize, seed: [u64; 2]) -> Result<Self, NoMemory> {
        let shards = (0..SHARDS).map(|_| Shard::default()).collect();
        let table = Self { seed: seed.map(|seed| seed | 1), shards, memory: Memory::new(layout) };
        let places_log2 = segment::places_log2(entries / SHARDS);
        let depth = places_log2.saturating_sub(PLACES_LOG2_MAX).min(DEPTH_MAX);
        for shard in &table.shards {
            for entry in shard.directory_of(depth) {
                let segment = table.take_segment(places_log2.min(PLACES_LOG2_MAX), depth)?;
                entry.store(segment.0, Ordering::Release);
            }
            shard.depth.store(depth, Ordering::Release);
        }
        table.memory.made();
        Ok(table)
    }

    #[inline]
    fn hash(&self, key: &Key) -> u64 {
        let [a, b] = self.seed;
        let key_words = self.memory.layout().key_words;
        let mut hash = fold(key.meta ^ a, key.words[0] ^ b);
        if key_words > 1 {
            hash = fold(hash ^ key.words[1], a.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        }
        if key_words > 2 {
            hash = fold(hash ^ key.words[2], key.words[3] ^ a);
        }
        fold(hash, 0x9e37_79b9_7f4a_7c15)
    }

    /// The part a key is in, and its hash.
    #[inline]
    fn home(&self, key: &Key) -> (&Shard, u64) {
        let hash = self.hash(key);
        (&self.shards[shard_of(hash)], hash)
    }

    /// The part a key is in, the places of its segment, and its hash.
    #[inline]
    fn places(&self, key: &Key) -> (&Shard, Places<'_>, u64) {
        let (shard, hash) = self.home(key);
        (shard, self.memory.places(shard.segment(hash)), hash)
    }

    /// Looks a key up. Any thread.
    #[inline]
    pub(super) fn find(&self, key: &Key) -> Option<Value> {
        let (shard, hash) = self.home(key);
        let mut found = None;
        for _ in 0..TRIES {
            let version = shard.version.load(Ordering::Acquire);
            let places = self.memory.places(shard.segment(hash));
            found = places.find(key, hash).map(|(place, meta)| places.value(place, meta));
            fence(Ordering::Acquire);
            if version & 1 == 0 && shard.version.load(Ordering::Relaxed) == version {
                break;
            }
        }
        found
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.used.load(Ordering::Relaxed) as usize).sum()
    }

    /// Memory it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let directories = self.shards.iter().flat_map(|shard| &shard.directories).filter_map(OnceLock::get);
        let directories: usize = directories.map(|directory| directory.len() * size_of::<AtomicU64>()).sum();
        directories + self.memory.bytes()
    }

    /// Makes room for a key and one more of its segment. The writer only.
    ///
    /// # Errors
    /// If there is no memory.
    pub(super) fn reserve(&self, key: &Key) -> Result<(), NoMemory> {
        let (shard, hash) = self.home(key);
        loop {
            let segment = shard.segment(hash);
            if !self.memory.places(segment).is_full() {
                return Ok(());
            }
            self.grow(shard, segment, hash)?;
        }
    }

    /// Replaces a full segment, which holds this hash, by a larger one or by two.
    fn grow(&self, shard: &Shard, segment: Segment, hash: u64) -> Result<(), NoMemory> {
        let old = self.memory.places(segment);
        let mut new = Vec::with_capacity(2);
        if segment.places_log2() < PLACES_LOG2_MAX {
            new.push(self.take_segment(segment.places_log2() + 1, segment.depth())?);
        } else if segment.depth() < DEPTH_MAX {
            new.push(self.take_segment(PLACES_LOG2_MAX, segment.depth() + 1)?);
            let second = self.take_segment(PLACES_LOG2_MAX, segment.depth() + 1);
            new.push(second.inspect_err(|_| self.memory.give(new[0], shard_of(hash)))?);
        } else {
            return Err(NoMemory);
        }
        for (key, value) in old.entries() {
            let hash = self.hash(&key);
            let half = position(hash, segment.depth() + 1) & 1;
            self.memory.places(new[half.min(new.len() - 1)]).insert(&key, hash, value);
        }
        if new.len() > 1 && segment.depth() == shard.directory().0 {
            shard.deepen();
        }
        shard.replace(segment, hash, &new);
        self.memory.give(segment, shard_of(hash));
        Ok(())
    }

    /// An empty segment, which may be one that was given back: whoever is still in there learns of it first.
    fn take_segment(&self, places_log2: u8, depth: u8) -> Result<Segment, NoMemory> {
        self.memory.take(places_log2, depth, |shard| self.shards[shard].edit(|| ()))
    }

    /// Adds a key that is not there and that room was made for. The writer only.
    pub(super) fn insert(&self, key: &Key, value: Value) {
        let (shard, places, hash) = self.places(key);
        shard.edit(|| places.insert(key, hash, value));
        shard.used.fetch_add(1, Ordering::Relaxed);
    }

    /// Changes what is kept beside a key that is there. The writer only.
    pub(super) fn update(&self, key: &Key, value: Value) {
        let (shard, places, hash) = self.places(key);
        if let Some((place, _)) = places.find(key, hash) {
            shard.edit(|| places.update(place, key, value));
        }
    }

    /// Removes a key; what was kept beside it. The writer only.
    pub(super) fn remove(&self, key: &Key) -> Option<Value> {
        let (shard, places, hash) = self.places(key);
        let (place, meta) = places.find(key, hash)?;
        let value = places.value(place, meta);
        shard.edit(|| places.remove(place, |key| self.hash(key)));
        shard.used.fetch_sub(1, Ordering::Relaxed);
        Some(value)
    }

    /// The entries of one part. The writer only: readers would meet entries on the move.
    pub(super) fn entries_of(&self, shard: usize) -> impl Iterator<Item = (Key, Value)> {
        let segments = self.shards.get(shard).into_iter().flat_map(Shard::segments);
        segments.flat_map(|segment| self.memory.places(segment).entries())
    }

    /// All entries. The writer only.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Key, Value)> {
        (0..SHARDS).flat_map(|shard| self.entries_of(shard))
    }

    /// Removes everything: of each part one segment stays. The writer only.
    pub(super) fn clear(&self) {
        for (number, shard) in self.shards.iter().enumerate() {
            let mut segments: Vec<_> = shard.segments().collect();
            let kept = segments.swap_remove(0);
            shard.edit(|| {
                self.memory.places(kept).clear();
                for entry in shard.directory_of(0) {
                    entry.store(kept.with_depth(0).0, Ordering::Release);
                }
                shard.depth.store(0, Ordering::Release);
            });
            shard.used.store(0, Ordering::Relaxed);
            segments.into_iter().for_each(|segment| self.memory.give(segment, number));
        }
    }
}
