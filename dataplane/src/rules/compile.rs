//! The compiled form of one family's rules: what workers run.

mod foresee;

pub use foresee::Foreseen;

use super::conn::Marks;
use super::interned::Interned;
use super::line::{Action, Line};
use super::model::{ChainId, Rule, RuleRef, Ruleset, Verdict};
use super::overlay::{Edits, RuleEdit};
use super::program::{self, Flat};
use super::rate::Tables;
use super::trace::{self, TracedChain, Tracing, Trail};
use super::validate::{self, CompileError};
use super::walk::{Matched, Program};
use super::{Decision, Facts, PathId, boxes, classifier, linear, selfcheck};
use crate::packet::Family;
use classifier::Classifier;
use std::sync::Arc;

/// Compiled rules. Immutable; shared by all workers through the snapshot.
#[derive(Debug)]
pub struct Compiled {
    ruleset: Arc<Ruleset>,
    base: Arc<Base>,
    /// What was edited since `base` was compiled.
    edits: Option<Box<Edits>>,
    uses_conntrack: bool,
    asks_conn: bool,
    asks_labels: bool,
    /// Names of the chains, if any rule traces.
    traced: Option<Box<[Interned<TracedChain>]>>,
}

/// Rules that were compiled as a whole.
#[derive(Debug)]
pub(super) struct Base {
    /// Lines of both programs.
    pub(super) infos: Vec<LineInfo>,
    pub(super) main: Program,
    pub(super) raw: Option<Program>,
}

/// What a line of the compiled form stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineInfo {
    /// The rule or policy whose counter it raises.
    pub by: RuleRef,
    /// What it decides, if it decides.
    pub verdict: Option<Verdict>,
    /// Whether the rule is marked as management.
    pub management: bool,
}

impl LineInfo {
    pub(super) fn of(line: &Line, ruleset: &Ruleset) -> Self {
        Self {
            by: line.by,
            verdict: match line.action {
                Action::Decide(verdict) => Some(verdict),
                Action::Pass(_) => Some(Verdict::Accept),
                _ => None,
            },
            management: linear::is_management(ruleset, line.by),
        }
    }
}

impl Compiled {
    /// Compiles a ruleset for NICs called `ports`, by [`crate::ids::PortId`], and holds the result against
    /// [`super::linear`].
    ///
    /// # Errors
    /// If chains loop, nest too deeply or unfold to too much; or if the compiled form disagrees with the plain one
    /// about some header, a defect that must never reach a packet: the error is a reproducer.
    pub fn new(ruleset: Arc<Ruleset>, ports: &[String]) -> Result<Self, CompileError> {
        Self::with_tables(ruleset, ports, &Tables::default(), None)
    }

