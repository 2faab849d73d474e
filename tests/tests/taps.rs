//! Taps on a gateway without a kernel: what they take, what they leave out, and what of that they count.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use control::rules_file::understand;
use dataplane::packet::Family;
use dataplane::reason::DropReason;
use dataplane::testing::gateway::{Gateway, GatewayConfig, LEFT};
use dataplane::testing::packets::udp;
use dataplane::worker::Settings;
use dataplane::worker::tap::{Point, SNAP_MAX, Sighting, Tap, TapReader, TapSpec};
use std::sync::Arc;

const RULES: &str = "*filter
:FORWARD ACCEPT [0:0]
-A FORWARD -p udp -m udp --dport 1 -j DROP
-A FORWARD -p udp -m udp --dport 2 -j REJECT
COMMIT
";

const ALL: TapSpec = TapSpec {
    points: Point::Verdict.bit(),
    follows: false,
    filter: None,
    ports: u64::MAX,
    reasons: None,
    rule: None,
    snap: SNAP_MAX,
    every: 1,
    per_sec: 0,
};

/// A gateway with one tap that has room for so many sightings, and what reads it.
fn gateway(spec: TapSpec, room: usize, config: GatewayConfig) -> (Gateway, Arc<Tap>, Vec<TapReader>) {
    let ruleset = understand(RULES.as_bytes(), "test", Family::V4, &[]).ruleset.unwrap();
    let (tap, readers) = Tap::new(spec, config.workers, room, 1 << 20);
    let tap = Arc::new(tap);
    let settings = Settings { taps: [Arc::clone(&tap)].into(), ..Settings::default() };
    (Gateway::new(&[ruleset], GatewayConfig { settings, ..config }).unwrap(), tap, readers)
}

/// Datagrams of as many flows to a port.
fn send(gateway: &mut Gateway, port: u16, flows: u16) {
    for flow in 0..flows {
        gateway.send(LEFT, &udp([10, 0, 0, 1], [10, 0, 0, 2]).ports(1000 + flow, port).build());
    }
}

fn read(readers: &mut [TapReader]) -> Vec<Sighting> {
    let (mut steps, mut bytes) = (Vec::new(), Vec::new());
    let all = readers
        .iter_mut()
        .flat_map(|reader| std::iter::from_fn(|| reader.read(&mut steps, &mut bytes)).collect::<Vec<_>>());
    all.collect()
}

/// Packets that were taken, skipped and lost.
fn counted(tap: &Tap) -> [u64; 3] {
    tap.counters().fold([0; 3], |sum, of| {
        let more = [&of.taken, &of.skipped, &of.lost];
        std::array::from_fn(|at| sum[at] + more[at].get())
    })
}

#[test]
fn one_in_so_many_is_taken_and_at_most_so_many_a_second() {
    let config = GatewayConfig::default;
    let (mut sampled, tap, mut readers) = gateway(TapSpec { every: 3, ..ALL }, 100, config());
    send(&mut sampled, 9, 10);
    assert_eq!((read(&mut readers).len(), counted(&tap)), (4, [4, 6, 0]));
    let (mut slow, tap, mut readers) = gateway(TapSpec { per_sec: 5, ..ALL }, 100, config());
    send(&mut slow, 9, 10);
    assert_eq!((read(&mut readers).len(), counted(&tap)), (5, [5, 5, 0]));
    slow.advance_millis(400);
    send(&mut slow, 9, 10);
    assert_eq!(read(&mut readers).len(), 2, "0.4 s at 5 a second");
}

#[test]
fn what_finds_no_room_is_counted_and_the_next_is_taken_again() {
    let (mut gateway, tap, mut readers) = gateway(ALL, 3, GatewayConfig::default());
    send(&mut gateway, 9, 10);
    assert_eq!((read(&mut readers).len(), counted(&tap)), (3, [3, 0, 7]));
    send(&mut gateway, 9, 1);
    assert_eq!((read(&mut readers).len(), counted(&tap)), (1, [4, 0, 7]));
}

#[test]
fn reasons_and_rules_are_told_apart() {
    let only = |reason: DropReason| Some(1 << reason as u8);
    let (mut dropped, _, mut readers) =
        gateway(TapSpec { reasons: only(DropReason::RuleReject), ..ALL }, 100, GatewayConfig::default());
    for port in 1..4 {
        send(&mut dropped, port, 2);
    }
    let seen = read(&mut readers);
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|seen| seen.fate.unwrap().dropped == Some(DropReason::RuleReject)));
    let rule = seen[0].rule;
    assert!(rule.is_some());
    let (mut ruled, _, mut readers) = gateway(TapSpec { rule, ..ALL }, 100, GatewayConfig::default());
    for port in 1..4 {
        send(&mut ruled, port, 2);
    }
    assert_eq!(read(&mut readers).len(), 2, "a rule has its name in every gateway");
}

