//! `explain`: what it says of a packet is what becomes of it, and asking changes nothing. First against simulated
//! gateways that get the same packet right behind, then with a running daemon.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use control::explain::Offline;
use control::rules_file::{Named, Rules, understand_with};
use control::sets::Store;
use dataplane::explain::{Doubt, Explained, Fate, explain};
use dataplane::flow::FlowView;
use dataplane::ids::PortId;
use dataplane::packet::Family;
use dataplane::rules::model::Match;
use dataplane::rules::rate::{HashRow, RateMatch, RecentRow};
use dataplane::testing::gateway::{Gateway, GatewayConfig, LEFT, Outcome, RIGHT};
use dataplane::testing::packets::{arp, icmp_error, ip, ping, pong, tcp, udp};
use dataplane::worker::{AnswerRate, Spread};
use palisade_tests::daemon::Daemon;
use palisade_tests::lab::Lab;
use palisade_tests::{require_root, traffic};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const NAMES: [&str; 2] = ["left", "right"];

/// Lines of rules to choose from, by table.
const FILTER: &[&str] = &[
    "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A FORWARD -m conntrack --ctstate INVALID -j DROP",
    "-A FORWARD -m state --state NEW -p tcp --syn -j SVC",
    "-A FORWARD -p udp -g SVC",
    "-A FORWARD -p tcp --dport 22 -m recent --set --name ssh",
    "-A FORWARD -p tcp --dport 22 -m recent --update --seconds 60 --hitcount 3 --name ssh -j REJECT --reject-with tcp-reset",
    "-A FORWARD -m limit --limit 1/minute --limit-burst 2 -j ACCEPT",
    "-A FORWARD -p udp -m hashlimit --hashlimit-upto 1/minute --hashlimit-burst 2 --hashlimit-mode srcip,dstport --hashlimit-name h -j ACCEPT",
    "-A FORWARD -p tcp -m hashlimit --hashlimit-above 1/minute --hashlimit-burst 1 --hashlimit-mode srcip --hashlimit-name g -j DROP",
    "-A FORWARD -p tcp --dport 80 -m connlimit --connlimit-above 1 -j REJECT --reject-with tcp-reset",
    "-A FORWARD -m statistic --mode nth --every 3 --packet 1 -j ACCEPT",
    "-A FORWARD -m statistic --mode random --probability 0.3 -j ACCEPT",
    "-A FORWARD -m quota --quota 300 -j ACCEPT",
    "-A FORWARD -m connbytes --connbytes 2 --connbytes-dir both --connbytes-mode packets -j ACCEPT",
    "-A FORWARD -m connmark --mark 1 -j ACCEPT",
    "-A FORWARD -m mark --mark 2 -j DROP",
    "-A FORWARD -i left -p tcp --dport 80 -j ACCEPT",
    "-A FORWARD -o left -j LOG --log-prefix \"out \"",
    "-A FORWARD -m length --length 0:60 -m ttl --ttl-gt 10 -j ACCEPT",
    "-A FORWARD -p icmp --icmp-type echo-request -j ACCEPT",
    "-A FORWARD -m set --match-set hosts src -m set --match-set hosts src --packets-gt 2 -j DROP",
    "-A FORWARD -m set ! --match-set hosts dst -j SET --add-set seen dst --exist",
    "-A FORWARD -p udp -m multiport --dports 22,53,69 -m string --algo bm --string never -j DROP",
    "-A SVC -p tcp --dport 22 -j RETURN",
    "-A SVC -p udp --dport 53 -j ACCEPT",
    "-A SVC -p udp --dport 69 -j ACCEPT",
    "-A SVC -s 10.0.0.7 -j ACCEPT",
    "-A SVC -m recent ! --rcheck --name seen -m recent --set --name seen -j REJECT",
];
const MANGLE: &[&str] = &[
    "-A PREROUTING -p tcp -j MARK --set-xmark 0x1/0x1",
    "-A PREROUTING -p udp --dport 53 -j MARK --set-xmark 0x2/0xff",
    "-A FORWARD -m mark --mark 1 -j CONNMARK --save-mark",
    "-A PREROUTING -j CONNMARK --restore-mark",
    "-A FORWARD -j TTL --ttl-dec 1",
    "-A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1200",
    "-A POSTROUTING -o right -p udp --dport 9 -j DROP",
    "-A POSTROUTING -j TOS --set-tos 0x10",
];
const RAW: &[&str] = &[
    "-A PREROUTING -p udp --dport 9 -j CT --notrack",
    "-A PREROUTING -p udp --dport 69 -j CT --helper tftp",
    "-A PREROUTING -s 10.0.0.9 -p tcp -j DROP",
    "-A PREROUTING -p tcp --dport 80 -j CT --zone 3",
    "-A PREROUTING -i left -m ttl --ttl-lt 2 -j LOG --log-prefix low",
    "-A PREROUTING -m limit --limit 1/hour --limit-burst 3 -j TRACE",
];

