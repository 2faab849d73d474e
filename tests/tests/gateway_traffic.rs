//! Real traffic through the real daemon: what the rules accept arrives whole, what they refuse is answered.

use palisade_tests::daemon::Daemon;
use palisade_tests::frames::{self, TPID_8021AD, TPID_8021Q};
use palisade_tests::lab::Lab;
use palisade_tests::require_root;
use palisade_tests::traffic::{self, PATIENCE, SILENCE};
use std::io::{ErrorKind, Read};
use std::net::SocketAddr;

const RULES: &str = include_str!("../data/rules/gateway.v4.rules");
const RULES6: &str = include_str!("../data/rules/gateway.v6.rules");
const ACCEPT: &str = include_str!("../data/rules/accept.v4.rules");

/// Bytes each way: more than every buffer on the way together, so that windows fill and ACKs are lost if we lose them.
const TRANSFER_BYTES: u64 = 64 << 20;

fn gateway(lab: &Lab) -> Daemon {
    Daemon::builder(lab).rules(RULES).rules6(RULES6).start()
}

#[test]
fn ping_passes_both_families_and_directions_where_accepted() {
    require_root!();
    let lab = Lab::new();
    let daemon = gateway(&lab);
    for is_v6 in [false, true] {
        let from_left = traffic::ping(&lab.left.netns, lab.right.addr(is_v6), 20, 56);
        assert_eq!(from_left, 20, "{}", daemon.fwctl(&["stats"]));
        let from_right = traffic::ping(&lab.right.netns, lab.left.addr(is_v6), 20, 1400);
        assert_eq!(from_right, 20, "{}", daemon.fwctl(&["stats"]));
    }
    let _ = daemon.stats_until("balance", |stats| stats.is_balanced() && stats.forwarded() >= 160);
}

#[test]
fn large_tcp_transfers_arrive_whole_both_ways_at_once() {
    require_root!();
    let lab = Lab::new();
    let daemon = gateway(&lab);
    for is_v6 in [false, true] {
        traffic::tcp_both_ways(&lab.left, &lab.right, is_v6, 80, TRANSFER_BYTES);
    }
    let flows = daemon.fwctl(&["flows", "-p", "tcp"]);
    assert!(flows.contains("dport=80"), "{flows}");
    let stats = daemon.stats_until("balance", palisade_tests::daemon::Stats::is_balanced);
    assert_eq!(stats.queues("invalid_descs"), 0);
}

/// Flows arrive on whatever queue the sending core picks; those that live on the other worker are handed over.
#[test]
fn two_workers_share_the_flows_of_two_queues() {
    require_root!();
    let lab = Lab::builder().queues(2).build();
    // The last `--set` wins over the core that the builder chose.
    let daemon = Daemon::builder(&lab).rules(RULES).rules6(RULES6).set("workers.cores", "2").start();
    for is_v6 in [false, true] {
        traffic::tcp_both_ways(&lab.left, &lab.right, is_v6, 80, TRANSFER_BYTES);
        assert_eq!(traffic::ping(&lab.left.netns, lab.right.addr(is_v6), 50, 56), 50);
        assert_eq!(traffic::udp_echo(&lab.left, &lab.right, is_v6, 7000, 100, 1200), 100);
    }
    let _ = daemon.stats_until("balance", palisade_tests::daemon::Stats::is_balanced);
    assert_eq!(daemon.fwctl_json(&["stats"])["workers"].as_array().map(Vec::len), Some(2));
}

#[test]
fn generic_xdp_carries_the_same_traffic() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::builder(&lab).rules(RULES).rules6(RULES6).set("xdp.mode", "generic").start();
    traffic::tcp_both_ways(&lab.left, &lab.right, false, 80, TRANSFER_BYTES);
    assert_eq!(daemon.fwctl_json(&["stats"])["ports"][0]["mode"], "generic");
    let _ = daemon.stats_until("balance", palisade_tests::daemon::Stats::is_balanced);
}

