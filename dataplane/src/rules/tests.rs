//! The compiled form against its meaning, on hand-written chains and on generated rulesets.

use super::alter::{Alter, Copied, Hops, TcpOptions};
use super::conn::*;
use super::interned::Interned;
use super::log::{Log, LogSpec, LogTo, Notes};
use super::model::*;
use super::rate::*;
use super::selfcheck::{Edges, Random, changed, compare, facts};
use super::trace::{self, Step, StepKind};
use super::validate::CHAIN_DEPTH_MAX;
use super::{CompileError, Compiled, Decision, Facts, Matched, linear};
use crate::clock::{Now, WallClock};
use crate::flow::Direction;
use crate::ids::PortId;
use crate::packet::{Family, proto};
use crate::sets::{
    Compare, Directions, Element, Extras, Kind, Set, SetMatch, SetOrder, SetUse, Slot, SlotId, Spec,
};
use proptest::prelude::*;
use std::cell::RefCell;
use std::sync::{Arc, LazyLock};

const NAMES: [&str; 4] = ["eth0", "eth1", "lan0", "lan1"];

pub(super) fn names() -> Vec<String> {
    NAMES.map(str::to_owned).into()
}

fn rule(matches: Vec<Match>, target: Target) -> Rule {
    Rule { id: RuleId(0), matches, target, management: false, is_bare: false }
}

fn shared(rules: Vec<Rule>) -> Vec<Arc<Rule>> {
    rules.into_iter().map(Arc::new).collect()
}

fn user(name: &str, rules: Vec<Rule>) -> Chain {
    Chain { table: Table::Filter, name: name.to_owned(), policy: None, rules: shared(rules) }
}

/// FORWARD with a policy, and user chains numbered from 3.
fn ruleset(policy: Policy, forward: Vec<Rule>, users: Vec<Chain>) -> Ruleset {
    let mut ruleset = Ruleset::empty(Family::V4);
    ruleset.chains[1].policy = Some(policy);
    ruleset.chains[1].rules = shared(forward);
    ruleset.chains.extend(users);
    ruleset
}

fn dport(port: u16) -> Match {
    Match::Ports { which: PortSide::Dst, ranges: vec![(port, port)], invert: false }
}

fn tcp() -> Match {
    Match::Proto { proto: proto::TCP, invert: false }
}

/// What happens to a NEW TCP packet to `port`, and which rules it matched.
fn judge(ruleset: Ruleset, port: u16) -> (Verdict, Vec<(u32, Option<u32>)>) {
    let compiled = Compiled::new(Arc::new(ruleset), &names()).unwrap();
    let mut packet = Edges::of(compiled.ruleset()).packet(&mut Random(7), Family::V4);
    packet.tuple.proto = proto::TCP;
    packet.fragment = crate::packet::Fragment::Whole;
    packet.has_l4 = true;
    packet.tuple.dst_port = port;
    let mut matched = Matched::default();
    let facts = facts(&packet, CtState::New, None, PortId(0));
    let decision = compiled.classify(&facts, &mut Marks::default(), &mut matched);
    let refs = matched.lines().iter().map(|line| compiled.line(*line).unwrap().by);
    (decision.verdict, refs.map(|by| (by.chain.0, by.rule)).collect())
}

#[test]
fn policy_decides_when_nothing_matches() {
    assert_eq!(judge(ruleset(Policy::Drop, vec![], vec![]), 80), (Verdict::Drop, vec![(1, None)]));
    assert_eq!(judge(ruleset(Policy::Accept, vec![], vec![]), 80), (Verdict::Accept, vec![(1, None)]));
}

#[test]
fn a_jump_comes_back_to_the_next_rule_and_counts() {
    let rules = ruleset(
        Policy::Drop,
        vec![rule(vec![tcp()], Target::Jump(ChainId(3))), rule(vec![], Target::Accept)],
        vec![user("a", vec![rule(vec![dport(22)], Target::Drop)])],
    );
    assert_eq!(judge(rules.clone(), 22), (Verdict::Drop, vec![(1, Some(0)), (3, Some(0))]));
    assert_eq!(judge(rules, 80), (Verdict::Accept, vec![(1, Some(0)), (1, Some(1))]));
}

#[test]
fn return_leaves_its_chain_only() {
    let rules = ruleset(
        Policy::Drop,
        vec![rule(vec![], Target::Jump(ChainId(3))), rule(vec![], Target::Accept)],
        vec![user("a", vec![rule(vec![dport(22)], Target::Return), rule(vec![], Target::Drop)])],
    );
    assert_eq!(judge(rules.clone(), 22), (Verdict::Accept, vec![(1, Some(0)), (3, Some(0)), (1, Some(1))]));
    assert_eq!(judge(rules, 80).0, Verdict::Drop);
}

#[test]
fn return_in_the_base_chain_is_its_policy() {
    let rules = ruleset(
        Policy::Drop,
        vec![rule(vec![dport(22)], Target::Return), rule(vec![], Target::Accept)],
        vec![],
    );
    assert_eq!(judge(rules.clone(), 22), (Verdict::Drop, vec![(1, Some(0)), (1, None)]));
    assert_eq!(judge(rules, 80).0, Verdict::Accept);
}

#[test]
fn goto_returns_to_the_callers_caller() {
    // FORWARD jumps to a; a goes to b; b falls through: back in FORWARD, not in a.
    let rules = ruleset(
        Policy::Drop,
        vec![rule(vec![], Target::Jump(ChainId(3))), rule(vec![], Target::Accept)],
        vec![
            user("a", vec![rule(vec![dport(22)], Target::Goto(ChainId(4))), rule(vec![], Target::Drop)]),
            user("b", vec![rule(vec![dport(23)], Target::Drop)]),
        ],
    );
    assert_eq!(judge(rules.clone(), 22), (Verdict::Accept, vec![(1, Some(0)), (3, Some(0)), (1, Some(1))]));
    assert_eq!(judge(rules, 80).0, Verdict::Drop);
}