fn chosen(lines: &[&str], which: &[usize]) -> String {
    let mut text = String::new();
    for at in which {
        text += lines[at % lines.len()];
        text.push('\n');
    }
    text
}

/// Rules of lines, and the sets that they name.
fn rules(text: &str, family: Family, store: &Store) -> Rules {
    let labels = control::labels::LabelNames::none();
    let named = Named { policies: &[], sets: &store.slots(), labels: &labels };
    let loaded = understand_with(text.as_bytes(), "test.rules", family, named);
    let diagnostics = format!("{:?}", loaded.diagnostics);
    Rules::from_loaded(loaded).unwrap_or_else(|| panic!("{text}\n{diagnostics}"))
}

fn sets() -> (Store, tempfile::TempDir) {
    let store = Store::new(&NAMES.map(str::to_owned));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sets");
    let text = "create hosts hash:ip counters\nadd hosts 10.0.0.7\ncreate seen hash:ip timeout 60\n";
    std::fs::write(&path, text).unwrap();
    assert!(control::sets::file::load(&store, &path, &mut std::io::stderr()).unwrap());
    (store, dir)
}

/// One thing that happens.
#[derive(Clone)]
enum Event {
    /// A packet comes in on a NIC, at a worker.
    Packet { left: bool, worker: usize, frame: Vec<u8> },
    /// Time goes by.
    Wait(u64),
}

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Packet { left, worker, frame } => {
                let len = u32::try_from(frame.len()).unwrap();
                let packet = dataplane::wire::parse(frame, len);
                let text = packet.map_or("?".to_owned(), |packet| control::explain::summary(&packet, frame));
                write!(f, "{} {worker} {text}", if *left { "left" } else { "right" })
            }
            Self::Wait(millis) => write!(f, "{millis} ms"),
        }
    }
}

const HOSTS: [[u8; 4]; 3] = [[10, 0, 0, 7], [10, 0, 0, 9], [192, 0, 2, 80]];
const PORTS: [u16; 6] = [22, 53, 69, 80, 9, 40000];

/// Packets of few hosts and ports, so that they have to do with each other.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let hosts =
        (0..3_usize, 0..3_usize).prop_map(|(a, b)| (Ipv4Addr::from(HOSTS[a]), Ipv4Addr::from(HOSTS[b])));
    let ports = (0..6_usize, 0..6_usize).prop_map(|(a, b)| (PORTS[a], PORTS[b]));
    let flags = prop::sample::select(vec![0x02_u8, 0x12, 0x10, 0x18, 0x11, 0x04, 0x14, 0x00, 0x29]);
    (hosts, ports, 0..14_u8, flags, 0..4_u32, any::<bool>()).prop_map(
        |(hosts, ports, kind, flags, number, odd)| {
            let (src, dst) = hosts;
            let segment =
                tcp(src, dst).ports(ports.0, ports.1).flags(flags).numbers(1000 + number, 1000 + number);
            let datagram = udp(src, dst).ports(ports.0, ports.1);
            match kind {
                0..=5 if odd => segment.payload(b"abc").build(),
                0..=5 => segment.build(),
                6 | 7 => datagram.payload(b"\0\x01file\0octet\0").build(),
                8 => ping(src, dst, 7).build(),
                9 => pong(src, dst, 7).build(),
                10 => icmp_error(dst, src, 3, 1, &datagram.build(), 28).build(),
                11 if odd => segment.bad_checksum().build(),
                11 => ip(src, dst, 47).payload(&[0, 0, 8, 0]).build(),
                12 if odd => arp(),
                12 => segment.build()[..40].to_vec(),
                _ => segment.ttl(1).build(),
            }
        },
    )
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let packet = (any::<bool>(), 0..2_usize, frames()).prop_map(|(left, worker, frame)| Event::Packet {
        left,
        worker,
        frame,
    });
    let one = prop_oneof![12 => packet, 1 => (1..90_000_u64).prop_map(Event::Wait)];
    prop::collection::vec(one, 1..60)
}

