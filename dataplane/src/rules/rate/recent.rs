//! `-m recent`: addresses that were seen, and when. Linux `xt_recent.c` with its defaults: a list has room for 100
//! addresses, the one seen longest ago makes room for a new one.

use super::slots::{Got, Key, Slots};
use super::{HZ, jiffies};
use crate::clock::Now;
use crate::packet::{Family, Packet};
use crate::rules::Facts;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Addresses of a list (`ip_list_tot`).
const ADDRESSES: usize = 100;

/// Most moments that may be kept of an address, and one more than a rule may ask for (`XT_RECENT_MAX_NSTAMPS`).
pub const STAMPS_MAX: u32 = 65_536;

/// Moments that a list keeps of an address for a rule that asks for so many hits.
#[must_use]
pub const fn stamps_for(hits: u32) -> u32 {
    if hits == 0 { 32 } else { hits.next_power_of_two() }
}

/// What a rule does with its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecentTask {
    /// `--set`.
    Set,
    /// `--rcheck`, or `--update` if so.
    Check {
        /// Whether what was found is seen anew.
        update: bool,
        /// Only moments of so many last seconds count; 0 is all.
        seconds: u32,
        /// So many of them; 0 is any.
        hits: u32,
        /// `--reap`.
        reap: bool,
        /// `--rttl`.
        ttl: bool,
    },
    /// `--remove`.
    Remove,
}

/// `-m recent`.
#[derive(Clone, Debug)]
pub struct Recent {
    /// Name of its list.
    pub name: Box<str>,
    /// What it does.
    pub task: RecentTask,
    /// With `!`.
    pub invert: bool,
    /// `--rdest`.
    pub by_dst: bool,
    /// `--mask`: what the list keeps of addresses if this rule is the first to name it.
    pub mask: u128,
    /// The list; `None` until it is bound, see [`super::Tables`].
    pub table: Option<Arc<RecentTable>>,
}

impl PartialEq for Recent {
    fn eq(&self, other: &Self) -> bool {
        let config = |of: &Self| (of.task, of.invert, of.by_dst, of.mask);
        self.name == other.name && config(self) == config(other)
    }
}

impl Eq for Recent {}

/// One list of one family.
#[derive(Debug)]
pub struct RecentTable {
    mask: u128,
    family: Family,
    /// Moments kept of an address; a power of two.
    stamps_max: u32,
    slots: Slots<Seen>,
    /// Moments in ticks, `stamps_max` of each slot, used in turn.
    stamps: Box<[AtomicU64]>,
    /// Grows with every sight.
    order: AtomicU64,
}

/// What is kept of one address beside its moments.
#[derive(Debug, Default)]
struct Seen {
    /// Moments stored so far.
    times: AtomicU64,
    /// Order of the last one among those of all addresses.
    last: AtomicU64,
    ttl: AtomicU64,
}

/// One entry, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecentRow {
    /// The address under the mask.
    pub address: u128,
    /// TTL or hop limit of the packet seen last.
    pub ttl: u8,
    /// Moments it was seen at, in ticks of the kernel's clock ([`HZ`]) since the start, as they are stored: in turn.
    pub stamps: Vec<u64>,
    /// Which of them is overwritten next.
    pub next: u32,
    /// The last moment.
    pub last: u64,
}

impl Recent {
    /// Moments its list must keep for it.
    #[must_use]
    pub const fn stamps(&self) -> u32 {
        match self.task {
            RecentTask::Check { hits, .. } => stamps_for(hits),
            _ => stamps_for(0),
        }
    }

    pub(super) fn ask(&self, facts: &Facts<'_>) -> bool {
        let Some(table) = &self.table else { return self.invert };
        let tuple = &facts.packet.tuple;
        let address = if self.by_dst { tuple.dst } else { tuple.src };
        table.ask(self.task, self.invert, address, ttl(facts), facts.now)
    }
}

/// A word of one's own.
fn copied(word: &AtomicU64) -> AtomicU64 {
    AtomicU64::new(word.load(Ordering::Acquire))
}

/// TTL or hop limit; 0, which fits any, where only headers are known.
pub(super) fn ttl(facts: &Facts<'_>) -> u8 {
    let Packet { tuple, l3_offset, .. } = facts.packet;
    let at = if tuple.family == Family::V4 { 8 } else { 7 };
    facts.bytes.get(usize::from(*l3_offset) + at).copied().unwrap_or(0)
}

impl RecentTable {
    /// An empty list.
    #[must_use]
    pub fn new(mask: u128, family: Family, stamps_max: u32) -> Self {
        Self {
            mask,
            family,
            stamps_max,
            slots: Slots::new(ADDRESSES, ADDRESSES),
            stamps: (0..ADDRESSES * stamps_max as usize).map(|_| AtomicU64::new(0)).collect(),
            order: AtomicU64::new(0),
        }
    }

    /// Whether it does for rules that want that mask and so many moments.
    pub(super) const fn does_for(&self, mask: u128, stamps: u32) -> bool {
        self.mask == mask && self.stamps_max >= stamps
    }

    /// Its family.
    #[must_use]
    pub const fn family(&self) -> Family {
        self.family
    }

