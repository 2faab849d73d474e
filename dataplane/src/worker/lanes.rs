//! Which worker serves which NIC queues. Control thread, once at start.

use crate::ids::PortId;

/// Deals out the queues of all NICs (`queues`, by [`PortId`]): for every worker NIC and number of its queues, ascending
/// by NIC.
///
/// With at least as many queues as workers everybody gets queues of the same numbers on both NICs of a wire, so that with
/// agreeing RSS a packet comes in where its flow lives and leaves from there. With fewer, wires are dealt to workers in turn,
/// and if that still leaves some without work, a wire's two NICs go to different workers too: then one of them receives
/// what the other one sends, which costs a handoff per packet as judging elsewhere would, but shares the work.
#[must_use]
pub fn deal_lanes(queues: &[u32], workers: usize) -> Vec<Vec<(PortId, u32)>> {
    let workers = workers.max(1);
    let mut hands: Vec<Vec<(PortId, u32)>> = vec![Vec::new(); workers];
    let of = |port: usize| queues.get(port).map_or(0, |count| *count as usize);
    let widest = |wire: usize| of(2 * wire).max(of(2 * wire + 1));
    let wires = queues.len().div_ceil(2);
    let is_enough = (0..wires).map(widest).sum::<usize>() >= workers;
    let mut next = 0;
    for wire in 0..wires {
        let base = if widest(wire) >= workers { 0 } else { next };
        for side in 0..2 {
            let port = 2 * wire + side;
            let shift = if is_enough || side == 0 { 0 } else { of(port - 1) };
            for queue in 0..of(port) {
                let id = PortId(u8::try_from(port).unwrap_or(u8::MAX));
                hands[(base + shift + queue) % workers].push((id, u32::try_from(queue).unwrap_or(u32::MAX)));
            }
        }
        next += if is_enough { widest(wire) } else { of(2 * wire) + of(2 * wire + 1) };
    }
    hands
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dealt(queues: &[u32], workers: usize) -> Vec<Vec<(u8, u32)>> {
        let plain =
            |hand: Vec<(PortId, u32)>| hand.into_iter().map(|(port, queue)| (port.0, queue)).collect();
        deal_lanes(queues, workers).into_iter().map(plain).collect()
    }

    #[test]
    fn equal_queues_meet_on_one_worker() {
        assert_eq!(dealt(&[2, 2], 2), [[(0, 0), (1, 0)], [(0, 1), (1, 1)]]);
        assert_eq!(dealt(&[4, 4], 2)[1], [(0, 1), (0, 3), (1, 1), (1, 3)]);
        assert_eq!(dealt(&[4, 1], 4)[..2], [vec![(0, 0), (1, 0)], vec![(0, 1)]]);
    }

    #[test]
    fn few_queues_are_shared_out() {
        assert_eq!(dealt(&[1, 1], 2), [[(0, 0)], [(1, 0)]]);
        assert_eq!(dealt(&[1, 1, 1, 1], 2), [[(0, 0), (1, 0)], [(2, 0), (3, 0)]], "a wire each");
        assert_eq!(dealt(&[2, 2], 4), [[(0, 0)], [(0, 1)], [(1, 0)], [(1, 1)]]);
        assert_eq!(dealt(&[1, 1], 4), [vec![(0, 0)], vec![(1, 0)], vec![], vec![]]);
    }

    proptest! {
        #[test]
        fn every_queue_is_served_once_and_workers_with_queues_come_first(
            wires in proptest::collection::vec((1_u32..9, 1_u32..9), 1..4),
            workers in 1_usize..17,
        ) {
            let queues: Vec<u32> = wires.iter().flat_map(|(left, right)| [*left, *right]).collect();
            let hands = deal_lanes(&queues, workers);
            prop_assert_eq!(hands.len(), workers);
            let mut served: Vec<_> = hands.concat();
            served.sort_unstable();
            let all = (0..).zip(&queues).flat_map(|(port, count)| (0..*count).map(move |queue| (PortId(port), queue)));
            prop_assert_eq!(served, all.collect::<Vec<_>>());
            prop_assert!(hands.iter().all(|hand| hand.is_sorted_by_key(|(port, _)| port)));
            prop_assert!(!hands.windows(2).any(|pair| pair[0].is_empty() && !pair[1].is_empty()));
        }
    }
}
