//! Flow records as a real collector understands them: nfcapd of nfdump, its files read by nfdump, against what `fwctl flows`
//! showed of the same flows. And a collector that is gone.

use palisade_tests::daemon::Daemon;
use palisade_tests::lab::{Lab, Process};
use palisade_tests::openmetrics::Page;
use palisade_tests::require_root;
use palisade_tests::traffic;
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const RULES: &str =
    "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT\nCOMMIT\n";

/// Who talked with whom.
type Key = (String, String, u64, u64, u64);

/// Packets and bytes of both directions.
type Counts = [u64; 4];

fn metrics(daemon: &Daemon) -> Page {
    let mut stream = UnixStream::connect(daemon.socket()).expect("the daemon listens");
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: fwd\r\n\r\n").expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it answers");
    Page::read(text.split_once("\r\n\r\n").expect("a head and a body").1)
}

/// Waits until the metrics say so.
#[track_caller]
fn metrics_until(daemon: &Daemon, what: &str, is_there: impl Fn(&Page) -> bool) -> Page {
    let deadline = Instant::now() + traffic::PATIENCE;
    loop {
        let page = metrics(daemon);
        if is_there(&page) {
            return page;
        }
        assert!(Instant::now() < deadline, "no {what}: {}", daemon.process().stderr());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// All flows there are, as `fwctl` shows them.
fn flows(daemon: &Daemon) -> BTreeMap<Key, Counts> {
    let list = |family| daemon.fwctl(&["flows", "-L", "-f", family, "-o", "json"]);
    let text = ["ipv4", "ipv6"].map(list).concat();
    let mut flows = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with('{')) {
        let flow: Value = serde_json::from_str(line).expect("a line is JSON");
        let (orig, reply) = (&flow["orig"], &flow["reply"]);
        let number = |side: &Value, name: &str| side[name].as_u64().unwrap_or(0);
        let proto = number(&flow, "proto");
        let (sport, dport) = match proto {
            1 | 58 => (0, number(orig, "type") << 8 | number(orig, "code")),
            _ => (number(orig, "sport"), number(orig, "dport")),
        };
        let text = |name: &str| orig[name].as_str().expect("a flow has addresses").to_owned();
        let counts = [
            number(orig, "packets"),
            number(orig, "bytes"),
            number(reply, "packets"),
            number(reply, "bytes"),
        ];
        flows.insert((text("src"), text("dst"), sport, dport, proto), counts);
    }
    flows
}

/// What the collector has written down, the records of a flow added up.
fn collected(dir: &Path) -> BTreeMap<Key, Counts> {
    let output = Command::new("nfdump")
        .args(["-q", "-R"])
        .arg(dir)
        .args(["-o", "json"])
        .output()
        .expect("nfdump runs");
    let text = String::from_utf8_lossy(&output.stdout);
    // Records with commas in between, with or without the brackets around them.
    let list = format!("[{}]", text.trim().trim_start_matches('[').trim_end_matches(']'));
    let records: Vec<Value> =
        serde_json::from_str(&list).unwrap_or_else(|error| panic!("{error}: {text}{output:?}"));
    let mut flows: BTreeMap<Key, Counts> = BTreeMap::new();
    for record in &records {
        let number = |name: &str| record[name].as_u64().unwrap_or(0);
        let address = |v4: &str, v6: &str| {
            let text = record[v4].as_str().or(record[v6].as_str());
            text.unwrap_or_else(|| panic!("no address in {record:#}")).to_owned()
        };
        let proto = number("proto");
        let (sport, dport) = match proto {
            1 | 58 => (0, number("icmp_type") << 8 | number("icmp_code")),
            _ => (number("src_port"), number("dst_port")),
        };
        let key = (address("src4_addr", "src6_addr"), address("dst4_addr", "dst6_addr"), sport, dport, proto);
        let counts = ["in_packets", "in_bytes", "out_packets", "out_bytes"].map(number);
        let sum = flows.entry(key).or_default();
        for (sum, count) in sum.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    flows
}

#[test]
fn a_collector_hears_of_every_flow_what_fwctl_shows() {
    require_root!();
    if Command::new("nfcapd").arg("-h").output().is_err() {
        return eprintln!("skipped: no collector here (Debian: nfdump)");
    }
    let lab = Lab::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_string_lossy().into_owned();
    let mut command = lab.gateway.command("nfcapd");
    command.args(["-w", &path, "-b", "127.0.0.1", "-p", "4739", "-t", "3600"]);
    let collector = Process::spawn(command);
    // It is there once its port is taken.
    let is_taken = || lab.gateway.within(|| UdpSocket::bind("127.0.0.1:4739").is_err());
    let deadline = Instant::now() + traffic::PATIENCE;
    while !is_taken() {
        assert!(Instant::now() < deadline, "{}", collector.stderr());
        std::thread::sleep(Duration::from_millis(20));
    }
    let daemon = Daemon::builder(&lab)
        .rules(RULES)
        .rules6(RULES)
        .set("ipfix.collector", "127.0.0.1:4739")
        .set("ipfix.active_secs", "1")
        .set("ipfix.idle_secs", "2")
        .set("ipfix.observation_domain", "7")
        .start();
    metrics_until(&daemon, "templates", |page| page.sum("palisade_ipfix_sent_messages_total", &[]) >= 1.0);
    for is_v6 in [false, true] {
        traffic::tcp_both_ways(&lab.left, &lab.right, is_v6, 80, 300_000);
        for port in [7000, 7001, 7002] {
            assert_eq!(traffic::udp_echo(&lab.left, &lab.right, is_v6, port, 20, 100), 20);
        }
        assert_eq!(traffic::ping(&lab.left.netns, lab.right.addr(is_v6), 3, 56), 3);
    }
    // One that goes on is reported while it does, more than once.
    let before = metrics(&daemon).sum("palisade_ipfix_sent_records_total", &[]);
    let until = Instant::now() + Duration::from_millis(2600);
    while Instant::now() < until {
        assert_eq!(traffic::ping(&lab.left.netns, lab.right.addr(false), 5, 100), 5);
    }
    let page = metrics_until(&daemon, "reports", |page| {
        page.sum("palisade_ipfix_sent_records_total", &[]) > before + 2.0
    });
    assert!(page.sum("palisade_ipfix_flows_known", &[]) > 0.0);
    let shown = flows(&daemon);
    assert!(shown.len() >= 10, "{shown:#?}");
    daemon.fwctl(&["flows", "-F"]);
    metrics_until(&daemon, "end of all flows", |page| page.sum("palisade_flows", &[]) == 0.0);
    let page = metrics(&daemon);
    assert_eq!(page.sum("palisade_ipfix_lost_records_total", &[]), 0.0);
    assert_eq!(page.sum("palisade_ipfix_lost_flows_total", &[]), 0.0);
    assert_eq!(page.sum("palisade_ipfix_up", &[]), 1.0);
    // What waits is sent when the daemon ends.
    let _ = daemon.stop(Signal::TERM);
    std::thread::sleep(Duration::from_millis(300));
    collector.signal(Signal::TERM);
    let exit = collector.wait(traffic::PATIENCE);
    assert!(exit.stderr.contains("Sequence Errors: 0, Bad Packets: 0"), "{}", exit.stderr);
    let mut heard = collected(dir.path());
    // Neighbour discovery and the like may come and go unseen by `fwctl`. Pings with different identifiers are flows of
    // their own to us, and one to a collector, which is told type and code only.
    let expected = shown;
    heard.retain(|key, _| expected.contains_key(key));
    let no_icmp = |flows: &BTreeMap<Key, Counts>| -> BTreeMap<Key, Counts> {
        flows
            .iter()
            .filter(|(key, _)| !matches!(key.4, 1 | 58))
            .map(|(key, counts)| (key.clone(), *counts))
            .collect()
    };
    assert_eq!(no_icmp(&heard), no_icmp(&expected));
    let pings = |flows: &BTreeMap<Key, Counts>| flows.keys().filter(|key| matches!(key.4, 1 | 58)).count();
    assert_eq!(pings(&heard), pings(&expected));
    assert!(
        heard.iter().any(|(key, counts)| key.4 == 1 && counts[0] > 3 && counts[0] == counts[2]),
        "{heard:#?}"
    );
}

#[test]
fn a_collector_that_is_gone_is_told_once_and_costs_no_packet() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::builder(&lab)
        .rules(RULES)
        .set("ipfix.collector", "127.0.0.1:4739")
        .set("ipfix.active_secs", "1")
        .set("ipfix.idle_secs", "1")
        .start();
    for round in 0..4 {
        assert_eq!(traffic::udp_echo(&lab.left, &lab.right, false, 7000 + round, 100, 100), 100);
        daemon.fwctl(&["flows", "-F"]);
        std::thread::sleep(Duration::from_millis(1100));
    }
    let page =
        metrics_until(&daemon, "loss", |page| page.sum("palisade_ipfix_lost_records_total", &[]) >= 1.0);
    assert_eq!(page.sum("palisade_ipfix_up", &[]), 0.0);
    assert!(page.sum("palisade_ipfix_send_errors_total", &[]) >= 1.0);
    let stats = daemon.stats_until("balance", |stats| stats.is_balanced());
    assert_eq!(stats.dropped(), 0, "{:#}", stats.0);
    let exit = daemon.stop(Signal::TERM);
    let told = exit.stderr.matches("cannot be reached").count();
    assert_eq!(told, 1, "{}", exit.stderr);
}