/// All that rules keep and count, and all flows: what must not change.
#[derive(Debug, PartialEq)]
struct State {
    counts: Vec<Vec<(u64, u64)>>,
    recent: Vec<RecentRow>,
    hash: Vec<HashRow>,
    single: Vec<String>,
    flows: Vec<FlowView>,
    expectations: usize,
}

fn state(gateway: &mut Gateway) -> State {
    let snapshot = gateway.mailbox.newest();
    let now = gateway.now();
    let mut flows = Vec::new();
    for worker in &mut gateway.workers {
        worker.tracker_mut().region().walk(now.tick(), |view| flows.push(*view));
    }
    let expectations = gateway.workers[0].tracker_mut().expectations().list(now.tick()).len();
    let matches = snapshot.v4.compiled.ruleset().rules().flat_map(|rule| &rule.matches);
    let (mut recent, mut hash, mut single) = (Vec::new(), Vec::new(), Vec::new());
    for condition in matches {
        match condition {
            Match::Rate(RateMatch::Recent(rule)) => {
                recent.extend(rule.table.iter().flat_map(|table| table.rows()));
            }
            Match::Rate(RateMatch::Hashlimit(rule)) => {
                hash.extend(rule.table.iter().flat_map(|table| table.rows(now)));
            }
            Match::Rate(rate) => single.push(format!("{rate:?}")),
            Match::Set(set) => single.push(format!("{:?}", set.slot.set().entries(now))),
            _ => {}
        }
    }
    let counts = snapshot.v4.counters.iter().map(|counters| counters.totals()).collect();
    State { counts, recent, hash, single, flows, expectations }
}

/// What was said is what has happened.
fn assert_came_true(said: &Explained, frame: &[u8], outcome: &Outcome, gateway: &mut Gateway) {
    let Some(fate) = outcome.fate else {
        assert_eq!(said.fate, Fate::Held, "{said:#?}");
        return;
    };
    let (by, reason, answer, passes) = match &said.fate {
        Fate::Held => panic!("not held: {fate:?}"),
        Fate::Leaves { by, .. } => (*by, None, None, true),
        Fate::Dropped { reason, by, answer, .. } => (*by, Some(*reason), answer.clone(), false),
    };
    assert_eq!((fate.dropped, fate.rule), (reason, by), "{said:#?}");
    assert_eq!(fate.ct_state, said.tracked.map(|tracked| tracked.state), "{said:#?}");
    assert_eq!(outcome.answers, answer.into_iter().collect::<Vec<_>>());
    let sent = said.changed.clone().unwrap_or_else(|| frame.to_vec());
    assert_eq!(outcome.forwarded, if passes { vec![sent] } else { Vec::new() });
    if let (Some(after), true) = (said.after, passes) {
        let tick = gateway.now().tick();
        let mut found = None;
        for worker in &mut gateway.workers {
            worker.tracker_mut().region().walk(tick, |view| {
                if view.orig == after.orig && view.zone == after.zone {
                    found = Some(*view);
                }
            });
        }
        let of = |view: FlowView| {
            (view.tcp_state, view.status, view.mark, view.deadline, view.packets, view.helper)
        };
        assert_eq!(found.map(of), Some(of(after)), "the flow is as it was said it would be");
    }
}

