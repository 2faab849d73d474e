//! The first step of compilation: the built-in chains on a packet's way and all they call as one list of lines, in the
//! order iptables tries them.
//!
//! A line holds the conditions of its rule and of every jump that leads to it. Jumps become lines that count and go on,
//! followed by the called chain's lines; RETURN and the end of a goto become lines that skip ahead. So a packet meets
//! the lines in order, and those that match are exactly the rules that `linear` would match. ACCEPT in a table that is
//! not the last one skips to the next table. A jump that hangs on a mark or the connection is asked once, at its own
//! line, which those of the called chain stand behind: they must not ask again what they may have changed. Lines that no
//! packet can match (a UDP chain entered with `-p tcp`) are left out.
//!
//! Where each unfolding of a chain lies is kept ([`Instance`]), so that a small edit finds the places it is about.

use super::conn::{ConnMatch, Effect};
use super::line::{Action, Line};
use super::model::{ChainId, Hook, Match, Rule, RuleRef, Ruleset, Table, Target, Verdict};
use super::{CompileError, linear};
use crate::ids::PORTS_MAX;
use std::ops::Range;

/// Most lines a ruleset may unfold to.
pub(super) const LINES_MAX: usize = 1 << 20;

/// A chain, unfolded in one place.
#[derive(Clone, Debug)]
pub(super) struct Instance {
    pub(super) chain: ChainId,
    /// The lines of its rules and of all they call. A built-in chain's policy is behind them.
    pub(super) lines: Range<u32>,
    /// The line that leads here, whose conditions are everybody's; `None`: a built-in chain.
    pub(super) entry: Option<u32>,
    /// Chains it is called through, itself counted.
    pub(super) depth: u8,
    /// Which built-in chain of the way it is below.
    pub(super) table: u8,
}

/// A way through the rules as lines.
#[derive(Debug, Default)]
pub(super) struct Flat {
    pub(super) lines: Vec<Line>,
    pub(super) instances: Vec<Instance>,
}

/// Flattens a way through a validated ruleset.
pub(super) fn flatten(
    ruleset: &Ruleset,
    way: &[(Hook, ChainId)],
    ports: &[String],
) -> Result<Flat, CompileError> {
    if ports.len() > PORTS_MAX {
        return Err(CompileError::TooManyPorts(ports.len()));
    }
    let mut flat = Flat::default();
    for table in 0..way.len() {
        let mut flatten = Flatten::new(ruleset, way, table, ports);
        flatten.flat = flat;
        flatten.table(way[table].1)?;
        flat = flatten.flat;
    }
    Ok(flat)
}

/// Unfolds one table after the other.
pub(super) struct Flatten<'a> {
    ruleset: &'a Ruleset,
    ports: &'a [String],
    hook: Hook,
    table: u8,
    is_last: bool,
    depth: u8,
    pub(super) flat: Flat,
    /// Lines that accept, if another table follows.
    pub(super) passes: Vec<usize>,
}

impl<'a> Flatten<'a> {
    pub(super) fn new(
        ruleset: &'a Ruleset,
        way: &[(Hook, ChainId)],
        table: usize,
        ports: &'a [String],
    ) -> Self {
        Self {
            ruleset,
            ports,
            hook: way[table].0,
            table: u8::try_from(table).unwrap_or(u8::MAX),
            is_last: table + 1 == way.len(),
            depth: 0,
            flat: Flat::default(),
            passes: Vec::new(),
        }
    }

    /// Appends a built-in chain and its policy.
    fn table(&mut self, id: ChainId) -> Result<(), CompileError> {
        let by = RuleRef { chain: id, rule: None };
        self.chain(id, None, &Line::any(Action::Count, by))?;
        let (action, accepts) = self.decision(linear::policy(self.ruleset, id), by);
        let at = self.push(Line { accepts, ..Line::any(action, by) })?;
        if matches!(action, Action::Pass(_)) {
            self.passes.push(at);
        }
        let end = self.end();
        for pass in std::mem::take(&mut self.passes) {
            self.flat.lines[pass].action = Action::Pass(end);
        }
        Ok(())
    }

    /// What a verdict comes down to in this table, and whether it is filter's consent.
    fn decision(&self, verdict: Verdict, by: RuleRef) -> (Action, bool) {
        let accepts = verdict == Verdict::Accept;
        let action = if accepts && !self.is_last { Action::Pass(0) } else { Action::Decide(verdict) };
        (action, accepts && self.ruleset.chain(by.chain).table == Table::Filter)
    }

