//! What rules are called that workers name by their place: the place is one in the rules that the worker ran, which may have
//! been replaced by the time somebody asks.

use crate::api::types::RulePlace;
use crate::explain::rule_place;
use crate::publish::Publisher;
use crate::rules_file::Rules;
use dataplane::ids::Generation;
use dataplane::packet::Family;
use dataplane::rules::model::{RuleId, RuleRef};
use std::collections::HashMap;
use std::sync::Arc;

/// Rules that are remembered, of both families.
const KEPT: usize = 64;

/// The rules that workers run and ran.
#[derive(Default)]
pub(super) struct RuleNames {
    rules: HashMap<(Family, Generation), Arc<Rules>>,
    seen: Option<Generation>,
}

impl RuleNames {
    /// Takes down which rules are in force now. Called often, so that none are missed.
    pub(super) fn look(&mut self, publisher: &Publisher) {
        let generation = publisher.generation();
        if self.seen == Some(generation) {
            return;
        }
        self.seen = Some(generation);
        if self.rules.len() >= KEPT {
            self.rules.clear();
        }
        for family in [Family::V4, Family::V6] {
            let (since, rules) = publisher.rules_since(family);
            self.rules.insert((family, since), rules);
        }
    }

    pub(super) fn rules(&self, family: Family, since: Generation) -> Option<&Arc<Rules>> {
        self.rules.get(&(family, since))
    }

    /// A rule's or policy's place and text. One of rules that are gone is looked for in those that are known, by its stable
    /// name; what cannot be found is `None`.
    pub(super) fn place(
        &self,
        family: Family,
        since: Generation,
        by: RuleRef,
        id: Option<RuleId>,
    ) -> Option<RulePlace> {
        if let Some(rules) = self.rules(family, since) {
            return place(rules, by);
        }
        let id = id?;
        let mut known = self.rules.iter().filter(|((of, _), _)| *of == family);
        known.find_map(|(_, rules)| {
            let mut all = rules.ruleset.references();
            let named = |by: &RuleRef| {
                let chain = rules.ruleset.chain(by.chain);
                by.rule.and_then(|at| chain.rules.get(at as usize)).is_some_and(|rule| rule.id == id)
            };
            all.find(named).and_then(|by| place(rules, by))
        })
    }
}

/// As long as there is such a rule: another ruleset may have fewer.
fn place(rules: &Rules, by: RuleRef) -> Option<RulePlace> {
    let chain = rules.ruleset.chains.get(by.chain.0 as usize)?;
    let is_there = by.rule.is_none_or(|at| (at as usize) < chain.rules.len());
    is_there.then(|| rule_place(rules, by))
}
