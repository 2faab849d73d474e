//! What changes from one ruleset to another: rules are told apart by their stable ids, so one that has only moved is
//! known for what it is. Control thread; pure.

use crate::api::types::{ChainChange, ChainDiff, FamilyDiff, RuleDiff};
use crate::iptables::printer::{self, policy_name};
use crate::publish::Counts;
use crate::rules_file::Rules;
use dataplane::rules::model::{Chain, ChainId, RuleId, RuleRef, Table};
use std::collections::{HashMap, HashSet};

/// The differences of one family; `counts` is what the old rules have counted.
#[must_use]
pub fn diff(old: &Rules, new: &Rules, counts: &HashMap<RuleRef, Counts>) -> FamilyDiff {
    let mut report = FamilyDiff { family: new.ruleset.family.into(), chains: Vec::new(), kept: 0 };
    let old_chains = by_name(old);
    let new_chains = by_name(new);
    for (id, chain) in chains(new) {
        let before = old_chains.get(&(chain.table, chain.name.as_str())).copied();
        compare(before.map(|id| (old, id)), Some((new, id)), counts, &mut report);
    }
    for (id, chain) in chains(old) {
        if !new_chains.contains_key(&(chain.table, chain.name.as_str())) {
            compare(Some((old, id)), None, counts, &mut report);
        }
    }
    report
}

fn chains(rules: &Rules) -> impl Iterator<Item = (ChainId, &Chain)> {
    (0_u32..).map(ChainId).zip(&rules.ruleset.chains)
}

fn by_name(rules: &Rules) -> HashMap<(Table, &str), ChainId> {
    chains(rules).map(|(id, chain)| ((chain.table, chain.name.as_str()), id)).collect()
}

fn chain_of((rules, id): (&Rules, ChainId)) -> &Chain {
    rules.ruleset.chain(id)
}

/// One chain before and after; notes what differs.
fn compare(
    old: Option<(&Rules, ChainId)>,
    new: Option<(&Rules, ChainId)>,
    counts: &HashMap<RuleRef, Counts>,
    report: &mut FamilyDiff,
) {
    let (before, after) = (old.map(chain_of), new.map(chain_of));
    let Some(either) = after.or(before) else { return };
    let ids = |chain: Option<&Chain>| -> Vec<RuleId> {
        chain.map(|chain| chain.rules.iter().map(|rule| rule.id).collect()).unwrap_or_default()
    };
    let (old_ids, new_ids) = (ids(before), ids(after));
    let at = |ids: &[RuleId]| -> HashMap<RuleId, u32> { ids.iter().copied().zip(0..).collect() };
    let (old_at, new_at) = (at(&old_ids), at(&new_ids));
    let stays = |id: &RuleId| old_at.contains_key(id) && new_at.contains_key(id);
    let in_new_order: Vec<u32> =
        new_ids.iter().filter(|id| stays(id)).filter_map(|id| old_at.get(id).copied()).collect();
    report.kept += in_new_order.len() as u64;
    let unmoved: HashSet<u32> = longest_rise(&in_new_order).into_iter().collect();
    let row = |from: Option<u32>, to: Option<u32>| {
        let line = |(rules, id): (&Rules, ChainId), rule: u32| {
            let chain = &rules.file.chains[id.0 as usize];
            printer::rule_line(&chain.name, &chain.rules[rule as usize])
        };
        let by = from.zip(old).map(|(rule, (_, chain))| RuleRef { chain, rule: Some(rule) });
        let (packets, bytes) = by.and_then(|by| counts.get(&by)).copied().unwrap_or_default();
        let rule = to.zip(new).or(from.zip(old)).map(|(rule, side)| line(side, rule)).unwrap_or_default();
        RuleDiff { from: from.map(|n| n + 1), to: to.map(|n| n + 1), rule, packets, bytes }
    };
    let mut rules: Vec<RuleDiff> = Vec::new();
    rules.extend((0_u32..).zip(&old_ids).filter(|(_, id)| !stays(id)).map(|(n, _)| row(Some(n), None)));
    for (n, id) in (0_u32..).zip(&new_ids) {
        match old_at.get(id) {
            None => rules.push(row(None, Some(n))),
            Some(from) if !unmoved.contains(from) => rules.push(row(Some(*from), Some(n))),
            Some(_) => {}
        }
    }
    let policies = (before.and_then(|chain| chain.policy), after.and_then(|chain| chain.policy));
    let policy = (before.is_some() && after.is_some() && policies.0 != policies.1)
        .then(|| (policy_name(policies.0).to_owned(), policy_name(policies.1).to_owned()));
    let change = match (before, after) {
        (None, _) => ChainChange::Added,
        (_, None) => ChainChange::Removed,
        _ => ChainChange::Stays,
    };
    if change != ChainChange::Stays || policy.is_some() || !rules.is_empty() {
        let (table, name) = (either.table.name().to_owned(), either.name.clone());
        report.chains.push(ChainDiff { table, name, change, policy, rules });
    }
}

