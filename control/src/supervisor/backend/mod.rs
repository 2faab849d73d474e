//! What the API asks, answered from the workers' counters and flow regions and from the publisher. API threads.

mod changes;
mod config;
mod events;
mod expect;
mod explain;
mod flows;
mod judge;
mod metrics;
mod rules;
mod sets;
mod settings;
mod stats;
mod tables;
mod taps;
mod top;
mod workers;

use super::plane::Plane;
use super::watchdog::SharedHealth;
use crate::api::backend::{ApplyError, Backend, Peer};
use crate::api::metrics::Facts;
use crate::api::types::{
    ApplyReport, ApplyRequest, CaptureRequest, ConfigReport, ConfigView, DiffReport, DropRow, EditRequest,
    EventRow, ExpectEventRow, ExpectRow, Family, FlowFilter, FlowRow, HashlimitEntry, HistoryEntry,
    HistoryReport, KeptView, RebalanceReport, RecentEdit, RecentEntry, RollbackRequest, RssStats,
    RuleCounters, RulesView, SetsAnswer, SetsRequest, Stats, TableLine, TablesRequest, Tally, TapFilter,
    TopReport, TopRequest, TraceRow, TrackRow, UpdateRequest, WorkersReport,
};
use crate::api::types::{ExplainRequest, Explanation};
use crate::audit::AuditLog;
use crate::config::{FwdArgs, Loaded};
use crate::history::{History, Note};
use crate::labels::LabelNames;
use crate::logging::LogSwitch;
use crate::publish::{BothRules, Publisher};
use crate::requests::Desk;
use crate::rules_file::Rules;
use crate::sets::Store;
use changes::Changes;
use dataplane::clock::Now;
use dataplane::flow::{Expectations, Region, TimeoutPolicy};
use dataplane::ids::{Generation, PortId};
use dataplane::packet::Family as Fam;
use dataplane::rules::{CompileError, RuleEdit};
use dataplane::worker::{PortState, WorkerCounters};
use events::Hub;
use metrics::Metrics;
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
    rss: RssStats,
}

/// One worker, for reading.
#[derive(Debug)]
struct WorkerFacts {
    core: u16,
    /// Why that one.
    why: String,
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
    /// What labels are called.
    labels: Mutex<Arc<LabelNames>>,
    /// Which NICs run generic XDP, filled in once they are attached.
    generic: Mutex<Vec<bool>>,
    /// One change of the rules at a time.
    changes: Mutex<Changes>,
    /// Where reports of defects go.
    state_dir: PathBuf,
    /// Whoever listens to events.
    hub: Hub,
    /// What is remembered for monitoring.
    metrics: Metrics,
    expectations: Arc<Expectations>,
    /// Who owns which flows.
    ownership: workers::Ownership,
    /// Where changes are written down.
    audit: Arc<AuditLog>,
    /// What it was started with and works with.
    live: config::Live,
    /// How many listen to what becomes of these.
    expecting: Mutex<usize>,
    /// What flows had counted when somebody last asked who has the most.
    top: top::Watch,
    tap_budget: taps::Budget,
}

impl LiveBackend {
    pub(super) fn new(
        args: FwdArgs,
        loaded: &Loaded,
        log: LogSwitch,
        plane: &Plane,
        sets: Arc<Store>,
        labels: LabelNames,
    ) -> Self {
        let config = &loaded.config;
        let port = |port: &super::ports::Port| PortFacts {
            name: port.nic.name.clone(),
            wire: port.wire.clone(),
            zero_copy: port.zero_copy,
            rss: stats::rss_stats(port.nic.rss()),
        };
        let worker = |handle: &super::plane::WorkerHandle| WorkerFacts {
            core: handle.core,
            why: handle.why.clone(),
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
            labels: Mutex::new(Arc::new(labels)),
            generic: Mutex::new(Vec::new()),
            changes: Mutex::new(Changes::new(history)),
            state_dir: config.state.dir.clone(),
            hub: Hub::new(
                Arc::clone(&plane.listening),
                plane.workers.iter().map(|handle| &handle.events),
                plane.publisher.track_settings().events.0 != 0,
            ),
            metrics: Metrics::new(),
            expectations: Arc::clone(&plane.expectations),
            ownership: workers::Ownership {
                steering: Arc::clone(&plane.steering),
                wakers: plane.workers.iter().map(|handle| Arc::clone(&handle.waker)).collect(),
                stride: plane.stride,
                lanes: plane.lanes(),
                tables: plane
                    .ports
                    .iter()
                    .enumerate()
                    .filter(|(_, port)| port.queues > 1)
                    .map(|(index, port)| (index, port.nic.rss_table()))
                    .collect(),
                moving: Mutex::new(()),
            },
            audit: Arc::new(AuditLog::open(config)),
            live: config::Live::new(args, loaded, log),
            expecting: Mutex::new(0),
            top: top::Watch::default(),
            tap_budget: taps::Budget::default(),
        }
    }