/// Explains each packet, and then sends it.
fn explain_and_send(text: &str, config: GatewayConfig, events: &[Event]) {
    let (store, _dir) = sets();
    let rules = rules(text, Family::V4, &store);
    let workers = config.workers;
    let mut gateway = Gateway::new(&[(*rules.ruleset).clone()], config).unwrap();
    for event in events {
        match event {
            Event::Wait(millis) => gateway.advance_millis(*millis),
            Event::Packet { left, worker, frame } => {
                let side = if *left { LEFT } else { RIGHT };
                let before = state(&mut gateway);
                let said = gateway.look(|live| explain(live, frame, side)).unwrap();
                assert_eq!(state(&mut gateway), before, "asking has changed something");
                let outcome = gateway.send_via(worker % workers, side, frame);
                assert!(!said.doubts.contains(&Doubt::Helper), "no FTP here");
                assert_came_true(&said, frame, &outcome, &mut gateway);
                gateway.set_asks().iter().for_each(|ask| store.carry_out(ask));
            }
        }
    }
}

fn config(workers: usize, is_secret: bool) -> GatewayConfig {
    let mut config = GatewayConfig { workers, ..GatewayConfig::default() };
    // How much of the rate is left, only a worker knows.
    config.settings.answers = AnswerRate { per_sec: 0, burst: 0 };
    if is_secret {
        config.spread = Spread::Secret;
    }
    config
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(12)
}

proptest! {
    // Few, since each compiles rules: PROPTEST_CASES asks for more.
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn what_is_said_of_a_packet_comes_true_and_asking_changes_nothing(
        filter in prop::collection::vec(0..FILTER.len(), 0..10),
        mangle in prop::collection::vec(0..MANGLE.len(), 0..4),
        raw in prop::collection::vec(0..RAW.len(), 0..3),
        (drop, workers, is_secret) in (any::<bool>(), 1..3_usize, any::<bool>()),
        events in events(),
    ) {
        let policy = if drop { "DROP" } else { "ACCEPT" };
        let mut text = format!("*filter\n:FORWARD {policy}\n:SVC -\n{}COMMIT\n", chosen(FILTER, &filter));
        if !mangle.is_empty() {
            text += &format!("*mangle\n{}COMMIT\n", chosen(MANGLE, &mangle));
        }
        if !raw.is_empty() {
            text += &format!("*raw\n{}COMMIT\n", chosen(RAW, &raw));
        }
        explain_and_send(&text, config(workers, is_secret), &events);
    }
}

fn packet(left: bool, frame: Vec<u8>) -> Event {
    Event::Packet { left, worker: 0, frame }
}

/// A whole conversation with everything at once: the first rules of each kind see packets that others do not let through.
#[test]
fn a_connection_from_handshake_to_reset_is_foretold() {
    let text = "*filter\n:FORWARD DROP\n-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
        -A FORWARD -p tcp --dport 80 -m connlimit --connlimit-above 2 -j REJECT --reject-with tcp-reset\n\
        -A FORWARD -p tcp --dport 80 --syn -j ACCEPT\n-A FORWARD -p udp -j REJECT\nCOMMIT\n\
        *mangle\n-A FORWARD -p tcp -j CONNMARK --set-mark 7\nCOMMIT\n\
        *raw\n-A PREROUTING -p udp --dport 69 -j CT --helper tftp\nCOMMIT\n";
    let (client, server) = (Ipv4Addr::from(HOSTS[0]), Ipv4Addr::from(HOSTS[2]));
    let c = |seq, ack| tcp(client, server).ports(40000, 80).numbers(seq, ack);
    let s = |seq, ack| tcp(server, client).ports(80, 40000).numbers(seq, ack);
    let other = |port| tcp(client, server).ports(port, 80).syn().build();
    let mut events = vec![
        packet(true, c(100, 0).syn().build()),
        packet(true, c(100, 0).syn().build()),
        packet(false, s(500, 101).syn_ack().build()),
        packet(true, c(101, 501).ack().build()),
        packet(true, c(101, 501).ack().payload(b"GET /").build()),
        packet(false, s(501, 106).ack().payload(&[7; 1000]).build()),
        packet(false, s(999_501, 106).ack().payload(&[7; 1000]).build()),
        packet(true, other(40001)),
        packet(true, other(40002)),
        packet(true, other(40003)),
        packet(false, icmp_error(server, client, 3, 1, &c(106, 1501).ack().build(), 28).build()),
        packet(true, udp(client, server).ports(4000, 69).payload(b"\0\x01f\0octet\0").build()),
        packet(true, udp(client, server).ports(4000, 53).payload(b"who?").build()),
        packet(true, c(106, 1501).fin().build()),
        packet(false, s(1501, 107).fin().build()),
        packet(true, c(107, 1502).ack().build()),
        packet(true, c(107, 1502).rst().build()),
    ];
    events.push(Event::Wait(130_000));
    events.push(packet(false, s(1502, 107).ack().build()));
    for workers in 1..3 {
        explain_and_send(text, config(workers, false), &events);
    }
}

