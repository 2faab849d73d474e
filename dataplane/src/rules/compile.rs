//! The compiled form of one family's rules: what workers run.

mod foresee;

pub use foresee::Foreseen;

use super::alter::Alter;
use super::classifier::{self, Classifier};
use super::conn::{Effect, Marks};
use super::counters::MATCHED_MAX;
use super::model::{RuleRef, Ruleset, Verdict};
use super::program::{self, Action, Line};
use super::rate::Tables;
use super::validate::{self, CompileError};
use super::{Decision, Facts, boxes, linear, selfcheck};
use crate::packet::Family;
use std::sync::Arc;

/// Compiled rules. Immutable; shared by all workers through the snapshot.
#[derive(Debug)]
pub struct Compiled {
    ruleset: Arc<Ruleset>,
    /// Lines of both programs.
    infos: Vec<LineInfo>,
    main: Program,
    raw: Option<Program>,
    uses_conntrack: bool,
    asks_conn: bool,
}

/// One way through the rules.
#[derive(Debug)]
struct Program {
    lines: Vec<Line>,
    /// Finds the lines whose fields match.
    classifier: Classifier,
    /// Whether it tells all NICs apart; if not, a line's fields must be asked themselves.
    is_exact: bool,
    /// Number of its first line among those of all programs.
    base: u32,
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

/// The lines one packet matched, in order. Reused from packet to packet.
#[derive(Clone, Debug)]
pub struct Matched {
    lines: Vec<u32>,
    /// The line that decided.
    decider: u32,
    /// Where the walk has stopped, if a line changes the packet.
    stop: Option<Stop>,
}

/// A line that changes the packet, and what is known by then.
#[derive(Clone, Copy, Debug)]
struct Stop {
    alter: Alter,
    /// The line behind it.
    next: u32,
    accepted_by: Option<(u32, RuleRef)>,
}

impl Default for Matched {
    fn default() -> Self {
        Self { lines: Vec::with_capacity(MATCHED_MAX), decider: 0, stop: None }
    }
}

impl Matched {
    /// The lines, for [`super::RuleCounters`].
    #[inline]
    #[must_use]
    pub fn lines(&self) -> &[u32] {
        &self.lines
    }

    /// The change to the packet that the walk waits for: make it, and go on with [`Compiled::resume`].
    #[inline]
    #[must_use]
    pub fn alter(&self) -> Option<Alter> {
        self.stop.map(|stop| stop.alter)
    }

    /// Takes away the lines so far, which were counted with the packet's length before a change.
    pub fn forget_lines(&mut self) {
        self.lines.clear();
    }

    /// The one among them that decided.
    #[inline]
    #[must_use]
    pub fn decider(&self) -> u32 {
        self.decider
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
        match selfcheck::run(&self, ports) {
            Some(disagreement) => Err(CompileError::SelfCheck(disagreement.to_string())),
            None => Ok(self),
        }
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
        let program = |lines: Vec<Line>, base| Program::new(lines, base, family, ports.len());
        let main = program(program::flatten(&ruleset, ports)?, 0);
        let base = u32::try_from(main.lines.len()).unwrap_or(u32::MAX);
        let raw = program::flatten_raw(&ruleset, ports)?.map(|lines| program(lines, base));
        let info = |line: &Line| LineInfo {
            by: line.by,
            verdict: match line.action {
                Action::Decide(verdict) => Some(verdict),
                Action::Pass(_) => Some(Verdict::Accept),
                _ => None,
            },
            management: linear::is_management(&ruleset, line.by),
        };
        let lines = main.lines.iter().chain(raw.iter().flat_map(|raw| &raw.lines));
        Ok(Self {
            infos: lines.map(info).collect(),
            main,
            raw,
            uses_conntrack: program::uses_conntrack(&ruleset),
            asks_conn: program::asks_conn(&ruleset),
            ruleset,
        })
    }

    /// What the operator asked for.
    #[must_use]
    pub fn ruleset(&self) -> &Ruleset {
        &self.ruleset
    }

    /// What each line stands for. Several lines may belong to one rule.
    #[must_use]
    pub fn lines(&self) -> &[LineInfo] {
        &self.infos
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

    /// Whether there are rules for packets that are not tracked yet.
    #[must_use]
    #[inline]
    pub fn has_raw(&self) -> bool {
        self.raw.is_some()
    }

    /// Memory the compiled form takes, in bytes, the ruleset itself not counted.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let programs = std::iter::once(&self.main).chain(&self.raw);
        let bytes = programs
            .map(|program| program.lines.len() * size_of::<Line>() + program.classifier.shape().bytes);
        bytes.sum::<usize>() + self.infos.len() * size_of::<LineInfo>()
    }

