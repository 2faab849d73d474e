//! Fragments on the simulated gateway, with one worker and with four: they meet wherever they come in, leave together or
//! not at all, and whatever becomes of them, each is counted once and no frame is lost.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use control::rules_file::understand;
use dataplane::flow::Count;
use dataplane::packet::{Family, proto};
use dataplane::reason::DropReason;
use dataplane::testing::gateway::{Gateway, GatewayConfig, LEFT, Outcome, RIGHT};
use dataplane::testing::packets::{Builder, tcp, udp};
use dataplane::wire::checksum::{finish, sum};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
const SERVER6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);

fn gateway_with(text: &str, config: GatewayConfig) -> Gateway {
    let rules = [Family::V4, Family::V6].map(|family| {
        let loaded = understand(text.as_bytes(), "test", family, &[]);
        loaded.ruleset.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics))
    });
    Gateway::new(&rules, config).unwrap()
}

fn for_each_size(test: impl Fn(GatewayConfig)) {
    // The last of them with flows that go from worker to worker all the time.
    for (workers, is_restless) in [(1, false), (4, false), (4, true)] {
        test(GatewayConfig { workers, is_restless, track_always: false, ..GatewayConfig::default() });
    }
}

/// An IPv4 header's checksum after a change.
fn reseal(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let check = finish(sum(&frame[14..34], 0));
    frame[24..26].copy_from_slice(&check.to_be_bytes());
}

/// A fragment of a UDP datagram with an id, of either family.
fn fragment(six: bool, id: u16, offset: u16, more: bool, len: usize) -> Vec<u8> {
    let (src, dst): (IpAddr, IpAddr) =
        if six { (CLIENT6.into(), SERVER6.into()) } else { (CLIENT.into(), SERVER.into()) };
    let body = vec![7; len];
    let mut frame = udp(src, dst).ports(1, 2).payload(&body).fragment(offset & 0xfff8, more).build();
    if six {
        frame[58..60].copy_from_slice(&id.to_be_bytes());
    } else {
        frame[18..20].copy_from_slice(&id.to_be_bytes());
        reseal(&mut frame);
    }
    frame
}

/// Part of a whole IPv4 packet's payload.
fn piece(whole: &[u8], id: u16, (from, to): (usize, usize)) -> Vec<u8> {
    let mut frame = whole[..34].to_vec();
    frame.extend(&whole[34 + from..34 + to]);
    let len = u16::try_from(frame.len() - 14).unwrap();
    let field = u16::try_from(from / 8).unwrap() | u16::from(34 + to < whole.len()) << 13;
    frame[16..18].copy_from_slice(&len.to_be_bytes());
    frame[18..20].copy_from_slice(&id.to_be_bytes());
    frame[20..22].copy_from_slice(&field.to_be_bytes());
    reseal(&mut frame);
    frame
}

/// Packets dropped so far, by reason.
fn drops(gateway: &Gateway) -> BTreeMap<&'static str, u64> {
    let mut drops = BTreeMap::new();
    for counters in &gateway.counters {
        for reason in DropReason::ALL {
            let packets: u64 = [LEFT, RIGHT]
                .iter()
                .map(|port| counters.port(*port).drops[*reason as usize].packets.get())
                .sum();
            if packets > 0 {
                *drops.entry(reason.name()).or_default() += packets;
            }
        }
    }
    drops
}

fn is_accounted_for(gateway: &mut Gateway) -> bool {
    gateway.frames_accounted() == gateway.frames_total()
}

