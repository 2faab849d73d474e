//! Sums of one walk.

use super::heavy::{Heavy, Sums};
use super::marks::Growth;
use super::{KEYS, weigher};
use crate::api::types::TopBy;
use dataplane::flow::FlowTally;
use dataplane::ids::WorkerId;
use dataplane::packet::{Family, Tuple, proto};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A host's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Host {
    pub(crate) addr: u128,
    pub(crate) is_v6: bool,
}

impl Host {
    const fn of(addr: u128, family: Family) -> Self {
        Self { addr, is_v6: matches!(family, Family::V6) }
    }

    /// Which family it is of.
    pub(crate) const fn family(self) -> Family {
        if self.is_v6 { Family::V6 } else { Family::V4 }
    }
}

/// A protocol and the port that flows were begun to, if it has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Service {
    pub(crate) proto: u8,
    pub(crate) port: Option<u16>,
}

impl Service {
    /// The service of a flow.
    pub(crate) const fn of(tuple: &Tuple) -> Self {
        let port = match tuple.proto {
            proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP => Some(tuple.dst_port),
            _ => None,
        };
        Self { proto: tuple.proto, port }
    }
}

/// One of the flows with the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) worker: WorkerId,
    pub(crate) tuple: Tuple,
    pub(crate) tally: FlowTally,
    pub(crate) sums: Sums,
}

/// By weight, and then by place, so that equals have an order.
type Rank = (u64, Reverse<(u8, u32)>);

/// Sums of one walk, by all that is asked for.
pub(crate) struct Survey {
    by: TopBy,
    n: usize,
    /// Of everything.
    pub(crate) total: Sums,
    /// The lightest on top, to be pushed out.
    flows: BinaryHeap<Reverse<Ranked>>,
    pub(crate) hosts: Heavy<Host>,
    pub(crate) sources: Heavy<Host>,
    pub(crate) destinations: Heavy<Host>,
    pub(crate) services: Heavy<Service>,
}

struct Ranked {
    rank: Rank,
    found: Found,
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank
    }
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank.cmp(&other.rank)
    }
}

impl Survey {
    /// For lists of `n`, largest by that.
    pub(crate) fn new(by: TopBy, n: usize) -> Self {
        let weigh = weigher(by);
        Self {
            by,
            n,
            total: Sums::default(),
            flows: BinaryHeap::with_capacity(n + 1),
            hosts: Heavy::new(KEYS, weigh),
            sources: Heavy::new(KEYS, weigh),
            destinations: Heavy::new(KEYS, weigh),
            services: Heavy::new(KEYS, weigh),
        }
    }

    /// Adds a flow.
    pub(crate) fn add(&mut self, worker: WorkerId, tuple: &Tuple, growth: &Growth) {
        let Growth { tally, packets, bytes, is_new } = *growth;
        let sums = Sums { packets, bytes, flows: 1, new: u64::from(is_new) };
        self.total.add(&sums);
        let (src, dst) = (Host::of(tuple.src, tuple.family), Host::of(tuple.dst, tuple.family));
        self.sources.add(src, &sums);
        self.destinations.add(dst, &sums.turned());
        self.hosts.add(src, &sums);
        if src != dst {
            self.hosts.add(dst, &sums.turned());
        }
        self.services.add(Service::of(tuple), &sums);
        let weight = match self.by {
            TopBy::New if !is_new => return,
            TopBy::New | TopBy::Bytes => bytes[0] + bytes[1],
            TopBy::Packets => packets[0] + packets[1],
        };
        let rank = (weight, Reverse((worker.0, tally.slot.raw())));
        if self.flows.len() < self.n || self.flows.peek().is_some_and(|Reverse(least)| rank > least.rank) {
            self.flows.push(Reverse(Ranked { rank, found: Found { worker, tuple: *tuple, tally, sums } }));
            if self.flows.len() > self.n {
                self.flows.pop();
            }
        }
    }

    /// The flows with the most, the most first.
    pub(crate) fn take_flows(&mut self) -> Vec<Found> {
        let flows = std::mem::take(&mut self.flows).into_sorted_vec();
        flows.into_iter().map(|Reverse(ranked)| ranked.found).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::flow::Slot;

    fn add(survey: &mut Survey, (src, dst): (u128, u128), (forth, back): (u64, u64), is_new: bool) {
        let family = Family::V4;
        let tuple = Tuple { src, dst, src_port: 1000, dst_port: 443, proto: 6, family };
        let (packets, bytes) = ([forth, back], [forth * 100, back * 1000]);
        let tally = FlowTally { slot: Slot::default(), seq: 1, packets, bytes };
        survey.add(WorkerId(0), &tuple, &Growth { tally, packets, bytes, is_new });
    }

    fn addrs(found: &[(Host, Sums)]) -> Vec<u128> {
        found.iter().map(|(host, _)| host.addr).collect()
    }

    #[test]
    fn hosts_are_summed_by_either_end() {
        let mut survey = Survey::new(TopBy::Bytes, 2);
        add(&mut survey, (1, 9), (10, 20), false);
        add(&mut survey, (2, 9), (10, 30), true);
        add(&mut survey, (3, 8), (1, 0), true);
        add(&mut survey, (9, 1), (5, 0), false);
        let flows: Vec<u128> = survey.take_flows().iter().map(|found| found.tuple.src).collect();
        assert_eq!(flows, [2, 1]);
        let (hosts, slack) = survey.hosts.into_top(10);
        assert_eq!((addrs(&hosts), slack), (vec![9, 2, 1, 3, 8], 0));
        let nine = hosts[0].1;
        // Sent are the answers of two flows and the packets of its own.
        assert_eq!((nine.packets, nine.bytes), ([55, 20], [50_500, 2_000]));
        assert_eq!((nine.flows, nine.new), (3, 1));
        let (sources, _) = survey.sources.into_top(10);
        assert_eq!(addrs(&sources), [2, 1, 9, 3]);
        let (destinations, _) = survey.destinations.into_top(1);
        assert_eq!((addrs(&destinations), destinations[0].1.packets), (vec![9], [50, 20]));
        let (services, _) = survey.services.into_top(10);
        assert_eq!(services[0].0, Service { proto: 6, port: Some(443) });
        assert_eq!((services[0].1.flows, survey.total.new), (4, 2));
    }

    #[test]
    fn by_new_flows_old_ones_are_left_out_and_weigh_nothing() {
        let mut survey = Survey::new(TopBy::New, 5);
        add(&mut survey, (1, 9), (1000, 1000), false);
        add(&mut survey, (2, 9), (1, 0), true);
        add(&mut survey, (2, 8), (2, 0), true);
        let flows: Vec<u128> = survey.take_flows().iter().map(|found| found.tuple.dst).collect();
        assert_eq!(flows, [8, 9]);
        assert_eq!(addrs(&survey.sources.into_top(5).0), [2]);
    }
}
