//! The gateway on loopback devices with a clock turned by hand: real workers, tracker and rules, no kernel, no root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use control::rules_file::understand;
use dataplane::clock::Now;
use dataplane::ids::PortId;
use dataplane::packet::{Family, proto};
use dataplane::reason::DropReason;
use dataplane::rss::{Fields, FlowType};
use dataplane::rules::conn::{Marks, NoFlows};
use dataplane::rules::linear;
use dataplane::rules::model::{CtState, Ruleset};
use dataplane::testing::gateway::{Gateway, GatewayConfig, LEFT, Outcome, RIGHT};
use dataplane::testing::packets::{arp, ethernet, icmp_error, ping, pong, tcp, udp};
use dataplane::wire;
use dataplane::worker::{HandoffCause, L2Policy, Spread};
use std::net::{Ipv4Addr, Ipv6Addr};

const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);
const WEB: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
const STRANGER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);
const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);
const WEB6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x80);

const STATEFUL: &str = "\
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD -i left -p tcp -m tcp --dport 80 --syn -j ACCEPT
-A FORWARD -i left -p udp -m udp --dport 53 -j ACCEPT
-A FORWARD -p icmp -m icmp --icmp-type 8 -j ACCEPT
-A FORWARD -p tcp -m tcp --dport 113 -j REJECT --reject-with tcp-reset
-A FORWARD -p udp -m udp --dport 9 -j REJECT --reject-with icmp-admin-prohibited
";

fn rules(body: &str, family: Family) -> Ruleset {
    let text = format!("*filter\n:FORWARD DROP [0:0]\n{body}COMMIT\n");
    let loaded = understand(text.as_bytes(), "test", family, &[]);
    loaded.ruleset.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics))
}

fn gateway_with(body: &str, config: GatewayConfig) -> Gateway {
    Gateway::new(&[rules(body, Family::V4)], config).unwrap()
}

fn gateway(body: &str) -> Gateway {
    gateway_with(body, GatewayConfig::default())
}

/// The packet left on the other side as it came in, in this connection state.
#[track_caller]
fn assert_passes(outcome: &Outcome, packet: &[u8], state: CtState) {
    let fate = outcome.fate.expect("a verdict");
    assert_eq!((fate.dropped, fate.ct_state), (None, Some(state)));
    assert_eq!(outcome.forwarded, [packet.to_vec()]);
    assert!(outcome.answers.is_empty());
}

/// The packet ended here, for this reason.
#[track_caller]
fn assert_dropped(outcome: &Outcome, reason: DropReason) {
    assert_eq!(outcome.fate.expect("a verdict").dropped, Some(reason));
    assert!(outcome.forwarded.is_empty());
}

/// Packets each rule of FORWARD has matched, and last its policy.
fn counts(gateway: &Gateway) -> Vec<u64> {
    let snapshot = gateway.mailbox.newest();
    let rules = &snapshot.v4;
    let ruleset = rules.compiled.ruleset();
    let mut sums = vec![0; ruleset.chain(ruleset.forward).rules.len() + 1];
    for counters in &rules.counters {
        for (line, (packets, _)) in rules.compiled.lines().zip(counters.totals()) {
            if let Some(line) = line.filter(|line| line.by.chain == ruleset.forward) {
                let at = line.by.rule.map_or(sums.len() - 1, |rule| rule as usize);
                sums[at] += packets;
            }
        }
    }
    sums
}

/// Every packet received was forwarded or dropped for one reason, and no frame is missing.
#[track_caller]
fn assert_books_balance(gateway: &mut Gateway) {
    for side in [LEFT, RIGHT] {
        let sum = |count: fn(&dataplane::worker::PortCounters) -> u64| -> u64 {
            gateway.counters.iter().map(|worker| count(worker.port(side))).sum()
        };
        let (rx, forwarded) = (sum(|port| port.rx.packets.get()), sum(|port| port.forwarded.packets.get()));
        assert_eq!(rx, forwarded + sum(dataplane::worker::PortCounters::dropped_packets), "{side:?}");
    }
    assert_eq!(gateway.frames_accounted(), gateway.frames_total());
}

