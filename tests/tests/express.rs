//! The express way of packets against the long one, and each with somebody looking at packets: gateways that differ in
//! nothing else get the same packets, and must give the same verdicts, packets, flows and counters. No kernel, no root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use control::rules_file::understand;
use dataplane::ids::PortId;
use dataplane::packet::Family;
use dataplane::rules::model::Ruleset;
use dataplane::testing::gateway::{Gateway, GatewayConfig, LEFT, RIGHT};
use dataplane::testing::packets::{tcp, udp};
use dataplane::worker::tap::{Point, Tap, TapReader, TapSpec};
use dataplane::worker::{Settings, tap};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// What decides by the flow alone, what does not, and what drops.
const RULES: [&str; 3] = [
    "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i left -p udp -m udp --dport 7000 -m conntrack --ctstate NEW -j ACCEPT
-A FORWARD -i left -p tcp -m tcp --dport 7000 -j ACCEPT
",
    "-A FORWARD -p udp -m length --length 0:50 -j ACCEPT
-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT
-A FORWARD -p tcp -j ACCEPT
",
    "-A FORWARD -p udp -j DROP
-A FORWARD -p tcp -m tcp --dport 7001 -j REJECT --reject-with tcp-reset
-A FORWARD -j ACCEPT
",
];

fn rules(body: &str) -> Vec<Ruleset> {
    let text = format!("*filter\n:FORWARD DROP [0:0]\n{body}COMMIT\n");
    let of = |family, text: &str| {
        let loaded = understand(text.as_bytes(), "test", family, &[]);
        loaded.ruleset.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics))
    };
    vec![of(Family::V4, &text), of(Family::V6, &text)]
}

#[derive(Clone, Debug)]
enum Event {
    /// A packet of a flow, by side, kind and length of its payload.
    Packet { flow: u8, from_left: bool, kind: u8, len: usize, is_v6: bool, is_bad: bool },
    /// Time goes by.
    Wait { millis: u64 },
    /// Other rules, which flows may outlive.
    Reload { rules: usize, keeping: bool },
}

fn event() -> impl Strategy<Value = Event> {
    let packet = (0..4_u8, any::<bool>(), 0..8_u8, 0..60_usize, any::<bool>(), prop::bool::weighted(0.05));
    prop_oneof![
        30 => packet.prop_map(|(flow, from_left, kind, len, is_v6, is_bad)| Event::Packet {
            flow, from_left, kind, len, is_v6, is_bad
        }),
        3 => (0..40_000_u64).prop_map(|millis| Event::Wait { millis }),
        1 => (0..RULES.len(), any::<bool>()).prop_map(|(rules, keeping)| Event::Reload { rules, keeping }),
    ]
}

/// A packet of a conversation between two hosts of ports 1000 and on, and 7000 or 7001.
fn frame(flow: u8, from_left: bool, kind: u8, len: usize, is_v6: bool, is_bad: bool) -> Vec<u8> {
    let host = |number: u8| -> IpAddr {
        if is_v6 {
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()).into()
        } else {
            Ipv4Addr::new(10, 0, 0, number).into()
        }
    };
    let (client, server) = (host(1 + flow), host(100));
    let (port, service) = (1000 + u16::from(flow), 7000 + u16::from(flow / 2));
    let (src, dst, sport, dport) =
        if from_left { (client, server, port, service) } else { (server, client, service, port) };
    let payload = vec![0x5a; len];
    let (seq, ack) = (1001, 1001);
    let opening = |builder: dataplane::testing::packets::Builder| {
        if from_left { builder.syn().numbers(1000, 0) } else { builder.syn_ack().numbers(1000, 1001) }
    };
    let segment = || tcp(src, dst).ports(sport, dport).window(8000);
    let builder = match kind {
        0..3 => udp(src, dst).ports(sport, dport).payload(&payload),
        3 => opening(segment()),
        4 => segment().fin().numbers(seq, ack),
        _ => segment().ack().numbers(seq, ack).payload(&payload),
    };
    if is_bad { builder.bad_checksum().build() } else { builder.build() }
}

/// All that can be seen of a gateway: flows with their deadlines and counts, what rules counted, what ports counted.
fn picture(gateway: &mut Gateway) -> Vec<String> {
    let now = gateway.now().tick();
    let mut picture = Vec::new();
    gateway.workers[0].tracker_mut().region().walk(now, |flow| picture.push(format!("{flow:?}")));
    let snapshot = gateway.mailbox.newest();
    for rules in [&snapshot.v4, &snapshot.v6] {
        picture.push(format!("{:?}", rules.counters[0].totals()));
        picture.push(format!("{:?}", rules.counters[0].kept()));
    }
    let counters = &gateway.counters[0];
    for port in [LEFT, RIGHT] {
        let port = counters.port(port);
        let volumes = [&port.rx, &port.forwarded, &port.answers].into_iter().chain(&port.drops);
        picture.extend(volumes.map(|volume| format!("{} {}", volume.packets.get(), volume.bytes.get())));
    }
    picture.push(format!("{:?}", gateway.workers[0].tracker_mut().stats()));
    picture.push(format!("{} {}", counters.polls.verdict_hits.get(), counters.polls.classified.get()));
    picture
}

/// What is different about a gateway.
#[derive(Clone, Copy)]
enum Way {
    Express,
    Long,
    /// Somebody sees all packets.
    Seen,
    /// Somebody follows those of UDP through the rules.
    Followed,
}

