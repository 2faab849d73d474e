//! What outlives a load. Tables that belong to a name: rules of one family that name the same one share it, and it lives as long as rules name
//! it, whatever is loaded meanwhile. Control threads only; a question finds its table in the rule.

use super::{HashConfig, HashTable, RateMatch, RecentTable};
use crate::packet::Family;
use crate::rules::CompileError;
use crate::rules::model::{Match, Rule, RuleId, Ruleset};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// The tables there are. It does not keep them: the rules do.
///
/// The first rule that names a table says how it counts, as in the kernel. Unlike there that is so at every load: rules
/// that count otherwise than before get an empty table, where the kernel goes on as it was first told.
#[derive(Debug, Default)]
pub struct Tables(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    hash: HashMap<(Family, Box<str>), Weak<HashTable>>,
    recent: HashMap<(Family, Box<str>), Weak<RecentTable>>,
}

/// The mask of so many bits.
pub(super) const fn prefix_mask(family: Family, prefix: u8) -> u128 {
    let width = match family {
        Family::V4 => 32,
        Family::V6 => 128,
    };
    let ones = u128::MAX >> (128 - width);
    match ones.checked_shr(prefix as u32) {
        Some(host) if (prefix as u32) < width => ones & !host,
        _ => ones,
    }
}

impl Tables {
    /// The rules with their tables and states: that of a rule that also was among those `before`, else an empty one.
    ///
    /// # Errors
    /// If two rules count different things in one table.
    pub(in crate::rules) fn bound(
        &self,
        ruleset: Arc<Ruleset>,
        before: Option<&Ruleset>,
    ) -> Result<Arc<Ruleset>, CompileError> {
        if !rates(&ruleset).any(RateMatch::counts) {
            return Ok(ruleset);
        }
        let (hash, recent) = (self.hash_tables(&ruleset)?, self.recent_tables(&ruleset));
        let known: HashMap<RuleId, &Rule> = before
            .into_iter()
            .flat_map(Ruleset::rules)
            .filter(|rule| rule.matches.iter().any(|condition| matches!(condition, Match::Rate(_))))
            .map(|rule| (rule.id, rule))
            .collect();
        let mut ruleset = Arc::unwrap_or_clone(ruleset);
        for rule in ruleset.chains.iter_mut().flat_map(|chain| &mut chain.rules) {
            if !rule.matches.iter().any(|condition| matches!(condition, Match::Rate(_))) {
                continue;
            }
            let same = known.get(&rule.id).filter(|same| same.matches == rule.matches);
            let rule = Arc::make_mut(rule);
            for (at, condition) in rule.matches.iter_mut().enumerate() {
                let Match::Rate(rate) = condition else { continue };
                *rate = match same.map(|same| &same.matches[at]) {
                    Some(Match::Rate(kept)) => kept.clone(),
                    _ => rate.fresh(),
                };
                match rate {
                    RateMatch::Hashlimit(rule) => rule.table = hash.get(&rule.name).cloned(),
                    RateMatch::Recent(rule) => rule.table = recent.get(&rule.name).cloned(),
                    _ => {}
                }
            }
        }
        Ok(Arc::new(ruleset))
    }

    /// Names and tables of `hashlimit` there are.
    #[must_use]
    pub fn hash(&self) -> Vec<(Family, Box<str>, Arc<HashTable>)> {
        let known = self.known();
        let live = |(key, table): (&(Family, Box<str>), &Weak<HashTable>)| {
            Some((key.0, key.1.clone(), table.upgrade()?))
        };
        known.hash.iter().filter_map(live).collect()
    }

    /// Names and lists of `recent` there are.
    #[must_use]
    pub fn recent(&self) -> Vec<(Family, Box<str>, Arc<RecentTable>)> {
        let known = self.known();
        let live = |(key, table): (&(Family, Box<str>), &Weak<RecentTable>)| {
            Some((key.0, key.1.clone(), table.upgrade()?))
        };
        known.recent.iter().filter_map(live).collect()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.hash.retain(|_, table| table.strong_count() > 0);
        known.recent.retain(|_, table| table.strong_count() > 0);
        known
    }

    fn hash_tables(&self, ruleset: &Ruleset) -> Result<HashMap<Box<str>, Arc<HashTable>>, CompileError> {
        let mut wanted: HashMap<&str, HashConfig> = HashMap::new();
        for rate in rates(ruleset) {
            let RateMatch::Hashlimit(rule) = rate else { continue };
            let first = *wanted.entry(&rule.name).or_insert(rule.config);
            let kind = |config: HashConfig| (std::mem::discriminant(&config.rate), config.interval.is_some());
            if kind(first) != kind(rule.config) {
                return Err(CompileError::MixedTable(rule.name.to_string()));
            }
        }
        let mut known = self.known();
        let family = ruleset.family;
        let table = |(name, config): (&str, HashConfig)| {
            let key = (family, Box::from(name));
            let there =
                known.hash.get(&key).and_then(Weak::upgrade).filter(|table| *table.config() == config);
            let table = there.unwrap_or_else(|| Arc::new(HashTable::new(config, family)));
            known.hash.insert(key, Arc::downgrade(&table));
            (Box::from(name), table)
        };
        Ok(wanted.into_iter().map(table).collect())
    }

    fn recent_tables(&self, ruleset: &Ruleset) -> HashMap<Box<str>, Arc<RecentTable>> {
        let mut wanted: HashMap<&str, (u128, u32)> = HashMap::new();
        for rate in rates(ruleset) {
            let RateMatch::Recent(rule) = rate else { continue };
            let (_, stamps) = wanted.entry(&rule.name).or_insert((rule.mask, 0));
            *stamps = rule.stamps().max(*stamps);
        }
        let mut known = self.known();
        let family = ruleset.family;
        let table = |(name, (mask, stamps)): (&str, (u128, u32))| {
            let key = (family, Box::from(name));
            let there = known.recent.get(&key).and_then(Weak::upgrade);
            let there = there.filter(|table| table.does_for(mask, stamps));
            let table = there.unwrap_or_else(|| Arc::new(RecentTable::new(mask, family, stamps)));
            known.recent.insert(key, Arc::downgrade(&table));
            (Box::from(name), table)
        };
        wanted.into_iter().map(table).collect()
    }
}

fn rates(ruleset: &Ruleset) -> impl Iterator<Item = &RateMatch> {
    ruleset.rules().flat_map(|rule| &rule.matches).filter_map(|condition| match condition {
        Match::Rate(rate) => Some(rate),
        _ => None,
    })
}
