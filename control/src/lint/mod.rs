//! Second thoughts about rules that are right: rules that no packet comes to, conditions that contradict each other,
//! chains that nothing calls, connections that nobody can answer. Control thread and tools only; pure.
//!
//! Invariant: no false alarm. A warning says what is certain for every packet; what we do not understand is taken to be
//! meant. The work grows with the size of the rules, not with its square.

mod logic;
mod reach;
mod replies;
mod shadow;
#[cfg(test)]
mod tests;

use crate::iptables::diagnostics::{Diagnostic, Span};
use crate::iptables::printer;
use crate::iptables::syntax::File;
use dataplane::rules::model::{Chain, ChainId, Match, RuleRef, Ruleset};
use reach::{Contradiction, Reach, contradiction};
use shadow::{Budget, Earlier};
use std::collections::HashMap;

/// Most warnings made about one file; the rest is counted.
const WARNINGS_MAX: usize = 1000;

/// Longest part of another rule that is quoted, in characters.
const QUOTED_MAX: usize = 160;

/// A rule that no packet ever comes to, or that matches none.
struct Dead<'a> {
    at: RuleRef,
    why: Why<'a>,
}

enum Why<'a> {
    /// An earlier rule of its chain decides first.
    Behind(u32),
    /// It asks for what cannot be.
    Never(Contradiction<'a>),
}

/// What is worth a second look about rules that can be loaded. Positions in `file` are those of `ruleset`.
#[must_use]
pub fn lint(ruleset: &Ruleset, file: &File) -> Vec<Diagnostic> {
    let reach = Reach::of(ruleset);
    let dead = dead(ruleset, &reach);
    let mut found = dead_rules(&dead, ruleset, file);
    found.extend(uncalled(&reach, file));
    let is_dead = |at: RuleRef| dead.binary_search_by_key(&place(at), |dead| place(dead.at)).is_ok();
    found.extend(replies::unanswered(ruleset, &reach, is_dead).map(|at| unanswered(at, file)));
    found.sort_by_key(|diagnostic| diagnostic.span.start);
    if found.len() > WARNINGS_MAX {
        let more = found.len() - WARNINGS_MAX;
        found.truncate(WARNINGS_MAX);
        found.push(Diagnostic::note(Span::default(), format!("{more} more warnings of this kind")));
    }
    found
}

const fn place(at: RuleRef) -> (u32, Option<u32>) {
    (at.chain.0, at.rule)
}

/// Every rule that is certain never to match a packet, in order.
fn dead<'a>(ruleset: &'a Ruleset, reach: &Reach<'a>) -> Vec<Dead<'a>> {
    let mut budget = Budget::default();
    let mut dead = Vec::new();
    for (id, chain) in (0_u32..).map(ChainId).zip(&ruleset.chains) {
        if let Some(known) = &reach.known[id.0 as usize] {
            dead_in(ruleset, reach, id, chain, known, &mut budget, &mut dead);
        }
    }
    dead
}

fn dead_in<'a>(
    ruleset: &Ruleset,
    reach: &Reach<'a>,
    id: ChainId,
    chain: &'a Chain,
    known: &[&'a Match],
    budget: &mut Budget,
    dead: &mut Vec<Dead<'a>>,
) {
    let mut earlier = Earlier::new(ruleset.family, chain.table);
    for (number, rule) in (0_u32..).zip(&chain.rules) {
        let at = RuleRef { chain: id, rule: Some(number) };
        if let Some(why) = contradiction(known, rule, chain.table) {
            dead.push(Dead { at, why: Why::Never(why) });
        } else if let Some(by) = earlier.covering(known, rule, budget) {
            dead.push(Dead { at, why: Why::Behind(by) });
        } else if reach.ends(rule) {
            earlier.note(number, rule);
        }
    }
}