fn gateway(rules: &[Ruleset], way: Way) -> (Gateway, Vec<TapReader>) {
    let points = Point::ALL.iter().fold(0, |all, point| all | point.bit());
    let spec = match way {
        Way::Express | Way::Long => None,
        Way::Seen => Some(spec(points, false, None)),
        Way::Followed => Some(spec(Point::Verdict.bit(), true, Some(udp_only()))),
    };
    let (tap, readers) = spec.map(|spec| Tap::new(spec, 1, 1 << 12, 1 << 20)).unzip();
    let taps: Arc<[Arc<Tap>]> = tap.into_iter().map(Arc::new).collect();
    let settings = Settings { taps, ..Settings::default() };
    let mut gateway = Gateway::new(rules, GatewayConfig { settings, ..GatewayConfig::default() }).unwrap();
    gateway.workers[0].go_the_long_way(matches!(way, Way::Long));
    (gateway, readers.unwrap_or_default())
}

fn spec(points: u8, follows: bool, filter: Option<tap::Filter>) -> TapSpec {
    TapSpec {
        points,
        follows,
        filter,
        ports: u64::MAX,
        reasons: None,
        rule: None,
        snap: tap::SNAP_MAX,
        every: 1,
        per_sec: 0,
    }
}

/// `udp`, as pcap-filter compiles it for IPv4.
fn udp_only() -> tap::Filter {
    let lines = [
        (0x28, 0, 0, 12),
        (0x15, 0, 3, 0x800),
        (0x30, 0, 0, 23),
        (0x15, 0, 1, 17),
        (6, 0, 0, 1),
        (6, 0, 0, 0),
    ];
    tap::Filter::new(&lines.map(|(code, jump_true, jump_false, operand)| tap::Instruction {
        code,
        jump_true,
        jump_false,
        operand,
    }))
    .unwrap()
}

fn check(first: usize, events: &[Event]) -> Result<(usize, usize), TestCaseError> {
    let ways = [Way::Express, Way::Long, Way::Seen, Way::Followed];
    let (mut gateways, mut readers): (Vec<_>, Vec<_>) =
        ways.iter().map(|way| gateway(&rules(RULES[first]), *way)).unzip();
    let mut seen = Vec::new();
    let (mut passed, mut stepped) = (0, 0);
    for event in events {
        match *event {
            Event::Packet { flow, from_left, kind, len, is_v6, is_bad } => {
                let bytes = frame(flow, from_left, kind, len, is_v6, is_bad);
                let side: PortId = if from_left { LEFT } else { RIGHT };
                let outcomes: Vec<_> =
                    gateways.iter_mut().map(|gateway| gateway.send(side, &bytes)).collect();
                passed += outcomes[0].forwarded.len();
                for other in &outcomes[1..] {
                    prop_assert_eq!(&outcomes[0], other);
                }
                // In order: as it came, what became of it, what left.
                let (mut steps, mut frame) = (Vec::new(), Vec::new());
                while let Some(sighting) = readers[2][0].read(&mut steps, &mut frame) {
                    seen.push((sighting.point, sighting.fate, frame.clone()));
                }
                let mut expected = vec![(Point::Rx, None, bytes.clone())];
                let left = outcomes[0].forwarded.first().cloned();
                expected.push((Point::Verdict, outcomes[0].fate, left.clone().unwrap_or(bytes)));
                expected.extend(left.map(|left| (Point::Tx, None, left)));
                seen.retain(|(point, ..)| *point != Point::Tx || outcomes[0].answers.is_empty());
                prop_assert_eq!(std::mem::take(&mut seen), expected);
                while let Some(sighting) = readers[3][0].read(&mut steps, &mut frame) {
                    prop_assert_eq!(sighting.fate, outcomes[0].fate);
                    // Flows that go on under earlier rules meet none.
                    if let Some(last) = steps.last() {
                        prop_assert_eq!(Some(last.at), outcomes[0].fate.and_then(|fate| fate.rule));
                        stepped += 1;
                    }
                }
            }
            Event::Wait { millis } => gateways.iter_mut().for_each(|gateway| gateway.advance_millis(millis)),
            Event::Reload { rules: number, keeping } => {
                for gateway in &mut gateways {
                    let rules = rules(RULES[number]);
                    if keeping { gateway.reload_keeping(&rules) } else { gateway.reload(&rules) }.unwrap();
                }
            }
        }
        let pictures: Vec<_> = gateways.iter_mut().map(picture).collect();
        prop_assert_eq!(&pictures[0], &pictures[1]);
        prop_assert_eq!(&pictures[0], &pictures[2]);
        // Who is followed is classified again.
        let but_last = |picture: &[String]| picture[..picture.len() - 1].to_vec();
        prop_assert_eq!(but_last(&pictures[0]), but_last(&pictures[3]));
    }
    Ok((passed, stepped))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_express_way_is_the_long_way(
        first in 0..RULES.len(), events in proptest::collection::vec(event(), 1..120),
    ) {
        check(first, &events)?;
    }
}

#[test]
fn streams_and_open_connections_pass() {
    let packet =
        |kind, from_left| Event::Packet { flow: 0, from_left, kind, len: 20, is_v6: false, is_bad: false };
    let mut events = vec![packet(3, true), packet(3, false), packet(5, true), packet(5, false)];
    for _ in 0..4 {
        events.extend([packet(0, true), packet(0, false), packet(5, true), packet(5, false)]);
        events.push(Event::Wait { millis: 1500 });
    }
    assert_eq!(check(0, &events).unwrap(), (20, 8), "and those of UDP went through the rules");
}
