//! Warnings on hand-written rules, and on generated ones against the plain walk: a rule that is called dead must never match.

use super::{dead, lint};
use crate::iptables::{Loaded, load};
use dataplane::clock::Now;
use dataplane::ids::PortId;
use dataplane::packet::{Family, Fragment, Kind, Packet, Tuple, proto, tcp_flag};
use dataplane::rules::conn::{Marks, NoFlows};
use dataplane::rules::model::{CtState, RuleRef, Ruleset, Verdict};
use dataplane::rules::{Facts, linear};
use proptest::prelude::*;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

fn filter(rules: &str) -> Loaded {
    let loaded = load(format!("*filter\n{rules}\nCOMMIT\n"), "test", Family::V4);
    assert!(loaded.ruleset.is_some(), "{rules}: {:?}", loaded.diagnostics);
    loaded
}

/// Line and message of every warning; the rules begin on line 2.
fn warnings(rules: &str) -> Vec<(u32, String)> {
    let loaded = filter(rules);
    let found = lint(loaded.ruleset.as_ref().unwrap(), loaded.syntax.as_ref().unwrap());
    found.into_iter().map(|found| (found.span.line, found.message)).collect()
}

const BEHIND: &str = "no packet comes to this rule: an earlier one decides about all it could match";

fn shadowed(rules: &str) -> Vec<u32> {
    warnings(rules).into_iter().filter(|(_, message)| message == BEHIND).map(|(line, _)| line).collect()
}

#[test]
fn a_rule_behind_a_wider_one_is_shadowed() {
    for (earlier, later) in [
        ("-j ACCEPT", "-p tcp -j DROP"),
        ("-s 10.0.0.0/8 -j DROP", "-s 10.1.0.0/16 -p udp --dport 53 -j ACCEPT"),
        ("-p tcp --dport 80 -j DROP", "-p tcp --dport 80 -j DROP"),
        ("-p tcp --dport 1:1023 -j DROP", "-p tcp -m multiport --dports 22,80:90 -j ACCEPT"),
        ("-p tcp ! --dport 22 -j DROP", "-p tcp --dport 80 -j ACCEPT"),
        ("-i eth+ -j DROP", "-i eth0 -d 1.2.3.4 -j ACCEPT"),
        ("! -i eth+ -j DROP", "-i wan0 -j ACCEPT"),
        ("! -s 10.0.0.0/8 -j DROP", "-s 11.0.0.0/8 -j ACCEPT"),
        ("-m conntrack --ctstate NEW,INVALID -j DROP", "-m state --state NEW -p icmp -j ACCEPT"),
        ("-p tcp --tcp-flags SYN SYN -j DROP", "-p tcp --syn --dport 22 -j ACCEPT"),
        ("-p icmp --icmp-type any -j DROP", "-p icmp --icmp-type 3/4 -j ACCEPT"),
        ("! -f -j DROP", "-p udp --dport 53 -j ACCEPT"),
        ("-s 10.0.0.0/8 -j RETURN", "-s 10.1.2.3 -m comment --comment x -m mark --mark 1"),
    ] {
        assert_eq!(
            shadowed(&format!("-A FORWARD {earlier}\n-A FORWARD {later}")),
            [3],
            "{earlier} | {later}"
        );
    }
}

#[test]
fn what_an_earlier_rule_leaves_over_is_not_shadowed() {
    for (earlier, later) in [
        ("-p tcp", "-p tcp -j DROP"),
        ("-m mark --mark 1 -j DROP", "-m mark --mark 1 -j DROP"),
        ("-s 10.1.0.0/16 -j DROP", "-s 10.0.0.0/8 -j ACCEPT"),
        ("-p tcp --dport 80 -j DROP", "-p tcp -j ACCEPT"),
        ("-p tcp --dport 80:90 -j DROP", "-p tcp -m multiport --dports 85,95 -j ACCEPT"),
        ("-p tcp -m multiport --ports 80 -j DROP", "-p tcp --dport 80:81 -j ACCEPT"),
        ("-i eth0 -j DROP", "-i eth+ -j ACCEPT"),
        ("-m conntrack --ctstate NEW -j DROP", "-m conntrack --ctstate NEW,RELATED -j ACCEPT"),
        ("-d 10.0.0.0/255.0.255.0 -j DROP", "-d 10.0.0.0/8 -j ACCEPT"),
        ("-p tcp --dport 0:65535 -j DROP", "-p tcp -j ACCEPT"),
    ] {
        assert_eq!(
            shadowed(&format!("-A FORWARD {earlier}\n-A FORWARD {later}")),
            Vec::<u32>::new(),
            "{earlier} | {later}"
        );
    }
}