/// Warnings about dead rules. A line whose address lists make several rules is dead if they all are.
fn dead_rules(dead: &[Dead<'_>], ruleset: &Ruleset, file: &File) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for dead in dead.chunk_by(|one, other| one.at.chain == other.at.chain) {
        let Some(first) = dead.first() else { continue };
        let chain = &file.chains[first.at.chain.0 as usize];
        let mut of_line: HashMap<usize, usize> = HashMap::with_capacity(chain.rules.len());
        for rule in &chain.rules {
            *of_line.entry(rule.span.start).or_default() += 1;
        }
        let span = |at: RuleRef| chain.rules[at.rule.unwrap_or_default() as usize].span;
        let mut dead_of_line: HashMap<usize, usize> = HashMap::new();
        for dead in dead {
            let start = span(dead.at).start;
            let count = dead_of_line.entry(start).or_default();
            *count += 1;
            if of_line.get(&start) == Some(count) {
                found.push(warning(dead, span(dead.at), chain, ruleset));
            }
        }
    }
    found
}

fn warning(
    dead: &Dead<'_>,
    span: Span,
    chain: &crate::iptables::syntax::Chain,
    ruleset: &Ruleset,
) -> Diagnostic {
    match &dead.why {
        Why::Behind(by) => {
            let earlier = &chain.rules[*by as usize];
            let line: String = printer::rule_line(&chain.name, earlier).chars().take(QUOTED_MAX).collect();
            let message = "no packet comes to this rule: an earlier one decides about all it could match";
            Diagnostic::warning(span, message).hint(format!(
                "line {}: `{line}`; take one of the two out, or move this one above it",
                earlier.span.line
            ))
        }
        Why::Never(why) => {
            let message = match why {
                Contradiction::Alone(one) => {
                    format!("this rule never matches: no packet has such {}", name(one))
                }
                Contradiction::Within(one, other) if name(one) == name(other) => {
                    format!(
                        "this rule never matches: its two conditions on {} contradict each other",
                        name(one)
                    )
                }
                Contradiction::Within(one, other) => {
                    format!(
                        "this rule never matches: {} and {} contradict each other",
                        name(one),
                        name(other)
                    )
                }
                Contradiction::Chain(one) => format!(
                    "this rule never matches: the rules that lead to `{}` let no packet with such {} in",
                    chain.name,
                    name(one)
                ),
            };
            let hint = match (why, ruleset.chain(dead.at.chain).policy) {
                (Contradiction::Chain(_), None) => "look at the conditions of the jumps to this chain",
                _ => "look at its conditions again",
            };
            Diagnostic::warning(span, message).hint(hint)
        }
    }
}

/// What a condition asks about.
const fn name(condition: &Match) -> &'static str {
    match condition {
        Match::InIface { .. } => "incoming interface",
        Match::OutIface { .. } => "outgoing interface",
        Match::Src { .. } => "source address",
        Match::Dst { .. } => "destination address",
        Match::Proto { .. } => "protocol",
        Match::LaterFragment { .. } => "place in a fragmented packet",
        Match::Ports { .. } => "ports",
        Match::TcpFlags { .. } => "TCP flags",
        Match::Icmp { .. } => "ICMP type",
        Match::CtState { .. } => "connection state",
        _ => "condition",
    }
}

/// Chains that no built-in chain leads to.
fn uncalled<'a>(reach: &'a Reach<'_>, file: &'a File) -> impl Iterator<Item = Diagnostic> + 'a {
    let idle = file.chains.iter().zip(&reach.is_called).zip(&reach.known);
    idle.filter(|((chain, is_called), _)| chain.policy.is_none() && !**is_called).map(|((chain, _), _)| {
        let message =
            format!("no packet comes to chain `{}`: no rule that is in use leads there", chain.name);
        Diagnostic::warning(chain.span, message)
            .hint(format!("call it with `-j {}`, or take it out", chain.name))
    })
}

fn unanswered(at: RuleRef, file: &File) -> Diagnostic {
    let chain = &file.chains[at.chain.0 as usize];
    let rule = &chain.rules[at.rule.unwrap_or_default() as usize];
    let message = "TCP connections that this rule lets begin get no answer: what is not accepted is dropped, and no rule \
                   accepts their packets on the way back";
    Diagnostic::warning(rule.span, message)
        .hint("begin with `-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`")
}