#[test]
fn goto_from_the_base_chain_falls_to_the_policy() {
    let rules = ruleset(
        Policy::Drop,
        vec![rule(vec![], Target::Goto(ChainId(3))), rule(vec![], Target::Accept)],
        vec![user("a", vec![rule(vec![dport(22)], Target::Accept)])],
    );
    assert_eq!(judge(rules.clone(), 22).0, Verdict::Accept);
    assert_eq!(judge(rules, 80), (Verdict::Drop, vec![(1, Some(0)), (1, None)]));
}

#[test]
fn a_defect_of_the_compiled_form_is_caught_before_it_meets_a_packet() {
    let rules = |port, target| {
        let last = rule(vec![tcp()], Target::Continue);
        Arc::new(ruleset(Policy::Drop, vec![rule(vec![tcp(), dport(port)], target), last], vec![]))
    };
    let right = rules(22, Target::Accept);
    let defects = [rules(23, Target::Accept), rules(22, Target::Drop), rules(22, Target::Continue)];
    for meaning in defects {
        let compiled = Compiled::unchecked(Arc::clone(&right), &names()).unwrap().of_another_meaning(meaning);
        let Err(CompileError::SelfCheck(said)) = compiled.checked(&names()) else {
            panic!("the defect goes unnoticed")
        };
        assert!(said.contains("compiled: ") && said.contains("meaning: "), "{said}");
    }
    assert!(Compiled::new(right, &names()).is_ok());
}

#[test]
fn flags_that_led_to_a_chain_hold_behind_a_change_of_ecn_too() {
    // What called chains repeat of the jump is asked of the packet as it is then: with what ECN leaves alone.
    for (bit, ece, cwr) in (0..6).flat_map(|bit| [(bit, Some(false), None), (bit, Some(true), Some(true))]) {
        let without = Match::TcpFlags { mask: 1 << bit, comp: 0, invert: false };
        let change = Target::Effect(Effect::Alter(Alter::Ecn { ect: None, ece, cwr }));
        let called = user("u0", vec![rule(vec![], change), rule(vec![], Target::Accept)]);
        let rules =
            ruleset(Policy::Drop, vec![rule(vec![tcp(), without], Target::Jump(ChainId(3)))], vec![called]);
        let loaded = Compiled::new(Arc::new(rules), &names());
        assert!(loaded.is_ok(), "bit {bit}: {}", loaded.unwrap_err());
    }
}

#[test]
fn a_rule_without_target_only_counts() {
    let rules = ruleset(Policy::Accept, vec![rule(vec![tcp()], Target::Continue)], vec![]);
    assert_eq!(judge(rules, 80), (Verdict::Accept, vec![(1, Some(0)), (1, None)]));
}

#[test]
fn loops_are_reported_by_name() {
    let rules = ruleset(
        Policy::Drop,
        vec![],
        vec![
            user("a", vec![rule(vec![], Target::Jump(ChainId(4)))]),
            user("b", vec![rule(vec![], Target::Goto(ChainId(3)))]),
        ],
    );
    let error = Compiled::new(Arc::new(rules), &names()).unwrap_err();
    assert_eq!(error, CompileError::Loop(vec!["a".into(), "b".into(), "a".into()]));
}

#[test]
fn jumps_nest_as_deep_as_in_nftables_and_no_deeper() {
    let nested = |depth: usize| {
        let users = (0..depth).map(|level| {
            let next = ChainId(u32::try_from(level).unwrap() + 4);
            let rules = if level + 1 < depth { vec![rule(vec![], Target::Jump(next))] } else { vec![] };
            user(&format!("c{level}"), rules)
        });
        ruleset(Policy::Drop, vec![rule(vec![], Target::Jump(ChainId(3)))], users.collect())
    };
    assert!(Compiled::new(Arc::new(nested(CHAIN_DEPTH_MAX)), &names()).is_ok());
    let error = Compiled::new(Arc::new(nested(CHAIN_DEPTH_MAX + 1)), &names()).unwrap_err();
    assert!(matches!(error, CompileError::TooDeep(_)));
}

#[test]
fn chains_that_multiply_are_refused_not_unfolded_without_bound() {
    // Every level calls the next one sixteen times: 16^15 lines if nobody stopped it.
    let users = (0..14_u32).map(|level| {
        let target = if level < 13 { Target::Jump(ChainId(level + 4)) } else { Target::Continue };
        user(&format!("c{level}"), (0..16).map(|_| rule(vec![], target)).collect())
    });
    let rules = ruleset(Policy::Drop, vec![rule(vec![], Target::Jump(ChainId(3)))], users.collect());
    assert!(matches!(Compiled::new(Arc::new(rules), &names()), Err(CompileError::TooManyLines(_))));
}

#[test]
fn ten_thousand_rules_stay_small() {
    let rules = (0..10_000_u32).map(|n| {
        let src = Match::Src { addr: u128::from(n) << 12, mask: 0xffff_f000, invert: n % 97 == 0 };
        let port = u16::try_from(n % 60_000).unwrap();
        rule(vec![src, tcp(), dport(port)], if n % 3 == 0 { Target::Drop } else { Target::Accept })
    });
    let compiled = Compiled::new(Arc::new(ruleset(Policy::Drop, rules.collect(), vec![])), &names()).unwrap();
    assert!(compiled.bytes() < 10_000 * 1024, "{} bytes", compiled.bytes());
}

/// Notes what it is told.
#[derive(Debug, Default, PartialEq)]
struct Heard(RefCell<Vec<(String, u32, Vec<u8>)>>);

