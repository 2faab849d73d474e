//! The operator's side of connection tracking, on the real daemon: flows listed, counted and deleted as conntrack(8) does
//! it, settings changed while it runs.

use palisade_tests::daemon::{Daemon, binary};
use palisade_tests::lab::Lab;
use palisade_tests::require_root;
use palisade_tests::traffic;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

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
    for wrong in
        [&["flows", "-D"][..], &["flows", "-F", "-p", "udp"], &["flows", "-L", "-F"], &["flows", "-o", "xml"]]
    {
        assert!(daemon.try_fwctl(wrong).code != Some(0), "{wrong:?}");
    }
}

#[test]
fn events_tell_of_flows_as_they_come_change_and_go() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::builder(&lab).rules(RULES).rules6(RULES).start();
    let mut listener = std::process::Command::new(binary("fwctl"))
        .arg("--socket")
        .arg(daemon.socket())
        .args(["flows", "-E", "-p", "udp", "--dport", "7000"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("fwctl starts");
    thread::sleep(Duration::from_millis(500));
    assert_eq!(traffic::udp_echo(&lab.left, &lab.right, false, 7000, 2, 100), 2);
    let _ = daemon.fwctl(&["flows", "-D", "--dport", "7000"]);
    thread::sleep(Duration::from_millis(500));
    listener.kill().expect("it was running");
    let text = std::io::read_to_string(listener.stdout.take().expect("it was piped")).expect("text");
    let _ = listener.wait();
    let tags: Vec<&str> =
        text.lines().map(|line| line.split(']').next().unwrap_or_default().trim_start()).collect();
    assert_eq!(tags, ["[NEW", "[UPDATE", "[DESTROY"], "{text}");
    assert!(text.contains("[NEW] udp      17 30 src=10.77.0.1 dst=10.77.0.2 "), "{text}");
}

#[test]
fn settings_change_while_the_daemon_runs_and_flows_stay() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::builder(&lab).rules(RULES).rules6(RULES).start();
    assert_eq!(daemon.fwctl(&["sysctl", "udp_timeout"]), "udp_timeout = 30\n");
    assert!(daemon.fwctl(&["sysctl"]).lines().count() > 35);
    let _ = daemon.fwctl(&["sysctl", "-w", "net.netfilter.nf_conntrack_udp_timeout=1", "generic_timeout=5"]);
    assert_eq!(daemon.fwctl(&["sysctl", "nf_conntrack_udp_timeout"]), "udp_timeout = 1\n");
    assert_eq!(traffic::udp_echo(&lab.left, &lab.right, false, 7000, 3, 100), 3);
    assert_eq!(daemon.fwctl(&["flows", "-C", "--dport", "7000"]).trim(), "1");
    thread::sleep(Duration::from_millis(2_200));
    assert_eq!(daemon.fwctl(&["flows", "-C", "--dport", "7000"]).trim(), "0", "a second has passed");
    for wrong in ["udp_timeout=never", "udp_timeout=0", "udp_timeot=5", "max=4000000000"] {
        let refused = daemon.try_fwctl(&["sysctl", wrong]);
        assert!(refused.code != Some(0), "{wrong}");
    }
    assert!(daemon.try_fwctl(&["sysctl", "udp_timeot=5"]).stderr.contains("did you mean `udp_timeout`"));
}