#[test]
fn a_tcp_connection_opens_talks_and_closes() {
    let mut gateway = gateway(STATEFUL);
    let c = |seq, ack| tcp(HOST, WEB).ports(40000, 80).numbers(seq, ack);
    let s = |seq, ack| tcp(WEB, HOST).ports(80, 40000).numbers(seq, ack);
    let talk = [
        (LEFT, c(100, 0).syn().build(), CtState::New),
        (RIGHT, s(500, 101).syn_ack().build(), CtState::Established),
        (LEFT, c(101, 501).ack().build(), CtState::Established),
        (LEFT, c(101, 501).ack().payload(b"GET /").build(), CtState::Established),
        (RIGHT, s(501, 106).ack().payload(&[7; 1000]).build(), CtState::Established),
        (LEFT, c(106, 1501).fin().build(), CtState::Established),
        (RIGHT, s(1501, 107).fin().build(), CtState::Established),
        (LEFT, c(107, 1502).ack().build(), CtState::Established),
    ];
    for (side, packet, state) in &talk {
        assert_passes(&gateway.send(*side, packet), packet, *state);
    }
    assert_eq!(counts(&gateway), [7, 0, 1, 0, 0, 0, 0, 0]);
    assert_books_balance(&mut gateway);
}

#[test]
fn an_answer_from_another_address_is_not_established() {
    let mut gateway = gateway(STATEFUL);
    gateway.send(LEFT, &tcp(HOST, WEB).ports(40000, 80).syn().build());
    let forged = tcp(STRANGER, HOST).ports(80, 40000).syn_ack().build();
    assert_dropped(&gateway.send(RIGHT, &forged), DropReason::RuleDrop);
}

#[test]
fn echo_requests_belong_to_their_flow_once_it_was_answered() {
    let mut gateway = gateway(STATEFUL);
    let (request, reply) = (ping(HOST, WEB, 7).build(), pong(WEB, HOST, 7).build());
    assert_passes(&gateway.send(LEFT, &request), &request, CtState::New);
    assert_passes(&gateway.send(LEFT, &request), &request, CtState::New);
    for _ in 0..3 {
        assert_passes(&gateway.send(RIGHT, &reply), &reply, CtState::Established);
        assert_passes(&gateway.send(LEFT, &request), &request, CtState::Established);
    }
    assert_eq!(counts(&gateway), [6, 0, 0, 0, 2, 0, 0, 0]);
}

#[test]
fn an_icmp_error_is_related_if_it_is_about_a_flow() {
    let mut gateway = gateway(STATEFUL);
    let query = udp(HOST, WEB).ports(5000, 53).payload(b"who?").build();
    gateway.send(LEFT, &query);
    let error = icmp_error(STRANGER, HOST, 3, 1, &query, 28).build();
    assert_passes(&gateway.send(RIGHT, &error), &error, CtState::Related);
    let never_sent = udp(HOST, WEB).ports(5001, 53).build();
    let forged = icmp_error(STRANGER, HOST, 3, 1, &never_sent, 28).build();
    assert_dropped(&gateway.send(RIGHT, &forged), DropReason::RuleDrop);
}

#[test]
fn rejects_are_answered_where_they_came_from() {
    let mut gateway = gateway(STATEFUL);
    let outcome = gateway.send(LEFT, &tcp(HOST, WEB).ports(40000, 113).syn().build());
    assert_dropped(&outcome, DropReason::RuleReject);
    let [reset] = outcome.answers.as_slice() else { panic!("one answer, not {:?}", outcome.answers) };
    let reset = wire::parse(reset, u32::try_from(reset.len()).unwrap()).unwrap();
    assert_eq!((reset.tcp_flags, reset.tuple.src_port, reset.tuple.dst_port), (0x14, 113, 40000));
    let outcome = gateway.send(RIGHT, &udp(WEB, HOST).ports(1, 9).payload(b"discard").build());
    assert_dropped(&outcome, DropReason::RuleReject);
    let error = wire::parse(&outcome.answers[0], u32::try_from(outcome.answers[0].len()).unwrap()).unwrap();
    assert_eq!((error.icmp_type, error.icmp_code), (3, 13));
    assert_books_balance(&mut gateway);
}

