//! Rules in the operator's hand: tried for a while, confirmed or taken back, edited one by one, remembered; printed as
//! iptables prints them.

use palisade_tests::daemon::Daemon;
use palisade_tests::lab::Lab;
use palisade_tests::require_root;
use palisade_tests::traffic;
use rustix::process::Signal;
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

const RULES: &str = include_str!("../data/rules/gateway.v4.rules");

/// Nothing passes.
const NOTHING: &str = "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n";

/// Known connections pass, new ones do not.
const KNOWN_ONLY: &str =
    "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\nCOMMIT\n";

fn passes(lab: &Lab) -> bool {
    traffic::udp_echo(&lab.left, &lab.right, false, 7000, 1, 10) == 1
}

fn entry(history: &Value, number: u64) -> &Value {
    let entries = history["entries"].as_array().expect("entries");
    entries.iter().find(|entry| entry["number"] == number).expect("the entry is there")
}

fn history_until(daemon: &Daemon, is_there: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let history = daemon.fwctl_json(&["history"]);
        if is_there(&history) {
            return history;
        }
        assert!(Instant::now() < deadline, "{history:#}\n{}", daemon.process().stderr());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_change_that_nobody_confirms_is_taken_back() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::start(&lab, RULES);
    assert!(passes(&lab));
    let path = daemon.file("nothing.v4", NOTHING);
    let path = path.to_string_lossy();
    let said = daemon.fwctl(&["apply", "--confirm", "4s", "--comment", "locked out", &path]);
    assert!(said.contains("they go again in 4 s"), "{said}");
    assert!(!passes(&lab));
    let meanwhile = daemon.try_fwctl(&["rule", "add", "FORWARD", "-j", "ACCEPT"]);
    assert_eq!(meanwhile.code, Some(1));
    assert!(meanwhile.stderr.contains("ruleset 2 waits for its confirmation"), "{}", meanwhile.stderr);

    let history = history_until(&daemon, |history| history["running"] == 3);
    assert!(passes(&lab));
    assert_eq!(entry(&history, 2)["outcome"], "rolled_back");
    assert_eq!(entry(&history, 2)["comment"], "locked out");
    assert!(entry(&history, 2)["who"].as_str().is_some_and(|who| who.starts_with("root (process ")));
    assert_eq!(entry(&history, 3)["what"], "rollback to 1: 2 was not confirmed in time");
    assert_eq!(daemon.try_fwctl(&["confirm"]).code, Some(1), "there is nothing to confirm any more");
}

#[test]
fn confirmed_rules_stay_until_they_are_rolled_back() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::start(&lab, RULES);
    let path = daemon.file("nothing.v4", NOTHING);
    daemon.fwctl(&["apply", "--confirm", "60s", &path.to_string_lossy()]);
    assert_eq!(daemon.fwctl(&["confirm"]), "ruleset 2 is confirmed and stays\n");
    assert!(!passes(&lab));
    assert_eq!(entry(&daemon.fwctl_json(&["history"]), 2)["outcome"], "confirmed");
    daemon.fwctl(&["rollback"]);
    assert!(passes(&lab));
    daemon.fwctl(&["rollback", "2", "--comment", "once more"]);
    assert!(!passes(&lab));
    assert!(daemon.fwctl(&["history", "2"]).contains(":FORWARD DROP [0:0]"));
    assert_eq!(daemon.try_fwctl(&["rollback", "77"]).code, Some(1));

    // Taken back by hand before the time is over.
    let path = daemon.file("rules.again", RULES);
    daemon.fwctl(&["apply", "--confirm", "60s", &path.to_string_lossy()]);
    assert!(passes(&lab));
    daemon.fwctl(&["rollback"]);
    assert!(!passes(&lab));
    let history = daemon.fwctl_json(&["history"]);
    assert!(history["pending"].is_null());
    assert_eq!(entry(&history, 5)["outcome"], "rolled_back");
    assert_eq!(history["running"], 6);
}

