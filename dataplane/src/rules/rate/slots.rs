//! A table of fixed size that all workers read and change without waiting for each other: open addressing over atomics.
//!
//! A slot's word holds a piece of its key's hash, a count of owners it has had, and whether it is free, being written or
//! live. A slot is taken by exchanging that word, then written, then declared live; who reads it looks at the word before
//! and after, as with a sequence lock. A key stands within [`REACH`] slots of where its hash points, at the first that was
//! free, so two workers that add one key in the same instant want the same slot, and the second one finds the first one's.
//!
//! Bound: if slots become free right then they may take two. From then on both use the earlier one, so at most one question
//! per worker is counted elsewhere. The same holds for a slot that is given away at the moment it is asked.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};

/// Slots a key may stand in.
pub(super) const REACH: usize = 64;

/// Slots looked at for a key that has had its time, when there is no room for another.
const SWEPT: usize = 16 * REACH;

/// How often is looked whether a slot has been written before another one is taken.
const PATIENCE: u32 = 200;

/// Tries to take a slot before it is given up.
const TRIES: u32 = 8;

/// What stands in a table: addresses and whatever else is told apart.
pub(super) type Key = [u64; 5];

const FREE: u64 = 0;
const TAKEN: u64 = 1;
const LIVE: u64 = 2;
const STATE: u64 = 3;
const OWNER_ONE: u64 = 4;
const OWNERS: u64 = (u32::MAX as u64) & !STATE;

#[derive(Debug, Default)]
struct Entry<T> {
    key: [AtomicU64; 5],
    value: T,
}

/// The table.
#[derive(Debug)]
pub(super) struct Slots<T> {
    words: Box<[AtomicU64]>,
    entries: Box<[Entry<T>]>,
    reach: usize,
    seed: u64,
    /// Most keys at a time.
    max: usize,
    count: AtomicUsize,
    /// Where was last looked for keys that have had their time.
    hand: AtomicUsize,
}

/// Whose slot a key has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Got {
    /// It was there.
    Known(usize),
    /// It has just been given it; its value is the initial one.
    New(usize),
}

impl<T: Default> Slots<T> {
    /// Room for `max` keys in so many slots.
    pub(super) fn new(max: usize, slots: usize) -> Self {
        let slots = slots.max(max).max(1);
        Self {
            words: (0..slots).map(|_| AtomicU64::new(0)).collect(),
            entries: (0..slots).map(|_| Entry::default()).collect(),
            reach: if slots <= 2 * REACH { slots } else { REACH },
            seed: RandomState::new().hash_one(0),
            max,
            count: AtomicUsize::new(0),
            hand: AtomicUsize::new(0),
        }
    }

    /// The same table once more; `copy` copies a value.
    pub(super) fn copy(&self, copy: impl Fn(&mut T, &T)) -> Self {
        let entry = |from: &Entry<T>| {
            let mut to = Entry::default();
            for (part, from) in to.key.iter_mut().zip(&from.key) {
                *part.get_mut() = from.load(Ordering::Relaxed);
            }
            copy(&mut to.value, &from.value);
            to
        };
        Self {
            words: self.words.iter().map(|word| AtomicU64::new(word.load(Ordering::Acquire))).collect(),
            entries: self.entries.iter().map(entry).collect(),
            count: AtomicUsize::new(self.count.load(Ordering::Relaxed)),
            hand: AtomicUsize::new(self.hand.load(Ordering::Relaxed)),
            ..*self
        }
    }

    /// Whether [`Self::find_or_add`] would find the key or give it a slot, without a victim.
    pub(super) fn has_place(&self, key: &Key, is_over: impl Fn(&T) -> bool) -> bool {
        let Err(free) = self.look(key, self.hash(key), &is_over) else { return true };
        let from = self.hand.load(Ordering::Relaxed);
        let mut swept =
            (0..SWEPT.min(self.words.len())).map(|step| from.wrapping_add(step) % self.words.len());
        let is_live = |slot: usize| self.words[slot].load(Ordering::Acquire) & STATE == LIVE;
        let has_room = self.count.load(Ordering::Relaxed) < self.max
            || swept.any(|slot| is_live(slot) && is_over(self.value(slot)));
        free.is_some_and(|(_, before)| has_room || before & STATE == LIVE)
    }

    pub(super) fn value(&self, slot: usize) -> &T {
        &self.entries[slot].value
    }

    /// Slots that are live, with their keys.
    pub(super) fn live(&self) -> impl Iterator<Item = (usize, Key)> + '_ {
        (0..self.words.len()).filter_map(|slot| {
            let word = self.words[slot].load(Ordering::Acquire);
            let key = self.entries[slot].key.each_ref().map(|part| part.load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            (word & STATE == LIVE && self.words[slot].load(Ordering::Relaxed) == word).then_some((slot, key))
        })
    }

    /// The slot of a key that is live and not over.
    pub(super) fn find(&self, key: &Key, is_over: impl Fn(&T) -> bool) -> Option<usize> {
        let hash = self.hash(key);
        for slot in self.way(hash) {
            let word = self.words[slot].load(Ordering::Acquire);
            if word == FREE {
                return None;
            }
            if word & STATE == LIVE && self.is_of(slot, word, hash, key) && !is_over(self.value(slot)) {
                return Some(slot);
            }
        }
        None
    }