#[test]
fn icmp_errors_are_limited_and_resets_are_not() {
    let mut gateway = gateway(STATEFUL);
    let silent = |outcome: &Outcome| outcome.fate.unwrap().dropped == Some(DropReason::RuleRejectSilent);
    let offender = udp(HOST, WEB).ports(1, 9).build();
    let unanswered = (0..60).filter(|_| silent(&gateway.send(LEFT, &offender))).count();
    assert_eq!(unanswered, 10, "icmp_msgs_burst is 50");
    let offender = tcp(HOST, WEB).ports(40000, 113).syn().build();
    assert_eq!((0..60).filter(|_| silent(&gateway.send(LEFT, &offender))).count(), 0);
    assert_books_balance(&mut gateway);
}

#[test]
fn flows_expire_by_the_clock_and_not_before() {
    let mut gateway = gateway(STATEFUL);
    let query = udp(HOST, WEB).ports(5000, 53).build();
    let answer = udp(WEB, HOST).ports(53, 5000).build();
    gateway.send(LEFT, &query);
    gateway.advance_millis(29_900);
    assert_passes(&gateway.send(RIGHT, &answer), &answer, CtState::Established);
    gateway.advance_millis(30_100);
    assert_dropped(&gateway.send(RIGHT, &answer), DropReason::PolicyDrop);
    let syn = tcp(HOST, WEB).ports(40000, 80).syn().build();
    let syn_ack = tcp(WEB, HOST).ports(80, 40000).numbers(1, 1001).syn_ack().build();
    gateway.send(LEFT, &syn);
    gateway.advance_millis(121_000);
    assert_dropped(&gateway.send(RIGHT, &syn_ack), DropReason::RuleDrop);
    assert_eq!(gateway.workers[0].tracker_mut().flow_count(), 0);
}

#[test]
fn a_reload_keeps_flows_and_the_next_packet_meets_the_new_rules() {
    let mut gateway = gateway(STATEFUL);
    let query = udp(HOST, WEB).ports(5000, 53).build();
    let answer = udp(WEB, HOST).ports(53, 5000).build();
    gateway.send(LEFT, &query);
    gateway.send(RIGHT, &answer);
    gateway.send(LEFT, &query);
    let no_dns = STATEFUL.replace("--dport 53 -j ACCEPT", "--dport 53 -j DROP");
    gateway.reload(&[rules(&no_dns, Family::V4)]).unwrap();
    assert_passes(&gateway.send(LEFT, &query), &query, CtState::Established);
    gateway.reload(&[rules("-A FORWARD -p udp -j DROP\n", Family::V4)]).unwrap();
    assert_dropped(&gateway.send(LEFT, &query), DropReason::RuleDrop);
    gateway.reload(&[rules(STATEFUL, Family::V4)]).unwrap();
    assert_passes(&gateway.send(RIGHT, &answer), &answer, CtState::Established);
}

