//! The operator's side of connection tracking, on the real daemon: flows listed, counted and deleted as conntrack(8) does
//! it, settings changed while it runs.

use dataplane::testing::packets::{tcp, udp};
use palisade_tests::daemon::{Daemon, binary};
use palisade_tests::frames;
use palisade_tests::lab::{Lab, Process};
use palisade_tests::require_root;
use palisade_tests::traffic;
use rustix::process::Signal;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

const RULES: &str = "\
*raw
-A PREROUTING -p udp -m udp --dport 7009 -j NOTRACK
COMMIT
*mangle
-A PREROUTING -p udp -m udp --dport 7001 -j CONNMARK --set-mark 0x11
COMMIT
*filter
:FORWARD DROP [0:0]
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A FORWARD -m conntrack --ctstate NEW,UNTRACKED -j ACCEPT
COMMIT
";

#[test]
fn flows_are_listed_deleted_and_flushed_as_conntrack_does_it() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::builder(&lab).rules(RULES).rules6(RULES).start();
    for port in [7000, 7001, 7002] {
        for is_v6 in [false, true] {
            assert_eq!(traffic::udp_echo(&lab.left, &lab.right, is_v6, port, 3, 100), 3);
        }
    }
    let listed =
        daemon.fwctl(&["flows", "-L", "-f", "ipv4", "-o", "extended,id", "-p", "udp", "--dport", "7001"]);
    let line = listed.trim_end();
    assert_eq!(line.lines().count(), 1, "{listed}");
    assert!(line.starts_with("ipv4     2 udp      17 "), "{line}");
    for part in
        ["src=10.77.0.1 dst=10.77.0.2 sport=", " dport=7001 packets=3 bytes=384 ", " mark=17 use=1 id="]
    {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(!daemon.fwctl(&["flows", "-L", "-o", "json", "--mark", "0x11"]).is_empty());

    let deleted = daemon.fwctl(&["flows", "-D", "-p", "udp", "--dport", "7001"]);
    assert_eq!(deleted.lines().filter(|line| line.contains("dport=7001")).count(), 2, "{deleted}");
    assert_eq!(daemon.fwctl(&["flows", "-C", "--dport", "7001"]).trim(), "0");
    assert!(
        daemon.try_fwctl(&["flows", "-D", "--dport", "7001"]).code != Some(0),
        "nothing was left to delete"
    );
    assert_eq!(daemon.fwctl(&["flows", "-C", "--dport", "7000"]).trim(), "2");

    let _ = daemon.fwctl(&["flows", "-F"]);
    assert_eq!(daemon.fwctl(&["flows", "-C"]).trim(), "0");
    let stats = daemon.fwctl(&["flows", "-S"]);
    assert!(
        stats.starts_with("cpu=0 ") && stats.contains(" insert=") && stats.contains(" chaintoolong=0"),
        "{stats}"
    );
    for (wrong, code) in [
        (&["flows", "-D"][..], 1),
        (&["flows", "-F", "-p", "udp"], 2),
        (&["flows", "-L", "-F"], 2),
        (&["flows", "-o", "yaml"], 2),
        (&["flows", "-I", "-p", "udp"], 3),
    ] {
        assert_eq!(daemon.try_fwctl(wrong).code, Some(code), "{wrong:?}");
    }
}

