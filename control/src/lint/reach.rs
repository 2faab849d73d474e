//! Which chains packets come to, what is known of the packets that do, and which chains always decide. Pure.

use super::logic::{excludes, implies, is_never};
use dataplane::rules::model::{ChainId, Match, Rule, Ruleset, Table, Target};

/// Most that is remembered about the packets of a chain: conditions of the rules that lead there.
const KNOWN_MAX: usize = 64;

/// What is known of every chain, by its position.
pub(super) struct Reach<'a> {
    /// Chains a built-in chain leads to, callers before those they call.
    pub(super) order: Vec<ChainId>,
    /// Conditions that hold of every packet in the chain; `None` if no packet comes there.
    pub(super) known: Vec<Option<Vec<&'a Match>>>,
    /// Whether any rule that is not itself idle leads there, or it is a built-in chain.
    pub(super) is_called: Vec<bool>,
    /// Whether a packet that enters never leaves without a verdict.
    pub(super) decides: Vec<bool>,
}

impl<'a> Reach<'a> {
    /// Follows all jumps. They must not loop, which is checked when rules are loaded.
    pub(super) fn of(ruleset: &'a Ruleset) -> Self {
        let count = ruleset.chains.len();
        let order = order(ruleset);
        let mut reach = Self {
            order,
            known: vec![None; count],
            is_called: vec![false; count],
            decides: vec![false; count],
        };
        for id in reach.order.clone().into_iter().rev() {
            reach.decides[id.0 as usize] = reach.always_decides(ruleset, id);
        }
        for id in reach.order.clone() {
            let at = id.0 as usize;
            let chain = ruleset.chain(id);
            if chain.policy.is_some() {
                (reach.known[at], reach.is_called[at]) = (Some(Vec::new()), true);
            }
            let Some(here) = reach.known[at].clone() else { continue };
            for rule in &chain.rules {
                if let Some(to) = callee(rule)
                    && contradiction(&here, rule, chain.table).is_none()
                {
                    reach.call(to, &here, rule, chain.table);
                }
            }
        }
        reach
    }

    /// Whether a rule, once it matches, never lets a packet go on in its chain.
    pub(super) fn ends(&self, rule: &Rule) -> bool {
        match rule.target {
            Target::Accept | Target::Drop | Target::Reject(_) | Target::Return | Target::Goto(_) => true,
            Target::Jump(to) => self.decides[to.0 as usize],
            _ => false,
        }
    }

    fn always_decides(&self, ruleset: &Ruleset, id: ChainId) -> bool {
        for rule in &ruleset.chain(id).rules {
            let decides = match rule.target {
                Target::Accept | Target::Drop | Target::Reject(_) => true,
                Target::Return => return false,
                Target::Goto(to) if !self.decides[to.0 as usize] => return false,
                Target::Goto(_) => true,
                Target::Jump(to) => self.decides[to.0 as usize],
                _ => false,
            };
            if decides && rule.matches.is_empty() {
                return true;
            }
        }
        false
    }

    /// A rule of a chain whose packets are known to be like `here` leads to another chain.
    fn call(&mut self, to: ChainId, here: &[&'a Match], rule: &'a Rule, table: Table) {
        let at = to.0 as usize;
        let given: Vec<&Match> = here.iter().copied().chain(&rule.matches).take(KNOWN_MAX).collect();
        self.is_called[at] = true;
        match &mut self.known[at] {
            Some(known) => {
                known.retain(|wanted| given.iter().any(|given| implies(given, wanted, table)));
            }
            unknown => *unknown = Some(given),
        }
    }
}

/// Where a rule leads.
pub(super) const fn callee(rule: &Rule) -> Option<ChainId> {
    match rule.target {
        Target::Jump(to) | Target::Goto(to) => Some(to),
        _ => None,
    }
}

/// Why no packet of a chain ever matches a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contradiction<'a> {
    /// The condition alone is never fulfilled.
    Alone(&'a Match),
    /// Two of the rule's conditions exclude each other.
    Within(&'a Match, &'a Match),
    /// What is known of the chain's packets excludes one of the rule's conditions.
    Chain(&'a Match),
}

/// Whether a rule's conditions contradict each other or what is known of the packets that come to it.
pub(super) fn contradiction<'a>(known: &[&Match], rule: &'a Rule, table: Table) -> Option<Contradiction<'a>> {
    if let Some(never) = rule.matches.iter().find(|condition| is_never(condition)) {
        return Some(Contradiction::Alone(never));
    }
    for (index, condition) in rule.matches.iter().enumerate() {
        if let Some(other) = rule.matches[..index].iter().find(|other| excludes(condition, other, table)) {
            return Some(Contradiction::Within(other, condition));
        }
    }
    let excluded = |condition: &&Match| known.iter().any(|known| excludes(known, condition, table));
    rule.matches.iter().find(excluded).map(Contradiction::Chain)
}

/// All chains that built-in chains lead to, callers first.
fn order(ruleset: &Ruleset) -> Vec<ChainId> {
    let mut seen = vec![false; ruleset.chains.len()];
    let mut left = Vec::new();
    let ids = || (0_u32..).map(ChainId).zip(&ruleset.chains);
    for (root, _) in ids().filter(|(_, chain)| chain.policy.is_some()) {
        if std::mem::replace(&mut seen[root.0 as usize], true) {
            continue;
        }
        // Chain, and the rule to look at next.
        let mut path = vec![(root, 0_usize)];
        while let Some((chain, next)) = path.last_mut() {
            let Some(rule) = ruleset.chain(*chain).rules.get(*next) else {
                left.push(*chain);
                path.pop();
                continue;
            };
            *next += 1;
            if let Some(to) = callee(rule)
                && !std::mem::replace(&mut seen[to.0 as usize], true)
            {
                path.push((to, 0));
            }
        }
    }
    left.reverse();
    left
}
