//! The ten stateful rules of `tests/data/rules/bench10.v4.rules` as values: text is read by control, which this crate does
//! without. A test of `bench`, which has it, holds the two together.

use dataplane::packet::{Family, proto};
use dataplane::rules::model::{
    CtState, CtStateSet, Match, Policy, PortSide, RejectWith, Rule, RuleId, Ruleset, Target,
};
use std::sync::Arc;

/// Where the rules stand among the built-in chains.
const FORWARD: usize = 1;

/// The rules. Their names count from zero.
#[must_use]
pub fn bench10() -> Ruleset {
    use CtState::{Established, Invalid, New, Related};
    let states = |states: &[CtState]| {
        let states = states.iter().fold(CtStateSet::default(), |set, state| set.with(*state));
        Match::CtState { states, invert: false }
    };
    let over = |proto| Match::Proto { proto, invert: false };
    let dports =
        |ranges: &[(u16, u16)]| Match::Ports { which: PortSide::Dst, ranges: ranges.to_vec(), invert: false };
    let (addr, mask) = (|[a, b, c]: [u8; 3]| u128::from(u32::from_be_bytes([a, b, c, 0])), 0xffff_ff00);
    let src = Match::Src { addr: addr([192, 0, 2]), mask, invert: false };
    let dst = Match::Dst { addr: addr([198, 51, 100]), mask, invert: false };
    let ping = Match::Icmp { ty: Some(8), codes: (0, u8::MAX), invert: false };
    let rules = [
        (vec![states(&[Related, Established])], Target::Accept),
        (vec![states(&[Invalid])], Target::Drop),
        (vec![src], Target::Drop),
        (vec![dst], Target::Reject(RejectWith::IcmpNetUnreachable)),
        (vec![over(proto::TCP), dports(&[(22, 22)]), states(&[New])], Target::Accept),
        (vec![over(proto::TCP), dports(&[(80, 80), (443, 443)]), states(&[New])], Target::Accept),
        (vec![over(proto::ICMP), ping], Target::Accept),
        (vec![over(proto::TCP), dports(&[(113, 113)])], Target::Reject(RejectWith::TcpReset)),
        (vec![over(proto::UDP), dports(&[(53, 53)])], Target::Accept),
        (vec![over(proto::UDP), dports(&[(7000, 7999)]), states(&[New])], Target::Accept),
    ];
    let mut ruleset = Ruleset::empty(Family::V4);
    let chain = &mut ruleset.chains[FORWARD];
    chain.policy = Some(Policy::Drop);
    chain.rules = rules.into_iter().enumerate().map(rule).collect();
    ruleset
}

fn rule((number, (matches, target)): (usize, (Vec<Match>, Target))) -> Arc<Rule> {
    let id = RuleId(number as u64);
    Arc::new(Rule { id, matches, target, management: false, is_bare: false })
}
