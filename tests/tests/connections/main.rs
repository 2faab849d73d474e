//! What rules say and do about connections, on the simulated gateway: tables raw and mangle, marks, zones, helpers and
//! what they expect, and what happens when the flow table is full. With one worker and with four.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod room;

use control::rules_file::understand;
use dataplane::flow::TcpState;
use dataplane::ids::PortId;
use dataplane::packet::Family;
use dataplane::reason::DropReason;
use dataplane::rules::model::{CtState, Ruleset};
use dataplane::testing::gateway::{Gateway, GatewayConfig, LEFT, RIGHT};
use dataplane::testing::packets::{Builder, tcp, udp};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const THIRD: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 3);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
const SERVER6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);

fn rules(text: &str, family: Family) -> Ruleset {
    let loaded = understand(text.as_bytes(), "test", family, &[]);
    loaded.ruleset.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics))
}

fn gateway_with(text: &str, config: GatewayConfig) -> Gateway {
    Gateway::new(&[rules(text, Family::V4)], config).unwrap()
}

fn ftp_gateway(config: GatewayConfig) -> Gateway {
    Gateway::new(&[Family::V4, Family::V6].map(|family| rules(FTP, family)), config).unwrap()
}

/// What the gateway said of one packet: its state, or why it was dropped.
#[track_caller]
fn send(gateway: &mut Gateway, side: PortId, packet: &Builder) -> Result<CtState, DropReason> {
    let outcome = gateway.send(side, &packet.build());
    let fate = outcome.fate.expect("a verdict");
    assert_eq!(fate.dropped.is_none(), !outcome.forwarded.is_empty());
    fate.dropped.map_or_else(|| Ok(fate.ct_state.unwrap()), Err)
}

/// A TCP connection whose two ends take turns.
struct Talk {
    ends: [(IpAddr, u16); 2],
    next: [u32; 2],
}

impl Talk {
    /// Opens a connection; the client is on the left.
    fn open(
        gateway: &mut Gateway,
        client: impl Into<IpAddr>,
        server: impl Into<IpAddr>,
        ports: (u16, u16),
    ) -> Self {
        let mut talk =
            Self { ends: [(client.into(), ports.0), (server.into(), ports.1)], next: [1000, 5000] };
        assert_eq!(send(gateway, LEFT, &talk.packet(0).syn()), Ok(CtState::New));
        talk.next[0] += 1;
        assert_eq!(send(gateway, RIGHT, &talk.packet(1).syn_ack()), Ok(CtState::Established));
        talk.next[1] += 1;
        assert_eq!(send(gateway, LEFT, &talk.packet(0).ack()), Ok(CtState::Established));
        talk
    }

    fn packet(&self, from: usize) -> Builder {
        let ((src, sport), (dst, dport)) = (self.ends[from], self.ends[1 - from]);
        tcp(src, dst).ports(sport, dport).numbers(self.next[from], self.next[1 - from])
    }

    fn say(&mut self, gateway: &mut Gateway, from: usize, text: &str) -> Result<CtState, DropReason> {
        let packet = self.packet(from).ack().payload(text.as_bytes());
        self.next[from] += u32::try_from(text.len()).unwrap();
        send(gateway, if from == 0 { LEFT } else { RIGHT }, &packet)
    }
}

const FTP: &str = "\
*raw
-A PREROUTING -p tcp -m tcp --dport 21 -j CT --helper ftp
-A PREROUTING -p udp -m udp --dport 69 -j CT --helper tftp
COMMIT
*filter
:FORWARD DROP
-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT
-A FORWARD -m conntrack --ctstate RELATED -m helper --helper ftp -j ACCEPT
-A FORWARD -m conntrack --ctstate RELATED -m helper --helper tftp -j ACCEPT
-A FORWARD -i left -p tcp -m tcp --dport 21 -m conntrack --ctstate NEW -j ACCEPT
-A FORWARD -i left -p udp -m udp --dport 69 -m conntrack --ctstate NEW -j ACCEPT
COMMIT
";

fn for_each_size(test: impl Fn(GatewayConfig)) {
    // The last of them with flows that go from worker to worker all the time.
    for (workers, is_restless) in [(1, false), (4, false), (4, true)] {
        test(GatewayConfig { workers, is_restless, track_always: false, ..GatewayConfig::default() });
    }
}

/// A control connection past the first lines of both sides.
fn ftp(gateway: &mut Gateway, client: impl Into<IpAddr>, server: impl Into<IpAddr>) -> Talk {
    let mut talk = Talk::open(gateway, client, server, (40_000, 21));
    assert_eq!(talk.say(gateway, 1, "220 welcome\r\n"), Ok(CtState::Established));
    assert_eq!(talk.say(gateway, 0, "USER anonymous\r\n"), Ok(CtState::Established));
    talk
}

