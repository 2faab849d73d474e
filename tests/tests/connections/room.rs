//! What happens when the flow table is full, or fills.

use super::{CLIENT, SERVER, Talk, gateway_with, rules, send};
use dataplane::flow::{Count, FullPolicy};
use dataplane::ids::PortId;
use dataplane::packet::Family;
use dataplane::reason::DropReason;
use dataplane::rules::model::CtState;
use dataplane::testing::gateway::{Gateway, GatewayConfig, LEFT, RIGHT};
use dataplane::testing::packets::{Builder, tcp, udp};
use std::net::Ipv4Addr;

const STATES: &str = "*filter\n-A FORWARD -m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT\nCOMMIT\n";

/// A table of 64 flows full of ASSURED ones, on one worker.
fn full(full: FullPolicy) -> Gateway {
    let text = "\
*filter
-A FORWARD -p udp -m udp --dport 22 -m comment --comment \"palisade:management ssh\" -j ACCEPT
-A FORWARD -m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT
COMMIT
";
    let mut config = GatewayConfig { max_flows: 64, ..GatewayConfig::default() };
    config.settings.full = [full; 32];
    config.settings.track.half_open_percent = 100;
    config.settings.track.adaptive_start_percent = 0;
    config.settings.track.management_reserve_percent = 4;
    let mut gateway = gateway_with(text, config);
    for port in 1..=62 {
        for _ in 0..2 {
            send(&mut gateway, LEFT, &udp(CLIENT, SERVER).ports(port, 53)).unwrap();
            send(&mut gateway, RIGHT, &udp(SERVER, CLIENT).ports(53, port)).unwrap();
            gateway.advance_millis(if port == 1 { 2_500 } else { 0 });
        }
    }
    gateway.advance_millis(2_500);
    for port in 1..=62 {
        send(&mut gateway, LEFT, &udp(CLIENT, SERVER).ports(port, 53)).unwrap();
    }
    gateway
}

#[test]
fn a_full_table_does_what_the_wire_says_and_lets_management_in() {
    let new = udp(CLIENT, SERVER).ports(100, 53);
    let management = udp(CLIENT, SERVER).ports(100, 22);
    let answer = udp(SERVER, CLIENT).ports(53, 100);

    let mut gateway = full(FullPolicy::DropNew);
    assert_eq!(send(&mut gateway, LEFT, &new), Err(DropReason::FlowTableFull));
    assert_eq!(send(&mut gateway, LEFT, &management), Ok(CtState::New));
    assert_eq!(send(&mut gateway, RIGHT, &udp(SERVER, CLIENT).ports(22, 100)), Ok(CtState::Established));

    let mut gateway = full(FullPolicy::PassUntracked);
    assert_eq!(send(&mut gateway, LEFT, &new), Ok(CtState::New));
    assert_eq!(send(&mut gateway, RIGHT, &answer), Ok(CtState::New), "it left nothing behind");
    assert_eq!(send(&mut gateway, LEFT, &management), Ok(CtState::New));

    let mut gateway = full(FullPolicy::EvictHalfOpen);
    assert_eq!(send(&mut gateway, LEFT, &new), Err(DropReason::FlowTableFull), "nothing is half-open");
}

#[test]
fn a_flood_of_openings_replaces_its_own_entries_only() {
    let text = "*filter\n-A FORWARD -m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT\nCOMMIT\n";
    let mut config = GatewayConfig { max_flows: 400, ..GatewayConfig::default() };
    config.settings.track.max = Count(400);
    let mut gateway = gateway_with(text, config);
    let mut talks: Vec<_> =
        (1..=50).map(|port| Talk::open(&mut gateway, CLIENT, SERVER, (port, 80))).collect();
    for n in 0..5_000_u32 {
        let spoofed = Ipv4Addr::from_bits(0x0b00_0000 + n);
        assert_eq!(send(&mut gateway, LEFT, &tcp(spoofed, SERVER).ports(1, 80).syn()), Ok(CtState::New));
    }
    let worker = &mut gateway.workers[0];
    assert_eq!(worker.tracker_mut().half_open_count(), 100, "a quarter of 400");
    assert_eq!(worker.tracker_mut().flow_count(), 150);
    for talk in &mut talks {
        assert_eq!(talk.say(&mut gateway, 0, "still here"), Ok(CtState::Established));
    }
    Talk::open(&mut gateway, CLIENT, SERVER, (1000, 80));
}

#[test]
fn timeouts_shrink_as_the_table_fills() {
    let text = "*filter\n-A FORWARD -m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT\nCOMMIT\n";
    let mut config = GatewayConfig { max_flows: 100, ..GatewayConfig::default() };
    config.settings.track.half_open_percent = 100;
    config.settings.track.management_reserve_percent = 0;
    config.settings.track.adaptive_start_percent = 50;
    let mut gateway = gateway_with(text, config);
    let mut left = Vec::new();
    for port in 1..=99 {
        send(&mut gateway, LEFT, &udp(CLIENT, SERVER).ports(port, 53)).unwrap();
        let tracker = gateway.workers[0].tracker_mut();
        let tick = dataplane::clock::Now::from_secs(1).tick();
        tracker.region().walk(tick, |view| {
            if view.orig.src_port == port {
                left.push(view.secs_left);
            }
        });
    }
    assert_eq!(left[..50], [30; 50]);
    assert!(left[50..].is_sorted_by(|a, b| a >= b) && left[98] <= 2, "{left:?}");
}

