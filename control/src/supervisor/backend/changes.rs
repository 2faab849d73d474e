//! Every change of the rules comes by here: new ones, edits, rollbacks, SIGHUP. One at a time, each with an entry in the
//! history; one that must be confirmed is taken back by the daemon itself when nobody does. API threads and the control
//! thread.

use super::judge::Judge;
use super::sets::refused;
use super::{LiveBackend, rules};
use crate::api::backend::{ApplyError, Backend as _, Peer};
use crate::api::types::{
    ApplyReport, ApplyRequest, DiffReport, EditRequest, ErrorKind, Family, FlowsChoice, HistoryEntry,
    HistoryReport, Outcome, PendingView, RollbackRequest, RulesText, SetDiff,
};
use crate::audit::{self, Record, Who};
use crate::diff::diff;
use crate::history::{History, Note};
use crate::iptables::edit::{Edit, Edited, edit, line_of, table_of};
use crate::iptables::syntax::Counters;
use crate::labels::LabelNames;
use crate::publish::BothRules;
use crate::reproducer;
use crate::rules_file::{Named, Rules, understand_with};
use crate::sets::file;
use crate::sets::store::{Replaced, Staged, slots_of};
use dataplane::flow::Tenure;
use dataplane::ids::Generation;
use dataplane::packet::Family as Fam;
use dataplane::rules::conn::Effect;
use dataplane::rules::model::{Rule, Target};
use dataplane::rules::{CompileError, Compiled, RuleEdit};
use serde_json::json;
use std::sync::{Arc, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};
use tracing::{error, info, warn};

/// How long a change waits for others: enough for whoever only looks.
const BRIEFLY: Duration = Duration::from_millis(100);

/// What SIGHUP does to the rules.
const REREAD: &str = "rules files read again";

/// What changes of the rules have left behind.
#[derive(Debug)]
pub(super) struct Changes {
    pub(super) history: History,
    pending: Option<Pending>,
}

/// A change that waits for its confirmation.
#[derive(Clone, Debug)]
struct Pending {
    number: u64,
    until: Instant,
    /// What comes back without.
    back_to: u64,
    rules: BothRules,
    /// Sets that come back with them.
    sets: Option<Replaced>,
}

/// A change to be made.
#[derive(Default)]
struct Wanted {
    v4: Option<Rules>,
    v6: Option<Rules>,
    /// What is different, if it is little and known.
    steps: Option<Vec<RuleEdit>>,
    /// Sets that they were made for.
    sets: Option<Staged>,
    note: Note,
    flows: FlowsChoice,
    confirm_secs: Option<u32>,
    warnings: Vec<String>,
}

impl Changes {
    pub(super) const fn new(history: History) -> Self {
        Self { history, pending: None }
    }

    /// When the rules in force were put into force, in seconds since 1970.
    pub(super) fn applied_at(&self) -> f64 {
        let running = self.history.running();
        let entry = self.history.entries().find(|entry| entry.number == running);
        entry.map_or(0.0, |entry| Duration::from_micros(entry.at_us).as_secs_f64())
    }

    /// Seconds left to confirm the last change in, if it waits for that.
    pub(super) fn confirm_secs_left(&self) -> Option<u32> {
        self.pending.as_ref().map(Pending::secs_left)
    }

    fn refuse_while_pending(&self) -> Result<(), ApplyError> {
        let Some(pending) = &self.pending else { return Ok(()) };
        let (number, secs) = (pending.number, pending.secs_left());
        Err(ApplyError::new(
            ErrorKind::Busy,
            format!(
                "ruleset {number} waits for its confirmation ({secs} s left): `fwctl confirm` or `fwctl rollback` first"
            ),
        ))
    }
}

impl Pending {
    fn secs_left(&self) -> u32 {
        let left = self.until.saturating_duration_since(Instant::now());
        u32::try_from(left.as_secs()).unwrap_or(u32::MAX).saturating_add(u32::from(left.subsec_nanos() > 0))
    }

    fn is_overdue(&self) -> bool {
        self.until <= Instant::now()
    }
}

