//! The compiled form of one family's rules: what workers run.

use super::counters::MATCHED_MAX;
use super::model::{RuleRef, Ruleset, Verdict};
use super::program::{self, Action, Line};
use super::tree::{Tree, words};
use super::validate::{self, CompileError};
use super::{Decision, Facts, selfcheck};
use std::sync::Arc;

/// Compiled rules. Immutable; shared by all workers through the snapshot.
#[derive(Debug)]
pub struct Compiled {
    ruleset: Arc<Ruleset>,
    lines: Vec<Line>,
    infos: Vec<LineInfo>,
    tree: Tree,
    uses_conntrack: bool,
}

/// What a line of the compiled form stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineInfo {
    /// The rule or policy whose counter it raises.
    pub by: RuleRef,
    /// What it decides, if it decides.
    pub verdict: Option<Verdict>,
}

/// The lines one packet matched, in order. Reused from packet to packet.
#[derive(Clone, Debug)]
pub struct Matched {
    lines: Vec<u32>,
}

impl Default for Matched {
    fn default() -> Self {
        Self { lines: Vec::with_capacity(MATCHED_MAX) }
    }
}

impl Matched {
    /// The lines, for [`super::RuleCounters`]. The last one decided.
    #[inline]
    #[must_use]
    pub fn lines(&self) -> &[u32] {
        &self.lines
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
        let compiled = Self::unchecked(ruleset, ports)?;
        if let Some(disagreement) = selfcheck::run(&compiled, ports) {
            return Err(CompileError::SelfCheck(disagreement.to_string()));
        }
        Ok(compiled)
    }

    /// Compiles without the self-check.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(super) fn unchecked(ruleset: Arc<Ruleset>, ports: &[String]) -> Result<Self, CompileError> {
        validate::validate(&ruleset)?;
        let lines = program::flatten(&ruleset, ports)?;
        let info = |line: &Line| LineInfo {
            by: line.by,
            verdict: match line.action {
                Action::Decide(verdict) => Some(verdict),
                _ => None,
            },
        };
        Ok(Self {
            infos: lines.iter().map(info).collect(),
            tree: Tree::build(&lines, ruleset.family),
            uses_conntrack: program::uses_conntrack(&ruleset),
            lines,
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

    /// Memory the compiled form takes, in bytes, the ruleset itself not counted.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.lines.len() * size_of::<Line>() + self.infos.len() * size_of::<LineInfo>() + self.tree.bytes()
    }

    /// What a path that ended with `line` decided.
    #[inline]
    #[must_use]
    pub fn outcome(&self, line: u32) -> (Verdict, RuleRef) {
        let info = &self.infos[line as usize];
        (info.verdict.unwrap_or(Verdict::Drop), info.by)
    }

    /// Judges one packet, leaving the lines it matched in `matched`.
    #[inline]
    pub fn classify(&self, facts: &Facts<'_>, matched: &mut Matched) -> Decision {
        matched.lines.clear();
        let mut invariant = true;
        let mut skipped_to = 0;
        for &index in self.tree.leaf(&words(facts)) {
            let line = &self.lines[index as usize];
            if index < skipped_to || !line.fields_match(facts) {
                continue;
            }
            if !line.more.is_empty() && !more_match(line, facts, &mut invariant) {
                continue;
            }
            match line.action {
                Action::SkipSilently(to) => {
                    skipped_to = to;
                    continue;
                }
                Action::Skip(to) => skipped_to = to,
                Action::Count | Action::Decide(_) => {}
            }
            matched.lines.push(index);
            if let Action::Decide(verdict) = line.action {
                return Decision { verdict, by: line.by, invariant };
            }
        }
        unreachable!(
            "every leaf ends with a line that decides about all its packets: the policy at the latest"
        )
    }
}

/// Whether the conditions beyond a line's fields hold. A volatile one that is asked, which is after all others held,
/// makes the decision depend on this very packet.
fn more_match(line: &Line, facts: &Facts<'_>, invariant: &mut bool) -> bool {
    let lasting = line.more.iter().filter(|test| !test.is_volatile());
    if !lasting.into_iter().all(|test| test.holds(facts.packet)) {
        return false;
    }
    let mut volatile = line.more.iter().filter(|test| test.is_volatile()).peekable();
    if volatile.peek().is_some() {
        *invariant = false;
    }
    volatile.all(|test| test.holds(facts.packet))
}