    /// Its entries now.
    pub fn rows(&self) -> impl Iterator<Item = RecentRow> + '_ {
        self.slots.live().map(|(slot, key)| {
            let seen = self.slots.value(slot);
            let times = seen.times.load(Ordering::Relaxed);
            RecentRow {
                address: u128::from(key[0]) << 64 | u128::from(key[1]),
                ttl: u8::try_from(seen.ttl.load(Ordering::Relaxed)).unwrap_or(0),
                stamps: self.stamps_of(slot).collect(),
                next: u32::try_from(times % u64::from(self.stamps_max)).unwrap_or(0),
                last: self.stamp(slot, times.wrapping_sub(1)).load(Ordering::Relaxed),
            }
        })
    }

    /// An address is seen now by somebody who saw no packet. Any thread.
    pub fn add(&self, address: u128, now: Now) {
        self.set(&self.key(address), 0, jiffies(now));
    }

    /// Forgets an address. Any thread.
    pub fn remove(&self, address: u128) {
        let key = self.key(address);
        if let Some(slot) = self.slots.find(&key, |_| false) {
            self.slots.remove(slot, &key);
        }
    }

    /// Forgets the addresses that are there now. Any thread.
    pub fn flush(&self) {
        for (slot, key) in self.slots.live() {
            self.slots.remove(slot, &key);
        }
    }

    fn key(&self, address: u128) -> Key {
        let [high, low] = super::hashlimit::halves(address & self.mask);
        [high, low, 0, 0, 0]
    }

    /// The same list once more, with what it keeps now.
    pub(super) fn copy(&self) -> Self {
        let stamps = |from: &[AtomicU64]| from.iter().map(copied).collect();
        let slots = self.slots.copy(|to, from| {
            let Seen { times, last, ttl } = from;
            *to = Seen { times: copied(times), last: copied(last), ttl: copied(ttl) };
        });
        Self { slots, stamps: stamps(&self.stamps), order: copied(&self.order), ..*self }
    }

    pub(super) fn ask(&self, task: RecentTask, invert: bool, address: u128, ttl: u8, now: Now) -> bool {
        let now = jiffies(now);
        let key = self.key(address);
        match task {
            RecentTask::Set => {
                self.set(&key, ttl, now);
                !invert
            }
            RecentTask::Remove => match self.slots.find(&key, |_| false) {
                Some(slot) => {
                    self.slots.remove(slot, &key);
                    !invert
                }
                None => invert,
            },
            RecentTask::Check { ttl: by_ttl, .. } => {
                let fits = |slot: &usize| {
                    let known = self.slots.value(*slot).ttl.load(Ordering::Relaxed);
                    !by_ttl || ttl == 0 || known == 0 || known == u64::from(ttl)
                };
                match self.slots.find(&key, |_| false).filter(fits) {
                    Some(slot) => self.check(task, invert, slot, ttl, now),
                    None => invert,
                }
            }
        }
    }

    fn set(&self, key: &Key, ttl: u8, now: u64) {
        let begin = |slot: usize, seen: &Seen| {
            seen.times.store(0, Ordering::Relaxed);
            self.see(slot, ttl, now);
        };
        if let Some(Got::Known(slot)) = self.slots.find_or_add(key, |_| false, begin, || self.oldest()) {
            self.see(slot, ttl, now);
        }
    }

    fn check(&self, task: RecentTask, invert: bool, slot: usize, ttl: u8, now: u64) -> bool {
        let RecentTask::Check { update, seconds, hits, reap, ttl: _ } = task else { return invert };
        // The kernel's product has 32 bits.
        let time = now.cast_signed() - i64::from(seconds.wrapping_mul(u32::try_from(HZ).unwrap_or(u32::MAX)));
        let counts = |stamp: &u64| seconds == 0 || stamp.cast_signed() >= time;
        let found = self.stamps_of(slot).filter(counts).take(hits.max(1) as usize).count();
        let holds = (found >= hits.max(1) as usize) != invert;
        let renews = update && holds;
        if reap {
            self.reap(time, slot, renews);
        }
        if renews {
            self.see(slot, ttl, now);
        }
        holds
    }

    /// Gives up the address seen longest ago, if that was before `time`.
    fn reap(&self, time: i64, working: usize, renews: bool) {
        let Some(oldest) = self.oldest().filter(|oldest| !(renews && *oldest == working)) else { return };
        let times = self.slots.value(oldest).times.load(Ordering::Relaxed);
        let last = self.stamp(oldest, times.wrapping_sub(1)).load(Ordering::Relaxed);
        if last.cast_signed() < time
            && let Some((_, key)) = self.slots.live().find(|(slot, _)| *slot == oldest)
        {
            self.slots.remove(oldest, &key);
        }
    }

    /// The address seen longest ago.
    fn oldest(&self) -> Option<usize> {
        let last = |(slot, _): &(usize, Key)| self.slots.value(*slot).last.load(Ordering::Relaxed);
        self.slots.live().min_by_key(last).map(|(slot, _)| slot)
    }

    fn see(&self, slot: usize, ttl: u8, now: u64) {
        let seen = self.slots.value(slot);
        let time = seen.times.fetch_add(1, Ordering::AcqRel);
        self.stamp(slot, time).store(now, Ordering::Release);
        seen.last.store(self.order.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        seen.ttl.store(u64::from(ttl), Ordering::Relaxed);
    }

    fn stamp(&self, slot: usize, time: u64) -> &AtomicU64 {
        let at = usize::try_from(time & u64::from(self.stamps_max - 1)).unwrap_or(0);
        &self.stamps[slot * self.stamps_max as usize + at]
    }

    /// Moments of a slot that have been stored.
    fn stamps_of(&self, slot: usize) -> impl Iterator<Item = u64> + '_ {
        let times = self.slots.value(slot).times.load(Ordering::Acquire);
        (0..times.min(u64::from(self.stamps_max)))
            .map(move |time| self.stamp(slot, time).load(Ordering::Acquire))
    }
}
