//! `-j TRACE`: a packet that meets it has every rule, policy and end of a chain it matches from then on noted, before the
//! rule does anything. Which those are follows from the rules matched, so nothing is asked twice. Worker thread; a
//! packet that is not traced never comes here.

use super::Facts;
use super::conn::{Effect, Marks};
use super::interned::{Interned, Kept, Pool};
use super::model::{Chain, ChainId, Hook, Rule, RuleRef, Ruleset, Table, Target};
use super::validate::CHAIN_DEPTH_MAX;
use std::sync::Mutex;

/// A chain as a trace names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TracedChain {
    /// Its table.
    pub table: Table,
    /// Its name.
    pub name: Box<str>,
}

impl Kept for TracedChain {
    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<TracedChain> = Mutex::new(None);
        &POOL
    }
}

/// One step of a traced packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The rule it matched; without number a built-in chain's policy or the end of another chain.
    pub at: RuleRef,
    /// Where on its way: whether the egress NIC is known.
    pub hook: Hook,
}

/// What a step is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StepKind {
    /// A rule.
    Rule,
    /// The end of a chain that is not built in.
    Return,
    /// A built-in chain's policy.
    Policy,
}

impl StepKind {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::Return => "return",
            Self::Policy => "policy",
        }
    }
}

/// Whether a rule traces.
pub(super) fn is_asked(rule: &Rule) -> bool {
    matches!(rule.target, Target::Effect(Effect::Trace))
}

/// Names of all chains by [`ChainId`].
pub(super) fn names(ruleset: &Ruleset) -> Box<[Interned<TracedChain>]> {
    let name =
        |chain: &Chain| Interned::new(TracedChain { table: chain.table, name: chain.name.as_str().into() });
    ruleset.chains.iter().map(name).collect()
}

/// What the kernel calls a step, and its number in the chain. To Linux (`ip_tables.c`) a rule that says nothing but
/// ACCEPT, DROP or RETURN looks like the end of its chain.
#[must_use]
pub fn label(ruleset: &Ruleset, at: RuleRef) -> (StepKind, u32) {
    let chain = ruleset.chain(at.chain);
    let len = u32::try_from(chain.rules.len()).unwrap_or(u32::MAX);
    let rule = at.rule.and_then(|rule| chain.rules.get(rule as usize));
    let kind = match rule {
        Some(rule)
            if !(rule.is_bare && matches!(rule.target, Target::Accept | Target::Drop | Target::Return)) =>
        {
            StepKind::Rule
        }
        _ if chain.policy.is_some() => StepKind::Policy,
        _ => StepKind::Return,
    };
    (kind, at.rule.unwrap_or(len).saturating_add(1))
}

/// Notes a step if the packet is traced by now, or followed from the start.
pub(super) fn note(facts: &Facts<'_>, marks: &Marks, step: Step) {
    if marks.traced {
        facts.notes.trace(facts, step, marks.packet);
    }
    if marks.followed {
        facts.notes.follow(step);
    }
}

/// Follows the compiled form from match to match.
pub(super) trait Trail {
    /// A rule or policy is the next whose conditions are asked with success, or with the packet's end.
    fn comes_to(&mut self, by: RuleRef, facts: &Facts<'_>, marks: &Marks);
    /// A rule's or policy's conditions hold, and nothing is done yet.
    fn meets(&mut self, by: RuleRef, facts: &Facts<'_>, marks: &Marks);
}

/// Nobody wants to know.
impl Trail for () {
    #[inline(always)]
    fn comes_to(&mut self, _: RuleRef, _: &Facts<'_>, _: &Marks) {}
    #[inline(always)]
    fn meets(&mut self, _: RuleRef, _: &Facts<'_>, _: &Marks) {}
}

/// The chains a packet has entered and not left, its built-in one first. Kept where a walk stops and is resumed.
#[derive(Clone, Debug, Default)]
pub(super) struct Position(Vec<ChainId>);

impl Position {
    /// With room for every chain that a packet can be in.
    pub(super) fn new() -> Self {
        Self(Vec::with_capacity(CHAIN_DEPTH_MAX + 2))
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// Notes the steps.
#[derive(Debug)]
pub(super) struct Tracing<'a> {
    pub(super) ruleset: &'a Ruleset,
    pub(super) position: &'a mut Position,
}

impl Tracing<'_> {
    /// Where the chain stands that the packet came from.
    fn hook(&self) -> Hook {
        let first = self.position.0.first();
        first.and_then(|chain| self.ruleset.hook_of(*chain)).unwrap_or(Hook::Forward)
    }
}

impl Trail for Tracing<'_> {
    fn comes_to(&mut self, by: RuleRef, facts: &Facts<'_>, marks: &Marks) {
        let open = &mut self.position.0;
        // Only a table's end leads to a chain that is not open: no chain calls itself.
        if !open.contains(&by.chain) {
            open.clear();
            open.push(by.chain);
        }
        let hook = self.hook();
        while let Some(chain) = self.position.0.pop_if(|chain| *chain != by.chain) {
            note(facts, marks, Step { at: RuleRef { chain, rule: None }, hook });
        }
    }

    fn meets(&mut self, by: RuleRef, facts: &Facts<'_>, marks: &Marks) {
        self.comes_to(by, facts, marks);
        note(facts, marks, Step { at: by, hook: self.hook() });
        let Self { ruleset, position: Position(open) } = self;
        let rule = by.rule.and_then(|at| ruleset.chain(by.chain).rules.get(at as usize));
        let is_built_in = open.len() == 1;
        match rule.map(|rule| rule.target) {
            Some(Target::Jump(to)) => open.push(to),
            // What a built-in chain goes to ends at its policy.
            Some(Target::Goto(to)) if is_built_in => open.push(to),
            Some(Target::Goto(to)) => {
                open.pop();
                open.push(to);
            }
            Some(Target::Return) if !is_built_in => {
                open.pop();
            }
            _ => {}
        }
    }
}