#[test]
fn an_expected_connection_is_foretold_and_not_used_up() {
    let text = "*filter\n:FORWARD DROP\n-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
        -A FORWARD -p udp --dport 69 -j ACCEPT\nCOMMIT\n*raw\n-A PREROUTING -p udp --dport 69 -j CT --helper tftp\nCOMMIT\n";
    let (client, server) = (Ipv4Addr::from(HOSTS[0]), Ipv4Addr::from(HOSTS[2]));
    let ask = udp(client, server).ports(4000, 69).payload(b"\0\x01f\0octet\0").build();
    let answer = udp(server, client).ports(3333, 4000).payload(b"\0\x03\0\x01data").build();
    let events = [packet(true, ask), packet(false, answer.clone()), packet(false, answer)];
    explain_and_send(text, config(1, false), &events);
}

#[test]
fn new_rules_and_flows_they_keep_are_foretold() {
    let (store, _dir) = sets();
    let of = |text: &str| (*rules(text, Family::V4, &store).ruleset).clone();
    let open = of("*filter\n:FORWARD DROP\n-A FORWARD -p udp --dport 53 -j ACCEPT\nCOMMIT\n");
    let closed = of("*filter\n:FORWARD DROP\n-A FORWARD -m conntrack --ctstate NEW -j DROP\nCOMMIT\n");
    let (client, server) = (Ipv4Addr::from(HOSTS[0]), Ipv4Addr::from(HOSTS[2]));
    let query = |port| udp(client, server).ports(port, 53).payload(b"?").build();
    let mut gateway = Gateway::new(&[open], config(1, false)).unwrap();
    gateway.send(LEFT, &query(5000));
    gateway.reload_keeping(&[closed]).unwrap();
    for (port, is_kept) in [(5000, true), (5001, false)] {
        let said = gateway.look(|live| explain(live, &query(port), LEFT)).unwrap();
        assert_eq!(said.doubts.contains(&Doubt::Kept), is_kept);
        let outcome = gateway.send(LEFT, &query(port));
        assert_came_true(&said, &query(port), &outcome, &mut gateway);
    }
}