impl Notes for Heard {
    fn note(&self, facts: &Facts<'_>, log: Log, by: RuleRef, mark: u32) {
        self.0.borrow_mut().push((format!("{:?} {by:?}", log.hook), mark, facts.bytes.to_vec()));
    }

    fn trace(&self, facts: &Facts<'_>, step: Step, mark: u32) {
        self.0.borrow_mut().push((format!("{step:?}"), mark, facts.bytes.to_vec()));
    }
}

#[test]
fn steps_are_named_and_numbered_as_in_the_kernel() {
    let bare = |target| Rule { is_bare: true, ..rule(vec![], target) };
    let rules = ruleset(
        Policy::Drop,
        vec![bare(Target::Jump(ChainId(3))), rule(vec![], Target::Accept), bare(Target::Accept)],
        vec![user("a", vec![rule(vec![tcp()], Target::Return), bare(Target::Return)])],
    );
    let label = |chain, rule| trace::label(&rules, RuleRef { chain: ChainId(chain), rule });
    assert_eq!(label(1, Some(0)), (StepKind::Rule, 1));
    assert_eq!(label(1, Some(1)), (StepKind::Rule, 2));
    assert_eq!(label(1, Some(2)), (StepKind::Policy, 3));
    assert_eq!(label(1, None), (StepKind::Policy, 4));
    assert_eq!(label(3, Some(0)), (StepKind::Rule, 1));
    assert_eq!(label(3, Some(1)), (StepKind::Return, 2));
    assert_eq!(label(3, None), (StepKind::Return, 3));
}

fn address() -> impl Strategy<Value = (u128, u128)> {
    let prefix = (any::<u8>(), 0..=32_u32).prop_map(|(net, len)| {
        let mask = u128::from(u32::MAX.checked_shl(32 - len).unwrap_or(0));
        ((u128::from(net) << 24 | 0x0001_0203) & mask, mask)
    });
    let holes = any::<u32>().prop_map(|mask| (0x0a01_0203 & u128::from(mask), u128::from(mask)));
    prop_oneof![8 => prefix, 1 => holes]
}

fn iface() -> impl Strategy<Value = IfacePattern> {
    prop_oneof![
        (0..4_usize).prop_map(|n| IfacePattern { name: NAMES[n].to_owned(), prefix: false }),
        Just(IfacePattern { name: "eth".to_owned(), prefix: true }),
        Just(IfacePattern { name: "nowhere".to_owned(), prefix: false }),
    ]
}

fn ranges() -> impl Strategy<Value = Vec<(u16, u16)>> {
    proptest::collection::vec((0..200_u16, 0..50_u16).prop_map(|(low, len)| (low, low + len)), 1..4)
}

fn condition() -> impl Strategy<Value = Match> {
    let side = prop_oneof![Just(PortSide::Src), Just(PortSide::Dst), Just(PortSide::Either)];
    let protos = prop_oneof![Just(6_u8), Just(17), Just(1), Just(58), Just(47)];
    let invert = prop::bool::weighted(0.2);
    prop_oneof![
        2 => (iface(), invert).prop_map(|(pattern, invert)| Match::InIface { pattern, invert }),
        1 => (iface(), invert).prop_map(|(pattern, invert)| Match::OutIface { pattern, invert }),
        4 => (address(), invert).prop_map(|((addr, mask), invert)| Match::Src { addr, mask, invert }),
        4 => (address(), invert).prop_map(|((addr, mask), invert)| Match::Dst { addr, mask, invert }),
        4 => (protos, invert).prop_map(|(proto, invert)| Match::Proto { proto, invert }),
        1 => invert.prop_map(|invert| Match::LaterFragment { invert }),
        5 => (side, ranges(), invert).prop_map(|(which, ranges, invert)| Match::Ports { which, ranges, invert }),
        2 => (any::<u8>(), any::<u8>(), invert)
            .prop_map(|(mask, comp, invert)| Match::TcpFlags { mask: mask & 0x3f, comp: comp & mask & 0x3f, invert }),
        1 => (prop::option::of(0..20_u8), (0..4_u8, 0..4_u8), invert)
            .prop_map(|(ty, codes, invert)| Match::Icmp { ty, codes, invert }),
        3 => (1..32_u8, invert).prop_map(|(states, invert)| Match::CtState { states: CtStateSet(states), invert }),
        2 => conn_condition().prop_map(Match::Conn),
        3 => super::header::tests::condition().prop_map(Match::Header),
        2 => rate_condition().prop_map(Match::Rate),
        2 => set_condition().prop_map(Match::Set),
    ]
}

/// Sets of some kinds with what addresses and ports of conditions lie around, one of them a list of others.
fn some_sets() -> Vec<Arc<Slot>> {
    let kinds = [Kind::HashIp, Kind::HashNet, Kind::HashIpPort, Kind::BitmapPort, Kind::HashNetIface];
    let mut slots: Vec<Arc<Slot>> = Vec::new();
    let slot = |slots: &[Arc<Slot>], spec| {
        let set = Arc::new(Set::new(spec, 0, &Arc::from(names())).unwrap());
        Arc::new(Slot::new(SlotId(u32::try_from(slots.len()).unwrap()), set))
    };
    for (at, kind) in kinds.into_iter().enumerate() {
        let family = (kind != Kind::BitmapPort).then_some(Family::V4);
        let spec = Spec { counters: at % 2 == 0, range: (0, 200), ..Spec::new(kind, family) };
        let slot = slot(&slots, spec);
        let set = slot.set();
        for number in 0..40_u8 {
            let element = Element {
                addr: if kind.has_address() { u128::from(number * 6) << 24 | 0x0001_0203 } else { 0 },
                prefix: if kind == Kind::HashNet || kind == Kind::HashNetIface { 1 + number % 32 } else { 0 },
                proto: if kind == Kind::HashIpPort { proto::TCP } else { 0 },
                port: if matches!(kind, Kind::HashIpPort | Kind::BitmapPort) {
                    u16::from(number * 5)
                } else {
                    0
                },
                iface: if kind == Kind::HashNetIface {
                    set.iface(NAMES[usize::from(number % 4)]).unwrap()
                } else {
                    0
                },
                ..Element::default()
            };
            let nomatch = kind == Kind::HashNet && number % 5 == 0;
            let _ = set.add(element, &Extras { nomatch, ..Extras::default() }, true, Now::default());
        }
        assert!(set.len() > 10, "{kind:?}");
        slots.push(slot);
    }
    let list = slot(&slots, Spec::new(Kind::ListSet, None));
    for member in &slots[..3] {
        list.set().add_member(member, None, &Extras::default(), false, Now::default()).unwrap();
    }
    slots.push(list);
    slots
}