#[test]
fn flows_that_are_kept_go_on_under_the_rules_they_had() {
    let mut gateway = gateway(STATEFUL);
    let c = |seq, ack| tcp(HOST, WEB).ports(40000, 80).numbers(seq, ack);
    let s = |seq, ack| tcp(WEB, HOST).ports(80, 40000).numbers(seq, ack);
    let query = udp(HOST, WEB).ports(5000, 53).build();
    let answer = udp(WEB, HOST).ports(53, 5000).build();
    gateway.send(LEFT, &c(100, 0).syn().build());
    gateway.send(LEFT, &query);
    let nothing = rules("-A FORWARD -p udp -j REJECT\n", Family::V4);
    gateway.reload_keeping(std::slice::from_ref(&nothing)).unwrap();
    // A handshake and a question that wait for their answers count as let pass.
    for (side, packet) in [
        (RIGHT, s(500, 101).syn_ack().build()),
        (LEFT, c(101, 501).ack().build()),
        (LEFT, c(101, 501).ack().payload(b"GET /").build()),
        (RIGHT, s(501, 106).ack().payload(&[7; 1000]).build()),
        (RIGHT, answer.clone()),
        (LEFT, query.clone()),
    ] {
        assert_passes(&gateway.send(side, &packet), &packet, CtState::Established);
    }
    // Errors about them are no packets of theirs, nor is a second question.
    let error = icmp_error(STRANGER, HOST, 3, 3, &query, 28).build();
    assert_dropped(&gateway.send(RIGHT, &error), DropReason::PolicyDrop);
    let other = udp(HOST, WEB).ports(5001, 53).build();
    assert_dropped(&gateway.send(LEFT, &other), DropReason::RuleReject);
    assert_eq!(counts(&gateway), [1, 1], "no rule counts what is kept");
    assert_eq!(gateway.mailbox.newest().v4.counters[0].kept().0, 6);
    // More rules that keep what there is.
    gateway.reload_keeping(&[rules("", Family::V4)]).unwrap();
    assert_passes(&gateway.send(LEFT, &query), &query, CtState::Established);
    // Rules that do not end it for good.
    gateway.reload(std::slice::from_ref(&nothing)).unwrap();
    assert_dropped(&gateway.send(LEFT, &query), DropReason::RuleReject);
    gateway.reload_keeping(&[nothing]).unwrap();
    assert_dropped(&gateway.send(LEFT, &query), DropReason::RuleReject);
    let packet = s(1501, 106).ack().payload(&[7; 1000]).build();
    assert_dropped(&gateway.send(RIGHT, &packet), DropReason::PolicyDrop);
    assert_books_balance(&mut gateway);
}

#[test]
fn flows_are_kept_under_rules_that_do_not_track_and_not_past_raw_ones() {
    let quiet = GatewayConfig { track_always: false, ..GatewayConfig::default() };
    let mut gateway = gateway_with(STATEFUL, quiet);
    let query = udp(HOST, WEB).ports(5000, 53).build();
    gateway.send(LEFT, &query);
    gateway.reload_keeping(&[rules("", Family::V4)]).unwrap();
    assert_passes(&gateway.send(LEFT, &query), &query, CtState::New);
    // Raw rules come before tracking: what they drop, or take out of its flow, is not kept.
    for (target, reason) in [("DROP", DropReason::RuleDrop), ("NOTRACK", DropReason::PolicyDrop)] {
        let raw =
            format!("*raw\n-A PREROUTING -p udp -j {target}\nCOMMIT\n*filter\n:FORWARD DROP [0:0]\nCOMMIT\n");
        let raw = understand(raw.as_bytes(), "test", Family::V4, &[]).ruleset.unwrap();
        gateway.reload_keeping(&[raw]).unwrap();
        assert_dropped(&gateway.send(LEFT, &query), reason);
    }
    gateway.reload_keeping(&[rules("", Family::V4)]).unwrap();
    assert_passes(&gateway.send(LEFT, &query), &query, CtState::New);
    assert_books_balance(&mut gateway);
}

/// Whatever conversations are like: under rules that let nothing pass, what passes is counted as kept and is of a flow that
/// was let pass before.
#[test]
fn nothing_passes_but_what_is_kept() {
    let ends = |packet: &[u8]| {
        let tuple = wire::parse(packet, u32::try_from(packet.len()).unwrap()).unwrap().tuple;
        let (a, b) = ((tuple.src, tuple.src_port), (tuple.dst, tuple.dst_port));
        // The last port of ICMP is its type, which answers do not share.
        let ports = tuple.proto != 1;
        let end = |(address, port)| (address, if ports { port } else { 0 });
        (tuple.proto, end(a).min(end(b)), end(a).max(end(b)))
    };
    // The last of them with flows that go from worker to worker all the time.
    let mut kept_by = Vec::new();
    for (workers, is_restless) in [(1, false), (4, false), (4, true)] {
        let config = GatewayConfig { workers, is_restless, ..GatewayConfig::default() };
        let mut gateway = gateway_with(STATEFUL, config);
        let (mut known, mut kept) = (std::collections::HashSet::new(), 0);
        for (at, (side, packet)) in traffic(5, 6000).iter().enumerate() {
            if at == 2000 {
                gateway.reload_keeping(&[rules("-A FORWARD -p udp -j DROP\n", Family::V4)]).unwrap();
            }
            let passes = !gateway.send(*side, packet).forwarded.is_empty();
            if at < 2000 && passes {
                known.insert(ends(packet));
            } else if passes {
                assert!(known.contains(&ends(packet)), "packet {at}");
                kept += 1;
            }
        }
        let rules = &gateway.mailbox.newest().v4;
        assert_eq!(rules.counters.iter().map(|counters| counters.kept().0).sum::<u64>(), kept);
        assert_books_balance(&mut gateway);
        kept_by.push(kept);
    }
    assert!(kept_by[0] > 300 && kept_by.iter().all(|kept| *kept == kept_by[0]), "{kept_by:?}");
}