#[test]
fn a_full_table_a_narrow_wire_and_a_fragment_are_foretold() {
    let (store, _dir) = sets();
    let open =
        rules("*filter\n-A FORWARD -m conntrack --ctstate NEW -j ACCEPT\nCOMMIT\n", Family::V4, &store);
    let mut config = config(1, false);
    (config.max_flows, config.frame_len_max) = (8, 600);
    (config.settings.track.half_open_percent, config.settings.track.adaptive_start_percent) = (100, 0);
    let mut gateway = Gateway::new(&[(*open.ruleset).clone()], config).unwrap();
    let (client, server) = (Ipv4Addr::from(HOSTS[0]), Ipv4Addr::from(HOSTS[2]));
    // Answered UDP flows are ASSURED once more than two seconds old: nothing may take their place.
    for port in 1..=8 {
        let (there, back) = (udp(client, server).ports(port, 53), udp(server, client).ports(53, port));
        gateway.send(LEFT, &there.build());
        gateway.send(RIGHT, &back.build());
        gateway.advance_millis(3000);
        gateway.send(LEFT, &there.build());
        gateway.send(RIGHT, &back.build());
    }
    let long = udp(client, server).ports(1, 53).payload(&[0; 900]);
    let fragment = udp(client, server).ports(2, 53).payload(&[0; 64]).fragment(0, true);
    let new = udp(client, server).ports(77, 53);
    for frame in [new.build(), long.build(), fragment.build()] {
        let said = gateway.look(|live| explain(live, &frame, LEFT)).unwrap();
        let outcome = gateway.send(LEFT, &frame);
        assert_came_true(&said, &frame, &outcome, &mut gateway);
    }
    let reasons = [&new, &long].map(|builder| {
        let said = gateway.look(|live| explain(live, &builder.build(), LEFT)).unwrap();
        let Fate::Dropped { reason, .. } = said.fate else { panic!("{said:#?}") };
        reason.name()
    });
    assert_eq!(reasons, ["flow_table_full", "mtu_exceeded"]);
}

#[test]
fn ipv6_is_foretold() {
    let (store, _dir) = sets();
    let text = "*filter\n:FORWARD DROP\n-A FORWARD -p tcp --dport 22 -j REJECT --reject-with icmp6-adm-prohibited\n\
        -A FORWARD -p ipv6-icmp --icmpv6-type echo-request -j ACCEPT\nCOMMIT\n";
    let rules = rules(text, Family::V6, &store);
    let mut gateway = Gateway::new(&[(*rules.ruleset).clone()], config(2, true)).unwrap();
    let (a, b): (IpAddr, IpAddr) = (
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2).into(),
    );
    let solicitation = dataplane::testing::packets::icmp(a, b, 135, 0).build();
    for frame in
        [tcp(a, b).ports(1, 22).syn().build(), ping(a, b, 5).build(), ping(a, b, 5).build(), solicitation]
    {
        let said = gateway.look(|live| explain(live, &frame, PortId(1))).unwrap();
        let outcome = gateway.send(RIGHT, &frame);
        assert_came_true(&said, &frame, &outcome, &mut gateway);
    }
}

/// What it costs among very many rules and flows: printed, not judged.
#[test]
#[ignore = "a measurement"]
fn cost() {
    let mut text = "*filter\n:FORWARD DROP\n".to_owned();
    for number in 0..100_000_u32 {
        let [_, _, b, c] = number.to_be_bytes();
        let a = number >> 16;
        text += &format!(
            "-A FORWARD -s 10.{a}.{b}.{c} -p tcp -m tcp --dport {} -j ACCEPT\n",
            number % 60_000 + 1
        );
    }
    text += "-A FORWARD -p udp -j ACCEPT\nCOMMIT\n";
    let (store, _dir) = sets();
    let rules = rules(&text, Family::V4, &store);
    let flows = 1_000_000_u32;
    let mut config = GatewayConfig { max_flows: flows + 1000, ..config(1, false) };
    config.settings.track.half_open_percent = 100;
    let mut gateway = Gateway::new(&[(*rules.ruleset).clone()], config).unwrap();
    for number in 0..flows {
        let src = Ipv4Addr::from_bits(0x0a00_0000 + number / 50_000);
        let port = u16::try_from(number % 50_000 + 1).unwrap();
        gateway.send(LEFT, &udp(src, Ipv4Addr::new(192, 0, 2, 1)).ports(port, 53).build());
    }
    let frame = tcp(Ipv4Addr::new(10, 9, 9, 9), Ipv4Addr::new(192, 0, 2, 1)).ports(1, 443).syn().build();
    let known = udp(Ipv4Addr::new(10, 0, 0, 3), Ipv4Addr::new(192, 0, 2, 1)).ports(7, 53).build();
    for (what, frame) in [("no rule matches", &frame), ("a known flow", &known)] {
        let from = std::time::Instant::now();
        let said = gateway.look(|live| explain(live, frame, LEFT)).unwrap();
        println!(
            "{what}: {:?}, {} rules asked, {} flows, {:?}",
            from.elapsed(),
            said.story.tried,
            gateway.workers[0].tracker_mut().flow_count(),
            said.fate
        );
    }
}