#[test]
fn udp_passes_where_accepted() {
    require_root!();
    let lab = Lab::new();
    let daemon = gateway(&lab);
    for is_v6 in [false, true] {
        assert_eq!(traffic::udp_echo(&lab.left, &lab.right, is_v6, 7000, 100, 1200), 100);
        assert_eq!(traffic::udp_echo(&lab.left, &lab.right, is_v6, 7001, 1, 100), 0);
    }
    let stats = daemon.stats_until("two drops", |stats| stats.drops("policy_drop") >= 2);
    assert!(stats.flows() >= 2);
}

#[test]
fn refused_connections_get_the_answer_the_rule_names() {
    require_root!();
    let lab = Lab::new();
    let daemon = gateway(&lab);
    for is_v6 in [false, true] {
        let connect = |port| {
            let addr = SocketAddr::new(lab.right.addr(is_v6), port);
            traffic::connect(&lab.left.netns, addr, PATIENCE)
                .expect_err("nobody listens, and the rules refuse")
                .kind()
        };
        assert_eq!(connect(113), ErrorKind::ConnectionRefused, "reset");
        // The kernel says EHOSTUNREACH for the IPv4 answer and EACCES for the IPv6 one.
        let prohibited = if is_v6 { ErrorKind::PermissionDenied } else { ErrorKind::HostUnreachable };
        assert_eq!(connect(23), prohibited, "prohibited");
        // Nobody listens there either, but this answer is the right host's own.
        assert_eq!(connect(22), ErrorKind::ConnectionRefused);

        let socket = traffic::udp_socket(&lab.left.netns, SocketAddr::new(lab.left.addr(is_v6), 0));
        socket.connect(SocketAddr::new(lab.right.addr(is_v6), 9)).unwrap();
        socket.send(b"discard").unwrap();
        assert_eq!(
            socket.recv(&mut [0; 16]).unwrap_err().kind(),
            ErrorKind::ConnectionRefused,
            "port unreachable"
        );
    }
    let stats = daemon.stats_until("six rejects", |stats| stats.drops("rule_reject") >= 6);
    assert!(stats.is_balanced(), "{stats:?}");
}

#[test]
fn what_no_rule_accepts_is_dropped_in_silence() {
    require_root!();
    let lab = Lab::new();
    let daemon = gateway(&lab);
    let addr = SocketAddr::new(lab.right.v4.into(), 4444);
    let _listener = traffic::listen(&lab.right.netns, addr);
    let error = traffic::connect(&lab.left.netns, addr, SILENCE).expect_err("the policy is DROP");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    // New connections are for the left to open.
    let addr = SocketAddr::new(lab.left.v4.into(), 80);
    let _listener = traffic::listen(&lab.left.netns, addr);
    let error =
        traffic::connect(&lab.right.netns, addr, SILENCE).expect_err("the right may not open connections");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    let _ = daemon.stats_until("two drops", |stats| stats.drops("policy_drop") >= 2);
}

#[test]
fn a_connection_made_before_a_refused_one_goes_on() {
    require_root!();
    let lab = Lab::new();
    let _daemon = gateway(&lab);
    let addr = SocketAddr::new(lab.right.v4.into(), 80);
    let listener = traffic::listen(&lab.right.netns, addr);
    let client = traffic::connect(&lab.left.netns, addr, PATIENCE).unwrap();
    let (server, _) = listener.accept().unwrap();
    let refused = SocketAddr::new(lab.right.v4.into(), 113);
    let _ = traffic::connect(&lab.left.netns, refused, PATIENCE).unwrap_err();
    traffic::send_stream(&client, 7, 100_000).unwrap();
    traffic::receive_stream(&server, 7, 100_000).unwrap();
    traffic::send_stream(&server, 8, 100_000).unwrap();
    traffic::receive_stream(&client, 8, 100_000).unwrap();
    assert_eq!((&client).read(&mut [0]).unwrap(), 0, "both sides have closed");
}