#[test]
fn active_and_passive_ftp_work_in_both_families() {
    for_each_size(|config| {
        let mut gateway = ftp_gateway(config);
        let mut talk = ftp(&mut gateway, CLIENT, SERVER);
        let data = tcp(SERVER, CLIENT).ports(20, 2000).syn();
        assert_eq!(send(&mut gateway, RIGHT, &data), Err(DropReason::PolicyDrop));
        assert_eq!(talk.say(&mut gateway, 0, "PORT 10,77,0,1,7,208\r\n"), Ok(CtState::Established));
        assert_eq!(
            send(&mut gateway, RIGHT, &tcp(THIRD, CLIENT).ports(20, 2000).syn()),
            Err(DropReason::PolicyDrop)
        );
        assert_eq!(send(&mut gateway, RIGHT, &data), Ok(CtState::Related));
        let answer = tcp(CLIENT, SERVER).ports(2000, 20).numbers(9, 1).syn_ack();
        assert_eq!(send(&mut gateway, LEFT, &answer), Ok(CtState::Established));
        // Used up: another connection to the same port is not expected.
        let again = tcp(SERVER, CLIENT).ports(21_000, 2000).syn();
        assert_eq!(send(&mut gateway, RIGHT, &again), Err(DropReason::PolicyDrop));

        assert_eq!(
            talk.say(&mut gateway, 1, "227 Entering Passive Mode (10,77,0,2,7,209).\r\n"),
            Ok(CtState::Established)
        );
        assert_eq!(
            send(&mut gateway, LEFT, &tcp(CLIENT, SERVER).ports(50_000, 2001).syn()),
            Ok(CtState::Related)
        );

        let mut talk = ftp(&mut gateway, CLIENT6, SERVER6);
        assert_eq!(talk.say(&mut gateway, 0, "EPRT |2|fd77::1|2002|\r\n"), Ok(CtState::Established));
        assert_eq!(
            send(&mut gateway, RIGHT, &tcp(SERVER6, CLIENT6).ports(20, 2002).syn()),
            Ok(CtState::Related)
        );
        assert_eq!(
            talk.say(&mut gateway, 1, "229 Extended Passive Mode (|||2003|)\r\n"),
            Ok(CtState::Established)
        );
        assert_eq!(
            send(&mut gateway, LEFT, &tcp(CLIENT6, SERVER6).ports(50_000, 2003).syn()),
            Ok(CtState::Related)
        );
    });
}

#[test]
fn a_command_split_over_segments_is_dropped_until_it_comes_whole() {
    for_each_size(|config| {
        let mut gateway = ftp_gateway(config);
        let mut talk = ftp(&mut gateway, CLIENT, SERVER);
        let before = talk.next;
        assert_eq!(talk.say(&mut gateway, 0, "PORT 10,77,0,1,"), Err(DropReason::HelperLine));
        talk.next = before;
        assert_eq!(talk.say(&mut gateway, 0, "PORT 10,77,0,1,7,208\r\n"), Ok(CtState::Established));
        assert_eq!(
            send(&mut gateway, RIGHT, &tcp(SERVER, CLIENT).ports(20, 2000).syn()),
            Ok(CtState::Related)
        );
    });
}

#[test]
fn an_expectation_ends_with_its_time_its_successor_or_its_connection() {
    for_each_size(|config| {
        let mut gateway = ftp_gateway(config);
        let mut talk = ftp(&mut gateway, CLIENT, SERVER);
        let data = |port| tcp(SERVER, CLIENT).ports(20, port).syn();
        talk.say(&mut gateway, 0, "PORT 10,77,0,1,7,208\r\n").unwrap();
        send(&mut gateway, RIGHT, &talk.packet(1).ack()).unwrap();
        gateway.advance_millis(301_000);
        assert_eq!(send(&mut gateway, RIGHT, &data(2000)), Err(DropReason::PolicyDrop));
        talk.say(&mut gateway, 0, "PORT 10,77,0,1,7,209\r\n").unwrap();
        talk.say(&mut gateway, 0, "PORT 10,77,0,1,7,210\r\n").unwrap();
        assert_eq!(send(&mut gateway, RIGHT, &data(2001)), Err(DropReason::PolicyDrop));
        // Closed, but still in the table: it holds. Gone: it does not.
        send(&mut gateway, RIGHT, &talk.packet(1).rst()).unwrap();
        assert_eq!(send(&mut gateway, RIGHT, &data(2002)), Ok(CtState::Related));
        let mut talk = Talk::open(&mut gateway, CLIENT, SERVER, (40_001, 21));
        talk.say(&mut gateway, 0, "USER x\r\n").unwrap();
        talk.say(&mut gateway, 0, "PORT 10,77,0,1,7,211\r\n").unwrap();
        send(&mut gateway, RIGHT, &talk.packet(1).rst()).unwrap();
        gateway.advance_millis(11_000);
        assert_eq!(send(&mut gateway, RIGHT, &data(2003)), Err(DropReason::PolicyDrop));
    });
}