static SETS: LazyLock<Vec<Arc<Slot>>> = LazyLock::new(some_sets);

fn directions() -> impl Strategy<Value = Directions> {
    (1..=Directions::MAX, any::<u8>())
        .prop_map(|(count, src)| Directions { count, src: src & ((1 << count) - 1) })
}

fn set_condition() -> impl Strategy<Value = SetMatch> {
    let compare = || {
        prop::option::weighted(
            0.2,
            (0..4_u8, 0..300_u64).prop_map(|(how, value)| match how {
                0 => Compare::Equal(value),
                1 => Compare::NotEqual(value),
                2 => Compare::Less(value),
                _ => Compare::Greater(value),
            }),
        )
    };
    (0..SETS.len(), directions(), any::<[bool; 4]>(), compare(), compare()).prop_map(
        |(at, directions, [invert, return_nomatch, keep_counters, keep_subcounters], packets, bytes)| {
            SetMatch {
                slot: Arc::clone(&SETS[at]),
                directions,
                invert,
                return_nomatch,
                keep_counters,
                keep_subcounters,
                packets,
                bytes,
                hook: Hook::Forward,
            }
        },
    )
}

fn set_order() -> impl Strategy<Value = SetOrder> {
    let used = || {
        prop::option::of((0..SETS.len(), directions()))
            .prop_map(|used| used.map(|(at, directions)| SetUse { slot: SETS[at].id(), directions }))
    };
    (used(), used(), any::<bool>(), prop::option::of(0..1000_u32))
        .prop_map(|(add, del, exist, timeout)| SetOrder { add, del, exist, timeout, hook: Hook::Forward })
}

/// The same rules with sets of their own, in which nothing has been counted.
fn with_own_sets(mut ruleset: Ruleset) -> Ruleset {
    let own = some_sets();
    let rules = ruleset.chains.iter_mut().flat_map(|chain| &mut chain.rules);
    for condition in rules.flat_map(|rule| &mut Arc::make_mut(rule).matches) {
        if let Match::Set(set) = condition {
            set.slot = Arc::clone(&own[set.slot.id().0 as usize]);
        }
    }
    ruleset
}

fn rate_condition() -> impl Strategy<Value = RateMatch> {
    let limit = |burst| RateMatch::Limit(Arc::new(Limit::new(1, 1, burst)));
    let nth = (1..4_u32, 0..4_u32, any::<bool>()).prop_map(|(every, packet, invert)| {
        let nth = Nth { every, packet: packet % every };
        RateMatch::Statistic(Arc::new(Statistic::nth(nth, invert)))
    });
    let hashlimit = (any::<[bool; 2]>(), 1..4_u64, any::<bool>()).prop_map(|([src, dst], burst, above)| {
        let keys = HashKeys { src, dst, ..HashKeys::default() };
        let rate = HashRate::Packets(1_000_000);
        let (size, max, gc_interval, expire) = (16, 16, 1000, 10_000);
        let config = HashConfig {
            keys,
            rate,
            burst,
            interval: None,
            src_prefix: 32,
            dst_prefix: 8,
            size,
            max,
            gc_interval,
            expire,
        };
        RateMatch::Hashlimit(Box::new(Hashlimit { name: "h".into(), config, above, table: None }))
    });
    let check = (any::<bool>(), 0..3_u32, 0..3_u32).prop_map(|(update, seconds, hits)| RecentTask::Check {
        update,
        seconds,
        hits,
        reap: seconds > 1,
        ttl: false,
    });
    let task = prop_oneof![2 => Just(RecentTask::Set), 2 => check, 1 => Just(RecentTask::Remove)];
    let recent = (task, any::<[bool; 2]>()).prop_map(|(task, [invert, by_dst])| {
        let mask = u128::from(u32::MAX);
        RateMatch::Recent(Box::new(Recent { name: "r".into(), task, invert, by_dst, mask, table: None }))
    });
    prop_oneof![
        2 => (1..4_u32).prop_map(limit),
        1 => (0..300_u64, any::<bool>()).prop_map(|(total, invert)| RateMatch::Quota(Arc::new(Quota::new(total, invert)))),
        2 => nth,
        2 => hashlimit,
        2 => recent,
        1 => (0..86_400_u32, 0..86_400_u32).prop_map(|daytimes| RateMatch::Time(TimeMatch {
            dates: (0, u32::MAX), daytimes, monthdays: TimeMatch::ALL_MONTHDAYS, weekdays: 0b10_1010, kernel_tz: false, contiguous: false,
        })),
    ]
}

fn mark() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0_u32), Just(1), Just(3), Just(0xff), Just(u32::MAX)]
}

