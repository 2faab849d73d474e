//! Conditions that keep state, and the one that asks the clock on the wall: `limit`, `hashlimit`, `recent`, `quota`,
//! `statistic`, `time`. Asked on worker threads, in the order in which iptables asks them; made on control.
//!
//! State is shared by all workers and made of atomics: nobody waits for anybody, and what is counted is exact in total.
//! `slots` says what two workers that meet a new address in the same instant may cost. Memory is taken when rules are
//! compiled, never by a packet. State of `limit`, `quota` and `statistic` belongs to one rule and begins with it; a load that
//! has the same rule again keeps it, where iptables-restore would start it anew and `iptables -A` would not. Tables of `hashlimit` and `recent` belong to their name, see [`Tables`].

mod bucket;
mod hashlimit;
mod recent;
mod scratch;
mod slots;
mod tables;
#[cfg(test)]
mod tests;
mod time;

pub use bucket::{Limit, Nth, Quota, Random, Statistic};
pub use hashlimit::{HashConfig, HashKeys, HashRate, HashRow, HashTable, Hashlimit, is_countable};
pub use recent::{Recent, RecentRow, RecentTable, RecentTask, STAMPS_MAX, stamps_for};
pub use scratch::Scratch;
pub use tables::Tables;
pub use time::TimeMatch;

use super::Facts;
use super::conn::Marks;
use crate::clock::{Now, WallClock};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// Nanoseconds of a tick of the kernel's clock (`HZ` 250, Debian's): `hashlimit` and `recent` reckon in these.
pub(crate) const JIFFY_NANOS: u64 = 4_000_000;

/// Ticks of the kernel's clock per second.
pub const HZ: u64 = 1_000_000_000 / JIFFY_NANOS;

/// How conditions of this kind are answered.
#[derive(Clone, Copy, Debug)]
pub enum Rates<'a> {
    /// By their state, which the question changes, and by this clock.
    Live(&'a WallClock),
    /// Made up from condition, packet and this number: for headers that are no packets. No state is looked at.
    Probe(u64),
    /// By copies of their state, and by this clock: for a packet that is only thought of.
    Scratch(&'a WallClock, &'a Scratch),
}

/// One such condition. Two are equal if they ask the same, whatever has been counted. A clone shares the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RateMatch {
    /// `-m limit`.
    Limit(Arc<Limit>),
    /// `-m quota`.
    Quota(Arc<Quota>),
    /// `-m statistic`.
    Statistic(Arc<Statistic>),
    /// `-m hashlimit`.
    Hashlimit(Box<Hashlimit>),
    /// `-m recent`.
    Recent(Box<Recent>),
    /// `-m time`.
    Time(TimeMatch),
}

impl RateMatch {
    /// Whether asking changes what is answered next: then it must be asked when iptables would, and only then.
    #[must_use]
    pub const fn counts(&self) -> bool {
        !matches!(self, Self::Time(_))
    }

    /// The same condition with a state of its own that nothing has been counted in; its table is to be bound again.
    #[must_use]
    pub fn fresh(&self) -> Self {
        match self {
            Self::Limit(limit) => Self::Limit(Arc::new(limit.fresh())),
            Self::Quota(quota) => Self::Quota(Arc::new(quota.fresh())),
            Self::Statistic(statistic) => Self::Statistic(Arc::new(statistic.fresh())),
            Self::Hashlimit(hashlimit) => {
                Self::Hashlimit(Box::new(Hashlimit { table: None, ..(**hashlimit).clone() }))
            }
            Self::Recent(recent) => Self::Recent(Box::new(Recent { table: None, ..(**recent).clone() })),
            Self::Time(time) => Self::Time(*time),
        }
    }

    /// Whether it holds. Sources: `net/netfilter/xt_*.c` and `nft_limit.c`, as observed from outside.
    pub(super) fn holds(&self, facts: &Facts<'_>, marks: &mut Marks) -> bool {
        let wall = match facts.rates {
            Rates::Live(wall) => wall,
            Rates::Probe(salt) => return self.made_up(facts, salt),
            Rates::Scratch(wall, scratch) => return scratch.holds(self, facts, wall, marks),
        };
        let len = u64::from(facts.packet.l3_len);
        match self {
            Self::Limit(limit) => limit.ask(facts.now),
            Self::Quota(quota) => quota.ask(len),
            Self::Statistic(statistic) => statistic.ask(),
            Self::Hashlimit(hashlimit) => hashlimit.ask(facts, len).unwrap_or_else(|| {
                marks.hotdrop = true;
                false
            }),
            Self::Recent(recent) => recent.ask(facts),
            Self::Time(time) => time.holds(wall.secs(facts.now), wall.minutes_west()),
        }
    }

    fn made_up(&self, facts: &Facts<'_>, salt: u64) -> bool {
        let mut hasher = DefaultHasher::new();
        salt.hash(&mut hasher);
        std::mem::discriminant(self).hash(&mut hasher);
        match self {
            Self::Limit(limit) => limit.hash_config(&mut hasher),
            Self::Quota(quota) => quota.hash_config(&mut hasher),
            Self::Statistic(statistic) => statistic.hash_config(&mut hasher),
            Self::Hashlimit(hashlimit) => {
                (&hashlimit.name, hashlimit.config, hashlimit.above).hash(&mut hasher);
            }
            Self::Recent(recent) => (&recent.name, recent.task, recent.invert).hash(&mut hasher),
            Self::Time(time) => time.hash(&mut hasher),
        }
        let tuple = &facts.packet.tuple;
        (tuple.src, tuple.dst, tuple.src_port, tuple.dst_port).hash(&mut hasher);
        hasher.finish() & 1 != 0
    }
}

/// A moment in ticks of the kernel's clock.
const fn jiffies(now: Now) -> u64 {
    now.nanos / JIFFY_NANOS
}

/// Milliseconds as the kernel turns them into ticks: rounded up.
const fn jiffies_of_millis(millis: u32) -> u64 {
    (millis as u64 * HZ).div_ceil(1000)
}