    /// Notes how the NICs were attached.
    pub(super) fn attached(&self, plane: &Plane) {
        let generic = plane.ports.iter().map(|port| !port.xdp.is_native()).collect();
        *self.generic.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = generic;
    }

    /// Publishes rules, as an edit if they are one, and waits until every worker works with them.
    fn publish(
        &self,
        v4: Option<Rules>,
        v6: Option<Rules>,
        keeps_flows: bool,
        steps: Option<&[RuleEdit]>,
    ) -> Result<Generation, CompileError> {
        let generation = match (v4, v6, steps) {
            (v4, v6, _) if keeps_flows => self.publisher.publish_keeping(v4, v6)?,
            (Some(rules), None, Some(steps)) | (None, Some(rules), Some(steps)) => {
                self.publisher.publish_edited(rules, steps)?
            }
            (v4, v6, _) => self.publisher.publish(v4, v6)?,
        };
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
        let BothRules { v4, v6 } = self.publisher.running();
        self.sets.used_by(&[&*v4.ruleset, &*v6.ruleset]);
    }

    /// Has labels called otherwise.
    pub(super) fn name_labels(&self, labels: LabelNames) {
        *self.labels.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(labels);
    }

    fn now(&self) -> Now {
        Now::since(self.started)
    }
}

impl Backend for LiveBackend {
    fn audit(&self) -> Arc<AuditLog> {
        Arc::clone(&self.audit)
    }

    fn stats(&self) -> Stats {
        self.top.forget_if_old();
        self.all_stats()
    }

    fn metrics(&self) -> Facts {
        self.all_metrics()
    }

    fn rules(&self, family: Family) -> Option<RulesView> {
        let fam = match family {
            Family::V4 => Fam::V4,
            Family::V6 => Fam::V6,
        };
        let (rules, counts, (packets, bytes)) = self.publisher.rules_and_kept(fam);
        let view = rules::rules_view(family, self.publisher.generation(), &rules, &counts);
        Some(RulesView { kept: KeptView { packets, bytes }, ..view })
    }

    fn rule_counters(&self, family: Family) -> Option<RuleCounters> {
        let fam = match family {
            Family::V4 => Fam::V4,
            Family::V6 => Fam::V6,
        };
        let (rules, counts, (packets, bytes)) = self.publisher.rules_and_kept(fam);
        let counters = rules::rule_counters(family, self.publisher.generation(), &rules, &counts);
        Some(RuleCounters { kept: KeptView { packets, bytes }, ..counters })
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

    fn label_names(&self) -> Arc<LabelNames> {
        Arc::clone(&self.labels.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn workers(&self, interval: Duration) -> WorkersReport {
        self.look_at_workers(interval)
    }

    fn top(&self, request: &TopRequest, filter: &FlowFilter) -> Result<TopReport, ApplyError> {
        self.look_for_top(request, filter)
    }

    fn rebalance(&self, interval: Duration, dry_run: bool) -> RebalanceReport {
        self.rebalance_workers(interval, dry_run)
    }

    fn settings(&self) -> Vec<(String, u32)> {
        self.all_settings()
    }

    fn set(&self, name: &str, value: &str, by: Peer) -> Result<(), String> {
        let one = self.live.change();
        self.change_setting(name, value)?;
        if let Some((_, value)) = self.all_settings().into_iter().find(|(known, _)| known == name) {
            self.live.note(&one, name, value, &by.to_string());
        }
        Ok(())
    }

    fn config(&self) -> ConfigView {
        self.config_view()
    }

    fn set_config(&self, set: &[String], by: Peer) -> Result<ConfigReport, ApplyError> {
        Self::set_config(self, set, &by.to_string())
    }

    fn reload_config(&self, by: Peer) -> Result<ConfigReport, ApplyError> {
        Self::reload_config(self, &by.to_string(), false, |_| Ok(()))
    }

    fn explain(&self, request: &ExplainRequest) -> Result<Explanation, ApplyError> {
        self.explain_packet(request)
    }

    fn command_sets(&self, request: &SetsRequest) -> Result<SetsAnswer, ApplyError> {
        self.change_sets(request)
    }

    fn recent(&self, which: &TablesRequest, each: &mut dyn FnMut(TableLine<RecentEntry>) -> ControlFlow<()>) {
        self.list_recent(which, each);
    }

    fn edit_recent(&self, request: &RecentEdit) -> Result<(), ApplyError> {
        self.change_recent(request)
    }

    fn hashlimit(
        &self,
        which: &TablesRequest,
        each: &mut dyn FnMut(TableLine<HashlimitEntry>) -> ControlFlow<()>,
    ) {
        self.list_hashlimit(which, each);
    }

    fn capture(
        &self,
        request: &CaptureRequest,
        each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), ApplyError> {
        self.capture_packets(request, each)
    }

    fn trace(
        &self,
        filter: &TapFilter,
        each: &mut dyn FnMut(Option<TraceRow>) -> ControlFlow<()>,
    ) -> Result<(), ApplyError> {
        self.trace_packets(filter, each)
    }

    fn drops(&self) -> Vec<DropRow> {
        self.last_drops()
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