#[test]
fn the_history_survives_the_daemon() {
    require_root!();
    let lab = Lab::new();
    let state = tempfile::TempDir::with_prefix("palisade-state-").expect("a temporary directory");
    let start = || {
        let dir = state.path().to_string_lossy().into_owned();
        Daemon::builder(&lab).rules(RULES).set("state.dir", &dir).set("state.history_max", "3").start()
    };
    let daemon = start();
    daemon.apply(NOTHING);
    daemon.fwctl(&["apply", "--confirm", "60s", &daemon.file("known.v4", KNOWN_ONLY).to_string_lossy()]);
    assert_eq!(daemon.stop(Signal::TERM).code, Some(0));

    let daemon = start();
    let history = daemon.fwctl_json(&["history"]);
    assert_eq!(history["running"], 4, "it starts with its rules file: {history:#}");
    assert_eq!(entry(&history, 3)["outcome"], "rolled_back", "nobody could confirm it any more");
    let numbers: Vec<u64> =
        history["entries"].as_array().unwrap().iter().filter_map(|entry| entry["number"].as_u64()).collect();
    assert_eq!(numbers, [2, 3, 4]);
    assert!(passes(&lab));
    daemon.fwctl(&["rollback", "2"]);
    assert!(!passes(&lab));
}

#[test]
fn flows_that_are_no_longer_allowed_go_when_asked() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::start(&lab, RULES);
    assert!(passes(&lab) && passes(&lab));
    let count = || daemon.fwctl(&["flows", "-C", "-p", "udp"]).trim().parse::<u64>().expect("a number");
    let flows = count();
    assert!(flows >= 2);
    let path = daemon.file("known.v4", KNOWN_ONLY);
    let path = path.to_string_lossy();
    let report = daemon.fwctl_json(&["apply", "--dry-run", &path]);
    assert!(report["flows"]["refused"].as_u64() >= Some(flows), "{report:#}");
    assert_eq!(count(), flows, "a dry run changes nothing");
    daemon.fwctl(&["apply", &path]);
    assert_eq!(count(), flows, "their next packet meets the new rules");
    let said = daemon.fwctl(&["apply", "--flows", "kill", &path]);
    assert!(said.contains("flows removed that these rules do not allow"), "{said}");
    assert_eq!(count(), 0);
}

#[test]
fn flows_that_are_kept_go_on_whatever_the_rules_say() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::start(&lab, RULES);
    let addr = std::net::SocketAddr::new(lab.right.v4.into(), 80);
    let listener = traffic::listen(&lab.right.netns, addr);
    let client = traffic::connect(&lab.left.netns, addr, traffic::PATIENCE).unwrap();
    let (server, _) = listener.accept().unwrap();
    // One stream through all of it: nobody says that this was the last.
    let talk = |bytes: usize| {
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| (&client).write_all(&vec![7; bytes]));
            let mut came = vec![0; bytes];
            (&server).read_exact(&mut came).unwrap();
            sender.join().unwrap().unwrap();
            assert!(came.iter().all(|byte| *byte == 7));
        });
    };
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(traffic::PATIENCE)).unwrap();
        stream.set_write_timeout(Some(traffic::PATIENCE)).unwrap();
    }
    talk(1 << 20);
    let path = daemon.file("nothing.v4", NOTHING);
    let path = path.to_string_lossy();
    let report = daemon.fwctl_json(&["apply", "--dry-run", &path]);
    assert!(report["flows"]["kept"].as_u64() >= Some(1), "{report:#}");
    let report = daemon.fwctl_json(&["apply", "--flows", "keep", &path]);
    assert!(report["flows_exempt"].as_u64() >= Some(1), "{report:#}");
    assert!(!passes(&lab), "what begins now meets the new rules");
    talk(4 << 20);
    assert!(daemon.fwctl(&["flows", "-L", "-p", "tcp"]).contains("[ASSURED] [KEPT]"));
    assert!(daemon.fwctl(&["rules", "-4"]).contains("Kept flows ("));
    let rules = daemon.fwctl_json(&["rules", "-4"]);
    assert!(rules[0]["kept"]["packets"].as_u64() > Some(10), "{rules:#}");
    // An edit that keeps them too, and one that does not.
    daemon.fwctl(&["rule", "--flows", "keep", "add", "FORWARD", "-p", "tcp", "-j", "DROP"]);
    talk(1 << 20);
    let said = daemon.fwctl(&["rule", "--json", "delete", "FORWARD", "1"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    let warnings = said["warnings"].to_string();
    assert!(warnings.contains("flows that had been kept meet the rules again"), "{said:#}");
    assert!(!daemon.fwctl(&["flows", "-L", "-p", "tcp"]).contains("[KEPT]"));
}

#[test]
fn an_edit_and_a_rollback_can_be_tried_as_well() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::start(&lab, RULES);
    daemon.fwctl(&["rule", "--confirm", "3s", "insert", "FORWARD", "-j", "DROP"]);
    assert!(!passes(&lab));
    let tried = daemon.try_fwctl(&["rollback", "--confirm", "60s"]);
    assert_eq!(tried.code, Some(1), "what it would go back to was never confirmed");
    history_until(&daemon, |history| history["running"] == 3);
    assert!(passes(&lab));
    daemon.fwctl(&["rollback", "2", "--confirm", "3s"]);
    assert!(!passes(&lab));
    let history = history_until(&daemon, |history| history["running"] == 5);
    assert_eq!(entry(&history, 4)["outcome"], "rolled_back");
    assert!(passes(&lab));
    daemon.fwctl(&["rollback", "2", "--confirm", "60s"]);
    assert_eq!(daemon.fwctl(&["confirm"]), "ruleset 6 is confirmed and stays\n");
    assert!(!passes(&lab));
}