#[test]
fn tens_of_thousands_of_flows_are_marked_deleted_and_flushed() {
    const FLOWS: u16 = 30_000;
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::builder(&lab).rules(RULES).rules6(RULES).start();
    let left = lab.left_wire();
    let count = |args: &[&str]| -> u64 {
        daemon.fwctl(&[&["flows", "-C"], args].concat()).trim().parse().unwrap_or_default()
    };
    // As often as it takes: a queue may be full for a moment, and who was there already stays.
    let fill = || {
        let deadline = Instant::now() + Duration::from_secs(60);
        while count(&[]) < u64::from(FLOWS) {
            assert!(Instant::now() < deadline, "{} flows", count(&[]));
            for port in 0..FLOWS {
                left.send(&frames::udp_v4(&lab, 20_000 + port, 7100 + port % 2, b"x"));
                if port % 256 == 0 {
                    thread::sleep(Duration::from_millis(1));
                }
            }
            thread::sleep(Duration::from_millis(50));
        }
    };
    fill();
    assert_eq!(count(&["-p", "udp"]), u64::from(FLOWS));
    assert_eq!(count(&[]), u64::from(FLOWS));

    let marked = daemon.try_fwctl(&["flows", "-U", "--dport", "7100", "-m", "0x21", "-t", "600"]);
    assert_eq!(marked.code, Some(0), "{}", marked.stderr);
    assert!(marked.stderr.contains(": 15000 flow entries have been updated."), "{}", marked.stderr);
    assert!(marked.stdout.lines().all(|line| line.contains(" mark=33 ")), "as they are now");
    assert_eq!(
        (count(&["-m", "0x21"]), count(&["-m", "0x1/0xf"]), count(&["-m", "0"])),
        (15_000, 15_000, 15_000)
    );

    let deleted = daemon.try_fwctl(&["flows", "-D", "--dport", "7101"]);
    assert_eq!((deleted.code, deleted.stdout.lines().count()), (Some(0), 15_000), "{}", deleted.stderr);
    assert!(deleted.stderr.contains(": 15000 flow entries have been deleted."), "{}", deleted.stderr);
    assert_eq!(count(&[]), 15_000);

    fill();
    let flushed = daemon.try_fwctl(&["flows", "-F"]);
    assert_eq!(flushed.code, Some(0), "{}", flushed.stderr);
    assert!(
        flushed.stderr.ends_with(": connection tracking table has been emptied.\n"),
        "{}",
        flushed.stderr
    );
    assert_eq!((count(&[]), count(&["-p", "udp"])), (0, 0));
    assert_eq!(daemon.try_fwctl(&["flows", "-D"]).code, Some(1), "nothing is left");
}