impl LiveBackend {
    /// The right to change rules; refused while somebody else does.
    fn changing(&self) -> Result<MutexGuard<'_, Changes>, ApplyError> {
        let patience = Instant::now() + BRIEFLY;
        loop {
            match self.changes.try_lock() {
                Ok(changes) => return Ok(changes),
                Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if Instant::now() < patience => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(ApplyError::new(ErrorKind::Busy, "another change of the rules is under way"));
                }
            }
        }
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a change into force and notes it.
    fn put_into_force(&self, changes: &mut Changes, wanted: Wanted) -> Result<ApplyReport, ApplyError> {
        let Wanted { v4, v6, steps, sets, mut note, flows, confirm_secs, mut warnings } = wanted;
        let (before, before_number) = (self.publisher.running(), changes.history.running());
        note.unconfirmed = confirm_secs.is_some();
        let tried: Vec<Rules> = v4.iter().chain(&v6).cloned().collect();
        let (is_new, keeps) = ([v4.is_some(), v6.is_some()], flows == FlowsChoice::Keep);
        warnings.extend(self.about_kept(&tried, keeps, is_new));
        let sets = sets.map(|sets| self.sets.put(sets));
        let generation = self.publish(v4, v6, keeps, steps.as_deref()).map_err(|error| {
            sets.iter().for_each(|replaced| self.sets.put_back(replaced));
            self.refusal(&error, &tried)
        })?;
        if !self.publisher.is_settled() {
            warnings.push("a worker has not taken the rules over yet: is it stuck?".to_owned());
        }
        let running = self.publisher.running();
        info!("{} by {}: generation {}", note.what, note.who, generation.0);
        let number = changes.history.record(&running, note);
        warnings.extend(changes.history.trouble().map(|trouble| format!("history: {trouble}")));
        // A change before this one that still waits is taken back by it.
        changes.pending = confirm_secs.map(|secs| {
            let until = Instant::now() + Duration::from_secs(secs.into());
            Pending { number, until, back_to: before_number, rules: before, sets }
        });
        let flows_killed = (flows == FlowsChoice::Kill).then(|| self.kill_refused());
        let flows_exempt = keeps.then(|| self.count_kept(self.tenures_of(is_new)));
        let count = |family| running.family(family).ruleset.rules().count() as u64;
        Ok(ApplyReport {
            generation: generation.0,
            rules: count(Fam::V4) + count(Fam::V6),
            flows_kept: self.flow_stats().count,
            warnings,
            number,
            before: before_number,
            confirm_secs,
            flows_killed,
            flows_exempt,
        })
    }

    /// The tenures of rules in force, of these families; of another, one that keeps nothing.
    fn tenures_of(&self, families: [bool; 2]) -> [Tenure; 2] {
        let newest = self.publisher.mailbox().newest();
        let [v4, v6] = families;
        [(&newest.v4, v4), (&newest.v6, v6)].map(|(rules, is_meant)| match rules.tenure() {
            tenure if is_meant => tenure,
            Tenure { since, .. } => Tenure::of(since),
        })
    }

    /// How many flows new rules of these families could keep.
    fn count_keepable(&self, families: [bool; 2]) -> u64 {
        let next = Generation(self.publisher.generation().0.wrapping_add(1));
        let newest = self.publisher.mailbox().newest();
        let [v4, v6] = families;
        self.count_kept([(&newest.v4, v4), (&newest.v6, v6)].map(|(rules, is_meant)| {
            if is_meant { rules.tenure().after(next) } else { Tenure::of(rules.since) }
        }))
    }

    /// What the operator should know about flows that earlier rules keep, or will have kept.
    fn about_kept(&self, new: &[Rules], keeps: bool, is_new: [bool; 2]) -> Option<String> {
        if keeps {
            let changes_packets = |rule: &Rule| matches!(rule.target, Target::Effect(Effect::Alter(_)));
            let changing =
                new.iter().flat_map(|rules| rules.ruleset.rules()).filter(|rule| changes_packets(rule));
            return (changing.count() > 0).then(|| {
                "packets of flows that are kept meet none of these rules: those that change packets do not change \
                 theirs"
                    .to_owned()
            });
        }
        let tenures = self.tenures_of(is_new);
        let count = if tenures.iter().any(|tenure| tenure.keeps()) { self.count_kept(tenures) } else { 0 };
        (count > 0).then(|| format!("{count} flows that had been kept meet the rules again"))
    }

    /// Why rules cannot run; a defect of ours is written down so that it can be looked into.
    fn refusal(&self, error: &CompileError, tried: &[Rules]) -> ApplyError {
        let tried: Vec<&Rules> = tried.iter().collect();
        ApplyError::new(ErrorKind::BadRules, reproducer::describe(error, &self.state_dir, &tried))
    }

    fn read_rules(
        &self,
        request: &ApplyRequest,
        warnings: &mut Vec<String>,
    ) -> Result<([Option<Rules>; 2], Option<Staged>), ApplyError> {
        let stage = |sets: &RulesText| {
            let (text, services) = (sets.text.as_bytes(), file::services());
            self.sets.stage(text, &services).map_err(|found| refused(&found, text, &sets.file))
        };
        let staged = request.sets.as_ref().map(stage).transpose()?;
        let sets = staged.as_ref().map_or_else(|| self.sets.slots(), |staged| self.sets.slots_with(staged));
        let replaced = staged.as_ref().map_or_else(Vec::new, |staged| self.sets.replaced_by(staged));
        let running = self.publisher.running();
        // Rules that stay, but name a set in whose place another comes, are made for that one.
        let remade = |family| {
            let rules = running.family(family);
            let is_meant = slots_of(&rules.ruleset).any(|slot| replaced.contains(&slot));
            let text = || rules.save(&|_| Counters::default());
            is_meant.then(|| RulesText { file: "the rules in force".to_owned(), text: text() })
        };
        let labels = self.label_names();
        let named = Named { policies: &self.policies, sets: &sets, labels: &labels };
        let mut load = |text: &Option<RulesText>, family| {
            let remade = if text.is_some() { None } else { remade(family) };
            let text = text.as_ref().or(remade.as_ref());
            text.map(|text| rules::load(text, family, named, warnings)).transpose()
        };
        let rules = [load(&request.v4, Fam::V4)?, load(&request.v6, Fam::V6)?];
        Ok((rules, staged))
    }

    pub(super) fn apply_rules(&self, request: ApplyRequest, by: Peer) -> Result<ApplyReport, ApplyError> {
        let mut changes = self.changing()?;
        changes.refuse_while_pending()?;
        let mut warnings = Vec::new();
        let ([v4, v6], sets) = self.read_rules(&request, &mut warnings)?;
        let ApplyRequest { v4: text4, v6: text6, sets: text_sets, flows, confirm_secs, comment } = request;
        let files = text4.into_iter().chain(text6).chain(text_sets).map(|text| text.file);
        let files: Vec<String> = files.collect();
        let what = format!("apply {}", files.join(" and "));
        let note = Note { who: by.to_string(), what, comment, ..Note::default() };
        let wanted = Wanted { v4, v6, steps: None, sets, note, flows, confirm_secs, warnings };
        self.put_into_force(&mut changes, wanted)
    }

    /// What [`Self::apply_rules`] would do.
    pub(super) fn diff_rules(&self, request: &ApplyRequest) -> Result<DiffReport, ApplyError> {
        let mut report = DiffReport::default();
        let (new, sets) = self.read_rules(request, &mut report.warnings)?;
        let compared = sets.map_or_else(Vec::new, |sets| self.sets.compare(&sets));
        report.sets = compared
            .into_iter()
            .map(|(name, before, after)| SetDiff {
                name,
                before: before.map(|count| count as u64),
                after: after as u64,
            })
            .collect();
        self.publisher.wait_until_whole();
        let newest = self.publisher.mailbox().newest();
        let ports: Vec<String> = self.ports.iter().map(|port| port.name.clone()).collect();
        let mut compile = |new: &Option<Rules>| {
            let Some(new) = new else { return Ok(None) };
            let (old, counts) = self.publisher.rules(new.ruleset.family);
            report.families.push(diff(&old, new, &counts));
            let compiled = Compiled::new(Arc::clone(&new.ruleset), &ports);
            compiled.map(Some).map_err(|error| self.refusal(&error, std::slice::from_ref(new)))
        };
        let [v4, v6] = &new;
        let (v4, v6) = (compile(v4)?, compile(v6)?);
        let v4 = v4.as_ref().unwrap_or(&newest.v4.compiled);
        let v6 = v6.as_ref().unwrap_or(&newest.v6.compiled);
        report.flows = self.fates(&Judge::new(v4, v6, self.ports.len(), self.now()), &mut |_| {});
        report.flows.kept = self.count_keepable([&new[0], &new[1]].map(Option::is_some));
        Ok(report)
    }

    /// SIGHUP: the rules files again, with the sets they were made for, and what labels are called.
    pub(in crate::supervisor) fn reload(
        &self,
        v4: Option<Rules>,
        v6: Option<Rules>,
        sets: Option<Staged>,
        labels: LabelNames,
    ) -> Result<ApplyReport, ApplyError> {
        let mut changes = self.changing()?;
        changes.refuse_while_pending()?;
        let note = Note { who: "SIGHUP".to_owned(), what: REREAD.to_owned(), ..Note::default() };
        let report = self.put_into_force(&mut changes, Wanted { v4, v6, sets, note, ..Wanted::default() })?;
        self.name_labels(labels);
        self.write_down("SIGHUP", "reload", REREAD, Ok(&report));
        Ok(report)
    }

    pub(super) fn edit_rules(&self, request: &EditRequest, by: Peer) -> Result<ApplyReport, ApplyError> {
        let mut changes = self.changing()?;
        changes.refuse_while_pending()?;
        let EditRequest { family, table, edit: kind, chain, words, flows, confirm_secs, comment } = request;
        let family = Fam::from(*family);
        let running = self.publisher.running();
        let Rules { ruleset, file } = &**running.family(family);
        let table = table_of(file, table).map_err(|message| ApplyError::new(ErrorKind::BadRules, message))?;
        let wanted = Edit { kind: *kind, table, chain, words };
        let (sets, labels) = (self.sets.slots(), self.label_names());
        let named = Named { policies: &self.policies, sets: &sets, labels: &labels };
        let read = |text: &[u8]| understand_with(text, "rule", family, named);
        let edited = edit(ruleset, file, wanted, read).map_err(|refused| rules::refused_edit(&refused))?;
        let Edited { ruleset, file, steps } = edited;
        let rules = Some(Rules { ruleset: Arc::new(ruleset), file: Arc::new(file) });
        let (v4, v6) = if family == Fam::V4 { (rules, None) } else { (None, rules) };
        let (number, table) = (Family::from(family).number(), table.name());
        let what = format!("rule {}: IPv{number} {table} {}", kind.word(), line_of(wanted));
        let note = Note { who: by.to_string(), what, comment: comment.clone(), ..Note::default() };
        let (flows, confirm_secs) = (*flows, *confirm_secs);
        let wanted = Wanted { v4, v6, steps, note, flows, confirm_secs, ..Wanted::default() };
        self.put_into_force(&mut changes, wanted)
    }

    pub(super) fn confirm_change(&self) -> Result<HistoryEntry, ApplyError> {
        let mut changes = self.changing()?;
        let Some(pending) = changes.pending.take_if(|pending| !pending.is_overdue()) else {
            return Err(ApplyError::new(ErrorKind::NotFound, "no change waits for a confirmation"));
        };
        changes.history.set_outcome(pending.number, Outcome::Confirmed);
        info!("ruleset {} is confirmed", pending.number);
        let entry = changes.history.entries().find(|entry| entry.number == pending.number);
        Ok(entry.cloned().unwrap_or_default())
    }

    pub(super) fn roll_back_to(&self, request: RollbackRequest, by: Peer) -> Result<ApplyReport, ApplyError> {
        let mut changes = self.changing()?;
        let RollbackRequest { number, flows, confirm_secs, comment } = request;
        if confirm_secs.is_some() {
            // What it would go back to was never confirmed itself.
            changes.refuse_while_pending()?;
        }
        let pending = changes.pending.clone();
        if let Some(waits) = pending.as_ref().filter(|waits| number.is_some() && waits.sets.is_some()) {
            let message = format!(
                "ruleset {} came with sets and waits: `fwctl rollback` without a number first",
                waits.number
            );
            return Err(ApplyError::new(ErrorKind::Busy, message));
        }
        let (number, rules) = match (number, &pending) {
            (None, Some(pending)) => (pending.back_to, pending.rules.clone()),
            (number, _) => {
                let unknown = |message| ApplyError::new(ErrorKind::NotFound, message);
                let number = number.map_or_else(|| changes.history.before().map_err(unknown), Ok)?;
                (number, self.remembered(&changes.history, number)?)
            }
        };
        let note = Note { who: by.to_string(), comment, ..Note::default() };
        let wanted = Wanted { note, flows, confirm_secs, ..Wanted::default() };
        self.bring_back(&mut changes, number, &rules, wanted)
    }

    /// The rules of an entry of the history.
    fn remembered(&self, history: &History, number: u64) -> Result<BothRules, ApplyError> {
        let texts = history.texts(number).map_err(|message| ApplyError::new(ErrorKind::NotFound, message))?;
        let (sets, labels) = (self.sets.slots(), self.label_names());
        let named = Named { policies: &self.policies, sets: &sets, labels: &labels };
        let read = |text: &str, family| {
            let text = RulesText { file: format!("ruleset {number}"), text: text.to_owned() };
            rules::load(&text, family, named, &mut Vec::new()).map(Arc::new)
        };
        Ok(BothRules { v4: read(&texts.v4, Fam::V4)?, v6: read(&texts.v6, Fam::V6)? })
    }

    fn bring_back(
        &self,
        changes: &mut Changes,
        number: u64,
        rules: &BothRules,
        wanted: Wanted,
    ) -> Result<ApplyReport, ApplyError> {
        let Note { who, what, comment, .. } = wanted.note;
        let what = if what.is_empty() { format!("rollback to {number}") } else { what };
        let note = Note { who, what, comment, restores: Some(number), unconfirmed: false };
        let running = self.publisher.running();
        // A family whose rules are the same goes on with its verdicts and counts.
        let changed = |family| {
            let (new, old) = (rules.family(family), running.family(family));
            (!Arc::ptr_eq(new, old) && new.ruleset != old.ruleset).then(|| Rules::clone(new))
        };
        let (v4, v6) = (changed(Fam::V4), changed(Fam::V6));
        let pending = changes.pending.clone();
        let report = self.put_into_force(changes, Wanted { v4, v6, note, ..wanted })?;
        if let Some(pending) = pending {
            if let Some(sets) = &pending.sets {
                self.sets.put_back(sets);
                self.note_sets();
            }
            changes.history.set_outcome(pending.number, Outcome::RolledBack);
        }
        Ok(report)
    }

    /// Remembers at most so many rulesets from now on.
    pub(super) fn keep_history(&self, most: u32) {
        self.changes().history.set_keep(usize::try_from(most).unwrap_or(usize::MAX));
    }

    /// Whether a change was not confirmed in time. Never waits.
    pub(in crate::supervisor) fn is_overdue(&self) -> bool {
        let is_overdue = |changes: &Changes| changes.pending.as_ref().is_some_and(Pending::is_overdue);
        self.changes.try_lock().is_ok_and(|changes| is_overdue(&changes))
    }

    /// Takes back a change that was not confirmed in time.
    pub(in crate::supervisor) fn roll_back_overdue(&self) {
        let mut changes = self.changes();
        let Some(pending) = changes.pending.clone().filter(Pending::is_overdue) else { return };
        warn!("ruleset {} was not confirmed in time; back to {}", pending.number, pending.back_to);
        let what = format!("rollback to {}: {} was not confirmed in time", pending.back_to, pending.number);
        let note = Note { who: "fwd".to_owned(), what, ..Note::default() };
        let wanted = Wanted { note, ..Wanted::default() };
        let done = self.bring_back(&mut changes, pending.back_to, &pending.rules, wanted);
        let to = format!("ruleset {}", pending.back_to);
        let told = done.as_ref().map_err(|refused| (audit::Outcome::Failed, refused.to_string()));
        self.write_down("not confirmed in time", "rollback", &to, told);
        if let Err(refused) = done {
            // They ran before: only memory can be lacking. Asked again, until somebody decides.
            error!("ruleset {} cannot be brought back: {refused}", pending.back_to);
            let until = Instant::now() + Duration::from_secs(1);
            changes.pending = Some(Pending { until, ..pending });
        }
    }

    /// Writes down in the audit log what the daemon did by itself.
    fn write_down(
        &self,
        reason: &str,
        action: &str,
        what: &str,
        done: Result<&ApplyReport, (audit::Outcome, String)>,
    ) {
        let (action, what) = (action.to_owned(), what.to_owned());
        let mut record = Record { who: Who::daemon(reason), action, what, ..Record::default() };
        match done {
            Ok(report) => {
                record.before = json!({ "ruleset": report.before });
                record.after = json!({ "ruleset": report.number, "rules": report.rules });
            }
            Err((result, why)) => (record.result, record.error) = (result, Some(why)),
        }
        self.audit.write(record);
    }

    /// Writes down in the audit log that SIGHUP changed nothing.
    pub(in crate::supervisor) fn note_refused_reload(&self, why: String) {
        self.write_down("SIGHUP", "reload", REREAD, Err((audit::Outcome::Refused, why)));
    }

    pub(super) fn history_report(&self) -> HistoryReport {
        let changes = self.changes();
        let pending = changes.pending.as_ref().map(|pending| PendingView {
            number: pending.number,
            secs_left: pending.secs_left(),
            back_to: pending.back_to,
        });
        let history = &changes.history;
        HistoryReport {
            entries: history.entries().cloned().collect(),
            running: history.running(),
            pending,
            dir: history.dir().map(|dir| dir.display().to_string()),
            trouble: history.trouble().map(str::to_owned),
        }
    }

    pub(super) fn history_text(&self, number: u64, family: Family) -> Result<String, ApplyError> {
        let texts = self.changes().history.texts(number);
        let texts = texts.map_err(|message| ApplyError::new(ErrorKind::NotFound, message))?;
        let text = if family == Family::V4 { texts.v4 } else { texts.v6 };
        Ok(text.to_string())
    }
}