#[test]
fn a_jump_to_a_chain_that_always_decides_shadows_too() {
    let chain = |end: &str| {
        format!(":x - [0:0]\n-A x -p tcp -j ACCEPT\n-A x {end}\n-A FORWARD -j x\n-A FORWARD -p udp")
    };
    assert_eq!(shadowed(&chain("-j DROP")), [6]);
    assert_eq!(shadowed(&chain("-p udp -j DROP")), Vec::<u32>::new());
    assert_eq!(shadowed(&chain("-j RETURN")), Vec::<u32>::new());
}

#[test]
fn conditions_that_contradict_each_other_are_told() {
    let all = warnings(
        ":u - [0:0]\n:both - [0:0]\n-A FORWARD -p udp -j u\n-A FORWARD -p tcp -j both\n-A FORWARD -p udp -j both\n\
         -A u -p tcp --dport 80 -j DROP\n-A both -p tcp --dport 80 -j DROP\n-A FORWARD -f -p tcp --dport 9\n\
         -A FORWARD -p tcp --tcp-flags SYN ACK\n-A FORWARD -p tcp --dport 1:5 -m multiport --dports 7,9",
    );
    let lines: Vec<u32> = all.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [7, 9, 10, 11], "{all:?}");
    assert_eq!(
        all[0].1,
        "this rule never matches: the rules that lead to `u` let no packet with such protocol in"
    );
    assert_eq!(all[3].1, "this rule never matches: its two conditions on ports contradict each other");
}

#[test]
fn a_chain_that_nothing_calls_is_told() {
    let all = warnings(":a - [0:0]\n:b - [0:0]\n-A a -j b\n-A b -j DROP\n-A b -p tcp -j DROP");
    assert_eq!(all.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 3], "{all:?}");
}

#[test]
fn an_address_list_is_shadowed_only_as_a_whole() {
    assert_eq!(
        shadowed("-A FORWARD -s 10.0.0.0/8 -j DROP\n-A FORWARD -s 10.1.1.1,11.1.1.1 -j DROP"),
        Vec::<u32>::new()
    );
    assert_eq!(shadowed("-A FORWARD -s 10.0.0.0/8 -j DROP\n-A FORWARD -s 10.1.1.1,10.1.1.2 -j DROP"), [3]);
}

#[test]
fn answers_that_nobody_accepts_are_missed() {
    let missed = |rules: &str| {
        let found = warnings(rules);
        found
            .into_iter()
            .filter(|(_, message)| message.contains("get no answer"))
            .map(|(line, _)| line)
            .next()
    };
    let web = "-A FORWARD -i eth0 -p tcp --dport 80 -j ACCEPT\n";
    assert_eq!(missed(&format!(":FORWARD DROP [0:0]\n{web}")), Some(3));
    assert_eq!(missed(&format!("{web}-A FORWARD -j DROP")), Some(2), "a last rule drops as a policy does");
    assert_eq!(missed(web), None, "the policy accepts");
    for answer in [
        "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-A FORWARD ! -i eth0 -j ACCEPT",
        "-A FORWARD -p tcp --sport 80 -j ACCEPT",
        "-A FORWARD -m connmark --mark 1 -j ACCEPT",
    ] {
        assert_eq!(missed(&format!(":FORWARD DROP [0:0]\n{web}{answer}")), None, "{answer}");
    }
    for no_answer in ["-A FORWARD -m conntrack --ctstate NEW -j ACCEPT", "-A FORWARD -p tcp --syn -j ACCEPT"]
    {
        assert_eq!(missed(&format!(":FORWARD DROP [0:0]\n{web}{no_answer}")), Some(3), "{no_answer}");
    }
}

#[test]
fn a_hundred_thousand_rules_take_a_moment() {
    let mut rules = String::new();
    for n in 0..100_000_u32 {
        let (a, b) = (n.wrapping_mul(2_654_435_761), n.wrapping_mul(40_503));
        let net = std::net::Ipv4Addr::from(a & (u32::MAX << (32 - 8 - n % 25)));
        let (len, port, ip) = (8 + n % 25, b % 60_000, std::net::Ipv4Addr::from(b & 0xffff_ff00));
        let _ = match n % 3 {
            0 => writeln!(rules, "-A FORWARD -s {net}/{len} -p tcp --dport {port} -j ACCEPT"),
            1 => writeln!(rules, "-A FORWARD -d {ip}/24 -s {net}/{len} -p udp --sport {port}:65535 -j DROP"),
            _ => writeln!(rules, "-A FORWARD -p tcp --dport {port}:{} -j DROP", port + n % 5000),
        };
    }
    let loaded = filter(&rules);
    let start = Instant::now();
    let found = lint(loaded.ruleset.as_ref().unwrap(), loaded.syntax.as_ref().unwrap());
    let took = start.elapsed();
    println!("{took:?}, {} found", found.len());
    assert!(took < Duration::from_secs(5), "{took:?}");
}