#[test]
fn a_full_table_refuses_only_what_needs_a_flow() {
    let config = GatewayConfig { max_flows: 64, ..GatewayConfig::default() };
    let body = format!("{STATEFUL}-A FORWARD -p udp -m udp --dport 7 -j ACCEPT\n");
    let mut gateway = gateway_with(&body, config);
    let open = |port| {
        let c = tcp(HOST, WEB).ports(port, 80);
        let s = tcp(WEB, HOST).ports(80, port);
        [
            (LEFT, c.clone().numbers(1, 0).syn().build()),
            (RIGHT, s.numbers(9, 2).syn_ack().build()),
            (LEFT, c.numbers(2, 10).ack().build()),
        ]
    };
    let mut refused = 0;
    for port in 1000..1200 {
        for (side, packet) in open(port) {
            let fate = gateway.send(side, &packet).fate.unwrap();
            refused += u32::from(fate.dropped == Some(DropReason::FlowTableFull));
        }
    }
    assert!(refused >= 100, "{refused} refused");
    let data = tcp(HOST, WEB).ports(1000, 80).numbers(2, 10).ack().payload(b"still here").build();
    assert_passes(&gateway.send(LEFT, &data), &data, CtState::Established);
    assert_books_balance(&mut gateway);
}

#[test]
fn frames_that_are_not_ip_pass_by_the_list() {
    let lldp = ethernet([0x02, 0, 0, 0, 0, 2], [0x02, 0, 0, 0, 0, 1], 0x88cc, &[0; 46]);
    let mut open = gateway("");
    assert_eq!(open.send(LEFT, &arp()).forwarded, [arp()]);
    assert_eq!(open.send(RIGHT, &lldp).forwarded, std::slice::from_ref(&lldp));
    let mut config = GatewayConfig::default();
    config.settings.l2 = L2Policy::Only([0x0806].into());
    let mut listed = gateway_with("", config);
    assert_eq!(listed.send(LEFT, &arp()).forwarded, [arp()]);
    assert_dropped(&listed.send(RIGHT, &lldp), DropReason::L2NotListed);
}

#[test]
fn tags_and_jumbo_frames_pass_as_they_came() {
    let mut gateway = gateway(STATEFUL);
    let tagged = udp(HOST, WEB).ports(5000, 53).tag(0x88a8, 7).vlan(42).build();
    assert_passes(&gateway.send(LEFT, &tagged), &tagged, CtState::New);
    let payload: Vec<u8> = (0..8900_u32).map(|n| n.to_le_bytes()[0]).collect();
    let jumbo = udp(HOST, WEB).ports(5001, 53).payload(&payload).build();
    assert_passes(&gateway.send(LEFT, &jumbo), &jumbo, CtState::New);
    assert_books_balance(&mut gateway);
}

#[test]
fn an_mtu_that_is_too_small_and_a_link_that_is_down_have_their_reasons() {
    let mut small = gateway_with(STATEFUL, GatewayConfig { frame_len_max: 1518, ..GatewayConfig::default() });
    let big = udp(HOST, WEB).ports(5000, 53).payload(&[0; 1600]).build();
    assert_dropped(&small.send(LEFT, &big), DropReason::MtuExceeded);
    let mut cut = gateway(STATEFUL);
    cut.workers[0].lanes_mut()[RIGHT.index()].device.set_link_down(true);
    assert_dropped(&cut.send(LEFT, &udp(HOST, WEB).ports(5000, 53).build()), DropReason::LinkDown);
    assert_books_balance(&mut cut);
}