fn conn_condition() -> impl Strategy<Value = ConnMatch> {
    let invert = prop::bool::weighted(0.2);
    let conntrack = (prop::option::of((1..32_u8, any::<bool>())), any::<u16>(), 0..40_u32, any::<bool>())
        .prop_map(|(states, status, secs, invert)| {
            let direction = (secs % 3 == 0).then_some(Direction::Reply);
            let status = (secs % 2 == 0).then_some((status, invert));
            let addresses = [Some((0x0a00_0000, 0xff00_0000, invert)), None, None, None];
            let ports = [None, (secs % 5 == 0).then_some((0, 1024, invert)), None, None];
            let expire = (secs % 4 == 0).then_some((0, secs, invert));
            Box::new(Conntrack { states, direction, proto: None, addresses, ports, status, expire })
        });
    prop_oneof![
        4 => (mark(), mark(), invert).prop_map(|(value, mask, invert)| ConnMatch::Mark { value, mask, invert }),
        2 => (mark(), mark(), invert).prop_map(|(value, mask, invert)| ConnMatch::ConnMark { value, mask, invert }),
        1 => conntrack.prop_map(ConnMatch::Conntrack),
        1 => (0..2000_u64, prop_oneof![0..2000_u64, Just(u64::MAX)], invert).prop_map(|(from, to, invert)| ConnMatch::ConnBytes(ConnBytes {
            direction: CountedDirection::Both, what: CountedWhat::Bytes, from, to, invert,
        })),
        4 => (prop_oneof![Just(0_u8), Just(5), Just(LABELS - 1)], any::<bool>(), invert)
            .prop_map(|(label, set, invert)| ConnMatch::ConnLabel { label, set, invert }),
    ]
}

fn effect() -> impl Strategy<Value = Effect> {
    prop_oneof![
        (mark(), mark()).prop_map(|(set, clear)| Effect::SetMark { set, clear }),
        (mark(), mark()).prop_map(|(set, clear)| Effect::SetConnMark { set, clear, shift: 0 }),
        (mark(), mark(), -2..3_i8).prop_map(|(from, to, shift)| Effect::SaveMark { from, to, shift }),
        (mark(), mark(), -2..3_i8).prop_map(|(from, to, shift)| Effect::RestoreMark { from, to, shift }),
        any::<bool>().prop_map(|notrack| Effect::Order(Orders { notrack, ..Orders::default() })),
        alter().prop_map(Effect::Alter),
        Just(LogSpec { prefix: "x".into(), to: LogTo::Capture { group: 1, size: None } })
            .prop_map(|spec| Effect::Log(Log::new(spec))),
        Just(Effect::Trace),
        set_order().prop_map(Effect::Set),
        set_order().prop_map(Effect::Set),
    ]
}

fn alter() -> impl Strategy<Value = Alter> {
    prop_oneof![
        (any::<u8>(), any::<u8>()).prop_map(|(clear, flip)| Alter::Tos { clear, flip }),
        any::<u8>().prop_map(|hops| Alter::Hops(Hops::Dec(hops))),
        any::<bool>().prop_map(|ece| Alter::Ecn { ect: None, ece: Some(ece), cwr: None }),
        (0..2000_u16).prop_map(Alter::Mss),
        (2..9_u8).prop_map(|kind| Alter::Strip(Interned::new(TcpOptions::default().with(kind)))),
    ]
}

/// Whether a condition is one of those that stand before all matches.
const fn is_basic(condition: &Match) -> bool {
    matches!(
        condition,
        Match::InIface { .. }
            | Match::OutIface { .. }
            | Match::Src { .. }
            | Match::Dst { .. }
            | Match::Proto { .. }
            | Match::LaterFragment { .. }
    )
}

/// Rules of a chain that may call chains from `first` to `last`.
pub(super) fn rules(first: u32, last: u32) -> impl Strategy<Value = Vec<Rule>> {
    let calls = prop_oneof![
        4 => Just(Target::Accept),
        4 => Just(Target::Drop),
        1 => Just(Target::Reject(RejectWith::IcmpPortUnreachable)),
        2 => Just(Target::Continue),
        2 => effect().prop_map(Target::Effect),
        2 => Just(Target::Return),
        4 => (first..=last.max(first), any::<bool>()).prop_map(move |(to, goto)| match (first <= last, goto) {
            (false, _) => Target::Accept,
            (true, true) => Target::Goto(ChainId(to)),
            (true, false) => Target::Jump(ChainId(to)),
        }),
    ];
    let one = (proptest::collection::vec(condition(), 0..4), calls).prop_map(|(mut matches, target)| {
        // As rules are written, and as iptables tries them.
        matches.sort_by_key(|condition| !is_basic(condition));
        rule(matches, target)
    });
    proptest::collection::vec(one, 0..14)
}

pub(super) fn any_ruleset() -> impl Strategy<Value = Ruleset> {
    let users = [rules(4, 6), rules(5, 6), rules(6, 6), rules(7, 6)];
    let around = prop::option::of((prop::array::uniform4(rules(7, 6)), any::<[bool; 4]>()));
    (any::<bool>(), rules(3, 6), users, around).prop_map(|(accept, forward, users, around)| {
        let users = users.into_iter().enumerate().map(|(n, rules)| user(&format!("u{n}"), rules));
        let policy = |accept: bool| if accept { Policy::Accept } else { Policy::Drop };
        let mut ruleset = ruleset(policy(accept), forward, users.collect());
        if let Some((chains, policies)) = around {
            ruleset.chains.extend(chains.into_iter().zip(policies).enumerate().map(
                |(at, (rules, accept))| {
                    let table = if at == 0 { Table::Raw } else { Table::Mangle };
                    Chain { table, policy: Some(policy(accept)), ..user("builtin", rules) }
                },
            ));
            ruleset.around = Around {
                raw_prerouting: Some(ChainId(7)),
                mangle_prerouting: Some(ChainId(8)),
                mangle_forward: Some(ChainId(9)),
                mangle_postrouting: Some(ChainId(10)),
            };
        }
        // It stands in raw only.
        for chain in ruleset.chains.iter_mut().filter(|chain| chain.table != Table::Raw) {
            for rule in chain.rules.iter_mut().filter(|rule| rule.target == Target::Effect(Effect::Trace)) {
                Arc::make_mut(rule).target = Target::Continue;
            }
        }
        ruleset
    })
}