/// Each works for its own flows; who asks sees one table.
#[test]
fn several_workers_are_asked_as_one() {
    require_root!();
    let lab = Lab::builder().queues(2).build();
    let daemon = Daemon::builder(&lab).rules(RULES).rules6(RULES).set("workers.cores", "2").start();
    let told = listener(&daemon, &["-e", "NEW,DESTROY"]);
    let left = lab.left_wire();
    while told.stdout().is_empty() {
        left.send(&frames::udp_v4(&lab, 1, 6999, b"x"));
        let _ = daemon.fwctl(&["flows", "-F"]);
    }
    let count = |args: &[&str]| daemon.fwctl(&[&["flows", "-C"], args].concat()).trim().to_owned();
    let fill = || {
        for port in 0..500 {
            left.send(&frames::udp_v4(&lab, 2000 + port, 7000, b"x"));
            left.send(&frames::udp_v6(&lab, 2000 + port, 7000, b"x"));
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while count(&["--dport", "7000"]) != "1000" {
            assert!(Instant::now() < deadline, "{} flows", count(&[]));
            thread::sleep(Duration::from_millis(20));
        }
    };
    fill();
    let deleted = daemon.try_fwctl(&["flows", "-D", "-f", "ipv6"]);
    assert_eq!((deleted.code, deleted.stdout.lines().count()), (Some(0), 500), "{}", deleted.stderr);
    assert_eq!(
        (count(&["-f", "ipv6"]), count(&["-f", "ipv4", "--dport", "7000"])),
        ("0".to_owned(), "500".to_owned())
    );
    fill();
    assert_eq!(daemon.try_fwctl(&["flows", "-F"]).code, Some(0));
    assert_eq!(count(&[]), "0");
    // 1000 flows, and 500 once more; all of them have gone.
    let of = |text: &str, kind: &str| {
        text.lines().filter(|line| line.contains(kind) && line.contains(" dport=7000 ")).count()
    };
    wait_for(&told, |text| of(text, "[DESTROY]") >= 1500);
    let text = told.stdout();
    assert_eq!((of(&text, "[NEW]"), of(&text, "[DESTROY]")), (1500, 1500), "{}", told.stderr());
}

#[test]
fn one_flow_is_shown_by_its_tuple_and_zones_stand_where_conntrack_has_them() {
    require_root!();
    let zones = "\
*raw
-A PREROUTING -p udp -m udp --dport 7001 -j CT --zone 5
-A PREROUTING -p udp -m udp --sport 7001 -j CT --zone 5
-A PREROUTING -p udp -m udp --dport 7002 -j CT --zone-orig 6
COMMIT
*filter
:FORWARD ACCEPT [0:0]
-A FORWARD -m conntrack --ctstate INVALID -j DROP
COMMIT
";
    let lab = Lab::new();
    let daemon = Daemon::builder(&lab).rules(zones).rules6(zones).start();
    for port in [7000, 7001, 7002] {
        assert_eq!(traffic::udp_echo(&lab.left, &lab.right, false, port, 1, 100), 1);
    }
    let listed = |args: &[&str]| daemon.fwctl(&[&["flows", "-L"], args].concat());
    assert!(listed(&["-w", "5"]).trim_end().ends_with(" mark=0 zone=5 use=1"), "{}", listed(&[]));
    assert!(listed(&["--orig-zone", "6"]).contains(" dport=7002 zone-orig=6 packets=1 "), "{}", listed(&[]));
    assert_eq!(listed(&["-w", "0", "--orig-zone", "0"]).lines().count(), 1);
    assert_eq!((listed(&["-n"]), daemon.fwctl(&["flows", "-L", "dying"])), (String::new(), String::new()));
    let line = listed(&["-p", "udp", "--dport", "7000"]);
    let sport = line.split(' ').find_map(|word| word.strip_prefix("sport=")).expect("a port").to_owned();
    let tuple =
        ["flows", "-G", "-p", "udp", "-s", "10.77.0.1", "-d", "10.77.0.2", "--dport", "7000", "--sport"];
    let got = daemon.fwctl(&[&tuple[..], &[&sport]].concat());
    assert!(got.starts_with("udp      17 ") && got.lines().count() == 1, "{got}");
    let missing = daemon.try_fwctl(&[&tuple[..], &["1"]].concat());
    assert_eq!(missing.code, Some(1));
    assert!(
        missing.stderr.ends_with("Operation failed: such conntrack doesn't exist\n"),
        "{}",
        missing.stderr
    );
}

/// A `fwctl flows -E` that listens.
fn listener(daemon: &Daemon, args: &[&str]) -> Process {
    let mut command = Command::new(binary("fwctl"));
    command.arg("--socket").arg(daemon.socket()).args(["flows", "-E"]).args(args);
    Process::spawn(command)
}

/// Waits until what was printed satisfies `is_there`.
#[track_caller]
fn wait_for(listener: &Process, is_there: impl Fn(&str) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_there(&listener.stdout()) {
        assert!(Instant::now() < deadline, "{}{}", listener.stdout(), listener.stderr());
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn events_are_told_to_every_listener_as_conntrack_tells_them() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::builder(&lab).rules(RULES).rules6(RULES).start();
    let bare = listener(&daemon, &["-p", "udp", "--dport", "7001"]);
    let timed = listener(&daemon, &["-o", "timestamp,id,extended", "-e", "NEW,DESTROY"]);
    let json = listener(&daemon, &["--json", "-f", "ipv6"]);
    // Until the last of them listens.
    for listener in [&bare, &timed] {
        while listener.stdout().is_empty() {
            assert_eq!(traffic::udp_echo(&lab.left, &lab.right, false, 7001, 1, 100), 1);
            thread::sleep(Duration::from_millis(100));
        }
    }
    assert_eq!(traffic::udp_echo(&lab.left, &lab.right, true, 7000, 1, 100), 1);
    wait_for(&json, |text| text.lines().count() >= 2);
    let before = bare.stdout().lines().count();
    assert_eq!(traffic::udp_echo(&lab.left, &lab.right, false, 7001, 2, 100), 2);
    wait_for(&bare, |text| text.lines().count() >= before + 2);
    let _ = daemon.fwctl(&["flows", "-D"]);
    wait_for(&bare, |text| text.lines().any(|line| line.starts_with("[DESTROY]")));
    wait_for(&timed, |text| text.contains("[DESTROY]"));
    wait_for(&json, |text| text.contains("DESTROY"));

    let mut said = Vec::new();
    for (listener, signal) in [(bare, Signal::INT), (timed, Signal::TERM), (json, Signal::INT)] {
        listener.signal(signal);
        let exit = listener.wait(Duration::from_secs(5));
        assert_eq!(exit.code, Some(0), "{}", exit.stderr);
        said.push(exit);
    }
    let [bare, timed, json] = &said[..] else { unreachable!("three were started") };
    let count = bare.stdout.lines().count();
    assert!(bare.stderr.ends_with(&format!(": {count} flow events have been shown.\n")), "{}", bare.stderr);
    let lines: Vec<&str> = bare.stdout.lines().skip(before).take(2).collect();
    let sport = lines[0].split(' ').find_map(|word| word.strip_prefix("sport=")).expect("a port");
    let ends = "src=10.77.0.1 dst=10.77.0.2";
    // The mark was set by a rule before the first packet was accepted.
    assert_eq!(
        lines,
        [
            format!(
                "    [NEW] udp      17 30 {ends} sport={sport} dport=7001 [UNREPLIED] src=10.77.0.2 dst=10.77.0.1 \
                 sport=7001 dport={sport} mark=17"
            ),
            format!(
                " [UPDATE] udp      17 30 {ends} sport={sport} dport=7001 src=10.77.0.2 dst=10.77.0.1 sport=7001 \
                 dport={sport} mark=17"
            ),
        ],
        "{}",
        bare.stdout
    );
    let gone = bare
        .stdout
        .lines()
        .find(|line| line.starts_with("[DESTROY]") && line.contains(sport))
        .expect("an end");
    assert!(gone.contains(" packets=2 bytes=256 src=") && gone.ends_with(" mark=17 [USERSPACE]"), "{gone}");
    for line in timed.stdout.lines() {
        let (time, rest) = line.split_once("]\t").expect("a time");
        let (secs, micros) = time.strip_prefix('[').and_then(|time| time.split_once('.')).expect("a point");
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
        assert!(secs.parse::<u64>().is_ok_and(|secs| now - secs < 60) && micros.len() == 6, "{line}");
        assert!(rest.contains(" ipv4     2 ") || rest.contains(" ipv6     10 "), "{line}");
        assert!(rest.contains("[NEW]") || rest.contains("[DESTROY]"), "{line}");
        assert!(rest.contains(" id="), "{line}");
    }
    for line in json.stdout.lines() {
        let event: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(event["flow"]["family"], 6, "{event}");
    }
}

#[test]
fn one_listener_too_many_is_refused_with_the_reason() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::builder(&lab).rules(RULES).start();
    let listeners: Vec<Process> = (0..16).map(|_| listener(&daemon, &[])).collect();
    for listener in &listeners {
        while listener.stdout().is_empty() {
            assert_eq!(traffic::udp_echo(&lab.left, &lab.right, false, 7001, 1, 100), 1);
            thread::sleep(Duration::from_millis(50));
        }
    }
    let refused = daemon.try_fwctl(&["flows", "-E"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""));
    assert_eq!(refused.stderr, "fwctl: 16 others are listening to events, and no more can\n");
    // The API goes on for others, and the place of one that leaves is free again.
    assert!(daemon.stats().flows() > 0);
    drop(listeners);
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut again = listener(&daemon, &[]);
        thread::sleep(Duration::from_millis(300));
        if again.is_running() {
            break;
        }
        assert!(Instant::now() < deadline, "{}", again.stderr());
    }
}