#[test]
fn fragments_of_any_worker_meet_and_leave_together() {
    for_each_size(|config| {
        let text = "*filter\n-A FORWARD -p udp -m udp --dport 2 -m conntrack --ctstate NEW -j ACCEPT\n-A FORWARD -j DROP\nCOMMIT\n";
        let workers = config.workers;
        let mut gateway = gateway_with(text, config);
        for round in 0..16_u16 {
            let whole = udp(CLIENT, SERVER).ports(round, 2).payload(&[5; 92]).build();
            let (first, last) = (piece(&whole, round, (0, 48)), piece(&whole, round, (48, 100)));
            let held = gateway.send_via(usize::from(round) % workers, LEFT, &last);
            assert!(held.forwarded.is_empty() && held.fate.is_none());
            let whole = gateway.send_via(usize::from(round + 1) % workers, LEFT, &first);
            assert_eq!(whole.forwarded, [first, last]);
        }
        assert!(is_accounted_for(&mut gateway));
    });
}

/// What says that it is the last may be ignored, because what it carries is there already. Fragments that go on to their
/// flow's worker have to say it themselves then.
#[test]
fn the_end_is_known_from_a_fragment_that_was_ignored() {
    for_each_size(|config| {
        let workers = config.workers;
        let mut gateway =
            gateway_with("*filter\n-A FORWARD -m conntrack --ctstate NEW -j ACCEPT\nCOMMIT\n", config);
        for round in 0..16_u16 {
            let whole = udp(CLIENT, SERVER).ports(round, 2).payload(&[5; 96]).build();
            let (first, last) = (piece(&whole, round, (0, 48)), piece(&whole, round, (48, 104)));
            let mut unsaid = last.clone();
            unsaid[20] |= 0x20;
            reseal(&mut unsaid);
            gateway.send_via(usize::from(round) % workers, LEFT, &unsaid);
            gateway.send_via(usize::from(round + 2) % workers, LEFT, &last);
            let came = gateway.send_via(usize::from(round + 1) % workers, LEFT, &first);
            assert_eq!(came.forwarded, [first, last]);
        }
        assert!(is_accounted_for(&mut gateway));
    });
}

/// The first fragment of an IPv6 datagram knows its protocol, the others know what follows the fragment header: they meet
/// all the same.
#[test]
fn fragments_with_headers_behind_the_fragment_header_meet() {
    for_each_size(|config| {
        let workers = config.workers;
        let mut gateway = gateway_with(
            "*filter\n-A FORWARD -p udp -m conntrack --ctstate NEW -j ACCEPT\n-A FORWARD -j DROP\nCOMMIT\n",
            config,
        );
        for round in 0..16_u16 {
            let dst = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 1, round);
            let build = |packet: Builder| {
                let mut frame = packet.build();
                frame[58..60].copy_from_slice(&round.to_be_bytes());
                frame
            };
            let whole = udp(CLIENT6, dst)
                .ports(1, 2)
                .payload(&[5; 100])
                .no_checksum()
                .extension(proto::DST_OPTS, &[1, 4, 0, 0, 0, 0])
                .build();
            let mut first = build(
                udp(CLIENT6, dst)
                    .ports(1, 2)
                    .no_checksum()
                    .fragment(0, true)
                    .extension(proto::DST_OPTS, &[1, 4, 0, 0, 0, 0])
                    .payload(&[5; 40]),
            );
            // The length is that of the whole.
            first[74..76].copy_from_slice(&whole[66..68]);
            let mut last = build(udp(CLIENT6, dst).fragment(56, false).payload(&[5; 60]));
            last[54] = proto::DST_OPTS;
            gateway.send_via(usize::from(round) % workers, LEFT, &last);
            let came = gateway.send_via(usize::from(round + 1) % workers, LEFT, &first);
            assert_eq!(came.forwarded, [first, last], "{round}: {:?}", drops(&gateway));
        }
        assert!(is_accounted_for(&mut gateway));
    });
}

