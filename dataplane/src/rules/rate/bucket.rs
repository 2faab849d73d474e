//! State of one rule in one word: `limit`, `quota`, `statistic`. Worker threads; exact in total over all of them.

use crate::clock::Now;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

/// A bucket of tokens as the moment at which it will be full again, in nanoseconds: the generic cell rate algorithm
/// (ITU-T I.371), which is a token bucket that keeps one number. Whoever comes with an older clock finds fewer tokens, never
/// more.
#[derive(Debug, Default)]
pub(super) struct Bucket(AtomicU64);

impl Bucket {
    /// The same once more.
    pub(super) fn set(&self, from: &Self) {
        self.0.store(from.0.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    pub(super) fn fill(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Takes `cost` if so much is left of `full`, all in units of time.
    pub(super) fn take(&self, now: u64, cost: u64, full: u64) -> bool {
        let took = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
            let next = full_at.max(now).saturating_add(cost);
            (next - now <= full).then_some(next)
        });
        took.is_ok()
    }

    /// What is left of `full`.
    pub(super) fn left(&self, now: u64, full: u64) -> u64 {
        full.saturating_sub(self.0.load(Ordering::Relaxed).saturating_sub(now))
    }

    /// Makes it full and takes `cost`.
    pub(super) fn refill_and_take(&self, now: u64, cost: u64) {
        self.0.store(now.saturating_add(cost), Ordering::Relaxed);
    }
}

/// `-m limit`, as `nft_limit.c` counts: iptables 1.8 on nf_tables makes that of it.
#[derive(Debug)]
pub struct Limit {
    /// Nanoseconds a packet costs.
    cost: u64,
    /// Packets at once.
    burst: u32,
    bucket: Bucket,
}

impl Limit {
    /// So many packets per so many seconds, and so many at once.
    #[must_use]
    pub fn new(packets: u64, seconds: u64, burst: u32) -> Self {
        let cost = (seconds * 1_000_000_000).checked_div(packets).unwrap_or(u64::MAX);
        Self { cost, burst, bucket: Bucket::default() }
    }

    pub(super) fn fresh(&self) -> Self {
        Self { bucket: Bucket::default(), ..*self }
    }

    /// The same with what is left of it now.
    pub(super) fn copy(&self) -> Self {
        Self { bucket: Bucket(AtomicU64::new(self.bucket.0.load(Ordering::Relaxed))), ..*self }
    }

    pub(super) fn ask(&self, now: Now) -> bool {
        self.bucket.take(now.nanos, self.cost, self.cost.saturating_mul(u64::from(self.burst)))
    }

    pub(super) fn hash_config(&self, hasher: &mut impl Hasher) {
        (self.cost, self.burst).hash(hasher);
    }
}

impl PartialEq for Limit {
    fn eq(&self, other: &Self) -> bool {
        (self.cost, self.burst) == (other.cost, other.burst)
    }
}

impl Eq for Limit {}

/// `-m quota`: IP bytes that may still pass. The first packet that is too long ends it.
#[derive(Debug)]
pub struct Quota {
    total: u64,
    invert: bool,
    left: AtomicU64,
}

impl Quota {
    /// So many bytes; with `!` it holds once they are used up.
    #[must_use]
    pub const fn new(total: u64, invert: bool) -> Self {
        Self { total, invert, left: AtomicU64::new(total) }
    }

    pub(super) const fn fresh(&self) -> Self {
        Self::new(self.total, self.invert)
    }

    /// The same with what is left of it now.
    pub(super) fn copy(&self) -> Self {
        Self { left: AtomicU64::new(self.left.load(Ordering::Relaxed)), ..*self }
    }

    pub(super) fn ask(&self, len: u64) -> bool {
        let before = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(len)));
        before.is_ok_and(|left| left >= len) != self.invert
    }

    pub(super) fn hash_config(&self, hasher: &mut impl Hasher) {
        (self.total, self.invert).hash(hasher);
    }
}

impl PartialEq for Quota {
    fn eq(&self, other: &Self) -> bool {
        (self.total, self.invert) == (other.total, other.invert)
    }
}

impl Eq for Quota {}

/// `-m statistic --mode nth`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Nth {
    /// One packet of so many; at least 1.
    pub every: u32,
    /// Which one, from 0.
    pub packet: u32,
}

/// `-m statistic --mode random`: the chance in 2^31sts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Random(
    /// From 0 to 2^31.
    pub u32,
);

/// `-m statistic`.
#[derive(Debug)]
pub struct Statistic {
    mode: Result<Nth, Random>,
    invert: bool,
    /// The packet of `every` that was last; or what the next random number is made of.
    state: AtomicU64,
}

impl Statistic {
    /// One packet of so many.
    #[must_use]
    pub fn nth(nth: Nth, invert: bool) -> Self {
        let last = u64::from(nth.every - 1 - nth.packet);
        Self { mode: Ok(nth), invert, state: AtomicU64::new(last) }
    }

    /// Each packet by chance; `seed` is where chance begins.
    #[must_use]
    pub const fn random(random: Random, invert: bool, seed: u64) -> Self {
        Self { mode: Err(random), invert, state: AtomicU64::new(seed) }
    }

    pub(super) fn fresh(&self) -> Self {
        match self.mode {
            Ok(nth) => Self::nth(nth, self.invert),
            Err(random) => Self::random(random, self.invert, self.state.load(Ordering::Relaxed)),
        }
    }

    /// The same where it has come to.
    pub(super) fn copy(&self) -> Self {
        Self { state: AtomicU64::new(self.state.load(Ordering::Relaxed)), ..*self }
    }

    pub(super) fn ask(&self) -> bool {
        let hit = match self.mode {
            Ok(Nth { every, .. }) => {
                let next = |last: u64| if last == u64::from(every - 1) { 0 } else { last + 1 };
                let last = self
                    .state
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)))
                    .unwrap_or_default();
                next(last) == 0
            }
            // SplitMix64: every worker gets a number of its own.
            Err(Random(chance)) => {
                let step = self.state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
                let mixed = (step ^ step >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
                (mixed ^ mixed >> 31) >> 33 < u64::from(chance)
            }
        };
        hit != self.invert
    }

    pub(super) fn hash_config(&self, hasher: &mut impl Hasher) {
        (self.mode, self.invert).hash(hasher);
    }
}

impl PartialEq for Statistic {
    fn eq(&self, other: &Self) -> bool {
        (self.mode, self.invert) == (other.mode, other.invert)
    }
}

impl Eq for Statistic {}