fn offline(text: &str) -> Offline {
    let (store, _dir) = sets();
    let rules = rules(text, Family::V4, &store);
    let names = NAMES.map(str::to_owned).to_vec();
    Offline::new(&[rules], dataplane::worker::Settings::default(), names, u32::MAX, false).unwrap()
}

#[test]
fn the_cause_is_told_in_the_words_of_the_rules() {
    use control::api::types::{ExplainRequest, PacketSpec};
    let text = "*filter\n:FORWARD DROP [0:0]\n:WEB - [0:0]\n\
        -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
        -A FORWARD -s 10.0.0.0/8 -p tcp -j WEB\n-A FORWARD -p udp -m udp --dport 53 -j ACCEPT\n\
        -A WEB -p tcp -m tcp --dport 443 -j ACCEPT\n-A WEB -p tcp -m tcp --dport 80 -j LOG --log-prefix \"web \"\nCOMMIT\n";
    let offline = offline(text);
    let ask = |dport, src: [u8; 4], ingress: &str| {
        offline.answer(&ExplainRequest {
            ingress: ingress.to_owned(),
            packet: Some(PacketSpec {
                proto: "tcp".to_owned(),
                src: Some(src.into()),
                dst: Some([192, 0, 2, 80].into()),
                dport: Some(dport),
                ..PacketSpec::default()
            }),
            ..ExplainRequest::default()
        })
    };
    let told = ask(80, [10, 0, 0, 7], "left").unwrap();
    let mut out = Vec::new();
    control::cli::write_explanation(&told, &mut out).unwrap();
    let shown = String::from_utf8(out).unwrap();
    for wanted in [
        "IPv4 tcp 10.0.0.7:40000 > 192.0.2.80:80 SYN ttl 64 length 40",
        "in on left, out on right if it passes",
        "NEW: it belongs to no flow; one would begin with it if it passed",
        "-m conntrack --ctstate RELATED,ESTABLISHED: it is NEW",
        "-A FORWARD -s 10.0.0.0/8 -p tcp -j WEB",
        "--dport 443: its destination port is 80",
        "would be logged: web IN=left OUT=right MAC=",
        "back to the calling chain",
        "DROP, policy_drop: No rule matched and the chain policy is DROP.",
        "by filter FORWARD policy, test.rules:2",
    ] {
        assert!(shown.contains(wanted), "no `{wanted}` in\n{shown}");
    }
    let told = ask(443, [10, 0, 0, 7], "right").unwrap();
    let by = told.verdict.rule.unwrap();
    assert_eq!((by.chain.as_str(), by.number, by.place.as_deref()), ("WEB", Some(1), Some("test.rules:7")));
    let told = ask(443, [11, 0, 0, 7], "left").unwrap();
    assert!(told.steps.iter().any(|step| {
        step.failed.as_deref() == Some("-s 10.0.0.0/8: it comes from 11.0.0.7") && step.rule.number == Some(2)
    }));
    let error = ask(443, [10, 0, 0, 7], "lefd").unwrap_err().to_string();
    assert!(error.contains("no NIC `lefd`; did you mean `left`?"), "{error}");
}

/// Rules, counters and flows of a daemon, to see that nothing changes. Not of IPv6: hosts send some by themselves.
fn all_of(daemon: &Daemon) -> String {
    // All words but the seconds left.
    let timeless = |line: &str| {
        let words = line.split_whitespace().enumerate().filter(|(at, _)| *at != 2);
        words.map(|(_, word)| word).collect::<Vec<_>>().join(" ")
    };
    let flows: Vec<String> = daemon.fwctl(&["flows"]).lines().map(timeless).collect();
    format!("{:#}{flows:?}", daemon.fwctl_json(&["rules", "-4"]))
}