#[test]
fn settings_change_while_the_daemon_runs_and_flows_stay() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::builder(&lab).rules(RULES).rules6(RULES).start();
    assert_eq!(daemon.fwctl(&["sysctl", "udp_timeout"]), "udp_timeout = 30\n");
    assert!(daemon.fwctl(&["sysctl"]).lines().count() > 35);
    let _ = daemon.fwctl(&["sysctl", "-w", "net.netfilter.nf_conntrack_udp_timeout=1", "generic_timeout=5"]);
    assert_eq!(daemon.fwctl(&["sysctl", "nf_conntrack_udp_timeout"]), "nf_conntrack_udp_timeout = 1\n");
    assert_eq!(traffic::udp_echo(&lab.left, &lab.right, false, 7000, 3, 100), 3);
    assert_eq!(daemon.fwctl(&["flows", "-C", "--dport", "7000"]).trim(), "1");
    thread::sleep(Duration::from_millis(2_200));
    assert_eq!(daemon.fwctl(&["flows", "-C", "--dport", "7000"]).trim(), "0", "a second has passed");
    for wrong in [
        "udp_timeout=never",
        "udp_timeout=0",
        "udp_timeot=5",
        "max=4000000000",
        "count=1",
        "buckets=1",
        "events=3",
    ] {
        let refused = daemon.try_fwctl(&["sysctl", wrong]);
        let name = wrong.split('=').next().unwrap_or_default();
        assert!(refused.code == Some(1) && refused.stderr.contains(name), "{wrong}: {}", refused.stderr);
    }
    assert!(daemon.try_fwctl(&["sysctl", "udp_timeot=5"]).stderr.contains("did you mean `udp_timeout`"));
    let too_many = daemon.try_fwctl(&["sysctl", "net.nf_conntrack_max=4000000000"]);
    assert!(too_many.stderr.contains("made for 1048576 flows"), "{}", too_many.stderr);
}

