//! An open-addressed hash table of atomics: any number of readers, one writer at a time, no lock between them.
//!
//! An entry is a few words in a row: what kind of place it is with the small parts of the key, the addresses, then as
//! the set has them a deadline and the number of its counters. Places are probed one after the other. A removal closes
//! the gap by moving entries back, so there are no graves to step over. The table is in [`SHARDS`] parts, each of
//! which grows by itself: into a place twice as large that is filled aside and then becomes the one in force. Places
//! outgrown are kept until the table goes, since a reader may still be in one; all of them together are as large as
//! the one in force.
//!
//! Readers: a part's `version` is odd while it is edited; a lookup that saw it change is done again, a few times. Every
//! single step of an edit leaves the part whole: an entry that moves is written to its new place before it leaves the
//! old one, and a gap is no end of a probe. So even a lookup that gave up looking again is wrong only if the very entry
//! it looks for moved under it.

use super::element::{Key, NOMATCH};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};

/// Parts of a table.
pub const SHARDS: usize = 16;
/// Sizes that a part may take, from [`SMALLEST`] places on.
const LEVELS: usize = 26;
const SMALLEST: usize = 16;
/// Times a lookup is done again.
const TRIES: usize = 8;

/// A place where nothing is, and no probe goes on.
const EMPTY: u64 = 0;
/// A place where nothing is, but a probe goes on.
const GAP: u64 = 1;

/// Which words an entry has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Words of addresses behind the first word.
    pub(super) key_words: usize,
    pub(super) has_deadline: bool,
    pub(super) has_counters: bool,
}

impl Layout {
    const fn deadline(self) -> usize {
        1 + self.key_words
    }

    const fn counter(self) -> usize {
        1 + self.key_words + self.has_deadline as usize
    }

    /// Words from one entry to the next. Four fit a cache line twice, three do not.
    const fn stride(self) -> usize {
        let words = 1 + self.key_words + self.has_deadline as usize + self.has_counters as usize;
        if words == 3 { 4 } else { words }
    }
}

/// What is kept beside a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Value {
    pub(super) nomatch: bool,
    /// Nanoseconds on the daemon's clock; 0: never.
    pub(super) deadline: u64,
    /// Number of its counters.
    pub(super) counter: u64,
}

#[derive(Debug)]
struct Shard {
    /// Odd while it is edited.
    version: AtomicU32,
    /// Which of `levels` is in force.
    level: AtomicU8,
    levels: Box<[OnceLock<Box<[AtomicU64]>>]>,
    /// Entries. Written by the writer.
    used: AtomicU32,
}

/// The table.
#[derive(Debug)]
pub(super) struct Table {
    layout: Layout,
    seed: [u64; 2],
    shards: Box<[Shard]>,
}

/// The places of a part that are in force.
#[derive(Clone, Copy)]
struct Places<'a> {
    words: &'a [AtomicU64],
    layout: Layout,
    mask: usize,
}

impl<'a> Places<'a> {
    #[inline]
    fn word(self, place: usize, word: usize) -> &'a AtomicU64 {
        &self.words[place * self.layout.stride() + word]
    }

    #[inline]
    fn meta(self, place: usize) -> u64 {
        self.word(place, 0).load(Ordering::Acquire)
    }

    #[inline]
    fn has_words(self, place: usize, key: &Key) -> bool {
        (0..self.layout.key_words).all(|at| self.word(place, 1 + at).load(Ordering::Acquire) == key.words[at])
    }

    /// The place of a key, probing from `home`.
    #[inline]
    fn find(self, key: &Key, home: usize) -> Option<(usize, u64)> {
        let mut place = home & self.mask;
        for _ in 0..=self.mask {
            let meta = self.meta(place);
            if meta & !NOMATCH == key.meta && self.has_words(place, key) {
                return Some((place, meta));
            }
            if meta == EMPTY {
                return None;
            }
            place = (place + 1) & self.mask;
        }
        None
    }

    #[inline]
    fn value(self, place: usize, meta: u64) -> Value {
        let load = |has: bool, word| if has { self.word(place, word).load(Ordering::Acquire) } else { 0 };
        Value {
            nomatch: meta & NOMATCH != 0,
            deadline: load(self.layout.has_deadline, self.layout.deadline()),
            counter: load(self.layout.has_counters, self.layout.counter()),
        }
    }

    fn key(self, place: usize, meta: u64) -> Key {
        let mut words = [0; 4];
        for (at, word) in words.iter_mut().take(self.layout.key_words).enumerate() {
            *word = self.word(place, 1 + at).load(Ordering::Acquire);
        }
        Key { meta: meta & !NOMATCH, words }
    }

    fn set_value(self, place: usize, value: Value) {
        if self.layout.has_deadline {
            self.word(place, self.layout.deadline()).store(value.deadline, Ordering::Release);
        }
        if self.layout.has_counters {
            self.word(place, self.layout.counter()).store(value.counter, Ordering::Release);
        }
    }

    /// Writes an entry into a place that is free.
    fn fill(self, place: usize, key: &Key, value: Value) {
        for at in 0..self.layout.key_words {
            self.word(place, 1 + at).store(key.words[at], Ordering::Release);
        }
        self.set_value(place, value);
        let meta = key.meta | if value.nomatch { NOMATCH } else { 0 };
        self.word(place, 0).store(meta, Ordering::Release);
    }

    /// The first free place of a probe.
    fn free(self, home: usize) -> usize {
        let mut place = home & self.mask;
        while self.meta(place) > GAP {
            place = (place + 1) & self.mask;
        }
        place
    }
}