#[test]
fn tftp_is_answered_from_another_port_once() {
    for_each_size(|config| {
        let mut gateway = ftp_gateway(config);
        let ask = udp(CLIENT, SERVER).ports(4000, 69).payload(b"\0\x01file\0octet\0");
        let answer = |port| udp(SERVER, CLIENT).ports(port, 4000).payload(b"\0\x03\0\x01x");
        assert_eq!(send(&mut gateway, RIGHT, &answer(5000)), Err(DropReason::PolicyDrop));
        assert_eq!(send(&mut gateway, LEFT, &ask), Ok(CtState::New));
        assert_eq!(send(&mut gateway, RIGHT, &answer(5000)), Ok(CtState::Related));
        assert_eq!(send(&mut gateway, RIGHT, &answer(5000)), Ok(CtState::Related));
        assert_eq!(send(&mut gateway, RIGHT, &answer(5001)), Err(DropReason::PolicyDrop));
    });
}

/// `flows.tracking`: `conformance/tracking.rs` has the kernel judge what `"auto"` means.
#[test]
fn always_tracks_whatever_the_rules_say_and_auto_what_they_speak_of() {
    let notrack = "*raw\n-A PREROUTING -j NOTRACK\nCOMMIT\n*filter\nCOMMIT\n";
    let ports = "*filter\n-A FORWARD -p udp -m udp --dport 9 -j DROP\nCOMMIT\n";
    let states = "*filter\n-A FORWARD -m conntrack --ctstate INVALID -j DROP\nCOMMIT\n";
    for (text, track_always, state, flows) in [
        (ports, true, CtState::New, 1),
        (ports, false, CtState::Untracked, 0),
        (states, false, CtState::New, 1),
        (states, true, CtState::New, 1),
        (notrack, true, CtState::Untracked, 0),
        (notrack, false, CtState::Untracked, 0),
    ] {
        let config = GatewayConfig { track_always, ..GatewayConfig::default() };
        let mut gateway = gateway_with(text, config);
        assert_eq!(send(&mut gateway, LEFT, &udp(CLIENT, SERVER).ports(1, 53)), Ok(state));
        assert_eq!(gateway.workers[0].tracker_mut().flow_count(), flows, "{text}{track_always}");
        // Where there is tracking, a datagram is judged as a whole or not at all: also one that no rule could track.
        let later = udp(CLIENT, SERVER).payload(&[7; 16]).fragment(64, false).build();
        let passes = !gateway.send(LEFT, &later).forwarded.is_empty();
        let is_on = track_always || text == states;
        assert_eq!(passes, !is_on, "{text}{track_always}");
    }
}

#[test]
fn notrack_hides_packets_from_the_tracker() {
    let text = "\
*raw
-A PREROUTING -p udp -m udp --dport 53 -j NOTRACK
-A PREROUTING -i right -p udp -m udp --dport 99 -j DROP
COMMIT
*filter
-A FORWARD -m conntrack --ctstate INVALID -j DROP
COMMIT
";
    for_each_size(|config| {
        let mut gateway = gateway_with(text, config);
        assert_eq!(send(&mut gateway, LEFT, &udp(CLIENT, SERVER).ports(1, 53)), Ok(CtState::Untracked));
        assert_eq!(send(&mut gateway, RIGHT, &udp(SERVER, CLIENT).ports(53, 1)), Ok(CtState::New));
        assert_eq!(send(&mut gateway, LEFT, &udp(CLIENT, SERVER).ports(1, 53)), Ok(CtState::Untracked));
        assert_eq!(send(&mut gateway, RIGHT, &udp(SERVER, CLIENT).ports(1, 99)), Err(DropReason::RuleDrop));
        assert_eq!(gateway.counters.iter().map(|worker| worker.polls.classified.get()).sum::<u64>(), 3);
    });
}