/// All the table for anybody, timeouts as they are.
fn plain(max_flows: u32) -> GatewayConfig {
    let mut config = GatewayConfig { max_flows, ..GatewayConfig::default() };
    config.settings.track.half_open_percent = 100;
    config.settings.track.adaptive_start_percent = 0;
    config.settings.track.management_reserve_percent = 0;
    config
}

fn ask(port: u16) -> Builder {
    udp(CLIENT, SERVER).ports(port, 53)
}

/// Makes connections from these ports ASSURED, and keeps them so.
fn assure(gateway: &mut Gateway, ports: std::ops::RangeInclusive<u16>) {
    for round in 0..2 {
        for port in ports.clone() {
            send(gateway, LEFT, &ask(port)).unwrap();
            send(gateway, RIGHT, &udp(SERVER, CLIENT).ports(53, port)).unwrap();
        }
        gateway.advance_millis(if round == 0 { 2_500 } else { 0 });
    }
}

/// How many of the gateway's connections are ASSURED, of how many.
fn census(gateway: &mut Gateway) -> (usize, usize) {
    let now = gateway.now().tick();
    let (mut assured, mut all) = (0, 0);
    for worker in &mut gateway.workers {
        worker.tracker_mut().region().walk(now, |view| {
            assured += usize::from(view.is_assured());
            all += 1;
        });
    }
    (assured, all)
}

#[test]
fn half_open_connections_anywhere_make_room_if_the_wire_says_so() {
    for policy in [FullPolicy::DropNew, FullPolicy::EvictHalfOpen] {
        let mut config = plain(256);
        config.settings.full = [policy; 32];
        let mut gateway = gateway_with(STATES, config);
        assure(&mut gateway, 1..=255);
        assert_eq!(send(&mut gateway, LEFT, &ask(1000)), Ok(CtState::New));
        assert_eq!(census(&mut gateway), (255, 256));
        let said: Vec<_> = (1001..=1050).map(|port| send(&mut gateway, LEFT, &ask(port))).collect();
        // The one that is half-open is seldom near: without a search there is room by chance only.
        let refused = said.iter().filter(|said| **said == Err(DropReason::FlowTableFull)).count();
        assert_eq!(refused > 0, policy == FullPolicy::DropNew, "{policy:?}: {refused} refused");
        assert_eq!(census(&mut gateway), (255, 256), "who is ASSURED stays");
        if policy == FullPolicy::EvictHalfOpen {
            assert_eq!(gateway.workers[0].tracker_mut().stats().early_drop, 50);
            assert_eq!(
                send(&mut gateway, RIGHT, &udp(SERVER, CLIENT).ports(53, 1050)),
                Ok(CtState::Established)
            );
        }
    }
}

#[test]
fn every_wire_has_its_own_policy_over_the_one_table() {
    let mut config = plain(64);
    config.wires = 3;
    config.settings.full[1] = FullPolicy::PassUntracked;
    config.settings.full[2] = FullPolicy::EvictHalfOpen;
    let mut gateway = gateway_with(STATES, config);
    assure(&mut gateway, 1..=64);
    let [second, third] = [PortId(2), PortId(4)];
    assert_eq!(send(&mut gateway, LEFT, &ask(1000)), Err(DropReason::FlowTableFull));
    assert_eq!(send(&mut gateway, RIGHT, &ask(1000)), Err(DropReason::FlowTableFull), "from either side");
    assert_eq!(send(&mut gateway, second, &ask(1000)), Ok(CtState::New));
    assert_eq!(send(&mut gateway, second.peer(), &ask(1000)), Ok(CtState::New), "it left nothing behind");
    assert_eq!(send(&mut gateway, third, &ask(1000)), Err(DropReason::FlowTableFull), "nothing is half-open");
    assert_eq!(census(&mut gateway), (64, 64));
    // A connection of one wire is one of all.
    assert_eq!(send(&mut gateway, third, &ask(7)), Ok(CtState::Established));
}

#[test]
fn a_limit_lowered_at_run_time_keeps_what_is_there_and_lets_nothing_in() {
    let ruleset = [rules(STATES, Family::V4)];
    let mut gateway = gateway_with(STATES, plain(64));
    assure(&mut gateway, 1..=30);
    gateway.change(&ruleset, |settings| settings.track.max = Count(20)).unwrap();
    assert_eq!(census(&mut gateway), (30, 30));
    for port in 100..110 {
        assert_eq!(send(&mut gateway, LEFT, &ask(port)), Err(DropReason::FlowTableFull));
    }
    // Those below the limit go on, the others run out.
    for _ in 0..3 {
        gateway.advance_millis(50_000);
        for port in 1..=15 {
            assert_eq!(send(&mut gateway, LEFT, &ask(port)), Ok(CtState::Established));
        }
    }
    assert_eq!(census(&mut gateway), (15, 15));
    for port in 100..105 {
        assert_eq!(send(&mut gateway, LEFT, &ask(port)), Ok(CtState::New));
    }
    // From here on a new one may at most replace one that is not ASSURED.
    for port in 105..150 {
        let _ = send(&mut gateway, LEFT, &ask(port));
        assert_eq!(census(&mut gateway), (15, 20));
    }
    gateway.change(&ruleset, |settings| settings.track.max = Count(0)).unwrap();
    for port in 200..244 {
        assert_eq!(send(&mut gateway, LEFT, &ask(port)), Ok(CtState::New));
    }
    assert_eq!(census(&mut gateway), (15, 64));
}
