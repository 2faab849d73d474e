//! Which buckets should change their worker, so that all have about as much to do. Pure: packets per bucket in, moves
//! out.
//!
//! The busiest worker gives the idlest one the bucket that evens the two out most, again and again, until nothing is gained
//! by it. A bucket is never split: one flow that fills a core stays where it is, alone if that helps.

use dataplane::ids::WorkerId;
use dataplane::rss::BUCKETS;
use dataplane::worker::BucketMove;

/// Workers whose loads differ by less than this share of the mean are left alone.
const TOLERANCE_PERCENT: u64 = 10;

/// Most moves of one plan.
const MOVES_MAX: usize = 64;

/// What is to be moved, and how even it will be.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Plan {
    /// In this order; buckets that a NIC cannot tell apart follow each other.
    pub moves: Vec<BucketMove>,
    /// Load of the busiest worker in percent of the mean, before and after.
    pub before_percent: u64,
    /// See there.
    pub after_percent: u64,
    /// Whether one group of buckets alone is more than the busiest worker's fair share.
    pub is_stuck_on_elephant: bool,
}

/// Plans moves for packets counted per bucket. Buckets that are equal modulo `stride` go together.
#[must_use]
pub fn plan(packets: &[u64; BUCKETS], owners: &[WorkerId; BUCKETS], workers: usize, stride: usize) -> Plan {
    let mut owners = *owners;
    let stride = stride.clamp(1, BUCKETS);
    let group = |first: usize| (first..BUCKETS).step_by(stride);
    let weight: Vec<u64> =
        (0..stride).map(|first| group(first).map(|bucket| packets[bucket]).sum()).collect();
    let mean = packets.iter().sum::<u64>() / workers.max(1) as u64;
    // A move costs a moment's waiting; less than this is not worth one.
    let worth = mean / 1000;
    let mut plan = Plan::default();
    let loads = |owners: &[WorkerId; BUCKETS]| {
        let mut loads = vec![0; workers];
        for (packets, owner) in packets.iter().zip(owners) {
            loads[owner.index()] += packets;
        }
        loads
    };
    let percent = |load: u64| (load * 100).checked_div(mean).unwrap_or(100);
    let mut now = loads(&owners);
    plan.before_percent = percent(now.iter().copied().max().unwrap_or(0));
    while plan.moves.len() < MOVES_MAX {
        let Some((busiest, most)) = now.iter().copied().enumerate().max_by_key(|(_, load)| *load) else {
            break;
        };
        let Some((idlest, least)) = now.iter().copied().enumerate().min_by_key(|(_, load)| *load) else {
            break;
        };
        if most - least <= mean * TOLERANCE_PERCENT / 100 {
            break;
        }
        // What is left of the difference afterwards is the least where twice the weight comes nearest to it.
        let gap = most - least;
        let own = (0..stride).filter(|first| owners[*first].index() == busiest && weight[*first] > worth);
        let best =
            own.filter(|first| weight[*first] < gap).min_by_key(|first| (weight[*first] * 2).abs_diff(gap));
        let Some(first) = best else {
            plan.is_stuck_on_elephant = true;
            break;
        };
        let to = WorkerId(u8::try_from(idlest).unwrap_or(u8::MAX));
        for bucket in group(first) {
            let from = owners[bucket];
            if from != to {
                owners[bucket] = to;
                plan.moves.push(BucketMove { bucket: u8::try_from(bucket).unwrap_or(u8::MAX), from, to });
            }
        }
        now = loads(&owners);
    }
    plan.after_percent = percent(now.iter().copied().max().unwrap_or(0));
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn owners(workers: usize) -> [WorkerId; BUCKETS] {
        std::array::from_fn(|bucket| WorkerId(u8::try_from(bucket % workers).unwrap()))
    }

    #[test]
    fn even_loads_stay_and_uneven_ones_are_evened_out() {
        assert_eq!(plan(&[100; BUCKETS], &owners(4), 4, BUCKETS).moves, []);
        assert_eq!(plan(&[0; BUCKETS], &owners(4), 4, BUCKETS).moves, []);
        // All that comes belongs to worker 0.
        let packets = std::array::from_fn(|bucket| if bucket % 4 == 0 { 100 } else { 0 });
        let done = plan(&packets, &owners(4), 4, BUCKETS);
        assert_eq!((done.before_percent, done.after_percent), (400, 100));
        assert_eq!(done.moves.len(), 48);
    }

    #[test]
    fn one_flow_that_fills_a_core_is_left_alone() {
        let mut packets = [10; BUCKETS];
        packets[0] = 1_000_000;
        let done = plan(&packets, &owners(2), 2, BUCKETS);
        assert!(done.is_stuck_on_elephant && done.moves.is_empty(), "nothing that moves would matter");
        // What does matter makes room for it.
        packets[2] = 200_000;
        let done = plan(&packets, &owners(2), 2, BUCKETS);
        let away = BucketMove { bucket: 2, from: WorkerId(0), to: WorkerId(1) };
        assert!(done.is_stuck_on_elephant);
        assert_eq!(done.moves, [away]);
    }

    proptest! {
        #[test]
        fn a_plan_never_makes_it_worse_and_keeps_groups_together(
            packets in proptest::collection::vec(0_u64..1000, BUCKETS), workers in 1..9_usize, shift in 4..9_u32,
        ) {
            let packets: [u64; BUCKETS] = packets.try_into().unwrap();
            let stride = 1 << shift;
            let start = std::array::from_fn(|bucket: usize| WorkerId(u8::try_from(bucket % stride % workers).unwrap()));
            let done = plan(&packets, &start, workers, stride);
            prop_assert!(done.after_percent <= done.before_percent);
            let mut end = start;
            for one in &done.moves {
                prop_assert_eq!(end[usize::from(one.bucket)], one.from);
                end[usize::from(one.bucket)] = one.to;
            }
            for bucket in stride..BUCKETS {
                prop_assert_eq!(end[bucket], end[bucket % stride]);
            }
        }
    }
}
