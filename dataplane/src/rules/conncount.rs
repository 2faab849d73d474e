//! How many connections one `-m connlimit` rule knows of, per address and zone. The one structure that workers share: a
//! count over all cores has no single owner. Locked only while such a rule is asked, and then for one address in so many;
//! lists are short, because a rule that counts exists to keep them so. A new address takes memory.
//!
//! As in the kernel (`nf_conncount.c`): whoever is asked about takes a place in the list, at the end of it, whether or
//! not it will be accepted; but not an ASSURED connection that has none yet. A newcomer's place becomes its connection's
//! if it is accepted, and is given up if it is not. Places are given up when the list is next asked: by an ASSURED
//! connection all of them, by any other those before its own, and about [`CLEANED_MAX`] at a time; the rest still counts.
//! Who asks counts itself if nobody else does: there the kernel drops its packet.

use super::conn::{Flows, Known};
use crate::flow::{Direction, FlowId};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most places given up per question.
const CLEANED_MAX: usize = 65;

/// Parts of the addresses with a lock of their own.
const SHARDS: usize = 16;

/// Lists looked at for having ended, and most places given up there, when an address is new: so there are never many
/// more lists than addresses with connections.
const TIDIED_LISTS: usize = 8;
const TIDIED_PLACES: usize = 64;

/// What connections are counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct CountKey {
    /// The address under the rule's mask.
    pub(super) address: u128,
    /// The zone's number.
    pub(super) zone: u16,
}

/// A connection that is counted, by the direction of the tuple it was counted by: a packet that is not tracked may be
/// counted by an answer's.
pub(super) type Place = (FlowId, Direction);

/// The connections one rule has counted. Compares equal to any other: what a rule means does not depend on it.
#[derive(Default)]
pub struct ConnCount {
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Debug, Default)]
struct Shard {
    /// Where in `lists` a key's is.
    index: HashMap<CountKey, usize>,
    lists: Vec<List>,
    /// The list tidied last.
    hand: usize,
}

#[derive(Debug)]
struct List {
    key: CountKey,
    /// Longest known first.
    places: Vec<Place>,
}

impl fmt::Debug for ConnCount {
    /// Without the connections: rules are printed for what they mean.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnCount(..)")
    }
}

impl PartialEq for ConnCount {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for ConnCount {}

impl CountKey {
    #[expect(clippy::cast_possible_truncation, reason = "mixes the halves")]
    const fn shard(self) -> usize {
        let mixed = (self.address as u64 ^ (self.address >> 64) as u64).wrapping_add(self.zone as u64);
        (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % SHARDS
    }
}

impl ConnCount {
    fn shard(&self, key: CountKey) -> MutexGuard<'_, Shard> {
        self.shards[key.shard()].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known under a key, alone.
    pub(super) fn copy_of(&self, key: CountKey) -> Self {
        let copy = Self::default();
        let places = {
            let shard = self.shard(key);
            shard.index.get(&key).map(|at| shard.lists[*at].places.clone())
        };
        if let Some(places) = places {
            let mut shard = copy.shard(key);
            shard.index.insert(key, 0);
            shard.lists.push(List { key, places });
        }
        copy
    }

    /// Connections there are under a key, with that of a packet that may start one.
    pub(super) fn count_newcomer(&self, key: CountKey, flows: &dyn Flows) -> u32 {
        self.count(key, (flows.newcomer(), Direction::Orig), flows, |places, asking| {
            clean_until(places, None, flows);
            places.push(asking);
        })
    }

    /// Connections there are under a key, with that of a packet of a known one.
    pub(super) fn count_known(&self, key: CountKey, known: Known, flows: &dyn Flows) -> u32 {
        let Known { flow, direction, is_assured } = known;
        self.count(key, (flow, direction), flows, |places, asking| {
            if is_assured {
                clean(places, flows);
            } else if !clean_until(places, Some(asking), flows) {
                places.push(asking);
            }
        })
    }