#[test]
fn a_running_daemon_explains_what_its_packets_meet_and_does_not_change() {
    require_root!();
    let lab = Lab::new();
    let rules = "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
        -A FORWARD -p udp -m udp --dport 7000 -m limit --limit 1/hour --limit-burst 1 -j ACCEPT\n\
        -A FORWARD -p tcp -m tcp --dport 23 -j REJECT --reject-with tcp-reset\nCOMMIT\n";
    let daemon = Daemon::start(&lab, rules);
    let (left, right) = (lab.left.v4, lab.right.v4);
    let ingress = palisade_tests::lab::GATEWAY_LEFT;
    let (from, to) = (format!("{left}:5000"), format!("{right}:7000"));
    let ask = |proto: &str, from: &str, to: &str, more: &[&str]| {
        daemon.fwctl_json(&[&["explain", "--in", ingress, proto, from, to], more].concat())
    };
    let before = all_of(&daemon);
    for _ in 0..3 {
        let told = ask("udp", &from, &to, &[]);
        assert_eq!(
            (told["verdict"]["verdict"].as_str(), told["ct"]["state"].as_str()),
            (Some("accept"), Some("NEW"))
        );
        assert_eq!(told["verdict"]["rule"]["number"], 2);
        let telnet = ask("tcp", &from, &format!("{right}:23"), &[]);
        assert_eq!(telnet["verdict"]["reason"]["name"], "rule_reject");
        assert!(
            telnet["verdict"]["answer"].as_str().is_some_and(|answer| answer.contains("RST,ACK")),
            "{telnet:#}"
        );
    }
    assert_eq!(all_of(&daemon), before);
    // The one packet that the limit had left passes, and the flow's are known from then on.
    assert_eq!(traffic::udp_echo(&lab.left, &lab.right, false, 7000, 1, 10), 1);
    daemon.stats_until("flow", |stats| stats.flows() == 1);
    let told = ask("udp", &from, &to, &[]);
    assert_eq!(told["verdict"]["reason"]["name"], "policy_drop", "{told:#}");
    let failed = told["steps"].as_array().unwrap().iter().find(|step| step["number"] == 2).unwrap();
    assert_eq!(failed["failed"], "-m limit --limit 1/hour --limit-burst 1: the limit is used up for now");
    let flows = daemon.fwctl(&["flows", "-p", "udp"]);
    let word = |name: &str| flows.split(' ').find_map(|word| word.strip_prefix(name)).unwrap().to_owned();
    let sport = word("sport=");
    let told = ask("udp", &format!("{left}:{sport}"), &to, &[]);
    assert_eq!(
        (told["ct"]["state"].as_str(), told["flow"]["relation"].as_str()),
        (Some("ESTABLISHED"), Some("original"))
    );
    assert_eq!(told["verdict"]["rule"]["number"], 1);
    let text = daemon.fwctl(&["explain", "--in", ingress, "udp", &format!("{left}:{sport}"), &to]);
    assert!(text.contains(flows.split_once("src=").unwrap().1.trim_end()), "{text}\n{flows}");

    // A frame, and what is wrong with requests.
    let frame = udp(left, right).ports(9, 9).build();
    let digits: String = frame.iter().map(|byte| format!("{byte:02x} ")).collect();
    let told = daemon.fwctl_json(&["explain", "--in", ingress, "--hex", &digits]);
    assert_eq!(told["verdict"]["reason"]["name"], "policy_drop");
    for (args, says) in [
        (vec!["--in", "nowhere", "udp", &from, &to], "the gateway has no NIC `nowhere`"),
        (vec!["udp", &from, &to], "Name it with --in"),
        (vec!["--in", ingress, "udp", &from], "is not a whole packet"),
        (vec!["--in", ingress, "--hex", "zz"], "line 1: `z` in `zz` is no hexadecimal digit"),
        (vec!["--in", ingress, "--pcap", "/nonexistent.pcap"], "/nonexistent.pcap"),
    ] {
        let exit = daemon.try_fwctl(&[&["explain"], args.as_slice()].concat());
        assert_ne!(exit.code, Some(0));
        assert!(exit.stderr.contains(says), "{}", exit.stderr);
    }
}