#[test]
fn rules_are_edited_and_printed_as_iptables_does_it() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::start(&lab, RULES);
    let file = daemon.file("same.v4", RULES);
    let iptables = |words: &str| lab.gateway.run("iptables", &words.split(' ').collect::<Vec<_>>());
    lab.gateway.run("iptables-restore", &[&file.to_string_lossy()]);
    let plain = |text: String| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        // Policies may have counted a stray packet.
        lines.map(|line| line.split(" [").next().unwrap_or_default().trim_end().to_owned()).collect()
    };
    let compare = || {
        let saved = plain(lab.gateway.run("iptables-save", &["-t", "filter"]));
        assert_eq!(plain(daemon.fwctl(&["rules", "-S", "-4", "-t", "filter"])), saved);
        for switches in ["-L -n", "-L -n --line-numbers"] {
            let words: Vec<&str> = ["rules", "-4"].into_iter().chain(switches.split(' ')).collect();
            assert_eq!(plain(daemon.fwctl(&words)), plain(iptables(switches)), "{switches}");
        }
    };
    compare();
    for (edit, letter) in [
        ("insert FORWARD -s 10.9.9.9,10.8.8.8 -j DROP", "-I"),
        ("insert FORWARD 3 -p udp --dport 4444 -j ACCEPT", "-I"),
        ("add public -p tcp --dport 9999 -m comment --comment last -j RETURN", "-A"),
        ("replace icmp 1 -p icmp --icmp-type echo-request -m conntrack --ctstate NEW -j ACCEPT", "-R"),
        ("delete FORWARD 1", "-D"),
        ("delete FORWARD -p tcp --dport 113 -j REJECT --reject-with tcp-reset", "-D"),
    ] {
        let words: Vec<&str> = edit.split(' ').collect();
        daemon.fwctl(&[&["rule"], words.as_slice()].concat());
        iptables(&format!("{letter} {}", words[1..].join(" ")));
        compare();
    }
    assert_eq!(traffic::udp_echo(&lab.left, &lab.right, false, 4444, 1, 10), 1);
    let history = daemon.fwctl_json(&["history"]);
    let what = "rule delete: IPv4 filter -D FORWARD 1";
    assert!(history["entries"].as_array().unwrap().iter().any(|entry| entry["what"] == what), "{history:#}");
    // What iptables refuses is refused, and nothing has changed.
    for wrong in
        ["delete FORWARD 99", "delete FORWARD -j QUEUEUE", "add NOWHERE -j DROP", "insert FORWARD 99 -j DROP"]
    {
        let words: Vec<&str> = ["rule"].into_iter().chain(wrong.split(' ')).collect();
        assert_eq!(daemon.try_fwctl(&words).code, Some(1), "{wrong}");
    }
    compare();
    daemon.fwctl(&["rollback", "1"]);
    lab.gateway.run("iptables-restore", &[&file.to_string_lossy()]);
    compare();
}