#[test]
fn ipv6_has_rules_of_its_own() {
    let v6 = rules(
        "-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT\n\
         -A FORWARD -p ipv6-icmp -m icmp6 --icmpv6-type 128 -j ACCEPT\n\
         -A FORWARD -p tcp -j REJECT --reject-with icmp6-adm-prohibited\n",
        Family::V6,
    );
    let mut gateway = Gateway::new(&[rules("", Family::V4), v6], GatewayConfig::default()).unwrap();
    let (request, reply) = (ping(HOST6, WEB6, 1).build(), pong(WEB6, HOST6, 1).build());
    assert_passes(&gateway.send(LEFT, &request), &request, CtState::New);
    assert_passes(&gateway.send(RIGHT, &reply), &reply, CtState::Established);
    let outcome = gateway.send(LEFT, &tcp(HOST6, WEB6).ports(1, 80).syn().build());
    let error = wire::parse(&outcome.answers[0], u32::try_from(outcome.answers[0].len()).unwrap()).unwrap();
    assert_eq!((error.icmp_type, error.icmp_code), (1, 1));
    assert_dropped(&gateway.send(LEFT, &ping(HOST, WEB, 1).build()), DropReason::PolicyDrop);
}

/// UDP by addresses alone, as many NICs have it until they are told otherwise.
const BARE_UDP: Fields = Fields::ALL.without(FlowType { proto: proto::UDP, family: Family::V4 });

/// xorshift64*: the same traffic every time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }
}

/// Conversations of a few hosts with mutated numbers, losses, repeats and swaps.
fn traffic(seed: u64, packets: usize) -> Vec<(PortId, Vec<u8>)> {
    let mut random = Random(seed);
    let mut all: Vec<(PortId, Vec<u8>)> = Vec::new();
    while all.len() < packets {
        let host = Ipv4Addr::new(10, 0, 0, u8::try_from(random.below(6)).unwrap());
        let port = 1000 + u16::try_from(random.below(8)).unwrap();
        let to_web = random.below(2) == 0;
        let service = [80, 53, 113, 9][usize::try_from(random.below(4)).unwrap()];
        let (src, dst) = if to_web { (host, WEB) } else { (WEB, host) };
        let ports = if to_web { (port, service) } else { (service, port) };
        let flags =
            [0x02, 0x12, 0x10, 0x18, 0x11, 0x14, 0x04, 0x00][usize::try_from(random.below(8)).unwrap()];
        let numbers =
            (u32::try_from(random.below(5000)).unwrap(), u32::try_from(random.below(5000)).unwrap());
        let query = udp(host, WEB).ports(port, 53).build();
        let packet = match random.below(6) {
            0 | 1 => tcp(src, dst).ports(ports.0, ports.1).flags(flags).numbers(numbers.0, numbers.1).build(),
            2 => udp(src, dst).ports(ports.0, ports.1).payload(&[1; 20]).build(),
            3 if to_web => ping(host, WEB, port).build(),
            3 => pong(WEB, host, port).build(),
            4 => icmp_error(STRANGER, host, 3, 3, &query, 28).build(),
            _ => udp(src, dst).ports(ports.0, ports.1).bad_checksum().build(),
        };
        let side = if to_web { LEFT } else { RIGHT };
        for _ in 0..[0, 1, 1, 1, 1, 2][usize::try_from(random.below(6)).unwrap()] {
            all.push((side, packet.clone()));
        }
        if random.below(8) == 0 && all.len() >= 2 {
            let last = all.len() - 1;
            all.swap(last, last - 1);
        }
    }
    all
}