fn names() -> Vec<String> {
    vec!["eth0".to_owned(), "wan0".to_owned()]
}

fn condition() -> impl Strategy<Value = String> {
    let bang = || prop_oneof![3 => Just(""), 1 => Just("! ")];
    let net = || {
        let mask = prop_oneof![(0..=32_u8).prop_map(|len| len.to_string()), Just("255.0.255.0".to_owned()),];
        (0..4_u8, 0..4_u8, mask).prop_map(|(a, b, mask)| format!("10.{a}.0.{b}/{mask}"))
    };
    let port = || {
        let range = (0..6_u16, 0..4_u16).prop_map(|(low, more)| format!("{low}:{}", low + more));
        prop_oneof![(0..6_u16).prop_map(|port| port.to_string()), range, Just("3:".to_owned())]
    };
    let transport = (
        prop::sample::select(vec!["tcp", "udp"]),
        bang(),
        prop::sample::select(vec!["dport", "sport"]),
        port(),
    )
        .prop_map(|(proto, bang, side, port)| format!("-p {proto} {bang}--{side} {port}"));
    let multi = (bang(), prop::sample::select(vec!["ports", "dports", "sports"]), port(), port())
        .prop_map(|(bang, side, one, other)| format!("-p udp -m multiport {bang}--{side} {one},{other}"));
    let flags =
        (bang(), prop::sample::select(vec!["SYN,ACK SYN", "SYN SYN", "ALL NONE", "RST ACK", "SYN,RST SYN"]))
            .prop_map(|(bang, flags)| format!("-p tcp {bang}--tcp-flags {flags}"));
    let icmp = (bang(), prop::sample::select(vec!["any", "8", "3", "3/1", "3/4"]))
        .prop_map(|(bang, ty)| format!("-p icmp {bang}--icmp-type {ty}"));
    let state = (
        bang(),
        prop::sample::select(vec![
            "NEW",
            "NEW,INVALID",
            "ESTABLISHED,RELATED",
            "NEW,ESTABLISHED,RELATED,INVALID",
        ]),
    )
        .prop_map(|(bang, states)| format!("-m conntrack {bang}--ctstate {states}"));
    prop_oneof![
        2 => (bang(), net()).prop_map(|(bang, net)| format!("{bang}-s {net}")),
        2 => (bang(), net()).prop_map(|(bang, net)| format!("{bang}-d {net}")),
        1 => (bang(), prop::sample::select(vec!["eth0", "eth+", "wan0", "x"])).prop_map(|(bang, name)| format!("{bang}-i {name}")),
        1 => (bang(), prop::sample::select(vec!["eth0", "eth+", "wan0", "x"])).prop_map(|(bang, name)| format!("{bang}-o {name}")),
        1 => (bang(), prop::sample::select(vec!["tcp", "udp", "icmp", "gre"])).prop_map(|(bang, name)| format!("{bang}-p {name}")),
        4 => transport,
        2 => multi,
        2 => flags,
        2 => icmp,
        2 => state,
        1 => bang().prop_map(|bang| format!("{bang}-f")),
    ]
}

fn rule() -> impl Strategy<Value = String> {
    let chain = prop::sample::select(vec!["FORWARD", "FORWARD", "A", "B"]);
    let target = prop::sample::select(vec![
        "",
        "-j ACCEPT",
        "-j ACCEPT",
        "-j DROP",
        "-j RETURN",
        "-j REJECT",
        "-j B",
        "-g B",
        "-j A",
    ]);
    (chain, prop::collection::vec(condition(), 0..3), target)
        .prop_map(|(chain, conditions, target)| format!("-A {chain} {} {target}", conditions.join(" ")))
}

/// The rules that can stand together, each tried by itself first.
fn ruleset(rules: &[String], policy: &str) -> Loaded {
    let wrap =
        |rules: &str| format!("*filter\n:FORWARD {policy} [0:0]\n:A - [0:0]\n:B - [0:0]\n{rules}COMMIT\n");
    let is_good = |rule: &&String| {
        let loops = rule.starts_with("-A B") && (rule.ends_with(" A") || rule.ends_with(" B"))
            || rule.starts_with("-A A") && rule.ends_with(" A");
        !loops && load(wrap(&format!("{rule}\n")), "t", Family::V4).ruleset.is_some()
    };
    let good: String = rules.iter().filter(is_good).fold(String::new(), |all, rule| all + rule + "\n");
    load(wrap(&good), "t", Family::V4)
}

