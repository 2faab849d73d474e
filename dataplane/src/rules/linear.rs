//! The meaning of a ruleset: walks chains one rule at a time, as iptables does. Slow, obvious, and the oracle that the
//! compiled form is held against.

use super::alter::Copied;
use super::conn::{Effect, Marks};
use super::model::{ChainId, Hook, Policy, RuleRef, Ruleset, Table, Target, Verdict};
use super::trace::{self, Step};
use super::{Decision, Facts, matching};

/// Judges one tracked packet. `matched` gets every rule whose conditions held, in order, and every policy that was
/// reached: exactly those whose counters iptables would raise. `marks` is changed as the rules say.
///
/// The ruleset must have passed [`super::Compiled::new`]'s checks; a loop of jumps would not end here.
pub fn evaluate(
    ruleset: &Ruleset,
    ports: &[String],
    facts: &Facts<'_>,
    marks: &mut Marks,
    matched: &mut Vec<RuleRef>,
) -> Decision {
    evaluate_copy(ruleset, ports, facts, marks, matched, &mut Copied::default())
}

/// The same, leaving what becomes of the packet in `copied`.
pub(super) fn evaluate_copy(
    ruleset: &Ruleset,
    ports: &[String],
    facts: &Facts<'_>,
    marks: &mut Marks,
    matched: &mut Vec<RuleRef>,
    copied: &mut Copied,
) -> Decision {
    tell(ruleset, ports, facts, marks, matched, copied, &mut ())
}

/// The same, with somebody watching.
pub(super) fn tell(
    ruleset: &Ruleset,
    ports: &[String],
    facts: &Facts<'_>,
    marks: &mut Marks,
    matched: &mut Vec<RuleRef>,
    copied: &mut Copied,
    witness: &mut impl Witness,
) -> Decision {
    matched.clear();
    let mut decision = walk_way(ruleset, &ruleset.way(), ports, facts, marks, matched, copied, witness);
    // Who let a packet pass is filter's to say.
    if decision.verdict == Verdict::Accept {
        decision.by = filter_word(ruleset, matched).unwrap_or(decision.by);
    }
    decision.management = is_management(ruleset, decision.by);
    decision
}

/// Judges one packet before it is tracked, by `raw` PREROUTING; accepts if there is none.
pub(super) fn evaluate_raw_copy(
    ruleset: &Ruleset,
    ports: &[String],
    facts: &Facts<'_>,
    marks: &mut Marks,
    matched: &mut Vec<RuleRef>,
    copied: &mut Copied,
) -> Decision {
    tell_raw(ruleset, ports, facts, marks, matched, copied, &mut ())
}

/// The same, with somebody watching.
pub(super) fn tell_raw(
    ruleset: &Ruleset,
    ports: &[String],
    facts: &Facts<'_>,
    marks: &mut Marks,
    matched: &mut Vec<RuleRef>,
    copied: &mut Copied,
    witness: &mut impl Witness,
) -> Decision {
    matched.clear();
    let way: Vec<_> = ruleset.around.raw_prerouting.map(|chain| (Hook::Raw, chain)).into_iter().collect();
    walk_way(ruleset, &way, ports, &Facts { is_raw: true, ..*facts }, marks, matched, copied, witness)
}

#[expect(clippy::too_many_arguments, reason = "what is asked, of whom, and where it goes")]
fn walk_way(
    ruleset: &Ruleset,
    way: &[(Hook, ChainId)],
    ports: &[String],
    facts: &Facts<'_>,
    marks: &mut Marks,
    matched: &mut Vec<RuleRef>,
    copied: &mut Copied,
    witness: &mut impl Witness,
) -> Decision {
    let mut decision = Decision {
        verdict: Verdict::Accept,
        by: RuleRef { chain: ruleset.forward, rule: None },
        invariant: false,
        management: false,
    };
    for &(hook, chain) in way {
        let mut walk = Walk { ruleset, ports, hook, facts, marks, matched, copied, witness: &mut *witness };
        (decision.verdict, decision.by) = walk.chain(chain).unwrap_or_else(|| {
            let by = RuleRef { chain, rule: None };
            walk.note_step(by);
            walk.tell(|witness, scene| witness.ends(by, scene));
            walk.matched.push(by);
            (policy(ruleset, chain), by)
        });
        if decision.verdict != Verdict::Accept {
            break;
        }
    }
    decision
}

/// Whether a rule is marked as management.
pub(super) fn is_management(ruleset: &Ruleset, by: RuleRef) -> bool {
    by.rule.is_some_and(|rule| ruleset.chain(by.chain).rules[rule as usize].management)
}

/// The last rule or policy of `filter` among those matched: a packet that was accepted was accepted by it.
fn filter_word(ruleset: &Ruleset, matched: &[RuleRef]) -> Option<RuleRef> {
    matched.iter().rev().find(|by| ruleset.chain(by.chain).table == Table::Filter).copied()
}

/// The verdict of a built-in chain's policy.
pub(super) fn policy(ruleset: &Ruleset, chain: ChainId) -> Verdict {
    match ruleset.chain(chain).policy {
        Some(Policy::Drop) => Verdict::Drop,
        _ => Verdict::Accept,
    }
}

