//! What the server needs from the daemon.

use super::metrics::Facts;
use super::types::Family;
use super::types::{
    ApplyReport, ApplyRequest, CaptureRequest, ConfigReport, ConfigView, Diagnostic, DiffReport, DropRow,
    EditRequest, ErrorKind, EventRow, ExpectEventRow, ExpectRow, FlowFilter, FlowRow, HashlimitEntry,
    HistoryEntry, HistoryReport, RebalanceReport, RecentEdit, RecentEntry, RollbackRequest, RuleCounters,
    RulesView, SetsAnswer, SetsRequest, Stats, TableLine, TablesRequest, Tally, TapFilter, TopReport,
    TopRequest, TraceRow, TrackRow, UpdateRequest, Version, WorkersReport,
};
use super::types::{ExplainRequest, Explanation};
use crate::audit::AuditLog;
use crate::labels::LabelNames;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

/// The daemon as the API sees it. Called from threads of the server, several at once; calls may take a while and may
/// wait for each other, but must not wait for the packet path longer than a worker takes between two bursts.
pub trait Backend: Send + Sync + 'static {
    /// Everything counted, now. Rates are the server's business and may be left zero.
    fn stats(&self) -> Stats;

    /// One family's rules with their counters; `None` if this daemon has none for it.
    fn rules(&self, family: Family) -> Option<RulesView>;

    /// What its rules have counted, in their order.
    fn rule_counters(&self, family: Family) -> Option<RuleCounters> {
        self.rules(family).as_ref().map(RuleCounters::from)
    }

    /// Calls `each` for every flow that fits the filter, in no particular order, until it says stop. A consistent
    /// picture of each flow, not of all of them together: flows that come and go meanwhile may be missed.
    fn flows(&self, filter: &FlowFilter, each: &mut dyn FnMut(FlowRow) -> ControlFlow<()>);

    /// How many flows fit the filter.
    fn count_flows(&self, filter: &FlowFilter) -> u64;

    /// Removes every flow that fits the filter and calls `each` for it, until it says stop.
    fn delete_flows(&self, filter: &FlowFilter, each: &mut dyn FnMut(FlowRow) -> ControlFlow<()>) -> Tally;

    /// Changes every flow that fits the filter and calls `each` for it, until it says stop.
    fn update_flows(
        &self,
        request: &UpdateRequest,
        each: &mut dyn FnMut(FlowRow) -> ControlFlow<()>,
    ) -> Tally;

    /// Removes all flows that are there now.
    fn flush_flows(&self) -> Tally;

    /// Calls `each` for whatever happens to flows that fit the filter, until it says stop: with `None` once it listens,
    /// and again now and then.
    ///
    /// # Errors
    /// If too many listen already; `each` was not called then.
    fn events(
        &self,
        filter: &FlowFilter,
        each: &mut dyn FnMut(Option<EventRow>) -> ControlFlow<()>,
    ) -> Result<(), String>;

    /// Connections that helpers expect, of one family or both.
    fn expectations(&self, family: Option<Family>) -> Vec<ExpectRow>;

    /// Forgets all of them; says how many there were.
    fn flush_expectations(&self) -> u64;

    /// As [`Self::events`], for expectations.
    ///
    /// # Errors
    /// As [`Self::events`].
    fn expect_events(
        &self,
        family: Option<Family>,
        each: &mut dyn FnMut(Option<ExpectEventRow>) -> ControlFlow<()>,
    ) -> Result<(), String>;

    /// What each worker's tracker has counted, under the names of `conntrack -S`.
    fn track_stats(&self) -> Vec<TrackRow>;

    /// What labels are called.
    fn label_names(&self) -> Arc<LabelNames>;

    /// Connection tracking settings in force, by name.
    fn settings(&self) -> Vec<(String, u32)>;

    /// Changes one of them.
    ///
    /// # Errors
    /// Says why not; nothing has changed then.
    fn set(&self, name: &str, value: &str, by: Peer) -> Result<(), String>;

    /// The configuration as the daemon works with it.
    fn config(&self) -> ConfigView;

    /// Changes settings, each `NAME=VALUE`: all or none.
    ///
    /// # Errors
    /// Everything that is wrong, or what needs a restart; nothing has changed then.
    fn set_config(&self, set: &[String], by: Peer) -> Result<ConfigReport, ApplyError>;

    /// Reads the configuration file again and changes what can change.
    ///
    /// # Errors
    /// Everything that is wrong; nothing has changed then.
    fn reload_config(&self, by: Peer) -> Result<ConfigReport, ApplyError>;

    /// What the workers have to do, looked at for a while.
    fn workers(&self, interval: Duration) -> WorkersReport;

    /// Who had the most traffic in a moment just past. Takes as long as that moment, or less if somebody asked before.
    ///
    /// # Errors
    /// If too many look already.
    fn top(&self, request: &TopRequest, filter: &FlowFilter) -> Result<TopReport, ApplyError>;

    /// Moves buckets of flows from busy workers to idle ones, by what comes in during `interval`.
    fn rebalance(&self, interval: Duration, dry_run: bool) -> RebalanceReport;

    /// Says what would become of a packet; nothing is sent and nothing changes.
    ///
    /// # Errors
    /// What is wrong with the request.
    fn explain(&self, request: &ExplainRequest) -> Result<Explanation, ApplyError>;

    /// Compiles new rules and returns once every worker works with them.
    ///
    /// # Errors
    /// Says what is wrong; the old rules stay in force then.
    fn apply(&self, request: ApplyRequest, by: Peer) -> Result<ApplyReport, ApplyError>;

    /// Says what [`Self::apply`] would change, and changes nothing.
    ///
    /// # Errors
    /// As [`Self::apply`].
    fn diff(&self, request: ApplyRequest) -> Result<DiffReport, ApplyError>;

    /// Changes the rules in force by one rule.
    ///
    /// # Errors
    /// As [`Self::apply`].
    fn edit(&self, request: EditRequest, by: Peer) -> Result<ApplyReport, ApplyError>;

    /// The change that waits for it holds; gives its entry in the history.
    ///
    /// # Errors
    /// If none waits.
    fn confirm(&self) -> Result<HistoryEntry, ApplyError>;

    /// Brings rules back that ran before.
    ///
    /// # Errors
    /// If they are not known, or as [`Self::apply`].
    fn roll_back(&self, request: RollbackRequest, by: Peer) -> Result<ApplyReport, ApplyError>;

    /// The rules that ran.
    fn history(&self) -> HistoryReport;

    /// One family's rules of an entry in the history.
    ///
    /// # Errors
    /// If they are not known.
    fn history_rules(&self, number: u64, family: Family) -> Result<String, ApplyError>;

    /// Carries out a command about sets, or a file of them.
    ///
    /// # Errors
    /// Says what is wrong with it.
    fn command_sets(&self, request: &SetsRequest) -> Result<SetsAnswer, ApplyError>;

    /// Calls `each` for the `recent` lists asked for and what is in them, until it says stop.
    fn recent(&self, which: &TablesRequest, each: &mut dyn FnMut(TableLine<RecentEntry>) -> ControlFlow<()>);

    /// Changes a `recent` list.
    ///
    /// # Errors
    /// If no rule in force has it.
    fn edit_recent(&self, request: &RecentEdit) -> Result<(), ApplyError>;

    /// As [`Self::recent`], for `hashlimit` tables.
    fn hashlimit(
        &self,
        which: &TablesRequest,
        each: &mut dyn FnMut(TableLine<HashlimitEntry>) -> ControlFlow<()>,
    );

    /// What is told to monitoring.
    fn metrics(&self) -> Facts {
        Facts { version: self.version(), stats: self.stats(), track: self.track_stats(), ..Facts::default() }
    }

    /// Where changes are written down. Asked once.
    fn audit(&self) -> Arc<AuditLog> {
        Arc::default()
    }

    /// Calls `each` with pieces of a capture file of packets that fit the request, until it says stop: with an empty one once it
    /// has begun, and now and then.
    ///
    /// # Errors
    /// If the request is wrong or too many look at packets already; `each` was not called then.
    fn capture(
        &self,
        request: &CaptureRequest,
        each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), ApplyError>;

    /// Calls `each` for packets that fit the filter, followed through the rules, until it says stop: with `None` once it has
    /// begun, and again now and then.
    ///
    /// # Errors
    /// As [`Self::capture`].
    fn trace(
        &self,
        filter: &TapFilter,
        each: &mut dyn FnMut(Option<TraceRow>) -> ControlFlow<()>,
    ) -> Result<(), ApplyError>;

    /// The last packets that were dropped, oldest first.
    fn drops(&self) -> Vec<DropRow>;

    /// Which daemon this is.
    fn version(&self) -> Version {
        let build = Some(crate::build_facts::facts());
        Version { version: env!("CARGO_PKG_VERSION").to_owned(), pid: std::process::id(), build }
    }
}

/// Who asks, as the kernel knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// User.
    pub uid: Option<u32>,
    /// Process.
    pub pid: Option<i32>,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(uid) = self.uid else { return f.write_str("somebody") };
        match nix::unistd::User::from_uid(uid.into()) {
            Ok(Some(user)) => f.write_str(&user.name)?,
            _ => write!(f, "uid {uid}")?,
        }
        self.pid.map_or(Ok(()), |pid| write!(f, " (process {pid})"))
    }
}

/// Why new rules were not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApplyError {
    /// [`ErrorKind::BadRules`], [`ErrorKind::Unsupported`], [`ErrorKind::NotFound`], [`ErrorKind::Busy`] or
    /// [`ErrorKind::Internal`].
    pub kind: ErrorKind,
    /// One sentence.
    pub message: String,
    /// Everything that is wrong with the rules.
    pub diagnostics: Vec<Diagnostic>,
}

impl ApplyError {
    /// A "no" in one sentence.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), diagnostics: Vec::new() }
    }
}
