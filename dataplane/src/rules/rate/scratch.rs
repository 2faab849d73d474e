//! What conditions that keep state would answer to a packet that is only thought of. Its questions go to copies, made from the
//! live states when they are first asked, so a rule that has counted the packet counts for the rules behind it, and nothing
//! of it is there for the packets that do come. Not for workers: it locks and allocates.
//!
//! Invariant: live states are read here and never written.

use super::RateMatch;
use super::bucket::{Limit, Quota, Statistic};
use super::hashlimit::HashTable;
use super::recent::{RecentTable, ttl};
use crate::clock::WallClock;
use crate::rules::Facts;
use crate::rules::conn::Marks;
use crate::rules::conncount::{ConnCount, CountKey};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Copies of what one packet's questions have touched, each known by where the live one is.
#[derive(Debug, Default)]
pub struct Scratch(RefCell<Copies>);

#[derive(Debug, Default)]
struct Copies {
    limits: HashMap<usize, Limit>,
    quotas: HashMap<usize, Quota>,
    statistics: HashMap<usize, Statistic>,
    hash: HashMap<usize, HashTable>,
    recent: HashMap<usize, RecentTable>,
    connections: HashMap<(usize, CountKey), Arc<ConnCount>>,
    /// How often a set's element was met.
    counts: HashMap<usize, u64>,
}

/// Where something is: as good as its name while nobody lets go of it.
fn place<T: ?Sized>(of: &T) -> usize {
    std::ptr::from_ref(of).cast::<u8>().addr()
}

impl Scratch {
    /// Whether a condition would hold.
    pub(super) fn holds(
        &self,
        rate: &RateMatch,
        facts: &Facts<'_>,
        wall: &WallClock,
        marks: &mut Marks,
    ) -> bool {
        let Copies { limits, quotas, statistics, hash, recent, .. } = &mut *self.0.borrow_mut();
        let len = u64::from(facts.packet.l3_len);
        match rate {
            RateMatch::Limit(limit) => {
                limits.entry(place(&**limit)).or_insert_with(|| limit.copy()).ask(facts.now)
            }
            RateMatch::Quota(quota) => quotas.entry(place(&**quota)).or_insert_with(|| quota.copy()).ask(len),
            RateMatch::Statistic(statistic) => {
                statistics.entry(place(&**statistic)).or_insert_with(|| statistic.copy()).ask()
            }
            RateMatch::Hashlimit(rule) => {
                let under = rule.table.as_ref().and_then(|table| {
                    let copy = hash.entry(place(&**table)).or_insert_with(|| table.copy_for(facts));
                    copy.ask(facts, len)
                });
                marks.hotdrop |= under.is_none();
                under.is_some_and(|under| under != rule.above)
            }
            RateMatch::Recent(rule) => {
                let Some(table) = &rule.table else { return rule.invert };
                let copy = recent.entry(place(&**table)).or_insert_with(|| table.copy());
                let tuple = &facts.packet.tuple;
                let address = if rule.by_dst { tuple.dst } else { tuple.src };
                copy.ask(rule.task, rule.invert, address, ttl(facts), facts.now)
            }
            RateMatch::Time(time) => time.holds(wall.secs(facts.now), wall.minutes_west()),
        }
    }

    /// What stands in for the connections a rule has counted under a key.
    pub(in crate::rules) fn connections(&self, count: &Arc<ConnCount>, key: CountKey) -> Arc<ConnCount> {
        let mut copies = self.0.borrow_mut();
        let copy = copies.connections.entry((place(&**count), key));
        Arc::clone(copy.or_insert_with(|| Arc::new(count.copy_of(key))))
    }

    /// The packet has met an element of a set once more: how often that is by now.
    pub(crate) fn meet(&self, counter: &AtomicU64) -> u64 {
        let mut copies = self.0.borrow_mut();
        let times = copies.counts.entry(place(counter)).or_default();
        *times += 1;
        *times
    }
}