fn packet() -> impl Strategy<Value = (Packet, CtState, PortId)> {
    let octets = || (0..4_u8, 0..2_u8, 0..4_u8);
    let ports = (0..10_u16, 0..10_u16);
    let kind = (prop::sample::select(vec![6, 6, 17, 17, 1, 47_u8]), 0..8_u8, any::<u8>());
    let icmp = prop::sample::select(vec![(8, 0), (3, 1), (3, 4), (0, 0_u8)]);
    let state = prop::sample::select(vec![
        CtState::New,
        CtState::Established,
        CtState::Related,
        CtState::Invalid,
        CtState::Untracked,
    ]);
    (octets(), octets(), ports, kind, icmp, state, 0..2_u8).prop_map(
        |(src, dst, ports, kind, icmp, state, port)| {
            let address = |(a, b, c): (u8, u8, u8)| u128::from(u32::from_be_bytes([10, a, b, c]));
            let (proto, fragment, flags) = kind;
            let is_later = fragment == 0;
            let has_l4 = !is_later && fragment != 1;
            let has_ports = has_l4 && matches!(proto, 6 | 17);
            let packet = Packet {
                tuple: Tuple {
                    src: address(src),
                    dst: address(dst),
                    src_port: if has_ports { ports.0 } else { 0 },
                    dst_port: if has_ports { ports.1 } else { 0 },
                    proto,
                    family: Family::V4,
                },
                tcp_flags: if proto == proto::TCP && has_l4 { flags & 0x17 } else { 0 },
                icmp_type: if proto == proto::ICMP { icmp.0 } else { 0 },
                icmp_code: if proto == proto::ICMP { icmp.1 } else { 0 },
                kind: Kind::Ipv4,
                fragment: if is_later { Fragment::Later } else { Fragment::Whole },
                has_l4,
                ..Packet::EMPTY
            };
            (packet, state, PortId(port))
        },
    )
}

fn judge(ruleset: &Ruleset, packet: &Packet, ct_state: CtState, ingress: PortId) -> (Verdict, Vec<RuleRef>) {
    let facts = Facts {
        packet,
        bytes: &[],
        now: Now::default(),
        rates: dataplane::rules::rate::Rates::Probe(0),
        ct_state,
        conn: None,
        flows: &NoFlows,
        is_raw: false,
        ingress,
        egress: ingress.peer(),
        mtu: 1500,
        notes: &dataplane::rules::log::NoNotes,
    };
    let mut matched = Vec::new();
    let decision = linear::evaluate(ruleset, &names(), &facts, &mut Marks::default(), &mut matched);
    (decision.verdict, matched)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn no_packet_ever_matches_a_rule_that_is_called_dead(
        rules in prop::collection::vec(rule(), 1..16),
        packets in prop::collection::vec(packet(), 120),
    ) {
        let loaded = ruleset(&rules, "ACCEPT");
        let ruleset = loaded.ruleset.as_ref().unwrap();
        let reach = super::Reach::of(ruleset);
        let dead: Vec<RuleRef> = dead(ruleset, &reach).iter().map(|dead| dead.at).collect();
        for (packet, state, ingress) in packets {
            let (_, matched) = judge(ruleset, &packet, state, ingress);
            for by in matched {
                prop_assert!(!dead.contains(&by), "{by:?} of {rules:?} matches {:?} {state:?}", packet.tuple);
                prop_assert!(reach.is_called[by.chain.0 as usize], "{by:?} of {rules:?} is in use");
            }
        }
    }

    #[test]
    fn answers_that_are_missed_are_dropped(
        rules in prop::collection::vec(rule(), 1..8),
        packets in prop::collection::vec(packet(), 120),
    ) {
        let loaded = ruleset(&rules, "DROP");
        let ruleset = loaded.ruleset.as_ref().unwrap();
        let reach = super::Reach::of(ruleset);
        let Some(at) = super::replies::unanswered(ruleset, &reach, |_| false) else { return Ok(()) };
        for (mut packet, _, ingress) in packets {
            (packet.tuple.proto, packet.has_l4, packet.fragment) = (proto::TCP, true, Fragment::Whole);
            packet.tcp_flags = tcp_flag::SYN;
            packet.tuple.src_port = super::replies::CLIENT_PORT;
            let (verdict, matched) = judge(ruleset, &packet, CtState::New, ingress);
            if verdict != Verdict::Accept || matched.last() != Some(&at) {
                continue;
            }
            let Tuple { src, dst, src_port, dst_port, .. } = packet.tuple;
            packet.tuple = Tuple { src: dst, dst: src, src_port: dst_port, dst_port: src_port, ..packet.tuple };
            packet.tcp_flags = tcp_flag::SYN | tcp_flag::ACK;
            let (verdict, _) = judge(ruleset, &packet, CtState::Established, ingress.peer());
            prop_assert!(verdict != Verdict::Accept, "{rules:?}: {:?} is accepted", packet.tuple);
        }
    }
}