/// What makes a fragment arrive is the same for all fragments of a datagram behind us.
#[test]
fn fragments_leave_with_the_headers_of_the_first() {
    let mut gateway = gateway_with("*filter\nCOMMIT\n", GatewayConfig::default());
    let whole = udp(CLIENT, SERVER).ports(1, 2).payload(&[5; 92]).build();
    let (first, last) = (piece(&whole, 7, (0, 48)), piece(&whole, 7, (48, 100)));
    let mut odd = last.clone();
    // Another MAC address, congestion experienced, do not fragment, and a TTL of one.
    (odd[5], odd[15], odd[20], odd[22]) = (0x77, 3, odd[20] | 0x40, 1);
    reseal(&mut odd);
    // With options, one of them a source route.
    let mut routed = odd.clone();
    routed.splice(34..34, [131, 7, 4, 10, 9, 9, 9, 0]);
    (routed[14], routed[17]) = (0x47, routed[17] + 8);
    reseal_options(&mut routed);
    for (sent, ecn) in [(odd, 2), (routed, 1)] {
        let mut first = first.clone();
        first[15] = ecn;
        reseal(&mut first);
        gateway.send(LEFT, &sent);
        let came = gateway.send(LEFT, &first);
        let marked = [&first, &last].map(|frame| {
            let mut frame = frame.clone();
            frame[15] = 3;
            reseal(&mut frame);
            frame
        });
        assert_eq!(came.forwarded, marked, "{:?}", drops(&gateway));
    }
    assert!(is_accounted_for(&mut gateway));
}

fn reseal_options(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let check = finish(sum(&frame[14..42], 0));
    frame[24..26].copy_from_slice(&check.to_be_bytes());
}

/// Fragments with the same identification in two VLANs are of two datagrams: nobody would get both.
#[test]
fn fragments_meet_in_their_vlan_only() {
    let mut gateway = gateway_with("*filter\nCOMMIT\n", GatewayConfig::default());
    let whole = udp(CLIENT, SERVER).ports(1, 2).payload(&[5; 92]).build();
    let in_vlan = |vlan: u8, cut| {
        let mut frame = piece(&whole, 7, cut);
        frame.splice(12..12, [0x81, 0, 0x20, vlan]);
        frame
    };
    assert!(gateway.send(LEFT, &in_vlan(1, (0, 48))).forwarded.is_empty());
    assert!(gateway.send(LEFT, &in_vlan(2, (48, 100))).forwarded.is_empty());
    assert_eq!(gateway.send(LEFT, &in_vlan(1, (48, 100))).forwarded.len(), 2);
    assert_eq!(gateway.send(LEFT, &in_vlan(2, (0, 48))).forwarded.len(), 2);
    assert!(is_accounted_for(&mut gateway));
}

/// Every way in which fragments end, and what is counted then: each of them, once.
#[test]
fn every_fragment_dropped_has_one_reason() {
    type Step = (bool, u16, u16, bool, usize);
    // Family, identification, offset, more to come, bytes. IPv4 first fragments carry eight bytes of header, too.
    let cases: &[(&str, &[Step], u64)] = &[
        ("fragment_repeated", &[(false, 1, 0, true, 40), (false, 1, 0, true, 40)], 1),
        ("fragment_overlap", &[(false, 2, 0, true, 40), (false, 2, 40, true, 40)], 2),
        ("fragment_overlap", &[(true, 2, 0, true, 40), (true, 2, 40, true, 40)], 2),
        ("fragment_bad", &[(false, 3, 48, false, 40), (false, 3, 96, true, 8)], 2),
        ("fragment_bad", &[(true, 3, 48, false, 40), (true, 3, 96, true, 8)], 1),
        ("fragment_bad", &[(false, 4, 8, true, 0)], 1),
        ("fragment_bad", &[(true, 4, 65_528, true, 16)], 1),
        ("fragment_timeout", &[(false, 5, 0, true, 40), (true, 5, 0, true, 40), (true, 5, 64, true, 40)], 3),
    ];
    for_each_size(|config| {
        for (reason, steps, count) in cases {
            let mut gateway =
                gateway_with("*filter\n-A FORWARD -m conntrack --ctstate NEW\nCOMMIT\n", config.clone());
            for (n, &(six, id, offset, more, len)) in steps.iter().enumerate() {
                let via = n % config.workers;
                let outcome = gateway.send_via(via, LEFT, &fragment(six, id, offset, more, len));
                assert!(outcome.forwarded.is_empty());
            }
            if *reason == "fragment_timeout" {
                assert_eq!(drops(&gateway), BTreeMap::new());
                gateway.advance_millis(61_000);
            }
            let held: usize = gateway.workers.iter().map(|worker| worker.frames_held()).sum();
            assert_eq!(held, steps.len() - usize::try_from(*count).unwrap(), "{steps:?}");
            assert_eq!(drops(&gateway), BTreeMap::from([(*reason, *count)]), "{steps:?}");
            assert!(is_accounted_for(&mut gateway));
        }
    });
}

