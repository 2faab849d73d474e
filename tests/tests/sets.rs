//! Sets of a running daemon: made from a file, edited live, seen by the next packet, kept over reloads.

use palisade_tests::daemon::Daemon;
use palisade_tests::lab::Lab;
use palisade_tests::{require_root, traffic};
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// The lab's ends by address, whatever they are.
fn setup(lab: &Lab) -> (String, String, String) {
    let (left, right) = (lab.left.v4, lab.right.v4);
    let sets = format!(
        "create blocked hash:ip timeout 0 comment\nadd blocked 192.0.2.1 comment \"not here\"\n\
         create open hash:ip,port\nadd open {right},udp:7000\n\
         create seen hash:ip timeout 600 counters\n"
    );
    let rules = "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -m set --match-set blocked src -j DROP\n\
        -A FORWARD -m set --match-set open dst,dst -j SET --add-set seen src --exist\n\
        -A FORWARD -m set --match-set open dst,dst -j ACCEPT\n\
        -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT\nCOMMIT\n";
    (left.to_string(), sets, rules.to_owned())
}

fn daemon(lab: &Lab, sets: &str, rules: &str) -> (Daemon, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let path = dir.path().join("sets");
    std::fs::write(&path, sets).expect("a file can be written");
    let setting = format!("rules.sets={}", path.display());
    (Daemon::builder(lab).rules(rules).arg("--set").arg(&setting).start(), dir)
}

fn echoes(lab: &Lab, port: u16) -> bool {
    traffic::udp_echo(&lab.left, &lab.right, false, port, 1, 10) == 1
}

#[test]
fn an_edit_reaches_the_packets_of_a_running_daemon() {
    require_root!();
    let lab = Lab::new();
    let (left, sets, rules) = setup(&lab);
    let (daemon, _dir) = daemon(&lab, &sets, &rules);
    assert!(echoes(&lab, 7000));
    assert!(!echoes(&lab, 7001));
    let generation = daemon.stats().generation();
    let from = Instant::now();
    daemon.fwctl(&["set", "add", "blocked", &left]);
    println!("an edit with fwctl and all: {:?}", from.elapsed());
    assert!(!echoes(&lab, 7000), "the set has it, and no reload was needed");
    daemon.fwctl(&["set", "del", "blocked", &left]);
    assert!(echoes(&lab, 7000));
    daemon.fwctl(&["set", "add", "open", &format!("{},udp:7001-7005", lab.right.v4)]);
    assert!(echoes(&lab, 7001));
    // Swapped as a whole.
    daemon.fwctl(&["set", "create", "other", "hash:ip,port"]);
    daemon.fwctl(&["set", "swap", "open", "other"]);
    assert!(!echoes(&lab, 7001));
    daemon.fwctl(&["set", "swap", "other", "open"]);
    assert!(echoes(&lab, 7001));
    assert_eq!(daemon.stats().generation(), generation);
}

#[test]
fn a_rule_fills_a_set() {
    require_root!();
    let lab = Lab::new();
    let (left, sets, rules) = setup(&lab);
    let (daemon, _dir) = daemon(&lab, &sets, &rules);
    assert_eq!(daemon.try_fwctl(&["set", "test", "seen", &left]).code, Some(1));
    assert!(echoes(&lab, 7000));
    let deadline = Instant::now() + Duration::from_secs(5);
    while daemon.try_fwctl(&["set", "test", "seen", &left]).code != Some(0) {
        assert!(Instant::now() < deadline, "the order is carried out soon");
    }
    let saved = daemon.fwctl(&["set", "save", "seen"]);
    assert!(saved.contains(&format!("add seen {left} timeout ")), "{saved}");
}

