//! Matches that some built-in chains cannot ask, nor the chains they call: what they ask about is not known there. Control
//! thread and tools only.

use std::collections::HashMap;
use std::sync::Arc;

use super::diagnostics::Diagnostic;
use super::syntax::{Chain, Rule, Target};

/// Reports each rule of a table that stands where one of its matches cannot be asked.
pub(super) fn check(chains: &[Chain], diagnostics: &mut Vec<Diagnostic>) {
    let refused =
        |rule: &Rule, chain: &str| rule.matches.iter().any(|instance| instance.not_in().contains(&chain));
    let may_be_refused = |rule: &Arc<Rule>| rule.matches.iter().any(|instance| !instance.not_in().is_empty());
    if !chains.iter().flat_map(|chain| &chain.rules).any(may_be_refused) {
        return;
    }
    let by_name: HashMap<&str, usize> =
        chains.iter().enumerate().map(|(at, chain)| (chain.name.as_str(), at)).collect();
    for (start, built_in) in chains.iter().enumerate().filter(|(_, chain)| chain.policy.is_some()) {
        let mut seen = vec![false; chains.len()];
        let mut open = vec![start];
        while let Some(at) = open.pop() {
            let Some(chain) = chains.get(at) else { continue };
            if std::mem::replace(&mut seen[at], true) {
                continue;
            }
            for rule in &chain.rules {
                if refused(rule, &built_in.name) {
                    let message =
                        format!("{} comes here, where a match of this rule cannot be asked", built_in.name);
                    diagnostics.push(
                        Diagnostic::error(rule.span, message)
                            .hint("what it asks about is not known there; put the rule into another chain"),
                    );
                }
                if let Target::Chain { name, .. } = &rule.target {
                    open.extend(by_name.get(name.as_str()));
                }
            }
        }
    }
}
