//! What the daemon tells monitoring: every metric to the letter of OpenMetrics and as `fwctl stats` has it, and the dashboard
//! and the alerts that come with it against the names and labels that are there.

use palisade_tests::daemon::Daemon;
use palisade_tests::lab::Lab;
use palisade_tests::openmetrics::Page;
use palisade_tests::require_root;
use palisade_tests::traffic;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

const RULES: &str = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n\
    -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT\n\
    -A FORWARD -p tcp -m comment --comment \"a \\\"web\\\" server\" -j ACCEPT\n\
    -A FORWARD -p udp -m udp --dport 7000 -m comment --comment echo -j ACCEPT\n\
    -A FORWARD -p udp -m udp --dport 7001 -m comment --comment echo -j ACCEPT\n\
    -A FORWARD -p udp -m udp --dport 7002 -m comment --comment closed -j DROP\nCOMMIT\n";

const LISTEN: &str = "127.0.0.1:19100";

/// A daemon that had some traffic, and what it tells of it; nothing is under way any more.
fn told() -> (Lab, Daemon, Value, String) {
    let lab = Lab::new();
    let builder = Daemon::builder(&lab).rules(RULES).set("metrics.listen", LISTEN);
    // Nobody listens there, which is told as well.
    let daemon = builder.set("metrics.rules", "2").set("ipfix.collector", "127.0.0.1:4739").start();
    traffic::tcp_both_ways(&lab.left, &lab.right, false, 80, 100_000);
    assert_eq!(traffic::udp_echo(&lab.left, &lab.right, false, 7000, 5, 10), 5);
    assert_eq!(traffic::udp_echo(&lab.left, &lab.right, false, 7001, 5, 10), 5);
    assert_eq!(traffic::udp_echo(&lab.left, &lab.right, false, 7002, 1, 10), 0);
    let is_quiet = |stats: &palisade_tests::daemon::Stats| {
        std::thread::sleep(std::time::Duration::from_millis(200));
        stats.is_balanced() && stats.drops("rule_drop") > 0 && daemon.stats().rx() == stats.rx()
    };
    let stats = daemon.stats_until("quiet", is_quiet).0;
    let page = scrape(&lab, "*/*");
    (lab, daemon, stats, page)
}

/// `GET /metrics` over TCP.
fn scrape(lab: &Lab, accept: &str) -> String {
    let addr = LISTEN.parse().expect("an address");
    let mut stream = traffic::connect(&lab.gateway, addr, traffic::PATIENCE).expect("somebody listens");
    stream.set_read_timeout(Some(traffic::PATIENCE)).expect("a timeout above zero is taken");
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nHost: {LISTEN}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    )
    .expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it answers");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let kind = if accept == "text/plain" {
        "text/plain; version=0.0.4"
    } else {
        "application/openmetrics-text; version=1.0.0"
    };
    assert!(head.contains(&format!("content-type: {kind}; charset=utf-8")), "{head}");
    body.to_owned()
}

