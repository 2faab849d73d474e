//! What rules have written down, by the real daemon: lines in its log, capture files, and a warning where there are none.

use palisade_tests::daemon::Daemon;
use palisade_tests::lab::Lab;
use palisade_tests::require_root;
use palisade_tests::traffic;
use std::fs;
use std::time::{Duration, Instant};

const RULES: &str = "\
*mangle
-A FORWARD -j DSCP --set-dscp-class EF
COMMIT
*filter
-A FORWARD -p udp -m udp --dport 7001 -j LOG --log-prefix \"seven: \" --log-level debug
-A FORWARD -p udp -m udp --dport 7001 -m conntrack --ctstate NEW -j NFLOG --nflog-group 3 --nflog-prefix \"new ones\"
-A FORWARD -p udp -m udp --dport 7002 -j NFLOG --nflog-group 4 --nflog-size 28
COMMIT
";

/// Waits until something is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn packets_are_written_into_the_log_and_into_files() {
    require_root!();
    let lab = Lab::new();
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().display().to_string();
    let daemon = Daemon::builder(&lab).rules(RULES).set("log.nflog_dir", &path).start();
    assert_eq!(traffic::udp_echo(&lab.left, &lab.right, false, 7001, 3, 100), 3);
    assert_eq!(traffic::udp_echo(&lab.left, &lab.right, false, 7002, 2, 100), 2);
    let lines = || daemon.process().stderr().matches("seven: IN=").count();
    until("three lines", || lines() == 3);
    let log = daemon.process().stderr();
    let line = log.lines().find(|line| line.contains("seven: IN=")).unwrap_or_default();
    // Behind mangle it is expedited: TOS 0xb8.
    for part in [
        " OUT=",
        " MAC=",
        " SRC=10.77.0.1 DST=10.77.0.2 LEN=128 TOS=0x18 PREC=0xA0 ",
        " PROTO=UDP SPT=",
        " DPT=7001 ",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    let contents =
        |group: u16| fs::read(dir.path().join(format!("nflog-{group}.pcapng"))).unwrap_or_default();
    let has = |bytes: &[u8], words: &str| {
        bytes.windows(words.len()).filter(|seen| *seen == words.as_bytes()).count()
    };
    until("the files", || has(&contents(3), " ct=NEW ") == 1 && has(&contents(4), " ct=") == 2);
    assert_eq!(has(&contents(3), "prefix=new ones"), 1);
    assert!(contents(4).len() < 1000, "addresses and ports only");
    let replayed = daemon.try_fwctl(&["stats"]);
    assert_eq!(replayed.code, Some(0));
}

#[test]
fn a_traced_packet_leaves_its_steps_in_the_log() {
    require_root!();
    let lab = Lab::new();
    let rules = "*raw\n-A PREROUTING -p udp -m udp --dport 7003 -m recent --name seen --set -j TRACE\nCOMMIT\n\
        *filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -p udp -m recent --name shut --rcheck -j DROP\n-A FORWARD -p udp\nCOMMIT\n";
    let daemon = Daemon::builder(&lab).rules(rules).start();
    assert_eq!(traffic::udp_echo(&lab.left, &lab.right, false, 7003, 1, 100), 1);
    let steps = || {
        let log = daemon.process().stderr();
        let steps =
            log.split("TRACE: ").skip(1).map(|rest| rest.split(' ').next().unwrap_or_default().to_owned());
        steps.collect::<Vec<_>>()
    };
    let expected = ["raw:PREROUTING:policy:2", "filter:FORWARD:rule:2", "filter:FORWARD:policy:3"];
    until("its steps", || steps() == expected);
    // The addresses rules have seen, and one that is named by hand.
    let seen = daemon.fwctl(&["recent", "seen"]);
    assert!(seen.starts_with("src=10.77.0.1 ttl: 64 last_seen: "), "{seen}");
    assert_eq!(daemon.fwctl(&["recent", "shut"]), "");
    let passes = || traffic::udp_echo(&lab.left, &lab.right, false, 7004, 1, 100) == 1;
    assert!(passes());
    daemon.fwctl(&["recent", "shut", "--add", "10.77.0.1"]);
    assert!(!passes(), "the next packet meets it");
    daemon.fwctl(&["recent", "shut", "--del", "10.77.0.1"]);
    assert!(passes());
    let unknown = daemon.try_fwctl(&["recent", "nowhere", "--add", "10.77.0.1"]);
    assert_eq!(unknown.code, Some(1), "{}", unknown.stderr);
}

#[test]
fn without_a_directory_the_operator_is_told() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::builder(&lab).rules(RULES).start();
    assert_eq!(traffic::udp_echo(&lab.left, &lab.right, false, 7002, 2, 100), 2);
    until("a word", || daemon.process().stderr().contains("NFLOG group 4 has nowhere to go"));
}