#[test]
fn every_sysctl_of_the_kernel_is_known_and_switches_do_what_they_say() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::builder(&lab).rules(RULES).rules6(RULES).start();
    let value = |name: &str| -> u32 {
        daemon.fwctl(&["sysctl", "-n", name]).trim().parse().unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    // What this machine's kernel has, we have.
    for entry in std::fs::read_dir("/proc/sys/net/netfilter").expect("the kernel tracks connections") {
        let name = entry.expect("a name").file_name().to_string_lossy().into_owned();
        if name.starts_with("nf_conntrack_") && name != "nf_conntrack_frag6_low_thresh" {
            let _ = value(&format!("net.netfilter.{name}"));
        }
    }
    assert_eq!(traffic::udp_echo(&lab.left, &lab.right, false, 7000, 1, 100), 1);
    assert_eq!((value("nf_conntrack_count"), value("net.nf_conntrack_max")), (1, 1 << 20));
    assert!(value("buckets") > 10_000);
    let _ = daemon.fwctl(&["sysctl", "net.netfilter.nf_conntrack_max=5000"]);
    assert_eq!(daemon.stats().0["flows"]["max"], 5000);
    assert_eq!(value("max"), 5000);

    let line = || daemon.fwctl(&["flows", "-L", "--dport", "7000"]);
    assert!(line().contains(" packets=1 bytes=128 "), "{}", line());
    let _ = daemon.fwctl(&["sysctl", "-w", "net.netfilter.nf_conntrack_acct=0"]);
    assert!(!line().contains("packets=") && line().contains(" dport=7000 src="), "{}", line());
    let row: serde_json::Value = serde_json::from_str(&daemon.fwctl(&["flows", "--json"])).expect("JSON");
    assert!(row["orig"].get("packets").is_none(), "{row}");
    assert!(!line().contains("delta-time"), "{}", line());
    let _ = daemon.fwctl(&["sysctl", "timestamp=1", "acct=1"]);
    assert!(line().contains(" packets=1 ") && line().contains(" mark=0 delta-time="), "{}", line());
    let timed = daemon.fwctl(&["flows", "-L", "-o", "ktimestamp"]);
    assert!(timed.contains(" [start=") && timed.trim_end().ends_with("] use=1"), "{timed}");

    // Nothing is told while events are off, and somebody who listens is told so.
    let _ = daemon.fwctl(&["sysctl", "events=0"]);
    let deaf = listener(&daemon, &[]);
    assert!(deaf.wait_for_stderr("the setting `events` is 0", Duration::from_secs(5)), "{}", deaf.stderr());
    thread::sleep(Duration::from_millis(300));
    assert_eq!(traffic::udp_echo(&lab.left, &lab.right, false, 7001, 1, 100), 1);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(deaf.stdout(), "");
    let _ = daemon.fwctl(&["sysctl", "events=1"]);
    thread::sleep(Duration::from_millis(100));
    let _ = daemon.fwctl(&["flows", "-D", "--dport", "7001"]);
    wait_for(&deaf, |text| text.starts_with("[DESTROY] udp      17 "));
    // Known for a while, and from when to when.
    assert!(deaf.stdout().contains(" delta-time="), "{}", deaf.stdout());
}