/// A longest rising part of distinct numbers: what can be said to have stayed in place while the fewest others moved.
fn longest_rise(numbers: &[u32]) -> Vec<u32> {
    // `ends[n]` is where the rise of length n + 1 with the lowest end ends.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(numbers.len());
    for (at, number) in numbers.iter().enumerate() {
        let len = ends.partition_point(|end| numbers[*end] < *number);
        before.push(len.checked_sub(1).map(|shorter| ends[shorter]));
        match ends.get_mut(len) {
            Some(end) => *end = at,
            None => ends.push(at),
        }
    }
    let mut rise = Vec::with_capacity(ends.len());
    let mut at = ends.last().copied();
    while let Some(here) = at {
        rise.push(numbers[here]);
        at = before[here];
    }
    rise.reverse();
    rise
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iptables::load;
    use dataplane::packet::Family;
    use proptest::prelude::*;

    fn rules(text: &str) -> Rules {
        Rules::from_loaded(load(format!("*filter\n{text}\nCOMMIT\n"), "t", Family::V4)).unwrap()
    }

    fn lines(old: &str, new: &str) -> Vec<(Option<u32>, Option<u32>, String)> {
        let report = diff(&rules(old), &rules(new), &HashMap::new());
        let rows = report.chains.into_iter().flat_map(|chain| chain.rules);
        rows.map(|row| (row.from, row.to, row.rule)).collect()
    }

    #[test]
    fn rules_are_added_removed_and_moved() {
        let (a, b, c) = ("-A FORWARD -s 1.1.1.1/32", "-A FORWARD -s 2.2.2.2/32", "-A FORWARD -s 3.3.3.3/32");
        assert_eq!(lines(a, a), []);
        assert_eq!(
            lines(&format!("{a}\n{b}"), &format!("{b}\n{c}")),
            [(Some(1), None, a.to_owned()), (None, Some(2), c.to_owned())]
        );
        assert_eq!(
            lines(&format!("{a}\n{b}\n{c}"), &format!("{c}\n{a}\n{b}")),
            [(Some(3), Some(1), c.to_owned())],
            "one rule has moved, not two"
        );
        assert_eq!(lines(&format!("{a}\n{a}"), a), [(Some(2), None, a.to_owned())], "twins are two rules");
    }

    #[test]
    fn chains_and_policies_change_too() {
        let old = rules(":x - [0:0]\n-A x -j DROP\n-A FORWARD -j x");
        let new = rules(":FORWARD DROP [0:0]\n:y - [0:0]\n-A FORWARD -j y");
        let counts = HashMap::from([(RuleRef { chain: ChainId(3), rule: Some(0) }, (7, 700))]);
        let report = diff(&old, &new, &counts);
        let seen: Vec<_> = report.chains.iter().map(|chain| (chain.name.as_str(), chain.change)).collect();
        assert_eq!(
            seen,
            [("FORWARD", ChainChange::Stays), ("y", ChainChange::Added), ("x", ChainChange::Removed)]
        );
        assert_eq!(report.chains[0].policy, Some(("ACCEPT".into(), "DROP".into())));
        assert_eq!(report.chains[2].rules[0].packets, 7);
        assert_eq!(report.kept, 0);
    }

    proptest! {
        #[test]
        fn what_stays_rises_and_nothing_longer_does(numbers in Just((0..9_u32).collect::<Vec<_>>()).prop_shuffle()) {
            let rise = longest_rise(&numbers);
            prop_assert!(rise.is_sorted());
            let places = rise.iter().map(|n| numbers.iter().position(|m| m == n).unwrap());
            prop_assert!(places.is_sorted_by(|a, b| a < b));
            let longest = (0..1_u32 << 9)
                .map(|set| numbers.iter().enumerate().filter(|(n, _)| set >> n & 1 == 1).map(|(_, m)| *m).collect::<Vec<_>>())
                .filter(|part| part.is_sorted())
                .map(|part| part.len())
                .max();
            prop_assert_eq!(Some(rise.len()), longest);
        }
    }
}
