//! A segment: up to 1,024 places for entries, in a piece of [`super::Memory`].
//!
//! It begins with a line for the number of its entries. An entry is a few words in a row: what kind of place it is with
//! the small parts of the key, the addresses, then as the set has them a deadline and the number of its counters.
//!
//! Invariant: from the place where its probe begins to an entry there is no [`EMPTY`] place.

use crate::sets::element::{Key, NOMATCH};
use std::sync::atomic::{AtomicU64, Ordering};

/// Places of the smallest and of the largest segment, as powers of two.
pub(super) const PLACES_LOG2_MIN: u8 = 4;
pub(super) const PLACES_LOG2_MAX: u8 = 10;

/// Words before the first entry: a line of the cache, so that entries do not lie across two.
const HEADER_WORDS: usize = 8;

/// A place where nothing is, and no probe goes on.
const EMPTY: u64 = 0;
/// A place where nothing is, but a probe goes on.
const GAP: u64 = 1;

/// Which words an entry has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sets) struct Layout {
    /// Words of addresses behind the first word.
    pub(in crate::sets) key_words: usize,
    pub(in crate::sets) has_deadline: bool,
    pub(in crate::sets) has_counters: bool,
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

    /// Words of a segment, a multiple of a cache line.
    pub(super) const fn segment_words(self, places_log2: u8) -> usize {
        HEADER_WORDS + (self.stride() << places_log2)
    }
}

/// Places for so many entries, as a power of two.
pub(super) fn places_log2(entries: usize) -> u8 {
    let places = entries.saturating_mul(8).div_ceil(5).next_power_of_two();
    u8::try_from(places.trailing_zeros()).unwrap_or(u8::MAX).max(PLACES_LOG2_MIN)
}

/// What is kept beside a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(in crate::sets) struct Value {
    pub(in crate::sets) nomatch: bool,
    /// Nanoseconds on the daemon's clock; 0: never.
    pub(in crate::sets) deadline: u64,
    /// Number of its counters.
    pub(in crate::sets) counter: u64,
}

/// Where a segment is, how large, and for how many bits of the hash it stands; in one word, so that readers get all of
/// it at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment(pub(super) u64);

impl Segment {
    /// Words into the chunk: multiples of a line, 40 bits of them.
    pub(super) const fn new(chunk: u8, word: usize, places_log2: u8, depth: u8) -> Self {
        let line = (word / HEADER_WORDS) as u64;
        Self(line | (chunk as u64) << 40 | (places_log2 as u64) << 48 | (depth as u64) << 56)
    }

    #[inline]
    pub(super) const fn chunk(self) -> usize {
        (self.0 >> 40 & 0xff) as usize
    }

    #[inline]
    pub(super) const fn word(self) -> usize {
        (self.0 & 0xff_ffff_ffff) as usize * HEADER_WORDS
    }

    #[inline]
    pub(super) const fn places_log2(self) -> u8 {
        (self.0 >> 48 & 0xff) as u8
    }

    #[inline]
    pub(super) const fn depth(self) -> u8 {
        (self.0 >> 56) as u8
    }

    pub(super) const fn with_depth(self, depth: u8) -> Self {
        Self(self.0 << 8 >> 8 | (depth as u64) << 56)
    }
}

/// The places of a segment.
#[derive(Clone, Copy)]
pub(super) struct Places<'a> {
    header: &'a AtomicU64,
    words: &'a [AtomicU64],
    layout: Layout,
    mask: usize,
}

impl<'a> Places<'a> {
    /// `words` are those of the segment and what is behind it.
    #[inline]
    pub(super) fn new(words: &'a [AtomicU64], layout: Layout, places_log2: u8) -> Self {
        let (header, words) = words.split_at(HEADER_WORDS);
        Self { header: &header[0], words, layout, mask: (1 << places_log2) - 1 }
    }

    /// How many entries it has. The writer only.
    fn used(self) -> usize {
        usize::try_from(self.header.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    /// Whether it is to have no more: of 8 places 5 have an entry.
    pub(super) fn is_full(self) -> bool {
        (self.used() + 1) * 8 > (self.mask + 1) * 5
    }

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

    /// Where the probe of a hash begins.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "as many bits as there are places")]
    const fn first(self, hash: u64) -> usize {
        hash as usize & self.mask
    }

    /// The place of a key and its first word.
    #[inline]
    pub(super) fn find(self, key: &Key, hash: u64) -> Option<(usize, u64)> {
        let mut place = self.first(hash);
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
    pub(super) fn value(self, place: usize, meta: u64) -> Value {
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

    /// All entries. The writer only.
    pub(super) fn entries(self) -> impl Iterator<Item = (Key, Value)> + use<'a> {
        (0..=self.mask).filter_map(move |place| {
            let meta = self.meta(place);
            (meta > GAP).then(|| (self.key(place, meta), self.value(place, meta)))
        })
    }

    /// Gives the entry in a place another value.
    pub(super) fn update(self, place: usize, key: &Key, value: Value) {
        if self.layout.has_deadline {
            self.word(place, self.layout.deadline()).store(value.deadline, Ordering::Release);
        }
        if self.layout.has_counters {
            self.word(place, self.layout.counter()).store(value.counter, Ordering::Release);
        }
        let meta = key.meta | if value.nomatch { NOMATCH } else { 0 };
        self.word(place, 0).store(meta, Ordering::Release);
    }

    /// Writes an entry into a place that is free.
    fn fill(self, place: usize, key: &Key, value: Value) {
        for at in 0..self.layout.key_words {
            self.word(place, 1 + at).store(key.words[at], Ordering::Release);
        }
        self.update(place, key, value);
    }

    /// Adds an entry; there is a free place.
    pub(super) fn insert(self, key: &Key, hash: u64, value: Value) {
        let mut place = self.first(hash);
        while self.meta(place) > GAP {
            place = (place + 1) & self.mask;
        }
        self.fill(place, key, value);
        self.header.fetch_add(1, Ordering::Relaxed);
    }

    /// Empties a place and moves back what a probe would not find behind it.
    pub(super) fn remove(self, place: usize, hash_of: impl Fn(&Key) -> u64) {
        let mask = self.mask;
        let mut gap = place;
        self.word(gap, 0).store(GAP, Ordering::Release);
        let mut at = (gap + 1) & mask;
        while self.meta(at) != EMPTY && at != place {
            let meta = self.meta(at);
            let key = self.key(at, meta);
            let home = self.first(hash_of(&key));
            // Whether its probe comes by the gap.
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(gap) & mask {
                self.fill(gap, &key, self.value(at, meta));
                self.word(at, 0).store(GAP, Ordering::Release);
                gap = at;
            }
            at = (at + 1) & mask;
        }
        self.word(gap, 0).store(EMPTY, Ordering::Release);
        self.header.fetch_sub(1, Ordering::Relaxed);
    }

    /// Empties all places. Keys and values may stay: they mean nothing then.
    pub(super) fn clear(self) {
        self.header.store(0, Ordering::Relaxed);
        (0..=self.mask).for_each(|place| self.word(place, 0).store(EMPTY, Ordering::Release));
    }
}
