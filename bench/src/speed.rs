//! The figures of speed on the wire, each against a named peer that took turns with Palisade in the same run: scenarios with
//! the peers that a goal names, and the ratio of neighbours.

use crate::affinity::apart;
use crate::gateway::Plan;
use crate::peers::Peer;
use crate::report::Report;
use crate::results::{Better, Table};
use crate::scenarios::{self, Scenario};
use crate::{Error, interrupt, pipeline};

/// Linux with iptables: a goal against it is for whichever is the faster one.
const KERNEL: [Peer; 2] = [Peer::BridgeIptables, Peer::RoutingIptables];

/// One figure: ours as a share of a peer's, in one scenario.
struct Goal {
    name: &'static str,
    /// Who is compared with: the best of these.
    against: &'static [Peer],
    /// Column of the scenario's first table, by its label.
    point: &'static str,
    /// Least share of a rate, or most of a time.
    goal: f64,
}

/// A scenario, and what is read from it.
type Group = (Scenario, &'static [Goal]);

const FLOOR: &[Peer] = &[Peer::Floor];
const OVS: &[Peer] = &[Peer::Ovs];

/// All of them.
const GROUPS: [Group; 5] = [
    (
        Scenario::Flows,
        &[
            Goal { name: "64 B, 1,000 flows, against the floor", against: FLOOR, point: "1,000", goal: 0.97 },
            Goal {
                name: "64 B, 1M flows, against the floor",
                against: FLOOR,
                point: "1,000,000",
                goal: 0.88,
            },
            Goal { name: "64 B, 1,000 flows, against Linux", against: &KERNEL, point: "1,000", goal: 1.8 },
            Goal { name: "64 B, 1M flows, against Linux", against: &KERNEL, point: "1,000,000", goal: 2.5 },
            Goal { name: "64 B, 1,000 flows, against Open vSwitch", against: OVS, point: "1,000", goal: 1.5 },
            Goal {
                name: "64 B, 100k flows, against Open vSwitch",
                against: OVS,
                point: "100,000",
                goal: 4.0,
            },
        ],
    ),
    (
        Scenario::Threaded,
        &[
            Goal {
                name: "threaded NAPI, 1,000 flows, against the floor",
                against: FLOOR,
                point: "1,000",
                goal: 0.92,
            },
            Goal {
                name: "threaded NAPI, 1M flows, against the floor",
                against: FLOOR,
                point: "1,000,000",
                goal: 0.80,
            },
        ],
    ),
    (
        Scenario::NewFlows,
        &[Goal {
            name: "10,000 rules, a new flow with every packet, against Linux",
            against: &KERNEL,
            point: "10,000",
            goal: 20.0,
        }],
    ),
    (
        Scenario::Connections,
        &[Goal {
            name: "new TCP connections, against Linux",
            against: &KERNEL,
            point: "best of all offered rates",
            goal: 2.0,
        }],
    ),
    (
        Scenario::Rtt,
        &[Goal {
            name: "round trip p99 at half load, against Linux's bridge",
            against: &[Peer::BridgeIptables],
            point: "loaded p99",
            goal: 1.0,
        }],
    ),
];

/// Measures them all, the pipeline in process first.
///
/// # Errors
/// If one cannot be measured at all. Peers that cannot be measured are named instead.
pub fn measure(plan: &Plan, report: &mut Report) -> Result<(), Error> {
    interrupt::catch()?;
    apart(|| pipeline::measure(plan, report))?;
    for (scenario, goals) in GROUPS {
        let tables = apart(|| run(plan, scenario, goals))?;
        let table = tables.first().ok_or("a scenario has a table")?;
        println!("{}", crate::results::markdown::section(table));
        goals.iter().for_each(|goal| goal.enter(table, report));
    }
    Ok(())
}

/// A scenario with Palisade and those that its goals name.
fn run(plan: &Plan, scenario: Scenario, goals: &[Goal]) -> Result<Vec<Table>, Error> {
    let mut peers = vec![Peer::Palisade];
    for peer in goals.iter().flat_map(|goal| goal.against) {
        if !peers.contains(peer) {
            peers.push(*peer);
        }
    }
    let Plan { cores, repetitions, time } = *plan;
    scenario.measure(&scenarios::Plan { cores, repetitions, time, peers })
}

impl Goal {
    /// Reads it from its table.
    fn enter(&self, table: &Table, report: &mut Report) {
        let limit = match table.better {
            Better::Higher => format!(">= {}", self.goal),
            Better::Lower => format!("<= {}", self.goal),
        };
        match self.ratio(table) {
            Ok(ratio) if table.better == Better::Higher => report.at_least(self.name, ratio, self.goal),
            Ok(ratio) => report.at_most(self.name, ratio, self.goal),
            Err(reason) => report.unmeasured(self.name, &limit, &reason),
        }
    }

    /// Ours as a share of the best of theirs.
    fn ratio(&self, table: &Table) -> Result<f64, String> {
        let point = table
            .points
            .iter()
            .position(|point| point == self.point)
            .ok_or_else(|| format!("there is no point {}", self.point))?;
        let reached = |peer: &Peer| Some((*peer, table.spread(peer.name(), point)?.median));
        let better = |a: &(Peer, f64), b: &(Peer, f64)| match table.better {
            Better::Higher => a.1.total_cmp(&b.1),
            Better::Lower => b.1.total_cmp(&a.1),
        };
        let missing = |peer: Peer| {
            let series = table.series.iter().find(|series| series.peer == peer.name());
            let reason = series.and_then(|series| series.missing.as_deref()).unwrap_or("no sample");
            format!("{}: {reason}", peer.name())
        };
        // A goal against the best of several is not met by leaving one out.
        let all: Option<Vec<_>> = self.against.iter().map(reached).collect();
        let all =
            all.ok_or_else(|| self.against.iter().map(|peer| missing(*peer)).collect::<Vec<_>>().join("; "))?;
        let (best, _) = all.into_iter().max_by(better).ok_or("nobody to compare with")?;
        table.ratio(Peer::Palisade.name(), best.name(), point).ok_or_else(|| missing(Peer::Palisade))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Goal = Goal { name: "rate", against: &KERNEL, point: "x", goal: 2.0 };

    fn table(better: Better, samples: &[(Peer, Option<f64>)]) -> Table {
        let mut table = Table::new("t", "t", ("unit", better), &["w".to_owned(), "x".to_owned()]);
        for (peer, value) in samples {
            table.enter(peer.name(), &(1..2), value.as_ref().map(std::slice::from_ref).ok_or("gone"));
        }
        table
    }

    #[test]
    fn the_best_peer_is_the_one_to_beat() {
        let [bridge, routing] = KERNEL;
        let samples = [(Peer::Palisade, Some(6.0)), (bridge, Some(2.0)), (routing, Some(3.0))];
        assert_eq!(RATE.ratio(&table(Better::Higher, &samples)), Ok(2.0));
        assert_eq!(RATE.ratio(&table(Better::Lower, &samples)), Ok(3.0));
    }

    #[test]
    fn what_was_not_measured_has_no_ratio() {
        let [bridge, routing] = KERNEL;
        let samples = [(Peer::Palisade, Some(6.0)), (bridge, Some(2.0)), (routing, None)];
        assert!(RATE.ratio(&table(Better::Higher, &samples)).unwrap_err().contains("gone"));
        let samples = [(Peer::Palisade, None), (bridge, Some(2.0)), (routing, Some(1.0))];
        assert!(RATE.ratio(&table(Better::Higher, &samples)).unwrap_err().contains("palisade: gone"));
        let mut report = Report::default();
        RATE.enter(&table(Better::Higher, &samples), &mut report);
        assert_eq!(report.missed(), 1);
    }
}