#[test]
fn what_contradicts_in_ecn_or_comes_too_far_apart_is_counted_by_fragment() {
    let mut config = GatewayConfig::default();
    config.settings.track.ipfrag_max_dist = Count(3);
    let mut gateway = gateway_with("*filter\nCOMMIT\n", config);
    let mut marked = fragment(false, 1, 48, false, 40);
    marked[15] = 1;
    reseal(&mut marked);
    gateway.send(LEFT, &fragment(false, 1, 0, true, 40));
    gateway.send(LEFT, &marked);
    assert_eq!(drops(&gateway), BTreeMap::from([("fragment_ecn", 2)]));
    gateway.send(LEFT, &fragment(false, 2, 0, true, 40));
    gateway.send(LEFT, &fragment(false, 2, 96, true, 40));
    for id in 3..6 {
        gateway.send(LEFT, &fragment(false, id, 0, true, 40));
    }
    gateway.send(LEFT, &fragment(false, 2, 48, true, 40));
    assert_eq!(drops(&gateway), BTreeMap::from([("fragment_ecn", 2), ("fragment_distance", 2)]));
    assert_eq!(gateway.workers[0].frames_held(), 4);
    assert!(is_accounted_for(&mut gateway));
}

/// A quarter of a worker's buffers at most, whatever the frames: 256 of 1,024, three for each of these.
#[test]
fn jumbo_fragments_take_no_more_than_their_share() {
    let mut gateway = gateway_with("*filter\nCOMMIT\n", GatewayConfig::default());
    for id in 0..100 {
        gateway.send(LEFT, &fragment(id % 2 == 0, id, 0, true, 5_000));
        assert!(gateway.workers[0].frames_held() <= 256);
        assert!(is_accounted_for(&mut gateway));
    }
    assert_eq!(gateway.workers[0].frames_held(), 255);
    assert_eq!(drops(&gateway), BTreeMap::from([("fragment_limit", 15)]));
    // And they still are of use.
    assert_eq!(gateway.send(LEFT, &udp(CLIENT, SERVER).build()).forwarded.len(), 1);
    gateway.advance_millis(61_000);
    gateway.advance_millis(1);
    assert_eq!(gateway.workers[0].frames_held(), 0);
    assert!(is_accounted_for(&mut gateway));
}

/// What a jumbo fragment carries beyond a multiple of eight bytes does not leave, in whichever buffer it is.
#[test]
fn jumbo_fragments_are_cut_to_size() {
    let mut gateway = gateway_with("*filter\nCOMMIT\n", GatewayConfig::default());
    let whole = udp(CLIENT, SERVER).ports(1, 2).payload(&vec![5; 8_000]).build();
    for excess in [1, 4, 7] {
        let mut first = piece(&whole, excess, (0, 4_000 + usize::from(excess)));
        first[20] |= 0x20;
        reseal(&mut first);
        gateway.send(LEFT, &first);
        let came = gateway.send(LEFT, &piece(&whole, excess, (4_000, 8_008)));
        assert_eq!(
            came.forwarded,
            [piece(&whole, excess, (0, 4_000)), piece(&whole, excess, (4_000, 8_008))]
        );
    }
    assert!(is_accounted_for(&mut gateway));
}

