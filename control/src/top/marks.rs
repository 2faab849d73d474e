//! What every flow had counted at one moment, and what it has counted since. 24 bytes for each record that was ever in use.

use dataplane::clock::Tick;
use dataplane::flow::{FlowTally, Region};
use dataplane::packet::Family;
use std::time::Instant;

/// One record: `seq` of its flow, packets forth and back, bytes forth and back, and the high halves of the bytes (48 bits
/// in all). Words only, so that memory of records never looked at is not touched. Zero: no flow, whose `seq` is odd.
type Mark = [u32; 6];

/// What flows have counted at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Marks {
    /// When that was.
    pub(crate) at: Instant,
    /// The same by the workers' clock.
    tick: Tick,
    /// Whether flows have been looked at since.
    is_known: bool,
    /// By worker and family.
    records: Vec<[Vec<Mark>; 2]>,
}

/// What a flow has counted since the moment before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Growth {
    /// Which flow.
    pub(crate) tally: FlowTally,
    /// Packets forth and back.
    pub(crate) packets: [u64; 2],
    /// Bytes forth and back.
    pub(crate) bytes: [u64; 2],
    /// Whether it began since.
    pub(crate) is_new: bool,
}

#[expect(clippy::cast_possible_truncation, reason = "counters are compared modulo 2^32 and 2^48")]
const fn mark(tally: &FlowTally) -> Mark {
    let FlowTally { slot: _, seq, packets: [orig, reply], bytes: [orig_bytes, reply_bytes] } = *tally;
    let high = (orig_bytes >> 32) as u16 as u32 | (reply_bytes >> 32 << 16) as u32;
    [seq, orig as u32, reply as u32, orig_bytes as u32, reply_bytes as u32, high]
}

/// Packets and bytes from one mark to the next.
fn grown(before: &Mark, now: &Mark) -> ([u64; 2], [u64; 2]) {
    let bytes =
        |mark: &Mark, way: usize| u64::from(mark[3 + way]) | u64::from(mark[5] >> (16 * way) & 0xffff) << 32;
    let packets = [1, 2].map(|at| u64::from(now[at].wrapping_sub(before[at])));
    (packets, [0, 1].map(|way| bytes(now, way).wrapping_sub(bytes(before, way)) & ((1 << 48) - 1)))
}