/// Those that pass take no turns from the few that are dropped.
#[test]
fn what_is_followed_for_its_fate_has_its_turn_when_that_is_known() {
    let dropped = TapSpec { follows: true, reasons: Some(u64::MAX), ..ALL };
    let (mut slow, tap, mut readers) =
        gateway(TapSpec { per_sec: 5, ..dropped.clone() }, 100, GatewayConfig::default());
    send(&mut slow, 9, 100);
    send(&mut slow, 1, 3);
    let seen = read(&mut readers);
    assert_eq!((seen.len(), counted(&tap)), (3, [3, 0, 0]));
    assert!(seen.iter().all(|seen| seen.findings.is_some() && seen.steps > 0), "{seen:?}");
    send(&mut slow, 1, 4);
    assert_eq!((read(&mut readers).len(), counted(&tap)), (2, [5, 2, 0]), "and no more than may be");
    let (mut sampled, tap, mut readers) =
        gateway(TapSpec { every: 3, ..dropped }, 100, GatewayConfig::default());
    for _ in 0..6 {
        send(&mut sampled, 9, 2);
        send(&mut sampled, 1, 1);
    }
    assert_eq!((read(&mut readers).len(), counted(&tap)), (2, [2, 4, 0]));
}

/// A datagram is judged when the last of its fragments has come; each is shown as itself, also those dropped with it.
#[test]
fn fragments_are_shown_with_their_own_bytes() {
    let part = |offset, more, fill, len| {
        let datagram = udp([10, 0, 0, 1], [10, 0, 0, 2]).ports(1, 9).payload(&vec![fill; len]);
        datagram.fragment(offset, more).build()
    };
    let (first, last, over) = (part(0, true, 7, 40), part(48, false, 8, 40), part(40, false, 9, 60));
    for second in [last, over] {
        let (mut gateway, _, mut readers) =
            gateway(TapSpec { follows: true, ..ALL }, 100, GatewayConfig::default());
        gateway.send(LEFT, &first);
        gateway.send(LEFT, &second);
        let (mut steps, mut bytes) = (Vec::new(), Vec::new());
        let mut seen: Vec<Vec<u8>> = Vec::new();
        while readers[0].read(&mut steps, &mut bytes).is_some() {
            seen.push(bytes.clone());
        }
        seen.sort_unstable_by_key(|bytes| bytes[21]);
        assert_eq!(seen, [first.clone(), second]);
    }
}

/// Who judges a packet takes it for sent when it has given it to whoever sends.
#[test]
fn what_is_dropped_by_the_worker_that_sends_is_shown_too() {
    let config =
        GatewayConfig { workers: 2, queues: Some(1), frame_len_max: 200, ..GatewayConfig::default() };
    let (mut gateway, _, mut readers) = gateway(TapSpec { reasons: Some(u64::MAX), ..ALL }, 100, config);
    let mut dropped = 0;
    for port in 0..40 {
        let packet = udp([10, 0, 0, 1], [10, 0, 0, 2]).ports(1000 + port, 9).payload(&[0; 300]).build();
        dropped += usize::from(gateway.send(LEFT, &packet).forwarded.is_empty());
    }
    let seen = read(&mut readers);
    assert_eq!((dropped, seen.len()), (40, 40));
    assert!(seen.iter().all(|seen| seen.fate.unwrap().dropped == Some(DropReason::MtuExceeded)));
}

#[test]
fn workers_without_a_queue_take_packets_too() {
    let config = GatewayConfig { workers: 2, queues: Some(1), ..GatewayConfig::default() };
    let (mut gateway, tap, mut readers) = gateway(TapSpec { per_sec: 1000, ..ALL }, 100, config);
    send(&mut gateway, 9, 40);
    assert_eq!((read(&mut readers).len(), counted(&tap)[0]), (40, 40));
    assert!(tap.counters().all(|of| of.taken.get() > 0), "both workers judge some");
}

#[test]
fn a_tap_that_is_taken_away_sees_no_more_and_gives_its_rings_back() {
    let (mut gateway, tap, mut readers) = gateway(ALL, 100, GatewayConfig::default());
    send(&mut gateway, 9, 3);
    let ruleset = understand(RULES.as_bytes(), "test", Family::V4, &[]).ruleset.unwrap();
    gateway.change(&[ruleset], |settings| settings.taps = Arc::default()).unwrap();
    send(&mut gateway, 9, 3);
    assert_eq!((read(&mut readers).len(), counted(&tap)), (3, [3, 0, 0]));
    assert_eq!(Arc::strong_count(&tap), 1, "no worker holds it");
}
