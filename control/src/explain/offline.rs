//! A gateway that is not there: rules from files, no flows, one worker. For tools.

use super::{Scenery, Unexplained, answer};
use crate::api::Shown;
use crate::api::types::{ExplainRequest, Explanation};
use crate::publish::{BothRules, Publisher};
use crate::rules_file::Rules;
use dataplane::clock::Now;
use dataplane::explain::Live;
use dataplane::flow::{Expectations, Region, Seed, Tracker, TrackerConfig};
use dataplane::ids::WorkerId;
use dataplane::packet::Family;
use dataplane::rss::BUCKETS;
use dataplane::rules::CompileError;
use dataplane::worker::{PortState, Settings, Spread, Steering};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};

/// Flows there is room for: none begins.
const FLOWS: u32 = 64;

/// What a packet comes to, offline.
#[derive(Debug)]
pub struct Offline {
    rules: BothRules,
    publisher: Publisher,
    names: Vec<String>,
    ports: Vec<PortState>,
    steering: Steering,
    regions: Vec<Arc<Region>>,
    expectations: Expectations,
}

/// Why there is no such gateway.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The rules do not compile.
    #[error(transparent)]
    Rules(#[from] CompileError),
    /// There is no memory for flows.
    #[error("no memory for a flow table: {0}")]
    Io(#[from] std::io::Error),
}

impl Offline {
    /// A gateway with these rules and NICs; a family without rules accepts everything.
    ///
    /// # Errors
    /// If the rules do not compile, or memory is short.
    pub fn new(
        rules: &[Rules],
        settings: Settings,
        names: Vec<String>,
        frame_len_max: u32,
        track_always: bool,
    ) -> Result<Self, OfflineError> {
        let of = |family: Family| {
            let given = rules.iter().find(|rules| rules.ruleset.family == family);
            Arc::new(given.cloned().unwrap_or_else(|| Rules::empty(family)))
        };
        let rules = BothRules { v4: of(Family::V4), v6: of(Family::V6) };
        let publisher = Publisher::new(rules.clone(), settings, names.clone(), 1, track_always)?;
        publisher.follow_wall_clock(Now::from_secs(1));
        let tracker = Tracker::new(&TrackerConfig {
            max_flows: FLOWS,
            max_flows_v6: FLOWS,
            worker: WorkerId(0),
            seed: Seed::random(),
            hugepages: false,
            prefault: false,
        })?;
        let port = |_: &String| PortState {
            frame_len_max: AtomicU32::new(frame_len_max),
            link_up: AtomicBool::new(true),
        };
        Ok(Self {
            rules,
            publisher,
            ports: names.iter().map(port).collect(),
            names,
            steering: Steering::new(Spread::Secret, 1, BUCKETS),
            regions: vec![tracker.region()],
            expectations: Expectations::default(),
        })
    }

    /// Explains the packet of a request.
    ///
    /// # Errors
    /// As [`answer`].
    pub fn answer(&self, request: &ExplainRequest) -> Result<Explanation, Unexplained> {
        let snapshot = self.publisher.mailbox().newest();
        let live = Live {
            snapshot: &snapshot,
            names: &self.names,
            ports: &self.ports,
            steering: &self.steering,
            regions: &self.regions,
            expectations: &self.expectations,
            now: Now::from_secs(1),
        };
        let scenery = Scenery {
            generation: snapshot.generation.0,
            names: &self.names,
            rules: [&self.rules.v4, &self.rules.v6],
            shown: &Shown::default(),
        };
        let mut told = answer(request, &live, &scenery)?;
        told.notes.push("offline: there are no flows, and nothing has been counted".to_owned());
        Ok(told)
    }
}