#[test]
fn what_helpers_expect_is_listed_told_and_flushed() {
    require_root!();
    let rules = "\
*raw
-A PREROUTING -p udp -m udp --dport 69 -j CT --helper tftp
COMMIT
*filter
:FORWARD ACCEPT [0:0]
-A FORWARD -m conntrack --ctstate INVALID -j DROP
COMMIT
";
    let lab = Lab::new();
    let daemon = Daemon::builder(&lab).rules(rules).rules6(rules).start();
    let told = listener(&daemon, &["expect"]);
    let left = lab.left_wire();
    let request = b"\0\x01file\0octet\0";
    let mut port = 5000;
    while told.stdout().is_empty() {
        left.send(&frames::udp_v4(&lab, port, 69, request));
        thread::sleep(Duration::from_millis(100));
        port += 1;
    }
    let _ = daemon.fwctl(&["flows", "-F", "expect"]);
    left.send(&frames::udp_v4(&lab, 4000, 69, request));
    left.send(&frames::udp_v6(&lab, 4001, 69, request));
    let deadline = Instant::now() + Duration::from_secs(5);
    while daemon.fwctl(&["flows", "-C", "expect"]).trim() != "2" {
        assert!(Instant::now() < deadline, "{}", daemon.fwctl(&["flows", "-L"]));
    }
    let line = "proto=17 src=10.77.0.2 dst=10.77.0.1 sport=0 dport=4000 mask-src=255.255.255.255 \
                mask-dst=255.255.255.255 sport=0 dport=65535 master-src=10.77.0.1 master-dst=10.77.0.2 sport=4000 \
                dport=69 class=0 helper=tftp";
    let listed = daemon.fwctl(&["flows", "-L", "expect", "-f", "ipv4"]);
    assert!(listed == format!("299 {line}\n") || listed == format!("300 {line}\n"), "{listed}");
    let json: serde_json::Value =
        serde_json::from_str(&daemon.fwctl(&["flows", "-L", "expect", "-f", "ipv6", "--json"]))
            .expect("JSON");
    assert_eq!((&json["family"], &json["dport"], &json["helper"]), (&6.into(), &4001.into(), &"tftp".into()));

    // The answer uses it up; the other one goes when all are flushed.
    lab.right_wire().send(&udp(lab.right.v4, lab.left.v4).ports(5000, 4000).payload(b"data").build());
    while daemon.fwctl(&["flows", "-C", "expect"]).trim() != "1" {
        assert!(Instant::now() < deadline, "{}", daemon.fwctl(&["flows", "-L"]));
    }
    let flushed = daemon.try_fwctl(&["flows", "-F", "expect"]);
    assert!(flushed.stderr.ends_with(": expectation table has been emptied.\n"), "{}", flushed.stderr);
    assert_eq!(daemon.fwctl(&["flows", "-L", "expect"]), "");
    let is_end = |line: &str| line.starts_with("[DESTROY] ") && line.contains(" dport=4001 ");
    wait_for(&told, |text| text.lines().any(is_end));
    let of_one: Vec<String> =
        told.stdout().lines().filter(|line| line.contains(" dport=4000 ")).map(str::to_owned).collect();
    assert_eq!(of_one[0], format!("    [NEW] 300 {line}"));
    assert!(of_one.len() == 2 && of_one[1].starts_with("[DESTROY] "), "{of_one:?}");
    told.signal(Signal::INT);
    let exit = told.wait(Duration::from_secs(5));
    assert!(
        exit.code == Some(0) && exit.stderr.ends_with(" expectation events have been shown.\n"),
        "{exit:?}"
    );
}

