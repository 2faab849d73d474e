//! The classifier against looking at every rule, for both families and all instruction sets there are.

use super::*;
use proptest::prelude::*;

const LEVELS: [Level; 3] = [Level::Portable, Level::Avx2, Level::Avx512];

/// Whether a rule matches: the meaning.
fn matches(rule: &Rule, header: &Header) -> bool {
    (header.src ^ rule.src) & rule.src_mask == 0
        && (header.dst ^ rule.dst) & rule.dst_mask == 0
        && (rule.src_ports.0..=rule.src_ports.1).contains(&header.src_port)
        && (rule.dst_ports.0..=rule.dst_ports.1).contains(&header.dst_port)
        && rule.proto.is_none_or(|proto| proto == header.proto)
        && rule.refuses & header.facts == 0
}

/// All rules that match and that none before them which matches hides.
fn expected(rules: &[Rule], header: &Header) -> Vec<u32> {
    let mut found = Vec::new();
    let mut hidden_to = 0;
    for (id, rule) in (0_u32..).zip(rules) {
        if id >= hidden_to && matches(rule, header) {
            found.push(id);
            hidden_to = hidden_to.max(rule.hides_to);
        }
    }
    found
}

/// What a walk from one rule to the next one it does not hide finds.
fn found(classifier: &Classifier, rules: &[Rule], header: &Header) -> Vec<u32> {
    let mut cursor = classifier.find(header);
    let (mut found, mut from) = (Vec::new(), 0);
    loop {
        let id = classifier.next(&mut cursor, from);
        if id == NONE {
            return found;
        }
        found.push(id);
        from = rules[id as usize].hides_to.max(id + 1);
    }
}

fn check(rules: &[Rule], headers: &[Header], wide: bool) {
    for level in LEVELS {
        let classifier = Classifier::with_level(rules, wide, level);
        let keys = classifier.keys(headers);
        for burst in [1, 7, 32, 50] {
            let mut first = vec![0; headers.len()];
            for start in (0..headers.len()).step_by(burst) {
                let end = (start + burst).min(headers.len());
                classifier.first(&keys, start..end, &mut first[start..end]);
            }
            for (header, first) in headers.iter().zip(first) {
                let expected = expected(rules, header).first().copied().unwrap_or(NONE);
                assert_eq!(first, expected, "{header:x?} by {level:?}, {:?}", classifier.shape());
            }
        }
        for header in headers {
            assert_eq!(
                found(&classifier, rules, header),
                expected(rules, header),
                "{header:x?} by {level:?}, {:?}",
                classifier.shape()
            );
        }
    }
}

fn address(wide: bool) -> BoxedStrategy<(u128, u128)> {
    let all = if wide { 128 } else { 32 };
    let prefix = (0..6_u128, any::<u128>(), 0..=all).prop_map(move |(net, host, len)| {
        let mask = if len == 0 { 0 } else { u128::MAX << (all - len) };
        let mask = if wide { mask } else { mask & u128::from(u32::MAX) };
        // Few networks, so that rules overlap.
        ((net << (all - 8) | host & (u128::MAX >> (136 - all)) & 0xf) & mask, mask)
    });
    let holes = (any::<u128>(), any::<u128>()).prop_map(move |(addr, mask)| {
        let mask = if wide { mask } else { mask & u128::from(u32::MAX) };
        (addr & mask & 0x0f0f_0f0f, mask & 0x0f0f_0f0f)
    });
    prop_oneof![3 => Just((0, 0)), 8 => prefix, 1 => holes].boxed()
}

fn ports() -> impl Strategy<Value = (u16, u16)> {
    prop_oneof![
        4 => Just((0, u16::MAX)),
        2 => Just((1024, u16::MAX)),
        1 => Just((0, 1023)),
        3 => (0..40_u16).prop_map(|port| (port, port)),
        2 => (0..40_u16, 0..300_u16).prop_map(|(low, len)| (low, low + len)),
        1 => Just((9, 8)),
    ]
}

fn rule(wide: bool) -> impl Strategy<Value = Rule> {
    let proto = prop_oneof![Just(None), Just(Some(6_u8)), Just(Some(17)), Just(Some(0)), Just(Some(255))];
    let refuses = prop_oneof![
        3 => Just(0),
        1 => (1..32_u8, 1..16_u64, 1..64_u64).prop_map(|(states, into, out)| refusal(states, into, out)),
        1 => Just(NO_PORTS),
    ];
    let hides = prop_oneof![2 => Just(0), 3 => Just(u32::MAX), 1 => 0..60_u32];
    (address(wide), address(wide), ports(), ports(), proto, refuses, hides).prop_map(
        |((src, src_mask), (dst, dst_mask), src_ports, dst_ports, proto, refuses, hides_to)| Rule {
            src,
            src_mask,
            dst,
            dst_mask,
            src_ports,
            dst_ports,
            proto,
            refuses,
            hides_to,
        },
    )
}

/// Headers in and about the rules.
fn headers(rules: &[Rule], wide: bool, seed: u64) -> Vec<Header> {
    let all = if wide { u128::MAX } else { u128::from(u32::MAX) };
    let mut headers = model::samples(rules);
    headers.truncate(300);
    let mut random = seed | 1;
    for header in &mut headers {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let bits = random >> 32;
        (header.src, header.dst) = (header.src & all, header.dst & all);
        match bits % 8 {
            0 => header.src ^= 1 << (bits >> 8 & 31),
            1 => header.dst ^= 1 << (bits >> 8 & 31),
            2 => header.src_port ^= 1 << (bits >> 8 & 15),
            3 => header.dst_port = header.dst_port.wrapping_add(1),
            4 => header.proto = 17,
            5 => {
                let byte = |shift: u32| u8::try_from(bits >> shift & 7).unwrap_or(0);
                header.facts = facts(byte(8) % 5, bits & 64 != 0, byte(12), byte(16));
            }
            _ => {}
        }
    }
    headers
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn finds_what_looking_at_every_rule_finds(
        (wide, rules) in any::<bool>().prop_flat_map(|wide| (Just(wide), prop::collection::vec(rule(wide), 0..60))),
        seed: u64,
    ) {
        check(&rules, &headers(&rules, wide, seed), wide);
    }

    #[test]
    fn finds_it_among_many(wide: bool, rules in prop::collection::vec(rule(false), 400..900), seed: u64) {
        let mut rules = rules;
        if wide {
            for rule in &mut rules {
                let spread = |addr: u128| addr << 96 | (addr & 0xffff) << 40;
                (rule.src, rule.src_mask) = (spread(rule.src), spread(rule.src_mask));
                (rule.dst, rule.dst_mask) = (spread(rule.dst), spread(rule.dst_mask));
            }
        }
        check(&rules, &headers(&rules, wide, seed)[..100], wide);
    }
}

#[test]
fn no_rules_match_nothing() {
    let header = Header { src: 1, dst: 2, src_port: 3, dst_port: 4, proto: 6, facts: facts(0, true, 0, 1) };
    check(&[], &[header], false);
    check(&[], &[header], true);
}

#[test]
fn rules_that_nothing_tells_apart_make_a_long_list_not_a_large_tree() {
    let any = Rule {
        src: 0,
        src_mask: 0,
        dst: 0,
        dst_mask: 0,
        src_ports: (0, u16::MAX),
        dst_ports: (0, u16::MAX),
        proto: None,
        refuses: 0,
        hides_to: 0,
    };
    let classifier = Classifier::new(&vec![any; 20_000], false);
    assert!(classifier.shape().bytes < 20_000 * 64, "{:?}", classifier.shape());
}