#[test]
fn zones_keep_equal_tuples_apart() {
    let text = "\
*raw
-A PREROUTING -p udp -m udp --sport 1 -j CT --zone 7
-A PREROUTING -p udp -m udp --dport 2 -j CT --zone-orig 9
COMMIT
*filter
-A FORWARD -m conntrack --ctstate NEW -j ACCEPT
COMMIT
";
    for_each_size(|config| {
        let mut gateway = gateway_with(text, config);
        let there = udp(CLIENT, SERVER).ports(1, 53);
        let back = udp(SERVER, CLIENT).ports(53, 1);
        assert_eq!(send(&mut gateway, LEFT, &there), Ok(CtState::New));
        // The answer is looked up in zone 0, where there is nothing.
        assert_eq!(send(&mut gateway, RIGHT, &back), Ok(CtState::New));
        assert_eq!(send(&mut gateway, LEFT, &there), Ok(CtState::New));
        assert_eq!(send(&mut gateway, LEFT, &udp(CLIENT, SERVER).ports(5, 2)), Ok(CtState::New));
        assert_eq!(send(&mut gateway, RIGHT, &udp(SERVER, CLIENT).ports(2, 5)), Ok(CtState::Established));
    });
}

#[test]
fn marks_are_kept_with_the_connection_and_given_back_to_its_packets() {
    let text = "\
*mangle
-A PREROUTING -j CONNMARK --restore-mark
-A PREROUTING -m mark ! --mark 0 -j ACCEPT
-A PREROUTING -p udp -m udp --dport 53 -j MARK --set-mark 7
-A PREROUTING -j CONNMARK --save-mark
COMMIT
*filter
:FORWARD DROP
-A FORWARD -m mark --mark 7 -m connmark --mark 7 -j ACCEPT
COMMIT
";
    for_each_size(|config| {
        let mut gateway = gateway_with(text, config);
        assert_eq!(send(&mut gateway, LEFT, &udp(CLIENT, SERVER).ports(1, 53)), Ok(CtState::New));
        assert_eq!(send(&mut gateway, RIGHT, &udp(SERVER, CLIENT).ports(53, 1)), Ok(CtState::Established));
        assert_eq!(send(&mut gateway, LEFT, &udp(CLIENT, SERVER).ports(1, 54)), Err(DropReason::PolicyDrop));
    });
}

#[test]
fn connections_are_limited_and_counted_over_all_workers() {
    let text = "\
*filter
:FORWARD DROP
-A FORWARD -m connbytes --connbytes 3 --connbytes-dir original --connbytes-mode packets -j DROP
-A FORWARD -m conntrack --ctstate ESTABLISHED --ctdir REPLY --ctorigsrc 10.77.0.1 -j ACCEPT
-A FORWARD -m connlimit --connlimit-upto 3 --connlimit-mask 24 -j ACCEPT
COMMIT
";
    for_each_size(|config| {
        let mut gateway = gateway_with(text, config);
        let ask = |port| udp(CLIENT, SERVER).ports(port, 53);
        for port in 1..=3 {
            assert_eq!(send(&mut gateway, LEFT, &ask(port)), Ok(CtState::New));
        }
        assert_eq!(send(&mut gateway, RIGHT, &udp(SERVER, CLIENT).ports(53, 1)), Ok(CtState::Established));
        assert_eq!(send(&mut gateway, LEFT, &ask(1)), Ok(CtState::Established));
        assert_eq!(send(&mut gateway, LEFT, &ask(1)), Err(DropReason::RuleDrop), "the third packet");
        assert_eq!(send(&mut gateway, LEFT, &ask(4)), Err(DropReason::PolicyDrop));
        assert_eq!(send(&mut gateway, LEFT, &ask(4)), Err(DropReason::PolicyDrop));
        assert_eq!(send(&mut gateway, LEFT, &udp(THIRD, SERVER).ports(4, 53)), Err(DropReason::PolicyDrop));
        gateway.advance_millis(31_000);
        assert_eq!(send(&mut gateway, LEFT, &ask(4)), Ok(CtState::New));
    });
}

/// A reset closes the connection it is sent for (the kernel judges that in `conformance/rules.rs`); other answers do not.
#[test]
fn rejecting_with_an_icmp_error_leaves_the_connection_open() {
    for (with, state) in [("tcp-reset", TcpState::Close), ("icmp-port-unreachable", TcpState::Established)] {
        let text = format!(
            "*filter\n-A FORWARD -p tcp -m tcp --tcp-flags PSH PSH -j REJECT --reject-with {with}\n-A FORWARD -m conntrack --ctstate INVALID -j DROP\nCOMMIT\n"
        );
        let mut gateway = gateway_with(&text, GatewayConfig::default());
        let talk = Talk::open(&mut gateway, CLIENT, SERVER, (1, 80));
        let outcome = gateway.send(LEFT, &talk.packet(0).flags(0x18).build());
        assert_eq!(outcome.answers.len(), 1);
        let mut states = Vec::new();
        let now = gateway.now().tick();
        gateway.workers[0].tracker_mut().region().walk(now, |view| states.extend(view.tcp_state));
        assert_eq!(states, [state], "{with}");
    }
}