#[test]
fn any_number_of_workers_gives_the_same_verdicts_flows_and_counters() {
    for seed in [1, 2, 3] {
        let traffic = traffic(seed, 4000);
        let mut one = gateway(STATEFUL);
        let expected: Vec<_> = traffic.iter().map(|(side, packet)| one.send(*side, packet)).collect();
        let spreads = [Spread::Rss(Fields::ALL), Spread::Rss(BARE_UDP), Spread::Secret];
        let spreads = spreads.into_iter().cycle().skip(usize::try_from(seed).unwrap());
        // With a queue each, and with fewer queues than workers.
        let sizes = [(2, None), (4, None), (8, None), (2, Some(1)), (4, Some(2)), (8, Some(3))];
        for ((workers, queues), spread) in sizes.into_iter().zip(spreads) {
            // Where NICs hash all ports, flows go from worker to worker besides.
            let is_restless = spread == Spread::Rss(Fields::ALL);
            let config = GatewayConfig { workers, queues, spread, is_restless, ..GatewayConfig::default() };
            let mut many = gateway_with(STATEFUL, config);
            let mut random = Random(seed ^ 0xabcd);
            for ((side, packet), expected) in traffic.iter().zip(&expected) {
                let via = usize::try_from(random.below(workers as u64)).unwrap();
                let outcome = many.send_via(via, *side, packet);
                // Answers are limited per worker, so more workers may answer more.
                let silent = |outcome: &Outcome| {
                    let fate = outcome.fate.unwrap();
                    let reason = match fate.dropped {
                        Some(DropReason::RuleRejectSilent) => Some(DropReason::RuleReject),
                        other => other,
                    };
                    (reason, fate.ct_state, fate.rule, fate.ingress)
                };
                assert_eq!(silent(&outcome), silent(expected));
                assert_eq!(outcome.forwarded, expected.forwarded);
            }
            assert_eq!(counts(&many), counts(&one));
            let flows = |gateway: &mut Gateway| -> u32 {
                gateway.workers.iter_mut().map(|worker| worker.tracker_mut().flow_count()).sum()
            };
            assert_eq!(flows(&mut many), flows(&mut one));
            assert_books_balance(&mut many);
        }
        assert_books_balance(&mut one);
    }
}

#[test]
fn where_rss_agrees_nothing_is_handed_over() {
    for (fields, workers) in [(Fields::ALL, 8), (BARE_UDP, 4)] {
        let spread = Spread::Rss(fields);
        let mut gateway =
            gateway_with(STATEFUL, GatewayConfig { workers, spread, ..GatewayConfig::default() });
        let mut errors = 0;
        for (side, bytes) in traffic(7, 2000) {
            let packet = wire::parse(&bytes, u32::try_from(bytes.len()).unwrap()).unwrap();
            // An error hashes by its own addresses, and its flow by others.
            errors += u64::from(packet.icmp_type == 3);
            gateway.send_steered(side, &bytes);
        }
        let causes = HandoffCause::ALL.iter().map(|cause| *cause as usize);
        let out = |cause: usize| gateway.counters.iter().map(move |worker| worker.handoff.out[cause].get());
        let handed: u64 = causes.flat_map(out).sum();
        assert!((1..=errors).contains(&handed), "{handed} handed over, {errors} ICMP errors");
        assert_books_balance(&mut gateway);
    }
}

#[test]
fn verdicts_remembered_with_flows_are_those_the_rules_mean() {
    let ruleset = rules(STATEFUL, Family::V4);
    let names = ["left".to_owned(), "right".to_owned()];
    let mut gateway = gateway(STATEFUL);
    let mut matched = Vec::new();
    let mut expected = vec![0_u64; 8];
    for (side, bytes) in traffic(9, 6000) {
        let fate = gateway.send(side, &bytes).fate.unwrap();
        let packet = wire::parse(&bytes, u32::try_from(bytes.len()).unwrap()).unwrap();
        let ct_state = fate.ct_state.unwrap();
        let facts = dataplane::rules::Facts {
            packet: &packet,
            bytes: &bytes,
            now: Now::default(),
            rates: dataplane::rules::rate::Rates::Probe(0),
            ct_state,
            conn: None,
            flows: &NoFlows,
            is_raw: false,
            ingress: side,
            egress: side.peer(),
            mtu: 1500,
            notes: &dataplane::rules::log::NoNotes,
        };
        let meant = linear::evaluate(&ruleset, &names, &facts, &mut Marks::default(), &mut matched);
        assert_eq!(fate.rule, Some(meant.by));
        for by in &matched {
            expected[by.rule.map_or(7, |rule| rule as usize)] += 1;
        }
    }
    assert_eq!(counts(&gateway), expected);
    let polls = &gateway.counters[0].polls;
    assert!(polls.verdict_hits.get() > 500, "{} verdicts from the cache", polls.verdict_hits.get());
}
