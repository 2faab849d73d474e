//! Packets explained with what the gateway has at this moment. API threads; workers are not asked.

use super::LiveBackend;
use crate::api::backend::ApplyError;
use crate::api::types::{ErrorKind, ExplainRequest, Explanation};
use crate::explain::{Scenery, Unexplained, answer};
use dataplane::explain::Live;
use dataplane::flow::Region;
use std::sync::Arc;

impl LiveBackend {
    /// Explains the packet of a request.
    pub(super) fn explain_packet(&self, request: &ExplainRequest) -> Result<Explanation, ApplyError> {
        let (rules, snapshot) = self.publisher.running_as_published();
        let names: Vec<String> = self.ports.iter().map(|port| port.name.clone()).collect();
        let regions: Vec<Arc<Region>> =
            self.workers.iter().map(|worker| Arc::clone(&worker.region)).collect();
        let now = self.now();
        let live = Live {
            snapshot: &snapshot,
            names: &names,
            ports: &self.states,
            steering: &self.ownership.steering,
            regions: &regions,
            expectations: &self.expectations,
            now,
        };
        let shown = self.shown_at(self.wall_at(now));
        let scenery = Scenery {
            generation: snapshot.generation.0,
            names: &names,
            rules: [&rules.v4, &rules.v6],
            shown: &shown,
        };
        answer(request, &live, &scenery).map_err(|error| {
            let kind = match error {
                Unexplained::Request(_) => ErrorKind::BadRequest,
                Unexplained::System(_) => ErrorKind::Internal,
            };
            ApplyError { kind, message: error.to_string(), diagnostics: Vec::new() }
        })
    }
}
