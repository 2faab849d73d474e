//! `fwctl top` as text and as JSON, against a daemon that is not there.

use super::*;
use serde_json::Value;

fn report() -> TopReport {
    let rate = Rate { packets_per_sec: 1_500, bits_per_sec: 12_000_000 };
    TopReport {
        flows_count: 9,
        hosts: vec![TopHost {
            addr: "192.0.2.7".parse().unwrap(),
            sent: rate,
            received: Rate::default(),
            flows: 3,
            new_per_sec: 1,
        }],
        ..TopReport::default()
    }
}

#[test]
fn one_screen_of_text_has_every_list_and_ends() {
    let rig = Rig::new(Fake { stats: stats(), top: report(), ..Fake::default() });
    let (code, out, err) = rig.fwctl(&["top", "--once", "--interval", "0.2", "tcp", "443"]);
    assert_eq!((code, err.as_str()), (0, ""));
    for piece in [
        "filter: tcp 443",
        "! change 5 waits for `fwctl confirm`: back to 4 in 42 s",
        "! eth1 (wire0): link is down",
        "flows  9 of 1,048,576 (0 %)",
        "  12.0M       0   1.50k       3      1  192.0.2.7",
        "policy_drop",
        "worker  core",
        "fill empty",
    ] {
        assert!(out.contains(piece), "{piece} is missing in\n{out}");
    }
    assert!(out.lines().all(|line| line.chars().count() <= 100), "{out}");
    assert!(!out.contains('\x1b'), "text has no colours");
}

#[test]
fn json_is_what_the_daemon_says() {
    let rig = Rig::new(Fake { stats: stats(), top: report(), ..Fake::default() });
    let (code, out, _) =
        rig.fwctl(&["top", "--json", "-i", "0.2", "--by", "new", "-n", "3", "--count", "2", "dport", "443"]);
    assert_eq!((code, out.lines().count()), (0, 2));
    for line in out.lines() {
        let picture: Value = serde_json::from_str(line).unwrap();
        assert_eq!(picture["top"]["interval_ms"], 200);
        assert_eq!(picture["top"]["by"], "new");
        assert_eq!(picture["top"]["flows_count"], 443, "the filter arrives");
        assert_eq!(picture["top"]["hosts"][0]["addr"], "192.0.2.7");
        assert_eq!(picture["history"]["pending"]["secs_left"], 42);
        assert_eq!(picture["stats"]["generation"], 3);
    }
}

#[test]
fn what_cannot_be_done_is_said() {
    let rig = Rig::new(Fake::default());
    let (code, _, err) = rig.fwctl(&["top", "--once", "dport", "x"]);
    assert_eq!(code, 2);
    assert!(err.contains("filter: dport: `x`"), "{err}");
    for bad in [
        &["top", "-i", "0.1"][..],
        &["top", "--once", "--batch"],
        &["top", "-n", "0"],
        &["top", "--by", "size"],
    ] {
        assert_eq!(Cli::try_parse_from([&["fwctl"], bad].concat()).expect_err(&bad.join(" ")).exit_code(), 2);
    }
    let (code, _, err) = fwctl(&["--socket", "/nonexistent/s", "top", "--once"]);
    assert_eq!(code, 4);
    assert!(err.contains("is fwd running?"), "{err}");
    let refuse = Some(ApplyError::new(ErrorKind::Busy, "8 others look at the top flows already"));
    let (code, _, err) =
        Rig::new(Fake { stats: stats(), refuse, ..Fake::default() }).fwctl(&["top", "--once", "-i", "0.2"]);
    assert_eq!((code, err.as_str()), (1, "fwctl: 8 others look at the top flows already\n"));
}
