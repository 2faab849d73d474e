//! The configuration of a daemon that runs: shown with its sources, changed while traffic flows, all of a change or nothing
//! of it; who may do what through the socket; and every change in the audit log.

use palisade_tests::daemon::{Daemon, binary};
use palisade_tests::lab::{Exit, Lab, Process};
use palisade_tests::require_root;
use palisade_tests::traffic;
use rustix::process::Signal;
use serde_json::Value;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

const RULES: &str = include_str!("../data/rules/gateway.v4.rules");

/// Groups and a user that nobody has.
const LOOKERS: &str = "54321";
const CHANGERS: &str = "54322";
const USER: &str = "54399";

fn passes(lab: &Lab) -> bool {
    traffic::udp_echo(&lab.left, &lab.right, false, 7000, 1, 10) == 1
}

fn setting<'a>(view: &'a Value, name: &str) -> &'a Value {
    let settings = view["settings"].as_array().expect("settings");
    settings.iter().find(|setting| setting["name"] == name).unwrap_or_else(|| panic!("no {name} in {view:#}"))
}

/// The audit log's records of one kind, once there are so many.
fn records(daemon: &Daemon, action: &str, count: usize) -> Vec<Value> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let text = daemon.fwctl(&["audit", "1000", "--json"]);
        let all: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let found: Vec<Value> = all.into_iter().filter(|record| record["action"] == action).collect();
        if found.len() >= count {
            return found;
        }
        assert!(Instant::now() < deadline, "{count} of {action} in {text}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A configuration file that the daemon can be told to read again.
struct File(tempfile::TempDir);

impl File {
    fn new(text: &str) -> Self {
        let file = Self(tempfile::TempDir::with_prefix("palisade-config-").expect("a temporary directory"));
        file.write(text);
        file
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("fwd.toml")
    }

    fn write(&self, text: &str) {
        fs::write(self.path(), text).expect("the file can be written");
    }
}

#[test]
fn settings_change_while_it_runs_all_or_none() {
    require_root!();
    let lab = Lab::new();
    let file = File::new("[conntrack]\nudp_timeout = 20\n[reject]\nicmp_msgs_per_sec = 100\n");
    let path = file.path();
    let daemon = Daemon::builder(&lab)
        .rules(RULES)
        .arg("--config")
        .arg(&path.to_string_lossy())
        .set("tcp_loose", "0")
        .start();
    assert!(passes(&lab));

    // What it works with, and why.
    let view = daemon.fwctl_json(&["config", "show"]);
    assert_eq!(setting(&view, "conntrack.udp_timeout")["value"], 20);
    assert_eq!(setting(&view, "conntrack.udp_timeout")["origin"]["line"], 2);
    assert_eq!(setting(&view, "conntrack.tcp_loose")["origin"]["from"], "command_line");
    assert_eq!(setting(&view, "flows.max")["origin"]["from"], "default");
    assert_eq!(setting(&view, "flows.max")["change"], "restart");
    let said = daemon.fwctl(&["config", "show", "--changed", "conntrack"]);
    assert!(said.contains("conntrack.tcp_loose = false") && said.contains("# --set tcp_loose=0"), "{said}");
    assert!(said.contains(&format!("# {}:2", path.display())) && !said.contains("gre_timeout"), "{said}");

    // Hot ones change, and the data plane works with them.
    let said =
        daemon.fwctl(&["config", "set", "l2.pass=[]", "log.level=debug", "udp_timeout=9", "idle=spin"]);
    assert!(said.contains("l2.pass: \"all\" -> []") && said.contains("udp_timeout: 20 -> 9"), "{said}");
    assert!(daemon.fwctl(&["sysctl", "udp_timeout"]).contains("= 9"));
    let neighbours = |netns: &palisade_tests::lab::Netns| netns.run("ip", &["neigh", "flush", "all"]);
    neighbours(&lab.left.netns);
    neighbours(&lab.right.netns);
    assert!(!passes(&lab), "ARP is forwarded no longer");
    daemon.fwctl(&["config", "set", "l2.pass=all"]);
    // The hosts ask for each other's address once a second.
    assert!((0..20).any(|_| passes(&lab)));
    let view = daemon.fwctl_json(&["config", "show"]);
    assert_eq!(setting(&view, "log.level")["origin"]["from"], "runtime");
    assert!(setting(&view, "log.level")["origin"]["by"].as_str().is_some_and(|by| by.starts_with("root")));

    // One that needs a restart, or one that is wrong, and none changes.
    let refused = daemon.try_fwctl(&["config", "set", "udp_timeout=5", "flows.max=5000"]);
    assert_eq!(refused.code, Some(3), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("needs a restart: flows.max (1048576 here, 5000 wanted)"),
        "{}",
        refused.stderr
    );
    let refused = daemon.try_fwctl(&["config", "set", "udp_timeout=5", "tcp_losse=1", "idle=spinn"]);
    assert_eq!(refused.code, Some(1));
    for part in ["did you mean `tcp_loose`?", "did you mean \"spin\"?", "^", "2 problem(s)"] {
        assert!(refused.stderr.contains(part), "{part} in {}", refused.stderr);
    }
    let refused = daemon.try_fwctl(&["config", "set", "udp_timeout=5", "log.nflog_dir=/proc/1"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("cannot be written to"), "{}", refused.stderr);
    assert!(daemon.fwctl(&["sysctl", "udp_timeout"]).contains("= 9"));

    // The file again: it wins over what was set by hand, and what needs a restart waits.
    file.write("[conntrack]\nudp_timeout = 30\n[flows]\nmax = 5000\n[state]\nhistory_max = 3\n");
    let said = daemon.fwctl(&["config", "reload"]);
    for part in [
        "udp_timeout: 9 -> 30",
        "log.level: \"debug\" -> \"info\"",
        "workers.idle: \"spin\" -> \"adaptive\"",
        "reject.icmp_msgs_per_sec: 100 -> 1000",
        "state.history_max: 20 -> 3",
        "flows.max needs a restart: 1048576 here, 5000 in the configuration",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(passes(&lab));
    assert_eq!(daemon.fwctl_json(&["config", "show"])["waiting"][0]["name"], "flows.max");
    // Wrong files change nothing, and say everything.
    file.write("[conntrack]\nudp_timeout = 0\ngre_timeout = 5\n[workers]\nidle = 3\n");
    let refused = daemon.try_fwctl(&["config", "reload"]);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("fwd.toml:2:15") && refused.stderr.contains(":5:8"),
        "{}",
        refused.stderr
    );
    assert!(daemon.fwctl(&["sysctl", "gre_timeout"]).contains("= 30"));

    // All of it is written down, the refusals too.
    let set = records(&daemon, "config set", 5);
    assert_eq!(
        (set[0]["before"]["conntrack.udp_timeout"].clone(), set[0]["after"]["conntrack.udp_timeout"].clone()),
        (Value::from(20), Value::from(9))
    );
    assert!(set[0]["who"]["command"].as_str().is_some_and(|words| words.contains("config set l2.pass=[]")));
    assert_eq!(set[2]["result"], "refused");
    let reloads = records(&daemon, "config reload", 2);
    assert_eq!((&reloads[0]["result"], &reloads[1]["result"]), (&"done".into(), &"refused".into()));
    assert_eq!(daemon.stop(Signal::TERM).code, Some(0));
}

#[test]
fn sighup_reads_configuration_and_rules_or_nothing() {
    require_root!();
    let lab = Lab::new();
    let file = File::new("[rules]\nv4 = \"one.v4\"\nv6 = \"six.v6\"\n");
    let rules = |name: &str, text: &str| fs::write(file.0.path().join(name), text).expect("written");
    rules("one.v4", RULES);
    rules("two.v4", "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n");
    rules("six.v6", "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n");
    rules("new.sets", "create fresh hash:ip\n");
    rules("bad.v4", "*filter\n-A FORWARD -j NOWHERE\nCOMMIT\n");
    let daemon = Daemon::builder(&lab).arg("--config").arg(&file.path().to_string_lossy()).start();
    assert!(passes(&lab));
    let generation = daemon.stats().generation();
    // Rules that are wrong: the settings and sets beside them stay as they were.
    file.write("[rules]\nv4 = \"bad.v4\"\nsets = \"new.sets\"\n[conntrack]\nudp_timeout = 7\n");
    daemon.signal(Signal::HUP);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !daemon.process().stderr().contains("the old rules stay in force") {
        assert!(Instant::now() < deadline, "{}", daemon.process().stderr());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(daemon.fwctl(&["sysctl", "udp_timeout"]).contains("= 30"));
    assert_eq!(daemon.stats().generation(), generation);
    assert!(!daemon.fwctl(&["set", "list"]).contains("fresh"));
    let refused = &records(&daemon, "reload", 1)[0];
    assert_eq!((&refused["result"], &refused["who"]["user"]), (&"refused".into(), &"fwd (SIGHUP)".into()));
    // Other rules, a setting and a set: all of them. A family without a file has no rules any more.
    assert!(daemon.fwctl(&["rules", "-6", "-S"]).contains(":FORWARD DROP"));
    file.write("[rules]\nv4 = \"two.v4\"\nsets = \"new.sets\"\n[conntrack]\nudp_timeout = 7\n");
    daemon.signal(Signal::HUP);
    daemon.stats_until("new rules", |stats| stats.generation() > generation);
    assert!(!passes(&lab));
    let changed = &records(&daemon, "config reload", 1)[0];
    assert_eq!(
        (&changed["after"]["conntrack.udp_timeout"], &changed["who"]["user"]),
        (&7.into(), &"fwd (SIGHUP)".into())
    );
    let reread = &records(&daemon, "reload", 2)[1];
    assert_eq!((&reread["before"]["ruleset"], &reread["after"]["ruleset"]), (&1.into(), &2.into()));
    assert!(daemon.fwctl(&["set", "list"]).contains("fresh"));
    assert!(!daemon.fwctl(&["rules", "-6", "-S"]).contains(":FORWARD DROP"));
}

/// `fwctl` as somebody else. The program is copied to where anybody can run it.
fn fwctl_as(daemon: &Daemon, gid: &str, groups: &str, args: &[&str]) -> Exit {
    let dir = daemon.socket().parent().expect("a directory").to_owned();
    fs::set_permissions(&dir, Permissions::from_mode(0o755)).expect("the directory is ours");
    let fwctl = dir.join("fwctl");
    if !fwctl.exists() {
        fs::copy(binary("fwctl"), &fwctl).expect("fwctl can be copied");
    }
    let mut command = Command::new("setpriv");
    let groups = if groups.is_empty() { "--clear-groups".to_owned() } else { format!("--groups={groups}") };
    command.args(["--reuid", USER, "--regid", gid, &groups, "--inh-caps=-all", "--bounding-set=-all"]);
    command.arg(&fwctl).arg("--socket").arg(daemon.socket()).args(args);
    Process::spawn(command).wait(Duration::from_secs(20))
}

#[test]
fn groups_look_and_change_as_they_may() {
    require_root!();
    let lab = Lab::new();
    let daemon =
        Daemon::builder(&lab).rules(RULES).set("api.group", LOOKERS).set("api.write_group", CHANGERS).start();
    let as_user = |gid: &str, groups: &str, args: &[&str]| fwctl_as(&daemon, gid, groups, args);
    // Nobody's business.
    let stranger = as_user(USER, "", &["stats"]);
    assert_eq!(stranger.code, Some(1), "{}", stranger.stderr);
    assert!(
        stranger.stderr.contains("none of the groups") && stranger.stderr.contains(LOOKERS),
        "{}",
        stranger.stderr
    );
    // Who may look, by primary and by supplementary group.
    for (gid, groups) in [(LOOKERS, ""), (USER, LOOKERS)] {
        assert_eq!(as_user(gid, groups, &["stats"]).code, Some(0));
        assert_eq!(as_user(gid, groups, &["set", "list"]).code, Some(0));
        for change in [
            &["sysctl", "udp_timeout=7"][..],
            &["flows", "-F"],
            &["rule", "add", "FORWARD", "-j", "DROP"],
            &["set", "create", "a", "hash:ip"],
            &["config", "set", "udp_timeout=7"],
            &["config", "reload"],
            &["confirm"],
            &["rollback"],
        ] {
            let refused = as_user(gid, groups, change);
            assert_eq!(refused.code, Some(1), "{change:?}");
            assert!(refused.stderr.contains(&format!("group {CHANGERS}")), "{change:?}: {}", refused.stderr);
        }
    }
    // Who may change.
    for (gid, groups) in [(CHANGERS, ""), (USER, "54321,54322")] {
        assert_eq!(as_user(gid, groups, &["sysctl", "udp_timeout=8"]).code, Some(0));
    }
    // With who did it, and with what was refused.
    let changes = records(&daemon, "sysctl", 4);
    assert_eq!((&changes[0]["result"], &changes[0]["who"]["uid"]), (&"refused".into(), &54399.into()));
    let done: Vec<&Value> = changes.iter().filter(|record| record["result"] == "done").collect();
    assert_eq!((done.len(), &done[0]["before"], &done[0]["after"]), (2, &30.into(), &8.into()));
    assert!(records(&daemon, "rules edit", 2).iter().all(|record| record["result"] == "refused"));
    let log = daemon.socket().parent().expect("a directory").join("state/audit.log");
    assert_eq!(fs::metadata(&log).expect("the log is there").permissions().mode() & 0o777, 0o640);
}

#[test]
fn every_kind_of_change_is_in_the_audit_log() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::start(&lab, RULES);
    assert!(passes(&lab));
    let path = daemon.file("nothing.v4", "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n");
    let path = path.to_string_lossy().into_owned();
    daemon.fwctl(&["apply", "--confirm", "60s", "--comment", "a try", &path]);
    daemon.fwctl(&["confirm"]);
    daemon.fwctl(&["rollback"]);
    daemon.fwctl(&["rule", "insert", "FORWARD", "-p", "udp", "--dport", "9", "-j", "DROP"]);
    assert_eq!(daemon.try_fwctl(&["rule", "delete", "FORWARD", "99"]).code, Some(1));
    daemon.fwctl(&["set", "create", "a", "hash:ip"]);
    daemon.fwctl(&["set", "add", "a", "10.0.0.1"]);
    daemon.fwctl(&["set", "list"]);
    assert!(passes(&lab));
    daemon.fwctl(&["flows", "-D", "-p", "udp"]);
    daemon.fwctl(&["flows", "-F"]);
    daemon.fwctl(&["workers", "rebalance"]);
    daemon.fwctl(&["apply", "--confirm", "2s", &path]);
    let taken_back = &records(&daemon, "rollback", 2)[1];
    assert_eq!(taken_back["who"]["user"], "fwd (not confirmed in time)");
    for (action, what, result) in [
        ("apply", "nothing.v4, to be confirmed within 60 s  # a try", "done"),
        ("confirm", "ruleset 2", "done"),
        ("rollback", "what ran before", "done"),
        ("rules edit", "IPv4 filter insert FORWARD -p udp --dport 9 -j DROP", "done"),
        ("sets", "create a hash:ip", "done"),
        ("flows delete", "proto=17", "done"),
        ("flows flush", "", "done"),
        ("workers rebalance", "interval_ms=1000&dry_run=false", "done"),
    ] {
        let record = &records(&daemon, action, 1)[0];
        assert!(record["what"].as_str().is_some_and(|said| said.ends_with(what)), "{what}: {record:#}");
        assert_eq!(record["result"], result, "{record:#}");
    }
    let edits = records(&daemon, "rules edit", 2);
    assert_eq!(edits[1]["result"], "refused");
    assert_eq!((&edits[0]["before"]["ruleset"], &edits[0]["after"]["ruleset"]), (&3.into(), &4.into()));
    assert_eq!(records(&daemon, "sets", 2).len(), 2, "looking at sets changes none");
    let said = daemon.fwctl(&["audit", "3"]);
    assert!(said.lines().count() == 3 && said.contains("fwd (not confirmed in time): rollback"), "{said}");
}

#[test]
fn a_full_disk_stops_no_change_and_is_told() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::builder(&lab).rules(RULES).set("log.audit", "/dev/full").start();
    daemon.fwctl(&["sysctl", "udp_timeout=7"]);
    let audit = daemon.try_fwctl(&["audit"]);
    assert!(audit.stdout.contains("sysctl udp_timeout=7  [30 -> 7]"), "{}", audit.stdout);
    assert!(
        audit.stderr.contains("/dev/full cannot be written") && audit.stderr.contains("1 records"),
        "{}",
        audit.stderr
    );
    let log = daemon.process().stderr();
    assert!(log.contains("the record: {") && log.contains("udp_timeout=7"), "{log}");
}