    /// The slot of a key, which it is given if it has none; `None` if there is no room. Values that are over may be given
    /// away; if nothing is free, `victim` may name another.
    pub(super) fn find_or_add(
        &self,
        key: &Key,
        is_over: impl Fn(&T) -> bool,
        init: impl Fn(usize, &T),
        victim: impl Fn() -> Option<usize>,
    ) -> Option<Got> {
        let hash = self.hash(key);
        for _ in 0..TRIES {
            let free = match self.look(key, hash, &is_over) {
                Ok(slot) => return Some(Got::Known(slot)),
                Err(free) => free,
            };
            let room = self.has_room(&is_over);
            let (slot, before) = match free.filter(|(_, before)| room || before & STATE == LIVE) {
                Some(free) => free,
                None => {
                    let slot = victim()?;
                    (slot, self.words[slot].load(Ordering::Acquire))
                }
            };
            if before & STATE != TAKEN && self.take(slot, before, hash) {
                let entry = &self.entries[slot];
                for (part, new) in entry.key.iter().zip(key) {
                    part.store(*new, Ordering::Relaxed);
                }
                init(slot, &entry.value);
                let taken = self.words[slot].load(Ordering::Relaxed);
                self.words[slot].store(taken & !STATE | LIVE, Ordering::Release);
                return Some(Got::New(slot));
            }
        }
        None
    }

    /// Frees a slot that still is this key's.
    pub(super) fn remove(&self, slot: usize, key: &Key) {
        let word = self.words[slot].load(Ordering::Acquire);
        if word & STATE == LIVE && self.is_of(slot, word, self.hash(key), key) {
            self.release(slot, word);
        }
    }

    /// Looks at some slots, and frees those whose value is over.
    pub(super) fn sweep(&self, slots: usize, is_over: impl Fn(&T) -> bool) {
        let from = self.hand.fetch_add(slots, Ordering::Relaxed);
        for step in 0..slots.min(self.words.len()) {
            let slot = from.wrapping_add(step) % self.words.len();
            let word = self.words[slot].load(Ordering::Acquire);
            if word & STATE == LIVE && is_over(self.value(slot)) {
                self.release(slot, word);
            }
        }
    }

    fn release(&self, slot: usize, word: u64) {
        let free = word & OWNERS | FREE;
        if self.words[slot].compare_exchange(word, free, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether one more may come. Where there is none, what is over makes room.
    fn has_room(&self, is_over: impl Fn(&T) -> bool) -> bool {
        if self.count.load(Ordering::Relaxed) < self.max {
            return true;
        }
        self.sweep(SWEPT, is_over);
        self.count.load(Ordering::Relaxed) < self.max
    }

    /// Makes a slot one's own, if it still is what it was.
    fn take(&self, slot: usize, before: u64, hash: u64) -> bool {
        let owner = (before & OWNERS).wrapping_add(OWNER_ONE) & OWNERS;
        // Never the word of a slot that was never used.
        let owner = if owner == 0 { OWNER_ONE } else { owner };
        let taken = tag(hash) | owner | TAKEN;
        let took =
            self.words[slot].compare_exchange(before, taken, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        fence(Ordering::Release);
        if took && before & STATE == FREE {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        took
    }

    /// The slot of a key, or the first it could have and the word there.
    fn look(
        &self,
        key: &Key,
        hash: u64,
        is_over: impl Fn(&T) -> bool,
    ) -> Result<usize, Option<(usize, u64)>> {
        let mut free = None;
        for slot in self.way(hash) {
            let word = self.settled(slot, hash);
            match word & STATE {
                LIVE if is_over(self.value(slot)) => free = free.or(Some((slot, word))),
                LIVE if self.is_of(slot, word, hash, key) => return Ok(slot),
                FREE => free = free.or(Some((slot, word))),
                _ => {}
            }
            if word == FREE {
                break;
            }
        }
        Err(free)
    }

    /// A slot's word. If another worker is writing what may be the same key, its word a little later.
    fn settled(&self, slot: usize, hash: u64) -> u64 {
        let mut word = self.words[slot].load(Ordering::Acquire);
        for _ in 0..PATIENCE {
            if word & STATE != TAKEN || word >> 32 != tag(hash) >> 32 {
                break;
            }
            std::hint::spin_loop();
            word = self.words[slot].load(Ordering::Acquire);
        }
        word
    }

    fn is_of(&self, slot: usize, word: u64, hash: u64, key: &Key) -> bool {
        if word >> 32 != tag(hash) >> 32 {
            return false;
        }
        let same = self.entries[slot]
            .key
            .iter()
            .zip(key)
            .all(|(part, wanted)| part.load(Ordering::Relaxed) == *wanted);
        fence(Ordering::Acquire);
        same && self.words[slot].load(Ordering::Relaxed) == word
    }

    /// Slots a key may stand in, in order.
    fn way(&self, hash: u64) -> impl Iterator<Item = usize> + use<T> {
        let slots = self.words.len();
        // The high half of a product: an even spread without a division.
        let start = usize::try_from((u128::from(hash) * slots as u128) >> 64).unwrap_or_default();
        (0..self.reach).map(move |step| {
            let slot = start + step;
            if slot >= slots { slot - slots } else { slot }
        })
    }

    /// Folded products under a secret: nobody can choose addresses that meet.
    fn hash(&self, key: &Key) -> u64 {
        key.iter().fold(self.seed, |hash, part| {
            fold(u128::from(hash ^ part) * 0xa076_1d64_78bd_642f).wrapping_add(self.seed.rotate_left(23))
        })
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the halves are what is wanted")]
const fn fold(product: u128) -> u64 {
    product as u64 ^ (product >> 64) as u64
}

/// The piece of a hash that a slot's word holds: other bits than those that choose the slot.
const fn tag(hash: u64) -> u64 {
    hash << 32
}
