//! Sums by key of which only the largest matter, in bounded memory.

use std::collections::HashMap;
use std::hash::Hash;

/// What was summed up for a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    /// Packets, forth and back.
    pub(crate) packets: [u64; 2],
    /// Bytes, forth and back.
    pub(crate) bytes: [u64; 2],
    /// Flows.
    pub(crate) flows: u64,
    /// New ones among them.
    pub(crate) new: u64,
}

impl Sums {
    pub(super) fn add(&mut self, Self { packets, bytes, flows, new }: &Self) {
        for way in 0..2 {
            self.packets[way] += packets[way];
            self.bytes[way] += bytes[way];
        }
        self.flows += flows;
        self.new += new;
    }

    /// The same seen from the other end.
    pub(crate) const fn turned(self) -> Self {
        let ([forth, back], [forth_bytes, back_bytes]) = (self.packets, self.bytes);
        Self { packets: [back, forth], bytes: [back_bytes, forth_bytes], ..self }
    }
}

/// Sums by key. Exact for as long as there are no more than `2 * room` keys. When there are more, every key is charged with
/// the weight of the one that `room` keys are heavier than, and who cannot pay is forgotten (Misra and Gries 1982, in
/// batches); the sum of all charges is the slack. A sum is never too high, too low by no more than the slack, and a key that is
/// heavier than the slack is never missing. As each charge is paid by `room` keys, the slack is at most the weight of
/// everything, divided by `room`.
pub(crate) struct Heavy<K> {
    sums: HashMap<K, Entry>,
    room: usize,
    weigh: fn(&Sums) -> u64,
    slack: u64,
}

struct Entry {
    sums: Sums,
    /// Slack when the key came: it is charged only with what came after.
    since: u64,
}

impl<K: Copy + Eq + Hash + Ord> Heavy<K> {
    /// Keeps `room` keys at least, by what `weigh` says.
    pub(crate) fn new(room: usize, weigh: fn(&Sums) -> u64) -> Self {
        Self { sums: HashMap::new(), room, weigh, slack: 0 }
    }

    /// Adds to a key's sums.
    pub(crate) fn add(&mut self, key: K, sums: &Sums) {
        let since = self.slack;
        self.sums.entry(key).or_insert_with(|| Entry { sums: Sums::default(), since }).sums.add(sums);
        if self.sums.len() > 2 * self.room {
            self.charge();
        }
    }

    fn charge(&mut self) {
        let (weigh, slack) = (self.weigh, self.slack);
        let credit = |entry: &Entry| (weigh(&entry.sums) + entry.since).saturating_sub(slack);
        let mut credits: Vec<u64> = self.sums.values().map(credit).collect();
        let at = credits.len() - self.room - 1;
        let (_, charge, _) = credits.select_nth_unstable(at);
        let charge = *charge;
        self.sums.retain(|_, entry| credit(entry) > charge);
        self.slack += charge;
    }

    /// The heaviest `n` keys that weigh anything, the heaviest first, and the slack.
    pub(crate) fn into_top(self, n: usize) -> (Vec<(K, Sums)>, u64) {
        let weigh = self.weigh;
        let all = self.sums.into_iter().map(|(key, entry)| (key, entry.sums));
        let mut all: Vec<_> = all.filter(|(_, sums)| weigh(sums) > 0).collect();
        let order = |(key, sums): &(K, Sums)| (std::cmp::Reverse(weigh(sums)), *key);
        if all.len() > n {
            all.select_nth_unstable_by_key(n, order);
            all.truncate(n);
        }
        all.sort_unstable_by_key(order);
        (all, self.slack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(bytes: u64) -> Sums {
        Sums { bytes: [bytes, 0], packets: [1, 0], flows: 1, new: 0 }
    }

    fn weigh(sums: &Sums) -> u64 {
        sums.bytes.iter().sum()
    }

    #[test]
    fn few_keys_are_counted_exactly() {
        let mut heavy = Heavy::new(4, weigh);
        for (key, weight) in [(1, 10), (2, 30), (3, 20), (1, 25), (4, 0)] {
            heavy.add(key, &bytes(weight));
        }
        let (top, slack) = heavy.into_top(2);
        assert_eq!((top.iter().map(|(key, _)| *key).collect::<Vec<_>>(), slack), (vec![1, 2], 0));
        assert_eq!(top[0].1, Sums { bytes: [35, 0], packets: [2, 0], flows: 2, new: 0 });
    }

    #[test]
    fn a_flood_of_light_keys_does_not_hide_a_heavy_one_nor_take_memory() {
        let mut heavy = Heavy::new(16, weigh);
        for key in 0..100_000_u32 {
            heavy.add(key, &bytes(60));
            assert!(heavy.sums.len() <= 32);
            if key % 1000 == 0 {
                heavy.add(u32::MAX, &bytes(1_000_000));
            }
        }
        let (top, slack) = heavy.into_top(1);
        let [(key, sums)] = top[..] else { panic!("{top:?}") };
        assert_eq!(key, u32::MAX);
        assert!(weigh(&sums) <= 100_000_000 && weigh(&sums) + slack >= 100_000_000, "{slack}");
        assert!(slack <= (100_000 * 60 + 100_000_000) / 16);
    }

    proptest! {
        #[test]
        fn sums_are_within_their_slack(adds in proptest::collection::vec((0_u8..60, 0_u64..1000), 0..600)) {
            let mut heavy = Heavy::new(8, weigh);
            let mut exact = HashMap::<u8, u64>::new();
            for (key, weight) in &adds {
                heavy.add(*key, &bytes(*weight));
                *exact.entry(*key).or_default() += weight;
            }
            let total: u64 = exact.values().sum();
            let (top, slack) = heavy.into_top(usize::MAX);
            prop_assert!(slack <= total / 8);
            let kept: HashMap<u8, u64> = top.iter().map(|(key, sums)| (*key, weigh(sums))).collect();
            for (key, weight) in exact {
                let found = kept.get(&key).copied().unwrap_or(0);
                prop_assert!(found <= weight && weight <= found + slack, "{key}: {found} of {weight}, slack {slack}");
            }
        }
    }
}
