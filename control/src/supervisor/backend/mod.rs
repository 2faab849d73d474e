//! What the API asks, answered from the workers' counters and flow regions and from the publisher. API threads.

mod changes;
mod events;
mod expect;
mod flows;
mod judge;
mod rules;
mod sets;
mod settings;
mod stats;

use super::plane::Plane;
use super::watchdog::SharedHealth;
use crate::api::backend::{ApplyError, Backend, Peer};
use crate::api::types::{
    ApplyReport, ApplyRequest, DiffReport, EditRequest, EventRow, ExpectEventRow, ExpectRow, Family,
    FlowFilter, FlowRow, HistoryEntry, HistoryReport, RollbackRequest, RulesView, SetsAnswer, SetsRequest,
    Stats, Tally, TrackRow, UpdateRequest,
};
use crate::config::Config;
use crate::history::{History, Note};
use crate::publish::Publisher;
use crate::requests::Desk;
use crate::rules_file::Rules;
use crate::sets::Store;
use changes::Changes;
use dataplane::clock::Now;
use dataplane::flow::{Expectations, Region, TimeoutPolicy};
use dataplane::ids::{Generation, PortId};
use dataplane::packet::Family as Fam;
use dataplane::rules::CompileError;
use dataplane::worker::{PortState, WorkerCounters};
use events::Hub;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tracing::warn;

/// How long an `apply` waits for the workers to take the rules over; they look between bursts.
const ADOPTION_TIMEOUT: Duration = Duration::from_secs(5);

/// What never changes about a NIC.
#[derive(Debug)]
struct PortFacts {
    name: String,
    wire: String,
    zero_copy: bool,
}

/// One worker, for reading.
#[derive(Debug)]
struct WorkerFacts {
    core: u16,
    counters: Arc<WorkerCounters>,
    region: Arc<Region>,
    /// Where it takes requests; whoever holds the lock is served alone.
    desk: Arc<Mutex<Desk>>,
    lanes: Vec<(PortId, u32)>,
    health: SharedHealth,
}

/// The running gateway, for reading and for new rules.
#[derive(Debug)]
pub(super) struct LiveBackend {
    started: Instant,
    publisher: Arc<Publisher>,
    workers: Vec<WorkerFacts>,
    ports: Vec<PortFacts>,
    states: Arc<[PortState]>,
    flows_max: u32,
    /// What rules that come in may name.
    policies: Vec<TimeoutPolicy>,
    /// What they may also name.
    sets: Arc<Store>,
    /// Which NICs run generic XDP, filled in once they are attached.
    generic: Mutex<Vec<bool>>,
    /// One change of the rules at a time.
    changes: Mutex<Changes>,
    /// Where reports of defects go.
    state_dir: PathBuf,
    /// Whoever listens to events.
    hub: Hub,
    expectations: Arc<Expectations>,
    /// How many listen to what becomes of these.
    expecting: Mutex<usize>,
}

impl LiveBackend {
    pub(super) fn new(config: &Config, plane: &Plane, sets: Arc<Store>) -> Self {
        let port = |port: &super::plane::Port| PortFacts {
            name: port.nic.name.clone(),
            wire: port.wire.clone(),
            zero_copy: port.zero_copy,
        };
        let worker = |handle: &super::plane::WorkerHandle| WorkerFacts {
            core: handle.core,
            counters: Arc::clone(&handle.counters),
            region: Arc::clone(&handle.region),
            desk: Arc::clone(&handle.desk),
            lanes: handle.lanes.clone(),
            health: Arc::clone(&handle.health),
        };
        let keep = usize::try_from(config.state.history_max).unwrap_or(usize::MAX);
        let mut history = History::open(&config.state.dir, keep);
        if let Some(trouble) = history.trouble() {
            warn!("history of the rules: {trouble}");
        }
        let files: Vec<String> =
            config.rules.v4.iter().chain(&config.rules.v6).map(|path| path.display().to_string()).collect();
        let note = Note {
            who: "fwd".to_owned(),
            what: format!("start with {}", files.join(" and ")),
            ..Note::default()
        };
        history.start(&plane.publisher.running(), note);
        Self {
            started: plane.started,
            publisher: Arc::clone(&plane.publisher),
            workers: plane.workers.iter().map(worker).collect(),
            ports: plane.ports.iter().map(port).collect(),
            states: Arc::clone(&plane.states),
            flows_max: config.flows.max,
            policies: config.rules.timeout_policies.clone(),
            sets,
            generic: Mutex::new(Vec::new()),
            changes: Mutex::new(Changes::new(history)),
            state_dir: config.state.dir.clone(),
            hub: Hub::new(
                Arc::clone(&plane.listening),
                plane.workers.iter().map(|handle| &handle.events),
                plane.publisher.track_settings().events.0 != 0,
            ),
            expectations: Arc::clone(&plane.expectations),
            expecting: Mutex::new(0),
        }
    }