#[test]
fn a_diff_names_each_rule_that_changes() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::start(&lab, RULES);
    assert!(passes(&lab));
    let changed = RULES
        .replace("-A FORWARD -p icmp -j icmp\n", "")
        .replace("-A INPUT -i lo -j ACCEPT\n", "-A INPUT -i lo -j ACCEPT\n-A FORWARD -p icmp -j icmp\n")
        .replace("-p udp -m udp --dport 7000 -j ACCEPT", "-p udp -m udp --dport 7000 -j DROP");
    let path = daemon.file("changed.v4", &changed);
    let out = daemon.fwctl(&["diff", &path.to_string_lossy()]);
    let said: Vec<&str> = out.lines().collect();
    assert_eq!(said[0], "IPv4: 1 rules added, 1 removed, 1 moved, 14 as they are", "{out}");
    assert!(said.contains(&"> 1     -A FORWARD -p icmp -j icmp  (was 3) [0:0]"), "{out}");
    assert!(said.contains(&"- 4     -A public -p udp -m udp --dport 7000 -j ACCEPT  [1:38]"), "{out}");
    assert!(said.contains(&"+ 4     -A public -p udp -m udp --dport 7000 -j DROP"), "{out}");
    assert!(out.contains("that could not begin under these rules"), "{out}");
}

/// Rules that one test loads; more by hand: `RULES=100000 cargo test -p palisade-tests --test operator many -- --nocapture`.
const MANY: u32 = 10_000;

#[test]
fn many_rules_are_handled_as_few_are() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::start(&lab, RULES);
    let many = std::env::var("RULES").ok().and_then(|many| many.parse().ok()).unwrap_or(MANY);
    let mut rules = String::from("*filter\n:FORWARD DROP [0:0]\n-A FORWARD -p udp -j ACCEPT\n");
    for n in 0..many {
        let (net, port) =
            (std::net::Ipv4Addr::from(0x0a00_0000 + n.wrapping_mul(2_654_435_761) % 0x0100_0000), n % 60_000);
        rules.push_str(&format!("-A FORWARD -s {net}/32 -p tcp -m tcp --dport {port} -j ACCEPT\n"));
    }
    rules.push_str("COMMIT\n");
    let path = daemon.file("many.v4", &rules);
    let path = path.to_string_lossy();
    let timed = |words: &[&str]| {
        let start = Instant::now();
        let said = daemon.fwctl(words);
        println!("{:>8.3} s  fwctl {}", start.elapsed().as_secs_f64(), words.join(" "));
        said
    };
    timed(&["check", &path]);
    timed(&["diff", &path]);
    timed(&["apply", &path]);
    assert!(passes(&lab));
    let diff = timed(&["diff", &path]);
    assert!(diff.starts_with(&format!("IPv4: nothing changes, {} rules stay", many + 1)), "{diff}");
    timed(&["rule", "insert", "FORWARD", "-p", "udp", "--dport", "7000", "-j", "DROP"]);
    assert!(!passes(&lab));
    timed(&["rule", "delete", "FORWARD", "-p", "udp", "--dport", "7000", "-j", "DROP"]);
    assert!(passes(&lab));
    let saved = timed(&["rules", "-S", "-4"]);
    assert_eq!(saved.lines().filter(|line| line.starts_with("-A")).count(), many as usize + 1);
    timed(&["history"]);
    timed(&["rollback", "1"]);
    assert!(passes(&lab));
}