/// IPv6 headers longer than a buffer: rules and tracker see what is behind them, on whichever worker.
#[test]
fn headers_may_go_on_in_the_next_buffer() {
    for_each_size(|config| {
        let workers = config.workers;
        let text = "*filter\n-A FORWARD -p udp -m udp --dport 2 -m conntrack --ctstate NEW -j ACCEPT\n\
                    -A FORWARD -p tcp -j REJECT --reject-with tcp-reset\n-A FORWARD -j DROP\nCOMMIT\n";
        let mut gateway = gateway_with(text, config);
        for port in 0..16 {
            let long = |packet: Builder| {
                packet.extension(proto::DST_OPTS, &[0; 2046]).extension(proto::HOP_BY_HOP, &[0; 1022])
            };
            let send = |gateway: &mut Gateway, packet: Builder| -> Outcome {
                gateway.send_via(usize::from(port) % workers, LEFT, &packet.build())
            };
            let ask = long(udp(CLIENT6, SERVER6).ports(port, 2).payload(&[1; 50]));
            assert_eq!(send(&mut gateway, ask.clone()).forwarded, [ask.build()]);
            let other = long(udp(CLIENT6, SERVER6).ports(port, 3));
            assert_eq!(send(&mut gateway, other).fate.unwrap().dropped, Some(DropReason::RuleDrop));
            let first = udp(CLIENT6, SERVER6).ports(port, 2).extension(proto::HOP_BY_HOP, &[0; 2046]);
            assert_eq!(send(&mut gateway, first.clone()).forwarded, [first.build()]);
        }
        // Only answers are built of what is in the first one.
        let syn = tcp(CLIENT6, SERVER6).ports(1, 2).syn().extension(proto::DST_OPTS, &[0; 2046]);
        assert_eq!(
            gateway.send(LEFT, &syn.build()).fate.unwrap().dropped,
            Some(DropReason::RuleRejectSilent)
        );
        assert!(is_accounted_for(&mut gateway));
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn no_train_of_fragments_leaks_a_frame_or_holds_more_than_its_share(
        pieces in proptest::collection::vec((any::<bool>(), 0..6_u16, 0..400_u16, prop::bool::weighted(0.8), 0..60_usize, 0..4_usize), 1..600),
        waits in proptest::collection::vec(any::<bool>(), 8),
        large: bool,
    ) {
        for workers in [1, 4] {
            let mut gateway = gateway_with("*filter\nCOMMIT\n", GatewayConfig { workers, ..GatewayConfig::default() });
            let (mut sent, mut left) = (0, 0);
            for (n, (six, id, offset, more, len, via)) in pieces.iter().enumerate() {
                let id = *id + u16::try_from(n / 40).unwrap() * 8;
                // Some of them jumbo frames.
                let (offset, len) = if large && len % 5 == 0 { (offset * 64 % 3_000, len * 100) } else { (offset * 8 % 300, *len) };
                left += gateway.send_via(via % workers, LEFT, &fragment(*six, id, offset, *more, len)).forwarded.len();
                sent += 1;
                prop_assert!(gateway.workers.iter().all(|worker| worker.frames_held() <= 256));
                if waits[n % 8] && n % 100 == 99 {
                    gateway.advance_millis(70_000);
                }
            }
            prop_assert_eq!(gateway.frames_accounted(), gateway.frames_total());
            gateway.advance_millis(70_000);
            for _ in 0..10 {
                gateway.advance_millis(1);
            }
            prop_assert!(gateway.workers.iter().all(|worker| worker.frames_held() == 0));
            prop_assert_eq!(gateway.frames_accounted(), gateway.frames_total());
            // Every one of them has left, or was dropped for one reason.
            prop_assert_eq!(left as u64 + drops(&gateway).values().sum::<u64>(), sent);
        }
    }
}
