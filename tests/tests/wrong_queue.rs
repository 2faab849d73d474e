//! Two workers on real veths where packets come in on the wrong queue: with fewer queues than workers, as many, and more.

use palisade_tests::daemon::{Daemon, Stats};
use palisade_tests::lab::Lab;
use palisade_tests::traffic::{self, PATIENCE};
use palisade_tests::{frames, require_root};
use serde_json::Value;
use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::SocketAddr;

const RULES: &str = include_str!("../data/rules/gateway.v4.rules");
const RULES6: &str = include_str!("../data/rules/gateway.v6.rules");

fn two_workers(lab: &Lab) -> Daemon {
    // The last `--set` wins over the core that the builder chose.
    Daemon::builder(lab).rules(RULES).rules6(RULES6).set("workers.cores", "2").start()
}

/// One number of every worker, summed.
fn sum(stats: &Stats, name: &str) -> u64 {
    let workers = stats.0["workers"].as_array().expect("a list of workers");
    workers.iter().map(|worker| worker[name].as_u64().unwrap_or_else(|| panic!("no {name}"))).sum()
}

/// Packets given away and taken over for one cause, all workers together.
fn handed(stats: &Stats, cause: &str) -> (u64, u64) {
    let workers = stats.0["workers"].as_array().expect("a list of workers").iter();
    let rows: Vec<&Value> = workers
        .flat_map(|worker| worker["handoffs"].as_array().expect("a list of causes"))
        .filter(|row| row["cause"] == cause)
        .collect();
    let all = |name: &str| rows.iter().map(|row| row[name].as_u64().expect("a number")).sum();
    (all("out"), all("taken"))
}

/// Every flow arrives where it does not live, and its packets leave all the same, in their order.
#[track_caller]
fn every_flow_on_the_wrong_queue(queues: u32) {
    const ROUNDS: u32 = 100;
    let lab = Lab::builder().queues(queues).build();
    let daemon = two_workers(&lab);
    let (left, right) = (lab.left_wire(), lab.right_wire());
    // Somebody listens, so that the host does not answer with ICMP errors.
    let _listener = traffic::udp_socket(&lab.right.netns, SocketAddr::new(lab.right.addr(false), 7000));
    let packet = |port: u16, number: u32| frames::udp_v4(&lab, port, 7000, &number.to_be_bytes());
    // Ports whose first packets were handed over: the sender picks the queue by the flow, so the next ones will be too. The
    // hosts say something of their own now and then, so one packet more proves nothing.
    let is_wrong = |port: &u16| {
        let before = handed(&daemon.stats(), "misdirected").0;
        for _ in 0..4 {
            let frame = packet(*port, 0);
            left.send(&frame);
            assert!(right.receive(PATIENCE, |got| got == frame).is_some());
        }
        handed(&daemon.stats(), "misdirected").0 >= before + 4
    };
    let ports: Vec<u16> = (20_000..20_200).filter(|port| is_wrong(port)).take(6).collect();
    assert_eq!(ports.len(), 6);
    let start = daemon.stats();
    let mut last: HashMap<u16, u32> = HashMap::new();
    for number in 1..=ROUNDS {
        for port in &ports {
            left.send(&packet(*port, number));
        }
        for _ in &ports {
            let frame = right.receive(PATIENCE, |frame| {
                frame.len() >= 46 && frame[23] == 17 && frame[36..38] == [0x1b, 0x58]
            });
            let frame = frame.unwrap_or_else(|| panic!("round {number}: {:#}", daemon.stats().0));
            let port = u16::from_be_bytes([frame[34], frame[35]]);
            let got = u32::from_be_bytes([frame[42], frame[43], frame[44], frame[45]]);
            assert_eq!(
                last.insert(port, got).unwrap_or(0) + 1,
                got,
                "the packets of {port} keep their order"
            );
        }
    }
    let sent = u64::from(ROUNDS) * 6;
    let stats = daemon.stats_until("balance", |stats| stats.is_balanced() && stats.rx() >= start.rx() + sent);
    let (out, taken) = handed(&stats, "misdirected");
    assert_eq!(out, taken);
    let since = out - handed(&start, "misdirected").0;
    assert!(since >= sent, "{since} of {sent} were handed over");
    assert_eq!((sum(&stats, "handed_off"), sum(&stats, "taken_over")), (out, taken));
    assert_eq!((stats.drops("handoff_full"), stats.drops("frames_lent")), (0, 0));
    let report = daemon.fwctl(&["stats"]);
    assert!(report.contains("between workers: misdirected"), "{report}");
    // Both directions at once, as much as goes.
    for is_v6 in [false, true] {
        traffic::tcp_both_ways(&lab.left, &lab.right, is_v6, 80, 4 << 20);
        // Behind a stream that leaves no core free an echo may be late: then once more.
        let all = |_| traffic::ping(&lab.left.netns, lab.right.addr(is_v6), 20, 56) == 20;
        assert!((0..3).any(all), "echoes get lost");
    }
    let stats = daemon.stats_until("balance", Stats::is_balanced);
    assert_eq!(stats.queues("invalid_descs"), 0);
    let (out, taken) = handed(&stats, "transmit");
    assert_eq!(out, taken);
    assert_eq!(out > 0, queues == 1, "whoever has no queue of a NIC has others send: {out}");
}

