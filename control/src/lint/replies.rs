//! Connections that may begin but get no answer: FORWARD drops by default, and no rule accepts what comes back. Mostly a
//! missing `ESTABLISHED,RELATED`. Pure.

use super::logic::{excludes, in_state, is_known, is_never};
use super::reach::{Reach, callee};
use dataplane::packet::{proto, tcp_flag};
use dataplane::rules::model::{ChainId, CtState, Match, Policy, PortSide, RuleRef, Ruleset, Table, Target};

/// Pairs of rules looked at: a small part of a second.
const PAIRS_MAX: usize = 2_000_000;

/// A client's port, where a rule does not ask for one: from the middle of those that systems give out.
pub(super) const CLIENT_PORT: u16 = 50_000;

/// Flags that tell how a TCP connection begins and is answered.
const MASK: u8 = tcp_flag::FIN | tcp_flag::SYN | tcp_flag::RST | tcp_flag::ACK;

/// A rule that accepts, with all that holds of a packet that it accepts.
struct Accepting<'a> {
    at: RuleRef,
    conditions: Vec<&'a Match>,
}

/// A rule that lets TCP connections begin which nobody can answer; the first in order. `is_dead` tells rules that no
/// packet comes to.
pub(super) fn unanswered(
    ruleset: &Ruleset,
    reach: &Reach<'_>,
    is_dead: impl Fn(RuleRef) -> bool,
) -> Option<RuleRef> {
    if !drops_by_default(ruleset) {
        return None;
    }
    let accepting: Vec<Accepting<'_>> =
        accepting(ruleset, reach).into_iter().filter(|rule| !is_dead(rule.at)).collect();
    let begins = [
        Match::TcpFlags { mask: MASK, comp: tcp_flag::SYN, invert: false },
        in_state(&[CtState::New, CtState::Untracked]),
    ];
    let mut pairs = 0;
    // The rule that took the last answer takes the next one too, mostly.
    let mut likely = 0;
    for rule in &accepting {
        if !is_tcp(rule) || !is_possible(&rule.conditions, &begins.each_ref()) {
            continue;
        }
        let answer = answer_to(rule);
        let answer: Vec<&Match> = answer.iter().collect();
        let takes = |other: &Accepting<'_>| is_possible(&other.conditions, &answer);
        if accepting.get(likely).is_some_and(takes) {
            continue;
        }
        pairs += accepting.len();
        if pairs > PAIRS_MAX {
            return None;
        }
        match accepting.iter().position(takes) {
            Some(at) => likely = at,
            None => return Some(rule.at),
        }
    }
    None
}

/// Whether FORWARD ends in a drop: by policy, or by a rule for everything.
fn drops_by_default(ruleset: &Ruleset) -> bool {
    let chain = ruleset.chain(ruleset.forward);
    let drops = |target| matches!(target, Target::Drop | Target::Reject(_));
    chain.policy == Some(Policy::Drop)
        || chain.rules.iter().any(|rule| rule.matches.is_empty() && drops(rule.target))
}

/// Every accepting rule that FORWARD of `filter` leads to.
fn accepting<'a>(ruleset: &'a Ruleset, reach: &Reach<'a>) -> Vec<Accepting<'a>> {
    let mut seen = vec![false; ruleset.chains.len()];
    let mut todo = vec![ruleset.forward];
    while let Some(id) = todo.pop() {
        if !std::mem::replace(&mut seen[id.0 as usize], true) {
            todo.extend(ruleset.chain(id).rules.iter().filter_map(|rule| callee(rule)));
        }
    }
    let mut found = Vec::new();
    for (id, chain) in (0_u32..).map(ChainId).zip(&ruleset.chains).filter(|(id, _)| seen[id.0 as usize]) {
        let Some(known) = &reach.known[id.0 as usize] else { continue };
        for (number, rule) in (0_u32..).zip(&chain.rules).filter(|(_, rule)| rule.target == Target::Accept) {
            let conditions = known.iter().copied().chain(&rule.matches).collect();
            found.push(Accepting { at: RuleRef { chain: id, rule: Some(number) }, conditions });
        }
    }
    found
}

fn is_tcp(rule: &Accepting<'_>) -> bool {
    rule.conditions.iter().any(|condition| **condition == Match::Proto { proto: proto::TCP, invert: false })
}

/// Whether some packet may fulfil all of these, as far as we know.
fn is_possible(one: &[&Match], other: &[&Match]) -> bool {
    let excluded = |condition: &&Match| other.iter().any(|other| excludes(condition, other, Table::Filter));
    !one.iter().any(|condition| is_never(condition) || excluded(condition))
}

/// What is known of the answer to the first packet of a connection that a rule accepts. On a wire it goes where the
/// packet came from, and no packet leaves where it came in.
fn answer_to(rule: &Accepting<'_>) -> Vec<Match> {
    let known = rule.conditions.iter().filter(|condition| is_known(condition, Table::Filter));
    let turned = known.filter_map(|condition| {
        Some(match (*condition).clone() {
            Match::Src { addr, mask, invert } => Match::Dst { addr, mask, invert },
            Match::Dst { addr, mask, invert } => Match::Src { addr, mask, invert },
            Match::InIface { pattern, invert } => Match::OutIface { pattern, invert },
            Match::OutIface { pattern, invert } => Match::InIface { pattern, invert },
            Match::Ports { which, ranges, invert } => {
                let which = match which {
                    PortSide::Src => PortSide::Dst,
                    PortSide::Dst => PortSide::Src,
                    PortSide::Either => PortSide::Either,
                };
                Match::Ports { which, ranges, invert }
            }
            Match::Proto { proto, invert } => Match::Proto { proto, invert },
            _ => return None,
        })
    });
    let flags = Match::TcpFlags { mask: MASK, comp: tcp_flag::SYN | tcp_flag::ACK, invert: false };
    let mut answer: Vec<Match> =
        turned.chain([flags, in_state(&[CtState::Established, CtState::Untracked])]).collect();
    let other_ifaces: Vec<Match> = answer
        .iter()
        .filter_map(|condition| match condition {
            Match::InIface { pattern, invert: false } if !pattern.prefix => {
                Some(Match::OutIface { pattern: pattern.clone(), invert: true })
            }
            Match::OutIface { pattern, invert: false } if !pattern.prefix => {
                Some(Match::InIface { pattern: pattern.clone(), invert: true })
            }
            _ => None,
        })
        .collect();
    answer.extend(other_ifaces);
    let is_of_client =
        |condition: &Match| matches!(condition, Match::Ports { which: PortSide::Dst | PortSide::Either, .. });
    if !answer.iter().any(is_of_client) {
        let ranges = vec![(CLIENT_PORT, CLIENT_PORT)];
        answer.push(Match::Ports { which: PortSide::Dst, ranges, invert: false });
    }
    answer
}