#[test]
fn sets_survive_reloads_and_what_is_in_use_stays() {
    require_root!();
    let lab = Lab::new();
    let (left, sets, rules) = setup(&lab);
    let (daemon, dir) = daemon(&lab, &sets, &rules);
    daemon.fwctl(&["set", "add", "blocked", &left, "comment", "two words"]);
    daemon.apply(&rules);
    assert!(!echoes(&lab, 7000));
    // The file is read again: sets that are there stay as they are, new ones are made.
    std::fs::write(dir.path().join("sets"), format!("{sets}create fresh hash:net\nadd fresh 10.0.0.0/8\n"))
        .unwrap();
    daemon.signal(Signal::HUP);
    let deadline = Instant::now() + Duration::from_secs(10);
    while daemon.try_fwctl(&["set", "save", "fresh"]).code != Some(0) {
        assert!(Instant::now() < deadline, "the new set is made");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(
        daemon
            .fwctl(&["set", "save", "blocked"])
            .contains(&format!("add blocked {left} timeout 0 comment \"two words\""))
    );
    let refused = daemon.try_fwctl(&["set", "destroy", "blocked"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("it is in use"), "{}", refused.stderr);
    assert!(daemon.fwctl(&["set", "list", "-t", "open"]).contains("References: 2"));
    let missing =
        daemon.file("missing.v4", "*filter\n-A FORWARD -m set --match-set nope src -j DROP\nCOMMIT\n");
    let refused = daemon.try_fwctl(&["apply", &missing.to_string_lossy()]);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("there is no set `nope`") && refused.stderr.contains(":2:"),
        "{}",
        refused.stderr
    );
    daemon.apply("*filter\nCOMMIT\n");
    daemon.fwctl(&["set", "destroy", "blocked"]);
}

#[test]
fn a_file_with_errors_is_refused_as_a_whole_with_every_place() {
    require_root!();
    let lab = Lab::new();
    let (_, sets, rules) = setup(&lab);
    let (daemon, _dir) = daemon(&lab, &sets, &rules);
    let file = daemon
        .file("bad", "create a hash:ip\nadd a 1.2.3.4\nadd a 1.2.3.400\nadd b 1.2.3.4\ncreate c hash:pi\n");
    let refused = daemon.try_fwctl(&["set", "restore", "-file", &file.to_string_lossy()]);
    assert_eq!(refused.code, Some(1));
    for place in [":3:7", ":4:5", ":5:10"] {
        assert!(refused.stderr.contains(place), "{place} in {}", refused.stderr);
    }
    assert!(!daemon.fwctl(&["set", "list", "-n"]).contains("a\n"), "nothing was carried out");
}

#[test]
fn sets_come_with_rules_and_go_with_them() {
    require_root!();
    let lab = Lab::new();
    let (_, sets, rules) = setup(&lab);
    let (daemon, _dir) = daemon(&lab, &sets, &rules);
    let right = lab.right.v4;
    // Another kind of set under a known name, and a new one.
    let path = |name: &str, text: &str| daemon.file(name, text).to_string_lossy().into_owned();
    let rules = path(
        "new.v4",
        "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -m set --match-set open dst -m set --match-set ports dst -j ACCEPT\n\
         -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT\nCOMMIT\n",
    );
    let sets = path(
        "new.sets",
        &format!(
            "create open hash:net\nadd open {right}\ncreate ports bitmap:port range 7000-7010\nadd ports 7001\n"
        ),
    );
    let names = || daemon.fwctl(&["set", "list", "-name"]);
    let shown = || (daemon.fwctl(&["set", "save", "open"]), names());
    let before = shown();
    let bad = path("bad.sets", "create open hash:net\nadd open 10.0.0.300\n");
    for words in [["apply", "--sets", &bad, &rules], ["diff", "--sets", &bad, &rules]] {
        let refused = daemon.try_fwctl(&words);
        assert!(refused.code == Some(1) && refused.stderr.contains("bad.sets:2:"), "{}", refused.stderr);
    }
    // Right sets, wrong rules.
    let wrong = path("wrong.v4", "*filter\n-A FORWARD -m set --match-set nowhere dst -j ACCEPT\nCOMMIT\n");
    assert_eq!(daemon.try_fwctl(&["apply", "--sets", &sets, &wrong]).code, Some(1));
    let said = daemon.fwctl(&["diff", "--sets", &sets, &rules]);
    assert!(said.contains("set open: 1 entries become 1\nset ports: new, 1 entries\n"), "{said}");
    assert_eq!(shown(), before, "nothing has changed so far");
    assert!(echoes(&lab, 7000) && !echoes(&lab, 7001));

    daemon.fwctl(&["apply", "--confirm", "60s", "--sets", &sets, &rules]);
    assert!(!echoes(&lab, 7000) && echoes(&lab, 7001));
    daemon.fwctl(&["set", "add", "ports", "7002"]);
    assert!(echoes(&lab, 7002), "the rules have the set that commands know");
    daemon.fwctl(&["rollback"]);
    assert_eq!(shown(), before);
    assert!(echoes(&lab, 7000) && !echoes(&lab, 7001));
    daemon.fwctl(&["apply", "--sets", &sets, &rules]);
    assert!(!echoes(&lab, 7000) && echoes(&lab, 7001));
}
