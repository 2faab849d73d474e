//! Bad frames, and the books: everything that came in is accounted for.

use palisade_tests::daemon::{Daemon, Stats};
use palisade_tests::frames;
use palisade_tests::lab::Lab;
use palisade_tests::require_root;
use palisade_tests::traffic::{self, PATIENCE, SILENCE};
use serde_json::Value;

const ACCEPT: &str = include_str!("../data/rules/accept.v4.rules");
const RULES: &str = include_str!("../data/rules/gateway.v4.rules");

#[test]
fn malformed_frames_are_counted_and_never_forwarded() {
    require_root!();
    let lab = Lab::new();
    // Even where the rules forward everything.
    let daemon = Daemon::start(&lab, ACCEPT);
    let (left, right) = (lab.left_wire(), lab.right_wire());
    for malformed in frames::malformed(&lab) {
        let before = daemon.stats().drops(malformed.reason);
        left.send(&malformed.frame);
        let _ = daemon.stats_until(malformed.reason, |stats| stats.drops(malformed.reason) == before + 1);
    }
    let bad: Vec<_> = frames::malformed(&lab).into_iter().map(|malformed| malformed.frame).collect();
    assert_eq!(right.receive(SILENCE, |frame| bad.iter().any(|bad| bad == frame)), None);
    let good = frames::udp_v4(&lab, 1, 2, b"still alive");
    left.send(&good);
    assert!(right.receive(PATIENCE, |frame| frame == good).is_some());
    let _ = daemon.stats_until("balance", Stats::is_balanced);
}

#[test]
fn frames_of_every_length_do_no_harm() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::start(&lab, RULES);
    let (left, right) = (lab.left_wire(), lab.right_wire());
    let whole = [
        frames::udp_v4(&lab, 1, 7000, &[7; 64]),
        frames::udp_v6(&lab, 1, 7000, &[7; 64]),
        frames::syn_v4(&lab, 1, 80),
    ];
    let mut sent = 0;
    for frame in &whole {
        for len in frames::ETHERNET_BYTES..frame.len() {
            left.send(&frame[..len]);
            sent += 1;
        }
    }
    let last = frames::udp_v4(&lab, 2, 7000, b"the last one");
    left.send(&last);
    assert!(right.receive(PATIENCE, |frame| frame == last).is_some());
    let stats = daemon.stats_until("balance", |stats| stats.rx() > sent && stats.is_balanced());
    assert!(stats.drops("ipv4_truncated") > 0 && stats.drops("ipv4_total_length") > 0, "{stats:?}");
}

#[test]
fn every_packet_is_forwarded_or_dropped_for_one_reason() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::start(&lab, RULES);
    traffic::tcp_both_ways(&lab.left, &lab.right, false, 80, 8 << 20);
    assert_eq!(traffic::udp_echo(&lab.left, &lab.right, false, 7000, 50, 100), 50);
    let left = lab.left_wire();
    for n in 0..1000 {
        left.send(&frames::udp_v4(&lab, 10_000 + n, 4444, b"dropped by policy"));
    }
    let stats =
        daemon.stats_until("balance", |stats| stats.drops("policy_drop") >= 1000 && stats.is_balanced());
    assert_eq!(stats.queues("rx_dropped"), 0);
    let sent: u64 = stats.0["ports"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|port| port.pointer("/tx/packets")?.as_u64())
        .sum();
    assert_eq!(sent, stats.forwarded(), "nothing is sent but what is forwarded: no REJECT was asked for");
}

#[test]
fn rule_counters_are_exact() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::start(&lab, RULES);
    assert_eq!(traffic::ping(&lab.left.netns, lab.right.v4.into(), 10, 56), 10);
    let _ = daemon.stats_until("20 packets", |stats| stats.forwarded() >= 20);
    let rules = daemon.fwctl_json(&["rules"]);
    let mut found = Vec::new();
    collect_rules(&rules, &mut found);
    // INPUT asks for the same states and sees nothing.
    found.retain(|rule| rule["packets"].as_u64() != Some(0));
    let packets = |extra: &str| {
        let rule = found.iter().find(|rule| rule["extra"].as_str().is_some_and(|text| text.contains(extra)));
        rule.and_then(|rule| rule["packets"].as_u64())
            .unwrap_or_else(|| panic!("no rule with {extra} in {rules:#}"))
    };
    // The first request is new, all else belongs to its flow.
    assert_eq!(packets("RELATED,ESTABLISHED"), 19);
    assert_eq!(packets("icmptype 8"), 1);
}

/// Every JSON object that looks like a rule, wherever it stands.
fn collect_rules<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(map) if map.contains_key("extra") && map.contains_key("num") => found.push(value),
        Value::Object(map) => map.values().for_each(|value| collect_rules(value, found)),
        Value::Array(list) => list.iter().for_each(|value| collect_rules(value, found)),
        _ => {}
    }
}