/// The same rules with what iptables asks first in front.
fn in_order(mut ruleset: Ruleset) -> Ruleset {
    let is_later = |condition: &Match| {
        !matches!(
            condition,
            Match::InIface { .. }
                | Match::OutIface { .. }
                | Match::Src { .. }
                | Match::Dst { .. }
                | Match::Proto { .. }
                | Match::LaterFragment { .. }
        )
    };
    for rule in ruleset.chains.iter_mut().flat_map(|chain| &mut chain.rules) {
        Arc::make_mut(rule).matches.sort_by_key(is_later);
    }
    ruleset
}

/// The same rules without changes to packets: where one is due, the compiled form stops.
fn unaltered(mut ruleset: Ruleset) -> Ruleset {
    for rule in ruleset.chains.iter_mut().flat_map(|chain| &mut chain.rules) {
        if matches!(rule.target, Target::Effect(Effect::Alter(_))) {
            Arc::make_mut(rule).target = Target::Continue;
        }
    }
    ruleset
}

/// The same ruleset with addresses spread over 128 bits.
fn widened(mut ruleset: Ruleset) -> Ruleset {
    ruleset.family = Family::V6;
    let wide = |value: &mut u128| *value = *value << 96 | *value << 32;
    let rules = ruleset.chains.iter_mut().flat_map(|chain| &mut chain.rules);
    for condition in rules.flat_map(|rule| &mut Arc::make_mut(rule).matches) {
        if let Match::Src { addr, mask, .. } | Match::Dst { addr, mask, .. } = condition {
            wide(addr);
            wide(mask);
        }
    }
    ruleset
}

/// What is foreseen of a NEW TCP packet to port 80.
fn foreseen(ruleset: Ruleset) -> (bool, bool) {
    let compiled = Compiled::new(Arc::new(ruleset), &names()).unwrap();
    let mut packet = Edges::of(compiled.ruleset()).packet(&mut Random(7), Family::V4);
    (packet.tuple.proto, packet.tuple.dst_port) = (proto::TCP, 80);
    (packet.fragment, packet.has_l4) = (crate::packet::Fragment::Whole, true);
    let seen = compiled.foresee(&facts(&packet, CtState::New, None, PortId(0)), true);
    (seen.may_pass, seen.may_be_refused)
}