/// What a rule sees.
pub(super) struct Scene<'a> {
    /// The packet as it is by now, and what is known of it.
    pub(super) facts: &'a Facts<'a>,
    /// Names of the NICs.
    pub(super) ports: &'a [String],
    /// Where on the packet's way it is.
    pub(super) hook: Hook,
    /// Marks as they are by now.
    pub(super) marks: &'a Marks,
}

/// Watches a packet walk.
pub(super) trait Witness {
    /// It enters a chain.
    fn enters(&mut self, chain: ChainId);
    /// It leaves the chain that it entered last.
    fn leaves(&mut self);
    /// A rule's condition at this position does not hold, those before do.
    fn misses(&mut self, by: RuleRef, condition: usize, scene: &Scene<'_>);
    /// All of a rule's conditions hold, and nothing is done yet.
    fn meets(&mut self, by: RuleRef, scene: &Scene<'_>);
    /// The rule met last has done something; `unfit` if the packet is dropped because it could not.
    fn has_done(&mut self, by: RuleRef, unfit: bool, scene: &Scene<'_>);
    /// A built-in chain's policy, or the end of another chain.
    fn ends(&mut self, by: RuleRef, scene: &Scene<'_>);
}

/// Nobody watches.
impl Witness for () {
    #[inline(always)]
    fn enters(&mut self, _: ChainId) {}
    #[inline(always)]
    fn leaves(&mut self) {}
    #[inline(always)]
    fn misses(&mut self, _: RuleRef, _: usize, _: &Scene<'_>) {}
    #[inline(always)]
    fn meets(&mut self, _: RuleRef, _: &Scene<'_>) {}
    #[inline(always)]
    fn has_done(&mut self, _: RuleRef, _: bool, _: &Scene<'_>) {}
    #[inline(always)]
    fn ends(&mut self, _: RuleRef, _: &Scene<'_>) {}
}

struct Walk<'a, W> {
    ruleset: &'a Ruleset,
    ports: &'a [String],
    hook: Hook,
    facts: &'a Facts<'a>,
    marks: &'a mut Marks,
    matched: &'a mut Vec<RuleRef>,
    copied: &'a mut Copied,
    witness: &'a mut W,
}

impl<W: Witness> Walk<'_, W> {
    /// Walks one chain. `None`: it was left at its end or by RETURN, and the caller goes on.
    fn chain(&mut self, id: ChainId) -> Option<(Verdict, RuleRef)> {
        self.witness.enters(id);
        let decided = self.rules_of(id);
        self.witness.leaves();
        decided
    }

    fn rules_of(&mut self, id: ChainId) -> Option<(Verdict, RuleRef)> {
        for (index, rule) in (0_u32..).zip(&self.ruleset.chain(id).rules) {
            let Self { facts, ports, hook, marks, copied, .. } = self;
            let by = RuleRef { chain: id, rule: Some(index) };
            let seen = copied.facts(facts);
            let holds = |condition| matching::holds(condition, &seen, ports, *hook, marks);
            if let Some(condition) = rule.matches.iter().map(holds).position(|holds| !holds) {
                self.tell(|witness, scene| witness.misses(by, condition, scene));
                if self.marks.hotdrop {
                    return Some((Verdict::Drop, by));
                }
                continue;
            }
            self.note_step(by);
            self.tell(|witness, scene| witness.meets(by, scene));
            self.matched.push(by);
            match rule.target {
                Target::Continue => {}
                Target::Effect(Effect::Alter(alter)) => {
                    let unfit = self.copied.change(alter, self.facts).is_err();
                    self.tell(|witness, scene| witness.has_done(by, unfit, scene));
                    if unfit {
                        return Some((Verdict::Drop, by));
                    }
                }
                Target::Effect(Effect::Log(log)) => {
                    let log = super::log::Log { hook: self.hook, ..log };
                    let seen = self.copied.facts(self.facts);
                    seen.notes.note(&seen, log, by, self.marks.packet);
                }
                Target::Effect(effect) => {
                    effect.at(self.hook).apply(self.marks, &self.copied.facts(self.facts));
                    self.tell(|witness, scene| witness.has_done(by, false, scene));
                }
                Target::Accept => return Some((Verdict::Accept, by)),
                Target::Drop => return Some((Verdict::Drop, by)),
                Target::Reject(with) => return Some((Verdict::Reject(with), by)),
                Target::Return => return None,
                Target::Jump(to) => {
                    if let Some(decided) = self.chain(to) {
                        return Some(decided);
                    }
                }
                Target::Goto(to) => return self.chain(to),
            }
        }
        if self.ruleset.chain(id).policy.is_none() {
            let by = RuleRef { chain: id, rule: None };
            self.note_step(by);
            self.tell(|witness, scene| witness.ends(by, scene));
        }
        None
    }

    fn tell(&mut self, tell: impl FnOnce(&mut W, &Scene<'_>)) {
        let Self { ports, hook, facts, marks, copied, witness, .. } = self;
        let facts = copied.facts(facts);
        tell(witness, &Scene { facts: &facts, ports, hook: *hook, marks });
    }

    fn note_step(&self, at: RuleRef) {
        trace::note(&self.copied.facts(self.facts), self.marks, Step { at, hook: self.hook });
    }
}
