//! Edited rules held against what they mean.

use super::RuleEdit;
use crate::ids::PortId;
use crate::packet::Family;
use crate::rules::conn::Effect;
use crate::rules::model::{ChainId, CtState, Match, Rule, Target};
use crate::rules::selfcheck::{Edges, Random, compare, facts};
use crate::rules::tests::{any_ruleset, names, rules};
use crate::rules::{Compiled, Facts, Matched};
use proptest::prelude::*;
use std::sync::Arc;

/// Where an edit goes and what comes there: `None` takes a rule out.
#[derive(Clone, Debug)]
struct Wish {
    chain: u32,
    at: usize,
    rule: Option<Rule>,
}

fn wish() -> impl Strategy<Value = Wish> {
    let chain = prop_oneof![3 => Just(1_u32), 4 => 3..7_u32, 2 => 7..11_u32];
    let rule = chain.prop_flat_map(|chain| {
        let (first, last) = if chain == 1 { (3, 6) } else { (chain + 1, 6) };
        (Just(chain), 0..12_usize, any::<bool>(), rules(first, last))
    });
    rule.prop_map(|(chain, at, removes, rules)| {
        let rule = rules.into_iter().next().filter(|_| !removes).map(|mut rule| {
            rule.matches.retain(|condition| !matches!(condition, Match::Rate(_)));
            if chain != 7 && rule.target == Target::Effect(Effect::Trace) {
                rule.target = Target::Continue;
            }
            rule
        });
        Wish { chain, at, rule }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn edited_rules_mean_what_the_chains_mean(
        ruleset in any_ruleset(), wishes in prop::collection::vec(wish(), 1..12), seed in 1..u64::MAX
    ) {
        let mut ruleset = ruleset;
        let mut compiled = Compiled::unchecked(Arc::new(ruleset.clone()), &names()).unwrap();
        let mut random = Random(seed);
        let mut matched = Matched::default();
        for Wish { chain, at, rule } in wishes {
            let Some(rules) = ruleset.chains.get_mut(chain as usize).map(|chain| &mut chain.rules) else { continue };
            let at = at.min(rules.len());
            let place = u32::try_from(at).unwrap();
            let chain = ChainId(chain);
            let edit = match rule.map(Arc::new) {
                Some(rule) => {
                    rules.insert(at, Arc::clone(&rule));
                    RuleEdit::Add { chain, at: place, rule }
                }
                None if at < rules.len() => {
                    rules.remove(at);
                    RuleEdit::Remove { chain, at: place }
                }
                None => continue,
            };
            compiled = match compiled.edited(&[edit], &names()).unwrap() {
                Some(edited) => edited,
                None => Compiled::unchecked(Arc::new(ruleset.clone()), &names()).unwrap(),
            };
            prop_assert_eq!(compiled.ruleset(), &ruleset);
            let edges = Edges::of(compiled.ruleset());
            for round in 0..60_u8 {
                let packet = edges.packet(&mut random, Family::V4);
                let state = [CtState::New, CtState::Established, CtState::Invalid][usize::from(round) % 3];
                let conn = edges.conn(&mut random, &packet, state);
                let frame = edges.frame(&mut random, &packet);
                let facts = Facts { bytes: &frame, ..facts(&packet, state, conn.as_ref(), PortId(round % 4)) };
                let marks = edges.marks(&mut random);
                let found = compare(&compiled, &names(), &facts, &marks, &mut matched);
                prop_assert!(found.is_none(), "{}", found.unwrap());
            }
        }
    }
}