#[test]
fn what_hangs_on_the_packet_is_foreseen_both_ways_and_nothing_else_is() {
    let syn = || Match::TcpFlags { mask: 0x17, comp: 2, invert: false };
    let carries = || Match::Header(super::header::HeaderMatch::Carries(20));
    let mark = |value| Match::Conn(ConnMatch::Mark { value, mask: u32::MAX, invert: false });
    let set_mark = |set| Target::Effect(Effect::SetMark { set, clear: u32::MAX });
    let log = || {
        let spec = LogSpec { prefix: "x".into(), to: LogTo::Capture { group: 0, size: None } };
        Target::Effect(Effect::Log(Log::new(spec)))
    };
    let drop_all = || rule(vec![], Target::Drop);
    let (yes, no, both) = ((true, false), (false, true), (true, true));
    let cases = [
        (vec![rule(vec![tcp(), carries()], Target::Accept)], vec![], yes),
        (vec![rule(vec![], log()), drop_all()], vec![], no),
        (vec![rule(vec![tcp(), syn()], Target::Accept)], vec![], both),
        (vec![rule(vec![tcp(), syn()], Target::Drop)], vec![], no),
        (vec![rule(vec![tcp(), syn()], log()), rule(vec![dport(80)], Target::Accept)], vec![], yes),
        (vec![rule(vec![], set_mark(7)), rule(vec![mark(7)], Target::Accept)], vec![], yes),
        (vec![rule(vec![tcp(), syn()], set_mark(7)), rule(vec![mark(7)], Target::Accept)], vec![], both),
        // A chain that is entered perhaps, and what follows it.
        (vec![rule(vec![tcp(), syn()], Target::Jump(ChainId(3))), drop_all()], vec![drop_all()], no),
        (
            vec![rule(vec![tcp(), syn()], Target::Jump(ChainId(3))), rule(vec![], Target::Accept)],
            vec![rule(vec![dport(81)], Target::Drop)],
            yes,
        ),
        (
            vec![rule(vec![tcp(), syn()], Target::Jump(ChainId(3))), rule(vec![], Target::Accept)],
            // What the jump hangs on is asked anew at each line.
            vec![rule(vec![dport(80)], Target::Return), drop_all()],
            both,
        ),
        (
            vec![rule(vec![], Target::Jump(ChainId(3))), rule(vec![], Target::Accept)],
            vec![rule(vec![tcp(), syn()], Target::Return), drop_all()],
            both,
        ),
    ];
    for (at, (forward, called, expected)) in cases.into_iter().enumerate() {
        let seen = foreseen(ruleset(Policy::Drop, forward, vec![user("a", called)]));
        assert_eq!(seen, expected, "case {at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn compiled_rules_mean_what_the_chains_mean(ruleset in any_ruleset(), wide: bool, seed in 1..u64::MAX) {
        let ruleset = if wide { widened(ruleset) } else { ruleset };
        let family = ruleset.family;
        let compiled = Compiled::unchecked(Arc::new(ruleset), &names()).unwrap();
        let edges = Edges::of(compiled.ruleset());
        let mut random = Random(seed);
        let mut matched = Matched::default();
        for state in [CtState::New, CtState::Established, CtState::Related, CtState::Invalid, CtState::Untracked] {
            for ingress in 0..4 {
                for _ in 0..20 {
                    let packet = edges.packet(&mut random, family);
                    let conn = edges.conn(&mut random, &packet, state);
                    let ingress = PortId(ingress);
                    let frame = edges.frame(&mut random, &packet);
                    let facts = Facts { bytes: &frame, ..facts(&packet, state, conn.as_ref(), ingress) };
                    let marks = edges.marks(&mut random);
                    let found = compare(&compiled, &names(), &facts, &marks, &mut matched);
                    prop_assert!(found.is_none(), "{}", found.unwrap());
                }
            }
        }
    }

    #[test]
    fn compiled_rules_ask_what_keeps_state_just_when_the_chains_do(ruleset in any_ruleset(), seed in 1..u64::MAX) {
        // Each side has states of its own: they part as soon as one asks what the other does not.
        let ruleset = unaltered(in_order(ruleset));
        let bound =
            |ruleset: &Ruleset| Tables::default().bound(Arc::new(with_own_sets(ruleset.clone())), None).unwrap();
        let meant = bound(&ruleset);
        let compiled = Compiled::unchecked(bound(&ruleset), &names()).unwrap();
        let edges = Edges::of(&meant);
        let mut random = Random(seed);
        let (mut matched, mut walked) = (Matched::default(), Vec::new());
        let wall = WallClock::default();
        let mut now = Now::default();
        for step in 0..120 {
            now = now.plus_nanos((seed >> (step % 50)) % 3 * 400_000_000);
            let packet = edges.packet(&mut random, Family::V4);
            let conn = edges.conn(&mut random, &packet, CtState::New);
            let facts = facts(&packet, CtState::New, conn.as_ref(), PortId((step % 4) as u8));
            let facts = Facts { now, rates: Rates::Live(&wall), ..facts };
            let marks = edges.marks(&mut random);
            let (mut ours, mut theirs) = (marks.clone(), marks.clone());
            let decision = compiled.classify(&facts, &mut ours, &mut matched);
            let plain = linear::evaluate(&meant, &names(), &facts, &mut theirs, &mut walked);
            prop_assert_eq!(ours.set_asks, theirs.set_asks);
            let lines: Vec<_> = matched.lines().iter().map(|line| compiled.line(*line).unwrap().by).collect();
            prop_assert_eq!((decision.verdict, decision.by, &lines), (plain.verdict, plain.by, &walked));
            if let Some(decision) = compiled.classify_raw(&facts, &mut marks.clone(), &mut matched) {
                let plain = linear::evaluate_raw_copy(&meant, &names(), &facts, &mut marks.clone(), &mut walked, &mut Copied::default());
                let lines: Vec<_> = matched.lines().iter().map(|line| compiled.line(*line).unwrap().by).collect();
                prop_assert_eq!((decision.verdict, decision.by, &lines), (plain.verdict, plain.by, &walked));
            }
        }
    }

    #[test]
    fn both_forms_make_the_same_of_a_packet(
        ruleset in any_ruleset(), alters in prop::collection::vec((alter(), 0..20_usize), 1..4), seed in 1..u64::MAX
    ) {
        let mut ruleset = ruleset;
        for (alter, at) in alters {
            let rules = &mut ruleset.chains[1].rules;
            let changes = rule(vec![], Target::Effect(Effect::Alter(alter)));
            rules.insert(at.min(rules.len()), Arc::new(changes));
        }
        let compiled = Compiled::unchecked(Arc::new(ruleset), &names()).unwrap();
        let edges = Edges::of(compiled.ruleset());
        let mut random = Random(seed);
        let mut matched = Matched::default();
        for flags in [0x02_u8, 0xc2, 0x10, 0x52] {
            let mut frame = crate::testing::packets::tcp([0, 1, 2, 3], [128, 0, 0, 1]).ports(0, 1024).flags(flags);
            if flags & 0x40 != 0 {
                frame = frame.tcp_options(&[2, 4, 5, 0xb4, 4, 2, 1, 1]);
            }
            // Once more with a header that says more than there is.
            for offset in [0x50, 0xf0] {
                let mut frame = frame.build();
                frame[46] |= offset;
                let packet = crate::wire::parse(&frame, u32::try_from(frame.len()).unwrap()).unwrap();
                let facts = Facts { bytes: &frame, ..facts(&packet, CtState::New, None, PortId(0)) };
                let marks = edges.marks(&mut random);
                let found = compare(&compiled, &names(), &facts, &marks, &mut matched);
                prop_assert!(found.is_none(), "{}", found.unwrap());
            }
        }
    }

    #[test]
    fn what_becomes_of_a_first_packet_is_foreseen(ruleset in any_ruleset(), seed in 1..u64::MAX) {
        let compiled = Compiled::unchecked(Arc::new(ruleset), &names()).unwrap();
        let edges = Edges::of(compiled.ruleset());
        let mut random = Random(seed);
        for ingress in (0..40).map(|number| PortId(number % 4)) {
            let mut packet = edges.packet(&mut random, Family::V4);
            (packet.fragment, packet.has_l4, packet.l4_fault) = (crate::packet::Fragment::Whole, true, None);
            let conn = Conn {
                orig: packet.tuple, reply: packet.tuple, direction: Direction::Orig, status: 0, packets: [1, 0],
                bytes: [0, 0], secs_left: 0, master_helper: None, zone: 0, id: None, is_template: false,
            };
            let known = Facts { conn: Some(&conn), ..facts(&packet, CtState::New, None, ingress) };
            let foreseen = compiled.foresee(&known, true);
            for flags in [0x02, 0x10, 0x11, 0x18, 0x04, 0x3f] {
                let mut packet = packet;
                (packet.tcp_flags, packet.l3_len) = (flags, 40 + u32::from(flags));
                let frame = edges.frame(&mut random, &packet);
                let conn = Conn { bytes: [u64::from(packet.l3_len), 0], ..conn };
                let mut facts = Facts {
                    packet: &packet, conn: Some(&conn), bytes: &frame, rates: Rates::Probe(seed ^ u64::from(flags)), ..known
                };
                let ruleset = compiled.ruleset();
                let (mut marks, mut walked, mut copied) = (Marks::default(), Vec::new(), Copied::default());
                // A packet that ends too early, or cannot be changed as a rule wants it, would have no flow.
                let is_cut = |decision: &Decision, marks: &Marks| {
                    let rules = &ruleset.chain(decision.by.chain).rules;
                    let target = decision.by.rule.map(|rule| rules[rule as usize].target);
                    marks.hotdrop || matches!(target, Some(Target::Effect(Effect::Alter(_))))
                };
                let mut decision =
                    linear::evaluate_raw_copy(ruleset, &names(), &facts, &mut marks, &mut walked, &mut copied);
                let mut cut = is_cut(&decision, &marks);
                if decision.verdict == Verdict::Accept {
                    if marks.orders.is_some_and(|orders| orders.notrack) {
                        (facts.ct_state, facts.conn) = (CtState::Untracked, None);
                    }
                    marks.reset(0, None);
                    decision = linear::evaluate(ruleset, &names(), &facts, &mut marks, &mut walked);
                    cut |= is_cut(&decision, &marks);
                }
                let verdict = decision.verdict;
                let is_foreseen = if verdict == Verdict::Accept { foreseen.may_pass } else { foreseen.may_be_refused };
                prop_assert!(is_foreseen || cut, "{verdict:?} {foreseen:?} {packet:?}");
            }
        }
    }

    #[test]
    fn both_forms_note_the_same_steps_of_a_traced_packet(ruleset in any_ruleset(), seed in 1..u64::MAX) {
        let compiled = Compiled::unchecked(Arc::new(ruleset), &names()).unwrap();
        let edges = Edges::of(compiled.ruleset());
        let mut random = Random(seed);
        let mut matched = Matched::default();
        for step in 0..60_u8 {
            let packet = edges.packet(&mut random, Family::V4);
            let conn = edges.conn(&mut random, &packet, CtState::New);
            let frame = edges.frame(&mut random, &packet);
            let (fast, slow) = (Heard::default(), Heard::default());
            let facts = |notes| Facts {
                bytes: &frame,
                notes,
                ..facts(&packet, CtState::New, conn.as_ref(), PortId(step % 4))
            };
            let marks = Marks { traced: step % 3 != 0, ..edges.marks(&mut random) };
            let (mut copied, mut walked) = (Copied::default(), Vec::new());
            let (mut ours, mut theirs) = (marks.clone(), marks.clone());
            let decision = compiled.classify(&facts(&fast), &mut ours, &mut matched);
            changed(&compiled, &facts(&fast), decision, &mut ours, &mut matched);
            linear::evaluate_copy(compiled.ruleset(), &names(), &facts(&slow), &mut theirs, &mut walked, &mut copied);
            prop_assert_eq!(&fast, &slow);
            prop_assert!(!marks.traced || fast.0.borrow().len() >= walked.len());
            let (mut ours, mut theirs, mut copied) = (marks.clone(), marks.clone(), Copied::default());
            let raw = Facts { is_raw: true, ..facts(&fast) };
            if let Some(decision) = compiled.classify_raw(&raw, &mut ours, &mut matched) {
                changed(&compiled, &raw, decision, &mut ours, &mut matched);
                linear::evaluate_raw_copy(compiled.ruleset(), &names(), &facts(&slow), &mut theirs, &mut walked, &mut copied);
                // Rules that do not trace meet no packet that is.
                if compiled.traced_chain(ChainId(0)).is_some() {
                    prop_assert_eq!(&fast, &slow);
                }
                prop_assert_eq!(ours.traced, theirs.traced);
            }
        }
    }

    #[test]
    fn an_invariant_path_is_taken_by_every_packet_of_the_flow(ruleset in any_ruleset(), seed in 1..u64::MAX) {
        let compiled = Compiled::unchecked(Arc::new(ruleset), &names()).unwrap();
        let edges = Edges::of(compiled.ruleset());
        let mut random = Random(seed);
        let (mut matched, mut again) = (Matched::default(), Matched::default());
        for _ in 0..200 {
            let mut packet = edges.packet(&mut random, Family::V4);
            if packet.tuple.proto != proto::TCP || !packet.has_l4 {
                continue;
            }
            fn open<'a>(packet: &'a crate::packet::Packet, bytes: &'a [u8]) -> Facts<'a> {
                Facts { bytes, ..facts(packet, CtState::Established, None, PortId(0)) }
            }
            // Of a flow's packets none is cut short.
            packet.l3_len = 90;
            let frame = edges.frame(&mut random, &packet);
            let first = compiled.classify(&open(&packet, &frame), &mut Marks::default(), &mut matched);
            if !first.invariant {
                continue;
            }
            for flags in [0x02, 0x10, 0x11, 0x18, 0x04, 0x3f] {
                packet.tcp_flags = flags;
                let frame = edges.frame(&mut random, &packet);
                let other = compiled.classify(&open(&packet, &frame), &mut Marks::default(), &mut again);
                prop_assert_eq!(other.by, first.by);
                prop_assert_eq!(again.lines(), matched.lines());
            }
        }
    }
}