const fn index(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

impl Marks {
    /// Of no flow, at that moment.
    pub(crate) fn new(workers: usize, at: Instant, tick: Tick) -> Self {
        Self { at, tick, is_known: false, records: vec![[Vec::new(), Vec::new()]; workers] }
    }

    /// Goes over all flows once: tells of those that counted anything since the last time, if there was one, and becomes what
    /// they have counted now. Returns how many flows there are.
    pub(crate) fn advance(
        &mut self,
        regions: &[&Region],
        at: Instant,
        tick: Tick,
        mut each: impl FnMut(&Region, &Growth),
    ) -> u64 {
        let before = self.tick;
        let is_first = !std::mem::replace(&mut self.is_known, true);
        (self.at, self.tick) = (at, tick);
        let mut count = 0;
        for (region, records) in regions.iter().zip(&mut self.records) {
            for family in [Family::V4, Family::V6] {
                let used = region.slots_used(family);
                let known = &mut records[index(family)];
                if known.is_empty() {
                    // Zeroes fresh from the system.
                    *known = vec![[0; 6]; used];
                } else if known.len() < used {
                    known.resize(used, [0; 6]);
                }
            }
            region.tally(|tally| {
                count += 1;
                let known = &mut records[index(tally.slot.family())];
                let slot = tally.slot.index();
                if slot >= known.len() {
                    known.resize((slot + 1).next_multiple_of(4096), [0; 6]);
                }
                let (old, now) = (known[slot], mark(&tally));
                if old == now {
                    return;
                }
                known[slot] = now;
                if is_first {
                    return;
                }
                if let Some(growth) = growth(region, tally, (&old, &now), before) {
                    each(region, &growth);
                }
            });
        }
        count
    }
}

/// What a flow has counted since `before`.
fn growth(region: &Region, tally: FlowTally, (old, now): (&Mark, &Mark), before: Tick) -> Option<Growth> {
    if old[0] == now[0] {
        let (packets, bytes) = grown(old, now);
        return Some(Growth { tally, packets, bytes, is_new: false });
    }
    let created = region.created_of(tally.slot, tally.seq)?;
    // A tick of grace: a worker reads its clock once a burst. What is older has come from another worker, counters and
    // all; nobody knows what it counted since.
    if created.0.wrapping_sub(before.0).wrapping_add(1) > u32::MAX / 2 {
        return None;
    }
    Some(Growth { tally, packets: tally.packets, bytes: tally.bytes, is_new: true })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules_file::{Rules, understand};
    use dataplane::flow::Slot;
    use dataplane::ids::PortId;
    use dataplane::testing::gateway::{Gateway, GatewayConfig};
    use dataplane::testing::packets::udp;
    use std::net::Ipv4Addr;

    const LEFT: PortId = PortId(0);
    const RIGHT: PortId = PortId(1);

    #[test]
    fn marks_wrap_and_go_on() {
        let tally = |packets, bytes| FlowTally { slot: Slot::default(), seq: 5, packets, bytes };
        let before = mark(&tally([u64::from(u32::MAX), 7], [(1 << 48) - 10, 5 << 32]));
        let now = mark(&tally([(1 << 32) + 4, 8], [(1 << 48) + 20, (5 << 32) + 100]));
        assert_eq!(grown(&before, &now), ([5, 1], [30, 100]));
        assert_eq!(grown(&now, &now), ([0, 0], [0, 0]));
    }

    /// A gateway whose only rule is that everything passes.
    fn gateway() -> Gateway {
        let text = b"*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -m conntrack --ctstate NEW\nCOMMIT\n";
        let rules = Rules::from_loaded(understand(text, "test", Family::V4, &[])).unwrap();
        Gateway::new(&[(*rules.ruleset).clone()], GatewayConfig::default()).unwrap()
    }

    /// A flow that grew: source port, packets, bytes, whether it is new.
    type Grown = (u16, [u64; 2], [u64; 2], bool);

    /// How many flows there are, and those that grew.
    fn advance(marks: &mut Marks, gateway: &mut Gateway) -> (u64, Vec<Grown>) {
        let regions: Vec<_> =
            gateway.workers.iter_mut().map(|worker| worker.tracker_mut().region()).collect();
        let regions: Vec<&Region> = regions.iter().map(|region| &**region).collect();
        let mut seen = Vec::new();
        let count = marks.advance(&regions, Instant::now(), gateway.now().tick(), |region, growth| {
            let tuple = region.orig_of(growth.tally.slot, growth.tally.seq).unwrap();
            seen.push((tuple.src_port, growth.packets, growth.bytes, growth.is_new));
        });
        seen.sort_unstable();
        (count, seen)
    }

    #[test]
    fn flows_grow_come_and_go() {
        let [a, b] = [1, 2].map(|last| Ipv4Addr::new(10, 0, 0, last));
        let forth = |port| udp(a, b).ports(port, 53).payload(&[0; 72]).build();
        let back = |port| udp(b, a).ports(53, port).payload(&[0; 172]).build();
        let mut gateway = gateway();
        for port in [1, 2, 3] {
            gateway.send(LEFT, &forth(port));
        }
        let mut marks = Marks::new(gateway.workers.len(), Instant::now(), gateway.now().tick());
        // What was counted before anybody looked is not growth.
        assert_eq!(advance(&mut marks, &mut gateway), (3, vec![]));
        assert_eq!(advance(&mut marks, &mut gateway), (3, vec![]));
        gateway.advance_millis(1000);
        gateway.send(LEFT, &forth(2));
        gateway.send(RIGHT, &back(2));
        gateway.send(RIGHT, &back(2));
        gateway.send(LEFT, &forth(4));
        let grown = vec![(2, [1, 2], [100, 400], false), (4, [1, 0], [100, 0], true)];
        assert_eq!(advance(&mut marks, &mut gateway), (4, grown));
        // A flow in the place of one that ended is new, whatever the other had counted.
        gateway.advance_millis(200_000);
        gateway.age();
        gateway.send(LEFT, &forth(5));
        assert_eq!(advance(&mut marks, &mut gateway), (1, vec![(5, [1, 0], [100, 0], true)]));
    }

    #[test]
    fn the_first_flow_of_all_grows() {
        let [a, b] = [1, 2].map(|last| Ipv4Addr::new(10, 0, 0, last));
        let mut gateway = gateway();
        let mut marks = Marks::new(gateway.workers.len(), Instant::now(), gateway.now().tick());
        assert_eq!(advance(&mut marks, &mut gateway), (0, vec![]));
        gateway.send(LEFT, &udp(a, b).ports(1, 53).build());
        assert_eq!(advance(&mut marks, &mut gateway), (1, vec![(1, [1, 0], [28, 0], true)]));
    }

    #[test]
    fn a_flow_that_came_from_another_worker_is_not_new_and_has_no_rate_yet() {
        let [a, b] = [1, 2].map(|last| Ipv4Addr::new(10, 0, 0, last));
        let mut gateway = gateway();
        gateway.send(LEFT, &udp(a, b).ports(1, 53).build());
        gateway.advance_millis(10_000);
        // As if its worker had just been given it: marks that are younger than the flow and know nothing of it.
        let mut marks = Marks::new(gateway.workers.len(), Instant::now(), gateway.now().tick());
        marks.is_known = true;
        assert_eq!(advance(&mut marks, &mut gateway), (1, vec![]));
        gateway.send(LEFT, &udp(a, b).ports(1, 53).build());
        assert_eq!(advance(&mut marks, &mut gateway), (1, vec![(1, [1, 0], [28, 0], false)]));
    }
}