#[test]
fn invalid_packets_are_logged_if_asked_for_and_not_too_many() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::builder(&lab).rules(RULES).rules6(RULES).start();
    let left = lab.left_wire();
    let synack = tcp(lab.left.v4, lab.right.v4).ports(1, 2).numbers(3, 4).window(1000).syn_ack().build();
    let short = {
        let mut frame = udp(lab.left.v4, lab.right.v4).ports(1, 2).build();
        frame[39] = 4;
        frame
    };
    let invalid = |daemon: &Daemon| daemon.stats().0["invalid"].to_string();
    let send = |frame: &[u8], times: usize| {
        let before = daemon.stats().rx();
        (0..times).for_each(|_| left.send(frame));
        let all = before + times as u64;
        let _ = daemon.stats_until("those packets", |stats| stats.rx() >= all);
    };
    send(&synack, 3);
    assert!(!daemon.process().stderr().contains("nf_ct_proto"), "not asked for: {}", invalid(&daemon));
    let _ = daemon.fwctl(&["sysctl", "-w", "net.netfilter.nf_conntrack_log_invalid=17"]);
    send(&synack, 3);
    send(&short, 1);
    let line = " SRC=10.77.0.1 DST=10.77.0.2 LEN=28 TOS=0x00 PREC=0x00 TTL=64 ID=";
    assert!(daemon.process().wait_for_stderr("nf_ct_proto_17: bad_length IN=", Duration::from_secs(5)));
    let log = daemon.process().stderr();
    assert!(log.contains(line) && log.contains(" PROTO=UDP SPT=1 DPT=2 LEN=4"), "{log}");
    assert!(!log.contains("nf_ct_proto_6"), "{log}");
    let _ = daemon.fwctl(&["sysctl", "log_invalid=255"]);
    send(&synack, 1);
    assert!(daemon.process().wait_for_stderr("nf_ct_proto_6: tcp_no_start IN=", Duration::from_secs(5)));
    assert!(daemon.process().stderr().contains("SEQ=3 ACK=4 WINDOW=1000 RES=0x00 ACK SYN URGP=0"));
    // A flood: some are written, the others counted.
    send(&synack, 2000);
    assert!(daemon.process().wait_for_stderr("were too many to be logged", Duration::from_secs(5)));
    let lines = daemon.process().stderr().matches("nf_ct_proto_6").count();
    assert!((50..400).contains(&lines), "{lines}");
    for wrong in ["log_invalid=256", "log_invalid=-1", "log_invalid=tcp"] {
        assert_eq!(daemon.try_fwctl(&["sysctl", wrong]).code, Some(1), "{wrong}");
    }
}