#[test]
fn jumbo_frames_pass_whole() {
    require_root!();
    let lab = Lab::builder().mtu(9000).build();
    let daemon = gateway(&lab);
    for is_v6 in [false, true] {
        // 9,000 less the IP and ICMP headers: the largest there is.
        let payload = if is_v6 { 8952 } else { 8972 };
        assert_eq!(traffic::ping(&lab.left.netns, lab.right.addr(is_v6), 20, payload), 20);
        assert_eq!(traffic::udp_echo(&lab.left, &lab.right, is_v6, 7000, 20, 8900), 20);
        traffic::tcp_both_ways(&lab.left, &lab.right, is_v6, 80, TRANSFER_BYTES);
    }
    let _ = daemon.stats_until("balance", palisade_tests::daemon::Stats::is_balanced);
}

#[test]
fn two_queues_carry_what_one_does() {
    require_root!();
    let lab = Lab::builder().queues(2).build();
    let daemon = gateway(&lab);
    for is_v6 in [false, true] {
        assert_eq!(traffic::ping(&lab.left.netns, lab.right.addr(is_v6), 20, 56), 20);
        traffic::tcp_both_ways(&lab.left, &lab.right, is_v6, 80, TRANSFER_BYTES / 4);
    }
    let _ = daemon.stats_until("balance", palisade_tests::daemon::Stats::is_balanced);
}

#[test]
fn tagged_frames_keep_their_tags_and_are_judged_too() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::start(&lab, RULES);
    let (left, right) = (lab.left_wire(), lab.right_wire());
    // A packet socket sees a frame after its outermost 802.1Q or 802.1ad tag was taken out by the host: one tag more
    // goes in than is looked for.
    let inner = frames::udp_v4(&lab, 5000, 7000, b"tagged");
    for tags in [[(TPID_8021Q, 10), (TPID_8021Q, 20)], [(TPID_8021AD, 30), (TPID_8021Q, 40)]] {
        let want = frames::tagged(&inner, &tags[1..]);
        left.send(&frames::tagged(&inner, &tags));
        assert!(right.receive(PATIENCE, |frame| frame == want).is_some(), "{tags:?}");
    }
    let refused = frames::udp_v4(&lab, 5000, 4444, b"tagged");
    left.send(&frames::tagged(&refused, &[(TPID_8021Q, 10)]));
    assert!(right.receive(SILENCE, |frame| frame.ends_with(b"tagged")).is_none());
    let _ = daemon.stats_until("the refused one", |stats| stats.drops("policy_drop") >= 1);
}

#[test]
fn arp_and_other_protocols_pass_as_through_a_bridge() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::start(&lab, RULES);
    let (left, right) = (lab.left_wire(), lab.right_wire());
    for ether_type in [0x0806, 0x88cc, 0x8863, 0x22f0] {
        let frame = frames::ethernet(&lab, ether_type, &[0x5a; 46]);
        left.send(&frame);
        assert!(right.receive(PATIENCE, |got| got == frame).is_some(), "EtherType {ether_type:#06x}");
    }
    let _ = daemon.stats_until("balance", palisade_tests::daemon::Stats::is_balanced);
}

#[test]
fn the_pass_list_keeps_out_what_it_does_not_name() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::builder(&lab).rules(ACCEPT).set("l2.pass", "[\"arp\"]").start();
    let (left, right) = (lab.left_wire(), lab.right_wire());
    let (arp, lldp) =
        (frames::ethernet(&lab, 0x0806, &[0x5a; 46]), frames::ethernet(&lab, 0x88cc, &[0x5a; 46]));
    left.send(&lldp);
    left.send(&arp);
    assert!(right.receive(PATIENCE, |got| got == arp).is_some());
    assert!(right.receive(SILENCE, |got| got == lldp).is_none());
    let _ = daemon.stats_until("one drop", |stats| stats.drops("l2_not_listed") >= 1);
}