#[test]
fn two_workers_share_one_queue() {
    require_root!();
    every_flow_on_the_wrong_queue(1);
}

#[test]
fn two_workers_with_a_queue_each() {
    require_root!();
    every_flow_on_the_wrong_queue(2);
}

#[test]
fn two_workers_with_two_queues_each() {
    require_root!();
    every_flow_on_the_wrong_queue(4);
}

#[test]
fn fragments_and_icmp_errors_find_their_flows_across_workers() {
    require_root!();
    for queues in [1, 2, 4] {
        let lab = Lab::builder().queues(queues).build();
        lab.right.netns.sysctl("net.ipv4.icmp_ratelimit", "0");
        let daemon = two_workers(&lab);
        for _ in 0..8 {
            // Three fragments each way, put together to be judged.
            assert_eq!(traffic::udp_echo(&lab.left, &lab.right, false, 7000, 5, 4000), 5);
        }
        let closed = SocketAddr::new(lab.right.addr(false), 7000);
        for _ in 0..16 {
            // Nobody listens any more: the host says so, and that is RELATED.
            let socket = traffic::udp_socket(&lab.left.netns, SocketAddr::new(lab.left.addr(false), 0));
            socket.connect(closed).expect("the route is there");
            socket.send(b"anyone?").expect("the first datagram goes out");
            let answer = socket.recv(&mut [0; 16]).expect_err("an error");
            assert_eq!(answer.kind(), ErrorKind::ConnectionRefused);
        }
        let stats = daemon.stats_until("balance", Stats::is_balanced);
        for cause in ["fragment", "icmp_error"] {
            let (out, taken) = handed(&stats, cause);
            assert!(out > 0 && out == taken, "{queues} queue(s): {cause} {out} out, {taken} in");
        }
        assert_eq!(
            stats.drops("handoff_full") + stats.drops("frames_lent") + stats.drops("fragment_limit"),
            0
        );
    }
}

#[test]
fn each_workers_core_and_the_reason_for_it_are_shown() {
    require_root!();
    let lab = Lab::new();
    let daemon = two_workers(&lab);
    let stats = daemon.stats();
    for worker in stats.0["workers"].as_array().expect("a list of workers") {
        let why = worker["core_why"].as_str().expect("a reason");
        assert!(!why.is_empty() && daemon.process().stderr().contains(why), "{why}");
    }
    drop(daemon);
    let many = Daemon::builder(&lab).rules(RULES).set("workers.cores", "64").fail();
    assert!(many.stderr.contains("64 workers need a core each"), "{}", many.stderr);
}