    fn count(
        &self,
        key: CountKey,
        asking: Place,
        flows: &dyn Flows,
        ask: impl FnOnce(&mut Vec<Place>, Place),
    ) -> u32 {
        let mut shard = self.shard(key);
        let Some(&at) = shard.index.get(&key) else {
            shard.tidy(flows);
            shard.add(key, asking);
            return 1;
        };
        let places = &mut shard.lists[at].places;
        ask(places, asking);
        if places.is_empty() {
            places.push(asking);
        }
        u32::try_from(places.len()).unwrap_or(u32::MAX)
    }

    /// Connections that changed their worker go by other names, which `now` knows.
    pub(crate) fn rename(&self, now: impl Fn(FlowId) -> Option<FlowId>) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for (flow, _) in shard.lists.iter_mut().flat_map(|list| &mut list.places) {
                *flow = now(*flow).unwrap_or(*flow);
            }
        }
    }

    /// A newcomer's connection has entered the table, and takes its place. If another worker has given that up
    /// meanwhile, it takes a new one.
    pub(super) fn take_place(&self, key: CountKey, newcomer: FlowId, id: FlowId) {
        let mut shard = self.shard(key);
        let place = (id, Direction::Orig);
        let Some(&at) = shard.index.get(&key) else { return shard.add(key, place) };
        let places = &mut shard.lists[at].places;
        // Earlier ones of the same worker were refused.
        match places.iter_mut().rev().find(|(known, _)| *known == newcomer) {
            Some(kept) => *kept = place,
            None => places.push(place),
        }
    }
}

/// Gives up places whose connections have ended, up to that of who asks. Whether it has one.
fn clean_until(places: &mut Vec<Place>, asking: Option<Place>, flows: &dyn Flows) -> bool {
    let mut is_known = false;
    let mut cleaned = 0;
    places.retain(|place| {
        is_known |= asking == Some(*place);
        if is_known || cleaned == CLEANED_MAX || flows.is_open(place.0) {
            return true;
        }
        cleaned += 1;
        false
    });
    is_known
}

/// Gives up places whose connections have ended. After many of them it stops at one whose has not.
fn clean(places: &mut Vec<Place>, flows: &dyn Flows) {
    let mut is_enough = false;
    let mut cleaned = 0;
    places.retain(|place| {
        if is_enough {
            return true;
        }
        let is_open = flows.is_open(place.0);
        is_enough = is_open && cleaned >= CLEANED_MAX;
        cleaned += usize::from(!is_open);
        is_open
    });
}

impl Shard {
    fn add(&mut self, key: CountKey, place: Place) {
        self.index.insert(key, self.lists.len());
        self.lists.push(List { key, places: vec![place] });
    }

    /// Drops some of the lists whose connections have all ended.
    fn tidy(&mut self, flows: &dyn Flows) {
        let mut budget = TIDIED_PLACES;
        for _ in 0..TIDIED_LISTS.min(self.lists.len()) {
            self.hand = if self.hand == 0 { self.lists.len() - 1 } else { self.hand - 1 };
            let places = &mut self.lists[self.hand].places;
            while budget > 0 && places.pop_if(|place| !flows.is_open(place.0)).is_some() {
                budget -= 1;
            }
            if places.is_empty() {
                self.remove(self.hand);
            }
        }
    }