    /// Appends a chain's lines, all under the conditions of `entry`, the line that calls it.
    fn chain(&mut self, id: ChainId, at: Option<usize>, entry: &Line) -> Result<(), CompileError> {
        let number = self.flat.instances.len();
        let (start, entry_at) = (self.end(), at.and_then(|at| u32::try_from(at).ok()));
        self.depth += 1;
        self.flat.instances.push(Instance {
            chain: id,
            lines: start..start,
            entry: entry_at,
            depth: self.depth,
            table: self.table,
        });
        let mut leaves = Vec::new();
        for (index, rule) in (0_u32..).zip(&self.ruleset.chain(id).rules) {
            self.rule(RuleRef { chain: id, rule: Some(index) }, rule, entry, &mut leaves)?;
        }
        self.depth -= 1;
        let end = self.end();
        self.flat.instances[number].lines.end = end;
        for leaf in leaves {
            if let Action::Skip(to) | Action::SkipSilently(to) = &mut self.flat.lines[leaf].action {
                *to = end;
            }
        }
        Ok(())
    }

    /// Appends a rule's lines. Those that leave its chain are added to `leaves`: where to, is the chain's to say.
    pub(super) fn rule(
        &mut self,
        by: RuleRef,
        rule: &Rule,
        entry: &Line,
        leaves: &mut Vec<usize>,
    ) -> Result<(), CompileError> {
        let mut line = entry.clone();
        (line.by, line.depth) = (by, self.depth);
        if !rule.matches.iter().all(|condition| line.require(condition, self.hook, self.ports)) {
            return Ok(());
        }
        (line.action, line.accepts) = match rule.target {
            Target::Jump(_) | Target::Goto(_) if line.asks_once() => (Action::Gate(0), false),
            Target::Continue | Target::Jump(_) | Target::Goto(_) => (Action::Count, false),
            Target::Effect(effect) => (Action::Do(effect.at(self.hook)), false),
            Target::Accept => self.decision(Verdict::Accept, line.by),
            Target::Drop => self.decision(Verdict::Drop, line.by),
            Target::Reject(with) => self.decision(Verdict::Reject(with), line.by),
            Target::Return => (Action::Skip(0), false),
        };
        let at = self.push(line.clone())?;
        line.forget_asked();
        match rule.target {
            Target::Return => leaves.push(at),
            Target::Jump(to) => self.chain(to, Some(at), &line)?,
            Target::Goto(to) => {
                self.chain(to, Some(at), &line)?;
                line.action = Action::SkipSilently(0);
                leaves.push(self.push(line)?);
            }
            _ if matches!(line.action, Action::Pass(_)) => self.passes.push(at),
            _ => {}
        }
        let end = self.end();
        if let Action::Gate(to) = &mut self.flat.lines[at].action {
            *to = end;
        }
        Ok(())
    }

    /// Appends a rule's lines in an unfolding of its chain that stands elsewhere.
    pub(super) fn rule_within(
        &mut self,
        instance: &Instance,
        by: RuleRef,
        entry: &Line,
        leaves: &mut Vec<usize>,
    ) -> Result<(), CompileError> {
        let Some(rule) = by.rule.map(|rule| &self.ruleset.chain(by.chain).rules[rule as usize]) else {
            return Ok(());
        };
        self.depth = instance.depth;
        self.rule(by, rule, entry, leaves)
    }

    fn end(&self) -> u32 {
        u32::try_from(self.flat.lines.len()).unwrap_or(u32::MAX)
    }

    fn push(&mut self, line: Line) -> Result<usize, CompileError> {
        if self.flat.lines.len() >= LINES_MAX {
            return Err(CompileError::TooManyLines(LINES_MAX));
        }
        self.flat.lines.push(line);
        Ok(self.flat.lines.len() - 1)
    }
}

/// Whether a rule makes the kernel turn tracking on: one that asks about connections or speaks of them. `-j NOTRACK`,
/// whatever stands beside it, and marks of packets do not.
pub(super) fn uses_conntrack(rule: &Rule) -> bool {
    let asks = |condition: &Match| match condition {
        Match::CtState { .. } => true,
        Match::Conn(condition) => !matches!(condition, ConnMatch::Mark { .. }),
        _ => false,
    };
    let speaks = match rule.target {
        Target::Effect(Effect::Order(orders)) => !orders.notrack,
        Target::Effect(effect) => effect.speaks_of_conn(),
        _ => false,
    };
    speaks || rule.matches.iter().any(asks)
}

/// Whether a rule asks for more of a connection than its state.
pub(super) fn asks_conn(rule: &Rule) -> bool {
    matches!(rule.target, Target::Effect(effect) if effect.speaks_of_conn())
        || rule.matches.iter().any(
            |condition| matches!(condition, Match::Conn(asked) if !matches!(asked, ConnMatch::Mark { .. })),
        )
}

/// Whether a rule speaks of labels.
pub(super) fn asks_labels(rule: &Rule) -> bool {
    rule.matches.iter().any(|condition| matches!(condition, Match::Conn(ConnMatch::ConnLabel { .. })))
}