    /// Notes how the NICs were attached.
    pub(super) fn attached(&self, plane: &Plane) {
        let generic = plane.ports.iter().map(|port| !port.xdp.is_native()).collect();
        *self.generic.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = generic;
    }

    /// Publishes rules and waits until every worker works with them.
    fn publish(&self, v4: Option<Rules>, v6: Option<Rules>) -> Result<Generation, CompileError> {
        let generation = self.publisher.publish(v4, v6)?;
        let deadline = Instant::now() + ADOPTION_TIMEOUT;
        while !self.publisher.is_settled() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.publisher.reclaim();
        self.note_sets();
        Ok(generation)
    }

    /// Takes down which sets the rules in force use.
    pub(super) fn note_sets(&self) {
        let rules = [Fam::V4, Fam::V6].map(|family| self.publisher.rules(family).0);
        self.sets.used_by(&rules.each_ref().map(|rules| &*rules.ruleset));
    }

    fn now(&self) -> Now {
        Now::since(self.started)
    }
}

impl Backend for LiveBackend {
    fn stats(&self) -> Stats {
        self.all_stats()
    }

    fn rules(&self, family: Family) -> Option<RulesView> {
        let fam = match family {
            Family::V4 => Fam::V4,
            Family::V6 => Fam::V6,
        };
        let (rules, counts) = self.publisher.rules(fam);
        Some(rules::rules_view(family, self.publisher.generation(), &rules, &counts))
    }

    fn flows(&self, filter: &FlowFilter, each: &mut dyn FnMut(FlowRow) -> ControlFlow<()>) {
        self.list(filter, each);
    }

    fn count_flows(&self, filter: &FlowFilter) -> u64 {
        self.count(filter)
    }

    fn delete_flows(&self, filter: &FlowFilter, each: &mut dyn FnMut(FlowRow) -> ControlFlow<()>) -> Tally {
        self.delete(filter, each)
    }

    fn update_flows(
        &self,
        request: &UpdateRequest,
        each: &mut dyn FnMut(FlowRow) -> ControlFlow<()>,
    ) -> Tally {
        self.update(request, each)
    }

    fn flush_flows(&self) -> Tally {
        self.flush()
    }

    fn events(
        &self,
        filter: &FlowFilter,
        each: &mut dyn FnMut(Option<EventRow>) -> ControlFlow<()>,
    ) -> Result<(), String> {
        self.listen(filter, each)
    }

    fn expectations(&self, family: Option<Family>) -> Vec<ExpectRow> {
        self.expected(family)
    }

    fn flush_expectations(&self) -> u64 {
        self.expectations.flush() as u64
    }

    fn expect_events(
        &self,
        family: Option<Family>,
        each: &mut dyn FnMut(Option<ExpectEventRow>) -> ControlFlow<()>,
    ) -> Result<(), String> {
        self.listen_to_expectations(family, each)
    }

    fn track_stats(&self) -> Vec<TrackRow> {
        self.tracked()
    }

    fn settings(&self) -> Vec<(String, u32)> {
        self.all_settings()
    }

    fn set(&self, name: &str, value: &str) -> Result<(), String> {
        self.change_setting(name, value)
    }

    fn command_sets(&self, request: &SetsRequest) -> Result<SetsAnswer, ApplyError> {
        self.change_sets(request)
    }

    fn apply(&self, request: ApplyRequest, by: Peer) -> Result<ApplyReport, ApplyError> {
        self.apply_rules(request, by)
    }

    fn diff(&self, request: ApplyRequest) -> Result<DiffReport, ApplyError> {
        self.diff_rules(&request)
    }

    fn edit(&self, request: EditRequest, by: Peer) -> Result<ApplyReport, ApplyError> {
        self.edit_rules(&request, by)
    }

    fn confirm(&self) -> Result<HistoryEntry, ApplyError> {
        self.confirm_change()
    }

    fn roll_back(&self, request: RollbackRequest, by: Peer) -> Result<ApplyReport, ApplyError> {
        self.roll_back_to(request, by)
    }

    fn history(&self) -> HistoryReport {
        self.history_report()
    }

    fn history_rules(&self, number: u64, family: Family) -> Result<String, ApplyError> {
        self.history_text(number, family)
    }
}
