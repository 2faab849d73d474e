//! The meaning of a ruleset: walks chains one rule at a time, as iptables does. Slow, obvious, and the oracle that the
//! compiled form is held against.

use super::model::{ChainId, Policy, RuleRef, Ruleset, Target, Verdict};
use super::{Decision, Facts, matching};

/// Judges one packet. `matched` gets every rule whose conditions held, in order, and the policy if it decided: exactly
/// those whose counters iptables would raise.
///
/// The ruleset must have passed [`super::Compiled::new`]'s checks; a loop of jumps would not end here.
pub fn evaluate(
    ruleset: &Ruleset,
    ports: &[String],
    facts: &Facts<'_>,
    matched: &mut Vec<RuleRef>,
) -> Decision {
    matched.clear();
    let mut walk = Walk { ruleset, ports, facts, matched };
    let (verdict, by) = walk.chain(ruleset.forward).unwrap_or_else(|| {
        let by = RuleRef { chain: ruleset.forward, rule: None };
        walk.matched.push(by);
        (policy(ruleset), by)
    });
    Decision { verdict, by, invariant: false }
}

/// The verdict of FORWARD's policy.
pub(super) fn policy(ruleset: &Ruleset) -> Verdict {
    match ruleset.chain(ruleset.forward).policy {
        Some(Policy::Drop) => Verdict::Drop,
        _ => Verdict::Accept,
    }
}

struct Walk<'a> {
    ruleset: &'a Ruleset,
    ports: &'a [String],
    facts: &'a Facts<'a>,
    matched: &'a mut Vec<RuleRef>,
}

impl Walk<'_> {
    /// Walks one chain. `None`: it was left at its end or by RETURN, and the caller goes on.
    fn chain(&mut self, id: ChainId) -> Option<(Verdict, RuleRef)> {
        for (index, rule) in (0_u32..).zip(&self.ruleset.chain(id).rules) {
            if !rule.matches.iter().all(|condition| matching::holds(condition, self.facts, self.ports)) {
                continue;
            }
            let by = RuleRef { chain: id, rule: Some(index) };
            self.matched.push(by);
            match rule.target {
                Target::Continue => {}
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
        None
    }
}