impl Shard {
    fn new(places: usize, layout: Layout) -> Self {
        let level = (places.next_power_of_two() / SMALLEST).max(1).trailing_zeros() as usize;
        let level = level.min(LEVELS - 1);
        let levels: Box<[OnceLock<Box<[AtomicU64]>>]> = (0..LEVELS).map(|_| OnceLock::new()).collect();
        levels[level].get_or_init(|| words(level, layout));
        Self {
            version: AtomicU32::new(0),
            level: AtomicU8::new(u8::try_from(level).unwrap_or(0)),
            levels,
            used: AtomicU32::new(0),
        }
    }

    #[inline]
    fn places(&self, layout: Layout) -> Places<'_> {
        let level = usize::from(self.level.load(Ordering::Acquire));
        let words = self.levels[level].get().map_or(&[][..], |words| words);
        Places { words, layout, mask: (SMALLEST << level) - 1 }
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

fn words(level: usize, layout: Layout) -> Box<[AtomicU64]> {
    (0..(SMALLEST << level) * layout.stride()).map(|_| AtomicU64::new(EMPTY)).collect()
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "folds the halves")]
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    (product >> 64) as u64 ^ product as u64
}

impl Table {
    /// A table with room for about so many entries.
    pub(super) fn new(layout: Layout, entries: usize, seed: [u64; 2]) -> Self {
        let places = (entries / SHARDS).saturating_mul(8).div_ceil(5).max(SMALLEST);
        let shards = (0..SHARDS).map(|_| Shard::new(places, layout)).collect();
        Self { layout, seed: seed.map(|seed| seed | 1), shards }
    }