#[track_caller]
fn number(stats: &Value, pointer: &str) -> f64 {
    stats.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {pointer} in {stats:#}"))
}

#[test]
fn everything_that_stats_shows_is_told_to_the_letter_of_openmetrics() {
    require_root!();
    let (lab, daemon, stats, text) = told();
    let page = Page::read(&text);
    assert!(page.families.keys().all(|name| name.starts_with("palisade_")), "{:?}", page.families.keys());
    for port in stats["ports"].as_array().unwrap() {
        let labels = [("port", port["name"].as_str().unwrap()), ("wire", port["wire"].as_str().unwrap())];
        for (name, pointer) in [
            ("palisade_port_receive_packets_total", "/rx/packets"),
            ("palisade_port_receive_bytes_total", "/rx/bytes"),
            ("palisade_port_transmit_packets_total", "/tx/packets"),
            ("palisade_port_transmit_bytes_total", "/tx/bytes"),
        ] {
            assert_eq!(page.sum(name, &labels), number(port, pointer), "{name} {labels:?}");
        }
        assert_eq!(page.sum("palisade_port_link_up", &labels), 1.0);
    }
    let wire = &stats["wires"][0];
    let labels = [("wire", wire["name"].as_str().unwrap())];
    for direction in ["left_to_right", "right_to_left"] {
        let labels = [labels[0], ("direction", direction)];
        let packets = number(wire, &format!("/{direction}/packets"));
        assert!(packets > 10.0);
        assert_eq!(page.sum("palisade_wire_forwarded_packets_total", &labels), packets);
    }
    let reasons = stats["drops"].as_array().unwrap();
    assert_eq!(page.samples("palisade_dropped_packets_total").count(), reasons.len(), "every reason");
    for drop in reasons {
        let labels = [("reason", drop["reason"].as_str().unwrap())];
        assert_eq!(page.sum("palisade_dropped_packets_total", &labels), number(drop, "/packets"));
        assert_eq!(page.sum("palisade_dropped_bytes_total", &labels), number(drop, "/bytes"));
    }
    for (name, pointer) in [
        ("palisade_generation", "/generation"),
        ("palisade_flows", "/flows/count"),
        ("palisade_flows_max", "/flows/max"),
        ("palisade_flows_inserted_total", "/flows/inserted"),
        ("palisade_worker_receive_packets_total", "/workers/0/rx/packets"),
        ("palisade_worker_forwarded_packets_total", "/workers/0/forwarded/packets"),
        ("palisade_worker_dropped_packets_total", "/workers/0/dropped"),
    ] {
        assert_eq!(page.sum(name, &[]), number(&stats, pointer), "{name}");
    }
    let received = number(&stats, "/workers/0/rx/packets");
    assert_eq!(page.sum("palisade_worker_burst_packets_sum", &[]), received, "every packet came in a burst");
    let bursts = page.sum("palisade_worker_burst_packets_count", &[]);
    assert_eq!(bursts, number(&stats, "/workers/0/bursts"));
    assert_eq!(page.sum("palisade_worker_burst_seconds_count", &[]), bursts);
    assert!(page.sum("palisade_worker_burst_seconds_sum", &[]) > 0.0);
    assert!(page.sum("palisade_worker_frames_free", &[]) > 0.0);
    // UDP is not known to be heard or not before the next message.
    assert!(page.sum("palisade_ipfix_sent_messages_total", &[]) >= 1.0);

    let rule = |comment: &str| page.sum("palisade_rule_packets_total", &[("comment", comment)]);
    assert_eq!(
        (rule("a \"web\" server"), rule("echo")),
        (1.0, 2.0),
        "the first packet of each flow, both echoes in one"
    );
    assert_eq!(page.sum("palisade_rules_left_out", &[]), 1.0, "the third comment");
    let policy = [("family", "ipv4"), ("table", "filter"), ("chain", "FORWARD"), ("policy", "DROP")];
    assert_eq!(page.sum("palisade_policy_packets_total", &policy), 0.0);
    assert_eq!(page.sum("palisade_rules", &[("family", "ipv4")]), 5.0);
    assert_eq!(page.sum("palisade_rules_confirmation_pending", &[]), 0.0);
    let applied = page.sum("palisade_rules_applied_seconds", &[]);
    let path = daemon.file("same.v4", RULES);
    daemon.fwctl(&["apply", "--confirm", "60s", &path.to_string_lossy()]);
    let page = Page::read(&scrape(&lab, "application/openmetrics-text"));
    assert_eq!(page.sum("palisade_rules_confirmation_pending", &[]), 1.0);
    assert!(page.sum("palisade_rules_confirmation_left_seconds", &[]) > 10.0);
    assert!(page.sum("palisade_rules_applied_seconds", &[]) > applied);
    assert_eq!(page.sum("palisade_generation", &[]), 2.0);
    check_with_promtool(&lab);
}

/// Has Prometheus' own checker look at the older format, where it is installed.
fn check_with_promtool(lab: &Lab) {
    if Command::new("promtool").arg("--version").output().is_err() {
        return eprintln!("not checked with promtool: it is not installed (Debian: prometheus)");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("page");
    std::fs::write(&path, scrape(lab, "text/plain")).expect("it can be done");
    let output = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::fs::File::open(&path).expect("it can be done"))
        .output()
        .expect("it can be done");
    let said = String::from_utf8_lossy(&output.stderr);
    // Style apart: it wants no `_info` gauges' and no base unit but its own. Errors of the format say so.
    assert!(!said.contains("error"), "{said}");
    assert!(output.status.code().is_some_and(|code| code == 0 || code == 3), "{said}");
}

fn monitoring(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../monitoring").join(file)
}

#[test]
fn dashboard_and_alerts_name_only_what_is_there() {
    require_root!();
    let (_lab, _daemon, _, text) = told();
    let page = Page::read(&text);
    let mut named = BTreeSet::new();
    let dashboard: Value =
        serde_json::from_str(&std::fs::read_to_string(monitoring("grafana.json")).unwrap()).unwrap();
    let mut panels = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            panels += 1;
            let (expr, legend) = (target["expr"].as_str().unwrap(), target["legendFormat"].as_str().unwrap());
            check_expression(&page, expr, legend, &mut named);
        }
    }
    assert!(panels > 30, "{panels}");
    for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
        check_expression(&page, annotation["expr"].as_str().unwrap(), "", &mut named);
    }
    let alerts = std::fs::read_to_string(monitoring("alerts.yaml")).unwrap();
    let rules: Vec<&str> = alerts.split("- alert: ").skip(1).collect();
    assert!(rules.len() > 10);
    for rule in rules {
        let (expr, rest) = rule.split_once("expr: ").unwrap().1.split_once("\n        labels:").unwrap();
        let expr = expr.split("\n        for:").next().unwrap().trim_start_matches(">-");
        check_expression(&page, expr, &rest.replace("$labels.", ""), &mut named);
    }
    // What is told and shown nowhere is no fault; that most of it is shown keeps the dashboard from being forgotten.
    assert!(named.len() * 2 > page.families.len(), "{} of {}", named.len(), page.families.len());
    if Command::new("promtool").arg("--version").output().is_err() {
        return eprintln!("not checked with promtool: it is not installed (Debian: prometheus)");
    }
    for args in [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"]] {
        let output = Command::new("promtool").args(args).current_dir(monitoring("")).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Labels that scraping adds.
const OF_SCRAPES: [&str; 3] = ["instance", "job", "le"];

/// Labels whose values are a fixed list, all of which are told.
const LISTED: [&str; 4] = ["reason", "cause", "direction", "xdp_mode"];

/// Checks the names, labels and values in a PromQL expression, and the labels in `{{ }}` of a text beside it.
fn check_expression(page: &Page, expr: &str, text: &str, named: &mut BTreeSet<String>) {
    let is_word = |char: char| char.is_ascii_alphanumeric() || char == '_' || char == ':';
    let mut labels: BTreeSet<String> = OF_SCRAPES.map(str::to_owned).into();
    let mut rest = expr;
    let mut found = 0;
    while let Some(at) = rest.find("palisade_") {
        let word_end = rest[at..].find(|char| !is_word(char)).map_or(rest.len(), |end| at + end);
        let name = &rest[at..word_end];
        let known = page.labels(name).unwrap_or_else(|| panic!("there is no {name}: {expr}"));
        let families = page.families.keys().filter(|family| name.starts_with(*family));
        named.extend(families.max_by_key(|family| family.len()).cloned());
        rest = &rest[word_end..];
        if let Some(inner) = rest.strip_prefix('{') {
            let inner = &inner[..inner.find('}').expect("braces close")];
            for matcher in inner.split(", ") {
                let (label, value) = matcher.split_once(['=', '!']).expect("a matcher");
                let value = value.trim_start_matches(['=', '~']).trim_matches('"');
                assert!(
                    known.contains(label) || OF_SCRAPES.contains(&label),
                    "{name} has no {label}: {expr}"
                );
                if LISTED.contains(&label) {
                    let all = page.values(label);
                    // The lab's NICs run one mode only.
                    let known =
                        |value: &str| all.contains(value) || label == "xdp_mode" && value == "generic";
                    assert!(value.split('|').all(known), "{label} is never {value}: {expr}");
                }
            }
        }
        labels.extend(known);
        found += 1;
    }
    assert!(found > 0 || expr.starts_with("up{"), "{expr} names nothing of ours");
    for by in ["by (", "on ("] {
        for list in expr.split(by).skip(1) {
            for label in list[..list.find(')').expect("it closes")].split(", ") {
                assert!(labels.contains(label), "no {label}: {expr}");
            }
        }
    }
    for label in text.split("{{").skip(1).filter_map(|part| part.split("}}").next()) {
        let label = label.trim();
        assert!(label.starts_with('$') || labels.contains(label), "no {label} for {text}: {expr}");
    }
}