    fn remove(&mut self, at: usize) {
        let List { key, places: _ } = self.lists.swap_remove(at);
        self.index.remove(&key);
        if let Some(moved) = self.lists.get(at) {
            self.index.insert(moved.key, at);
        }
        self.hand = self.hand.min(self.lists.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Tick;
    use crate::flow::Slot;
    use crate::ids::WorkerId;
    use crate::packet::Packet;
    use crate::rules::conn::Zone;
    use std::cell::RefCell;
    use std::collections::HashSet;

    /// Numbers of the flows there are.
    #[derive(Debug, Default)]
    struct Open(RefCell<HashSet<u32>>);

    const NEWCOMER: FlowId = FlowId::newcomer(WorkerId(0), Tick(5));

    impl Flows for Open {
        fn is_open(&self, flow: FlowId) -> bool {
            self.0.borrow().contains(&flow.seq)
        }

        fn of(&self, _packet: &Packet, _zone: Zone) -> Option<Known> {
            None
        }

        fn newcomer(&self) -> FlowId {
            NEWCOMER
        }
    }

    impl Open {
        fn opens(&self, seq: u32) {
            self.0.borrow_mut().insert(seq);
        }

        fn closes(&self, seq: u32) {
            self.0.borrow_mut().remove(&seq);
        }
    }

    fn flow(seq: u32) -> FlowId {
        FlowId { worker: WorkerId(0), slot: Slot::default(), seq }
    }

    fn of(address: u128) -> CountKey {
        CountKey { address, zone: 0 }
    }

    fn known(seq: u32) -> Known {
        Known { flow: flow(seq), direction: Direction::Orig, is_assured: false }
    }

    fn assured(seq: u32) -> Known {
        Known { is_assured: true, ..known(seq) }
    }

    fn lists(count: &ConnCount) -> usize {
        count.shards.iter().map(|shard| shard.lock().unwrap().lists.len()).sum()
    }

    /// A list of so many open connections, the first of which is 1.
    fn counted(connections: u32) -> (ConnCount, Open) {
        let (count, open) = (ConnCount::default(), Open::default());
        for seq in 1..=connections {
            assert_eq!(count.count_newcomer(of(7), &open), seq);
            open.opens(seq);
            count.take_place(of(7), NEWCOMER, flow(seq));
        }
        (count, open)
    }

    #[test]
    fn ended_connections_leave_and_refused_ones_never_join() {
        let (count, open) = counted(3);
        // Asked again and again without being accepted: always the fourth.
        assert_eq!(count.count_newcomer(of(7), &open), 4);
        assert_eq!(count.count_newcomer(of(7), &open), 4);
        open.closes(1);
        assert_eq!(count.count_newcomer(of(7), &open), 3);
        assert_eq!(count.count_newcomer(of(8), &open), 1);
        assert_eq!(count.count_newcomer(CountKey { zone: 5, ..of(7) }, &open), 1);
    }

    #[test]
    fn who_is_known_counts_once_and_gives_up_only_places_before_it() {
        let (count, open) = counted(5);
        assert_eq!(count.count_known(of(7), known(3), &open), 5);
        let other_way = Known { direction: Direction::Reply, ..known(3) };
        assert_eq!(count.count_known(of(7), other_way, &open), 6, "another tuple");
        open.closes(1);
        open.closes(5);
        assert_eq!(count.count_known(of(7), known(3), &open), 5);
        assert_eq!(count.count_newcomer(of(7), &open), 5);
    }

    #[test]
    fn an_assured_connection_takes_no_place_but_where_there_is_none() {
        let (count, open) = counted(5);
        open.opens(9);
        assert_eq!(count.count_known(of(7), assured(9), &open), 5);
        open.closes(2);
        open.closes(5);
        assert_eq!(count.count_known(of(7), assured(1), &open), 3);
        (1..=5).for_each(|seq| open.closes(seq));
        assert_eq!(count.count_known(of(7), assured(9), &open), 1);
        assert_eq!(count.count_newcomer(of(7), &open), 2);
    }

    #[test]
    fn no_more_than_so_many_places_are_given_up_at_a_time() {
        // Numbers as seen on Linux 6.18.
        let (count, open) = counted(100);
        (1..=100).for_each(|seq| open.closes(seq));
        assert_eq!(count.count_newcomer(of(7), &open), 36);
        assert_eq!(count.count_newcomer(of(7), &open), 1);
        for (live, left) in [(65, 1), (66, 35), (71, 30), (100, 1)] {
            let (count, open) = counted(100);
            (1..=100).filter(|seq| *seq != live).for_each(|seq| open.closes(seq));
            assert_eq!(count.count_known(of(7), assured(200), &open), left, "{live} lives");
            assert_eq!(count.count_known(of(7), assured(200), &open), 1);
        }
    }

    #[test]
    fn addresses_without_connections_are_forgotten_and_others_kept() {
        let (count, open) = (ConnCount::default(), Open::default());
        open.opens(1);
        for address in 0..20_000 {
            if address % 100 == 0 {
                count.count_known(of(address), known(1), &open);
            } else {
                count.count_newcomer(of(address), &open);
            }
        }
        assert!(lists(&count) <= 200 + 3 * SHARDS, "{} lists", lists(&count));
        for address in (0..20_000).step_by(100) {
            assert_eq!(count.count_newcomer(of(address), &open), 2);
        }
    }
}
