//! `fwctl workers` against a daemon that is not there.

use super::*;

#[test]
fn loads_shares_and_elephants_are_shown() {
    let rig = Rig::new(Fake::default());
    let (code, out, err) = rig.fwctl(&["workers", "--interval-ms", "50"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(
        lines[0],
        "worker  core  packets/s      %  buckets      flows      %  handed off/s  taken over/s"
    );
    assert!(lines[2].starts_with("     1     0       1000   50.0        0"), "{out}");
    assert!(out.contains("by a secret hash") && out.contains("handed over: eth0: it has no RSS"), "{out}");
    assert!(out.contains("10.0.0.1:1000 > 192.0.2.80:80"), "{out}");
    assert!(out.lines().all(|line| line.len() <= 100), "{out}");
    let (_, json, _) = rig.fwctl(&["workers", "--interval-ms", "50", "--json"]);
    let report: WorkersReport = serde_json::from_str(&json).unwrap();
    assert_eq!((report.interval_ms, report.workers.len()), (50, 2));
    let (code, _, err) = rig.fwctl(&["workers", "--interval-ms", "50", "rebalance", "--json"]);
    assert_eq!((code, err.as_str()), (0, ""));
}

#[test]
fn a_rebalance_says_what_it_did_or_would_do() {
    let rig = Rig::new(Fake::default());
    let (code, out, _) = rig.fwctl(&["workers", "rebalance"]);
    let done = "bucket   7: worker 0 > worker 1, 0 packets/s: moved\n\
                busiest worker: 180 % of the mean before, 104 % after\n";
    assert_eq!((code, out.as_str()), (0, done));
    let (code, out, _) = rig.fwctl(&["workers", "rebalance", "--dry-run"]);
    assert_eq!((code, out), (0, done.replace("moved", "would move")));
    let wrong = Cli::try_parse_from(["fwctl", "workers", "--interval-ms", "5"]).expect_err("too short");
    assert_eq!(wrong.exit_code(), 2);
}