    /// What a path decided by `line` comes to.
    #[inline]
    #[must_use]
    pub fn outcome(&self, line: u32) -> (Verdict, RuleRef) {
        match self.infos.get(line as usize) {
            Some(info) => (info.verdict.unwrap_or(Verdict::Drop), info.by),
            // `PathId::KEPT_LINE`. No rule of these; the policy lends its name.
            None => (Verdict::Accept, RuleRef { chain: self.ruleset.forward, rule: None }),
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
        let decision = self.main.run(facts, marks, matched);
        Decision { management: self.infos[matched.decider as usize].management, ..decision }
    }

    /// Goes on where a change was due that is made now: `facts` are those of the packet as it has become.
    pub fn resume(&self, facts: &Facts<'_>, marks: &mut Marks, matched: &mut Matched) -> Decision {
        let program = if facts.is_raw { self.raw.as_ref().unwrap_or(&self.main) } else { &self.main };
        let decision = program.run(facts, marks, matched);
        let management = !facts.is_raw && self.infos[matched.decider as usize].management;
        Decision { management, invariant: false, ..decision }
    }

    /// Judges one packet before it is tracked; `None` if there are no rules for that.
    #[inline]
    pub fn classify_raw(
        &self,
        facts: &Facts<'_>,
        marks: &mut Marks,
        matched: &mut Matched,
    ) -> Option<Decision> {
        let raw = self.raw.as_ref()?;
        matched.lines.clear();
        matched.stop = None;
        Some(raw.run(&Facts { is_raw: true, ..*facts }, marks, matched))
    }
}

impl Program {
    fn new(lines: Vec<Line>, base: u32, family: Family, nics: usize) -> Self {
        let classifier = Classifier::new(&boxes::of(&lines, nics), family == Family::V6);
        Self { lines, classifier, is_exact: nics <= classifier::NIC_FLAGS as usize, base }
    }

    #[inline]
    fn run(&self, facts: &Facts<'_>, marks: &mut Marks, matched: &mut Matched) -> Decision {
        let mut invariant = true;
        let (mut from, mut accepted_by) = match matched.stop.take() {
            None => (0, None),
            Some(stop) => (stop.next, stop.accepted_by),
        };
        let mut cursor = self.classifier.find(&boxes::header(facts));
        loop {
            let index = self.classifier.next(&mut cursor, from);
            assert!(
                index != classifier::NONE,
                "every path ends with a line that decides about all packets: the last policy at the latest"
            );
            from = index + 1;
            let line = &self.lines[index as usize];
            let fits = self.is_exact || line.fields_match(facts);
            debug_assert!(!fits || line.fields_match(facts), "the classifier is exact");
            if !fits || !line.more.is_empty() && !more_match(line, facts, marks, &mut invariant) {
                if fits && marks.hotdrop {
                    matched.decider = self.base + index;
                    return Decision {
                        verdict: Verdict::Drop,
                        by: line.by,
                        invariant: false,
                        management: false,
                    };
                }
                if let Action::Gate(to) = line.action {
                    from = to;
                }
                continue;
            }
            match line.action {
                Action::SkipSilently(to) => {
                    from = to;
                    continue;
                }
                Action::Skip(to) | Action::Pass(to) => from = to,
                Action::Do(effect) => {
                    // What is done must be done for each packet.
                    invariant = false;
                    match effect {
                        Effect::Alter(alter) => {
                            return self.stop_at(index, alter, accepted_by, matched);
                        }
                        Effect::Log(log) => facts.notes.note(facts, log, line.by, marks.packet),
                        _ => effect.apply(marks, facts),
                    }
                }
                Action::Count | Action::Gate(_) | Action::Decide(_) => {}
            }
            let number = self.base + index;
            matched.lines.push(number);
            if line.accepts {
                accepted_by = Some((number, line.by));
            }
            if let Action::Decide(verdict) = line.action {
                let accepted_by = accepted_by.filter(|_| verdict == Verdict::Accept);
                let (decider, by) = accepted_by.unwrap_or((number, line.by));
                matched.decider = decider;
                return Decision { verdict, by, invariant, management: false };
            }
        }
    }
}

impl Program {
    /// Stops before the packet is changed: what becomes of it if it cannot be.
    #[cold]
    fn stop_at(
        &self,
        index: u32,
        alter: Alter,
        accepted_by: Option<(u32, RuleRef)>,
        matched: &mut Matched,
    ) -> Decision {
        let number = self.base + index;
        matched.lines.push(number);
        matched.decider = number;
        matched.stop = Some(Stop { alter, next: index + 1, accepted_by });
        let by = self.lines[index as usize].by;
        Decision { verdict: Verdict::Drop, by, invariant: false, management: false }
    }
}

/// Whether the conditions beyond a line's fields hold. A volatile one that is asked, which is after all others held,
/// makes the decision depend on this very packet.
fn more_match(line: &Line, facts: &Facts<'_>, marks: &mut Marks, invariant: &mut bool) -> bool {
    let (tests, ordered) = line.more.split_at(line.more.len().min(line.ordered_from as usize));
    if !tests.iter().filter(|test| !test.is_volatile()).all(|test| test.holds(facts, marks)) {
        return false;
    }
    tests.iter().filter(|test| test.is_volatile()).chain(ordered).all(|test| {
        *invariant &= !test.is_volatile();
        test.holds(facts, marks)
    })
}