    #[inline]
    fn hash(&self, key: &Key) -> u64 {
        let [a, b] = self.seed;
        let mut hash = fold(key.meta ^ a, key.words[0] ^ b);
        if self.layout.key_words > 1 {
            hash = fold(hash ^ key.words[1], a.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        }
        if self.layout.key_words > 2 {
            hash = fold(hash ^ key.words[2], key.words[3] ^ a);
        }
        fold(hash, 0x9e37_79b9_7f4a_7c15)
    }

    /// The part a key is in, and where its probe begins there.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "as many bits as there are places")]
    fn home(&self, key: &Key) -> (&Shard, usize) {
        let hash = self.hash(key);
        (&self.shards[(hash >> 60) as usize], hash as usize)
    }

    /// Looks a key up. Any thread.
    #[inline]
    pub(super) fn find(&self, key: &Key) -> Option<Value> {
        let (shard, home) = self.home(key);
        let mut found = None;
        for _ in 0..TRIES {
            let version = shard.version.load(Ordering::Acquire);
            let places = shard.places(self.layout);
            found = places.find(key, home).map(|(place, meta)| places.value(place, meta));
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
        let words = self.shards.iter().flat_map(|shard| &shard.levels).filter_map(OnceLock::get);
        words.map(|words| words.len() * size_of::<AtomicU64>()).sum()
    }

    /// Adds a key that is not there. The writer only.
    pub(super) fn insert(&self, key: &Key, value: Value) {
        let (shard, home) = self.home(key);
        let used = shard.used.load(Ordering::Relaxed) as usize + 1;
        let mut places = shard.places(self.layout);
        if used * 8 > (places.mask + 1) * 5 && self.grow(shard) {
            places = shard.places(self.layout);
        }
        shard.edit(|| places.fill(places.free(home), key, value));
        shard.used.store(u32::try_from(used).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// Makes a place twice as large the one in force.
    fn grow(&self, shard: &Shard) -> bool {
        let level = usize::from(shard.level.load(Ordering::Relaxed)) + 1;
        let (Some(next), Ok(number)) = (shard.levels.get(level), u8::try_from(level)) else { return false };
        let old = shard.places(self.layout);
        let larger = words(level, self.layout);
        let new = Places { words: &larger, layout: self.layout, mask: (SMALLEST << level) - 1 };
        for place in 0..=old.mask {
            let meta = old.meta(place);
            if meta > GAP {
                let key = old.key(place, meta);
                new.fill(new.free(self.home(&key).1), &key, old.value(place, meta));
            }
        }
        if next.set(larger).is_err() {
            return false;
        }
        shard.edit(|| shard.level.store(number, Ordering::Release));
        true
    }

    /// Changes what is kept beside a key that is there. The writer only.
    pub(super) fn update(&self, key: &Key, value: Value) {
        let (shard, home) = self.home(key);
        let places = shard.places(self.layout);
        if let Some((place, _)) = places.find(key, home) {
            shard.edit(|| {
                places.set_value(place, value);
                let meta = key.meta | if value.nomatch { NOMATCH } else { 0 };
                places.word(place, 0).store(meta, Ordering::Release);
            });
        }
    }

    /// Removes a key; what was kept beside it. The writer only.
    pub(super) fn remove(&self, key: &Key) -> Option<Value> {
        let (shard, home) = self.home(key);
        let places = shard.places(self.layout);
        let (place, meta) = places.find(key, home)?;
        let value = places.value(place, meta);
        shard.edit(|| self.close(places, place));
        shard.used.fetch_sub(1, Ordering::Relaxed);
        Some(value)
    }

    /// Empties a place and moves back what a probe would not find behind it.
    fn close(&self, places: Places<'_>, place: usize) {
        let Places { mask, .. } = places;
        let mut gap = place;
        places.word(gap, 0).store(GAP, Ordering::Release);
        let mut at = (gap + 1) & mask;
        while places.meta(at) != EMPTY && at != place {
            let meta = places.meta(at);
            let key = places.key(at, meta);
            let home = self.home(&key).1;
            // Whether its probe comes by the gap.
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(gap) & mask {
                places.fill(gap, &key, places.value(at, meta));
                places.word(at, 0).store(GAP, Ordering::Release);
                gap = at;
            }
            at = (at + 1) & mask;
        }
        places.word(gap, 0).store(EMPTY, Ordering::Release);
    }

    /// Goes over the entries of one part. The writer only: readers would meet entries on the move.
    pub(super) fn each_of(&self, shard: usize, mut each: impl FnMut(Key, Value)) {
        let Some(shard) = self.shards.get(shard) else { return };
        let places = shard.places(self.layout);
        for place in 0..=places.mask {
            let meta = places.meta(place);
            if meta > GAP {
                each(places.key(place, meta), places.value(place, meta));
            }
        }
    }

    /// Some of the keys there are. The writer only.
    pub(super) fn some(&self, max: usize) -> Vec<Key> {
        let places = self.shards.iter().map(|shard| shard.places(self.layout));
        let keys = places.flat_map(|places| {
            (0..=places.mask).filter_map(move |place| {
                let meta = places.meta(place);
                (meta > GAP).then(|| places.key(place, meta))
            })
        });
        keys.take(max).collect()
    }

    /// Removes everything. The writer only.
    pub(super) fn clear(&self) {
        for shard in &self.shards {
            let places = shard.places(self.layout);
            shard.edit(|| {
                for place in 0..=places.mask {
                    places.word(place, 0).store(EMPTY, Ordering::Release);
                }
            });
            shard.used.store(0, Ordering::Relaxed);
        }
    }
}