    /// The same with the tables that other rules have filled, and what rules `before` that are the same have counted. None
    /// of it is asked here.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_tables(
        ruleset: Arc<Ruleset>,
        ports: &[String],
        tables: &Tables,
        before: Option<&Ruleset>,
    ) -> Result<Self, CompileError> {
        Self::unchecked(tables.bound(ruleset, before)?, ports)?.checked(ports)
    }

    /// Held against what the rules mean.
    ///
    /// # Errors
    /// About which header they disagree.
    pub(super) fn checked(self, ports: &[String]) -> Result<Self, CompileError> {
        self.agrees(ports, selfcheck::WORK_MAX)?;
        Ok(self)
    }

    /// The same compiled form for rules of another meaning: a defect.
    #[cfg(test)]
    pub(super) fn of_another_meaning(self, ruleset: Arc<Ruleset>) -> Self {
        Self { ruleset, ..self }
    }

    /// Compiles without the self-check.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(super) fn unchecked(ruleset: Arc<Ruleset>, ports: &[String]) -> Result<Self, CompileError> {
        validate::validate(&ruleset)?;
        let family = ruleset.family;
        let program = |flat: Flat, base| Program::new(flat, base, family, ports.len());
        let main = program(program::flatten(&ruleset, &ruleset.way(), ports)?, 0);
        let base = u32::try_from(main.lines.len()).unwrap_or(u32::MAX);
        let raw_way = ruleset.raw_way();
        let raw = (!raw_way.is_empty()).then(|| program::flatten(&ruleset, &raw_way, ports)).transpose()?;
        let raw = raw.map(|flat| program(flat, base));
        let lines = main.lines.iter().chain(raw.iter().flat_map(|raw| &raw.lines));
        let infos = lines.map(|line| LineInfo::of(line, &ruleset)).collect();
        let any = |asks: fn(&Rule) -> bool| ruleset.rules().any(asks);
        let [uses_conntrack, asks_conn, asks_labels] =
            [program::uses_conntrack, program::asks_conn, program::asks_labels].map(any);
        let traced = any(trace::is_asked).then(|| trace::names(&ruleset));
        let base = Arc::new(Base { infos, main, raw });
        Ok(Self { ruleset, base, edits: None, uses_conntrack, asks_conn, asks_labels, traced })
    }

    /// The same rules with a few edits, in no time that depends on how many they are but for copying their list: what
    /// is compiled stays, and the edits are looked at beside it. That costs packets a little; compile anew behind it.
    /// `None` if there is too much to look at, or an edit of a kind that does not go this way.
    ///
    /// # Errors
    /// If chains loop or nest too deeply.
    pub fn edited(&self, edits: &[RuleEdit], ports: &[String]) -> Result<Option<Self>, CompileError> {
        let Some((ruleset, edits)) =
            Edits::new(&self.base, &self.ruleset, self.edits.as_deref(), edits, ports)?
        else {
            return Ok(None);
        };
        let added = |asks: fn(&Rule) -> bool| edits.added(&ruleset).any(asks);
        let traced = self.traced.clone();
        Ok(Some(Self {
            base: Arc::clone(&self.base),
            traced: traced.or_else(|| added(trace::is_asked).then(|| trace::names(&ruleset))),
            uses_conntrack: self.uses_conntrack || added(program::uses_conntrack),
            asks_conn: self.asks_conn || added(program::asks_conn),
            asks_labels: self.asks_labels || added(program::asks_labels),
            edits: Some(Box::new(edits)),
            ruleset: Arc::new(ruleset),
        }))
    }

    /// Whether it was edited since it was compiled as a whole.
    #[must_use]
    pub const fn is_edited(&self) -> bool {
        self.edits.is_some()
    }

    /// Held against what the rules mean, after edits. Less thoroughly than a load: it does not last.
    ///
    /// # Errors
    /// About which header they disagree.
    pub fn recheck(&self, ports: &[String]) -> Result<(), CompileError> {
        self.agrees(ports, selfcheck::WORK_MAX / 10)
    }

    fn agrees(&self, ports: &[String], work_max: usize) -> Result<(), CompileError> {
        match selfcheck::run(self, ports, work_max) {
            Some(disagreement) => Err(CompileError::SelfCheck(disagreement.to_string())),
            None => Ok(()),
        }
    }

    /// What the operator asked for.
    #[must_use]
    pub fn ruleset(&self) -> &Ruleset {
        &self.ruleset
    }

    /// How many lines there are. Several may belong to one rule.
    #[must_use]
    pub fn line_count(&self) -> usize {
        self.base.infos.len() + self.edits.as_ref().map_or(0, |edits| edits.infos.len())
    }

    /// What each line stands for, by its number; `None` if it belongs to a rule that is gone.
    pub fn lines(&self) -> impl Iterator<Item = Option<LineInfo>> + '_ {
        (0..u32::try_from(self.line_count()).unwrap_or(u32::MAX)).map(|number| self.line(number))
    }

    /// What a line stands for; `None` if it belongs to a rule that is gone.
    #[must_use]
    #[inline]
    pub fn line(&self, number: u32) -> Option<LineInfo> {
        let Some(edits) = &self.edits else { return self.base.infos.get(number as usize).copied() };
        edits.line(&self.base, number)
    }

    /// Whether any rule asks for a connection state.
    #[must_use]
    pub fn uses_conntrack(&self) -> bool {
        self.uses_conntrack
    }

    /// Whether any rule asks for more of a connection than its state: only then need [`Facts::conn`] be there.
    #[must_use]
    #[inline]
    pub fn asks_conn(&self) -> bool {
        self.asks_conn
    }

    /// Whether any rule asks for a connection's labels, or gives it some.
    #[must_use]
    #[inline]
    pub fn asks_labels(&self) -> bool {
        self.asks_labels
    }

    /// A chain's name in traces; `None` if no rule traces.
    #[must_use]
    pub fn traced_chain(&self, chain: ChainId) -> Option<Interned<TracedChain>> {
        self.traced.as_ref()?.get(chain.0 as usize).copied()
    }

    /// Whether there are rules for packets that are not tracked yet.
    #[must_use]
    #[inline]
    pub fn has_raw(&self) -> bool {
        self.base.raw.is_some()
    }

    /// Memory the compiled form takes, in bytes, the ruleset itself not counted.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let programs = std::iter::once(&self.base.main).chain(&self.base.raw);
        let bytes = programs
            .map(|program| program.lines.len() * size_of::<Line>() + program.classifier.shape().bytes);
        bytes.sum::<usize>() + self.base.infos.len() * size_of::<LineInfo>()
    }

    /// What a path decided by `line` comes to.
    #[inline]
    #[must_use]
    pub fn outcome(&self, line: u32) -> (Verdict, RuleRef) {
        // No rule of these; the policy lends its name.
        let policy = RuleRef { chain: self.ruleset.forward, rule: None };
        match self.line(line) {
            Some(info) => (info.verdict.unwrap_or(Verdict::Drop), info.by),
            None if line == PathId::KEPT_LINE => (Verdict::Accept, policy),
            None => (Verdict::Drop, policy),
        }
    }

    /// Judges one tracked packet, leaving the lines it matched in `matched` and what they change in `marks`.
    ///
    /// If a line changes the packet ([`Matched::alter`]), the decision stands for a packet that cannot be changed, which is
    /// dropped; else [`Self::resume`] has the next word.
    #[inline]
    pub fn classify(&self, facts: &Facts<'_>, marks: &mut Marks, matched: &mut Matched) -> Decision {
        matched.lines.clear();
        matched.stop = None;
        let decision = if marks.is_traced() {
            matched.position.clear();
            self.run_traced(&self.base.main, facts, marks, matched)
        } else {
            self.run(&self.base.main, facts, marks, matched, &mut ())
        };
        self.with_management(decision, matched)
    }

    /// Goes on where a change was due that is made now: `facts` are those of the packet as it has become.
    pub fn resume(&self, facts: &Facts<'_>, marks: &mut Marks, matched: &mut Matched) -> Decision {
        let Base { raw, main, .. } = &*self.base;
        let program = if facts.is_raw { raw.as_ref().unwrap_or(main) } else { main };
        let decision = if marks.is_traced() || facts.is_raw && self.traced.is_some() {
            self.run_traced(program, facts, marks, matched)
        } else {
            self.run(program, facts, marks, matched, &mut ())
        };
        let decision = Decision { invariant: false, ..decision };
        if facts.is_raw { decision } else { self.with_management(decision, matched) }
    }

    /// Judges one packet before it is tracked; `None` if there are no rules for that.
    #[inline]
    pub fn classify_raw(
        &self,
        facts: &Facts<'_>,
        marks: &mut Marks,
        matched: &mut Matched,
    ) -> Option<Decision> {
        let raw = self.base.raw.as_ref()?;
        matched.lines.clear();
        matched.stop = None;
        let facts = Facts { is_raw: true, ..*facts };
        Some(if marks.followed || self.traced.is_some() {
            matched.position.clear();
            self.run_traced(raw, &facts, marks, matched)
        } else {
            self.run(raw, &facts, marks, matched, &mut ())
        })
    }

    #[inline]
    fn run(
        &self,
        program: &Program,
        facts: &Facts<'_>,
        marks: &mut Marks,
        matched: &mut Matched,
        trail: &mut impl Trail,
    ) -> Decision {
        match &self.edits {
            None => program.run(facts, marks, matched, trail),
            Some(edits) => edits.run(program, facts, marks, matched, trail),
        }
    }

    /// Runs a program and has the steps of the packet noted, once it is traced.
    #[cold]
    fn run_traced(
        &self,
        program: &Program,
        facts: &Facts<'_>,
        marks: &mut Marks,
        matched: &mut Matched,
    ) -> Decision {
        let mut position = std::mem::take(&mut matched.position);
        let mut trail = Tracing { ruleset: &self.ruleset, position: &mut position };
        let decision = self.run(program, facts, marks, matched, &mut trail);
        matched.position = position;
        decision
    }

    #[inline]
    fn with_management(&self, decision: Decision, matched: &Matched) -> Decision {
        let management = self.line(matched.decider).is_some_and(|line| line.management);
        Decision { management, ..decision }
    }
}

impl Program {
    fn new(flat: Flat, base: u32, family: Family, nics: usize) -> Self {
        let Flat { lines, instances } = flat;
        let classifier = Classifier::new(&boxes::of(&lines, nics), family == Family::V6);
        Self { lines, instances, classifier, is_exact: nics <= classifier::NIC_FLAGS as usize, base }
    }
}
