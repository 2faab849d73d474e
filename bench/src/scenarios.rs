//! What `./scripts/bench` measures end to end: every peer in turn on the same rig, under the same load.

mod connections;
pub mod cpu;
mod ends;
mod flood;
mod goodput;
mod rtt;
mod search;
mod swap;
mod throughput;
mod turns;

use crate::Error;
use crate::peers::Peer;
use crate::results::Table;
use std::time::Duration;

/// Flows that everybody knows after a moment.
const KNOWN_FLOWS: u32 = 1_000;

/// How scenarios are to be measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Cores of the machine.
    pub cores: usize,
    /// Measurements of each peer.
    pub repetitions: u32,
    /// Length of each measurement.
    pub time: Duration,
    /// Who is measured.
    pub peers: Vec<Peer>,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Scenario {
    /// Throughput of 64-byte frames, of IMIX and of full frames.
    Sizes,
    /// Throughput with 1 to a million flows.
    Flows,
    /// The same with the far end's interface polled by a thread of its own: about twice the rate.
    Threaded,
    /// Throughput with 10 to 10,000 rules, of flows that are known.
    Rules,
    /// The same with a new flow in every packet.
    NewFlows,
    /// TCP connections opened a second.
    Connections,
    /// Honest traffic beside a flood of new flows, the table being full.
    Flood,
    /// Processor time of a forwarded packet, on every core.
    Cpu,
    /// Round trip times, idle and at half of what Linux's bridge with iptables carries.
    Rtt,
    /// TCP payload between the hosts' own stacks, one stream and four.
    Goodput,
    /// Longest silence, loss and time taken while rules are exchanged under load.
    Swap,
}

impl Scenario {
    /// All of them, in the order in which they are measured.
    pub const ALL: [Self; 11] = [
        Self::Sizes,
        Self::Flows,
        Self::Threaded,
        Self::Rules,
        Self::NewFlows,
        Self::Connections,
        Self::Flood,
        Self::Cpu,
        Self::Rtt,
        Self::Goodput,
        Self::Swap,
    ];

    /// Measures it: a table for each unit that it has values in.
    ///
    /// # Errors
    /// If the rig cannot be built, or the run is interrupted. A peer that fails does not end it.
    pub fn measure(self, plan: &Plan) -> Result<Vec<Table>, Error> {
        match self {
            Self::Sizes => throughput::sizes(plan).map(|table| vec![table]),
            Self::Flows => throughput::flows(plan).map(|table| vec![table]),
            Self::Threaded => throughput::threaded(plan).map(|table| vec![table]),
            Self::Rules => throughput::rules(plan).map(|table| vec![table]),
            Self::NewFlows => throughput::new_flows(plan).map(|table| vec![table]),
            Self::Connections => connections::measure(plan).map(|table| vec![table]),
            Self::Flood => flood::measure(plan).map(|table| vec![table]),
            Self::Cpu => cpu::measure(plan, cpu::RATE_PPS).map(|table| vec![table]),
            Self::Rtt => rtt::measure(plan).map(|table| vec![table]),
            Self::Goodput => goodput::measure(plan).map(|table| vec![table]),
            Self::Swap => swap::measure(plan),
        }
    }
}
