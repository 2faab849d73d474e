//! What a worker does to packets, stage by stage, prepared so that it can be timed (`./scripts/bench micro`), counted in
//! instructions (`./scripts/bench instructions`), and held against goals (`./scripts/bench figures --only pipeline`).
//!
//! Everything is in process and on one thread, and of the data plane alone, so that this builds in a minute. The same
//! [`Scale`] gives the same packets, flows and hashes everywhere: seeds are fixed and time stands still. [`STAGES`] lists
//! what there is; [`Stage::burst`] is the part that counts.

pub mod device;
mod flows;
pub mod gateway;
mod handing;
mod headers;
mod pipeline;
pub mod ratchet;
pub mod rulesets;
mod ten;
pub mod traffic;

pub use device::Arrival;
pub use pipeline::{Pipeline, Share};
pub use ten::bench10;

/// What can go wrong: said in one sentence.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Packets of a burst.
pub const BURST: usize = 32;

/// One thing that is done to packets.
pub trait Stage {
    /// Lays out what the next burst needs. Not part of what is measured.
    fn prepare(&mut self) {}

    /// Whether [`Self::prepare`] has anything to do before every burst.
    fn needs_preparing(&self) -> bool {
        false
    }

    /// Does it to [`BURST`] packets. Returns for how many it came to what it should: all, or the stage is broken.
    fn burst(&mut self) -> usize;
}

/// How large what the stages work on is.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Flows in the table.
    pub flows: u32,
    /// Whether to ask for pages of 2 MiB and to take all memory at once.
    pub hugepages: bool,
    /// How packets come, where queues bring them.
    pub arrival: Arrival,
}

impl Scale {
    /// For counting instructions: small, because every one of them is simulated, and without memory that comes and goes.
    pub const COUNTED: Self = Self { flows: 1_000, hugepages: false, arrival: Arrival::Copied };
}

/// A stage by name.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    /// What it is called, from the general to the particular.
    pub name: &'static str,
    /// Whether it looks into a flow table, so that the number of flows matters.
    pub has_flows: bool,
    /// Makes it.
    pub make: fn(Scale) -> Result<Box<dyn Stage>, Error>,
}

/// All stages, in a packet's order.
pub const STAGES: &[Named] = &[
    Named { name: "parse/udp4", has_flows: false, make: headers::parse_udp4 },
    Named { name: "parse/tcp4", has_flows: false, make: headers::parse_tcp4 },
    Named { name: "parse/udp6", has_flows: false, make: headers::parse_udp6 },
    Named { name: "parse/vlan", has_flows: false, make: headers::parse_vlan },
    Named { name: "hash/v4", has_flows: false, make: headers::hash_v4 },
    Named { name: "hash/v6", has_flows: false, make: headers::hash_v6 },
    Named { name: "lookup/hit", has_flows: true, make: flows::hit },
    Named { name: "lookup/miss", has_flows: true, make: flows::miss },
    Named { name: "insert", has_flows: true, make: flows::insert },
    Named { name: "track/tcp", has_flows: true, make: flows::tcp_established },
    Named { name: "track/udp", has_flows: true, make: flows::udp },
    Named { name: "classify/10", has_flows: false, make: headers::classify_10 },
    Named { name: "classify/1k", has_flows: false, make: headers::classify_1k },
    Named { name: "classify/10k", has_flows: false, make: headers::classify_10k },
    Named { name: "reject/reset", has_flows: false, make: headers::reject_reset },
    Named { name: "reject/icmp4", has_flows: false, make: headers::reject_icmp4 },
    Named { name: "reject/icmp6", has_flows: false, make: headers::reject_icmp6 },
    Named { name: "checksum/64", has_flows: false, make: headers::checksum_64 },
    Named { name: "checksum/1500", has_flows: false, make: headers::checksum_1500 },
    Named { name: "handoff", has_flows: false, make: handing::ring },
    Named { name: "device", has_flows: false, make: pipeline::device_alone },
    Named { name: "pipeline", has_flows: true, make: pipeline::pipeline },
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_stage_does_what_it_should_to_every_packet() {
        for Named { name, make, .. } in STAGES {
            let mut stage = make(Scale::COUNTED).unwrap();
            for burst in 0..200 {
                stage.prepare();
                assert_eq!(stage.burst(), BURST, "{name}, burst {burst}");
            }
        }
    }

    #[test]
    fn names_tell_stages_apart() {
        let names: HashSet<_> = STAGES.iter().map(|stage| stage.name).collect();
        assert_eq!(names.len(), STAGES.len());
    }
}
