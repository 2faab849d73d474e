//! `fwctl doctor` on real NICs: planted faults are found, each with what mends it, and mended where that is safe.

use palisade_tests::daemon::{Daemon, binary};
use palisade_tests::lab::{Exit, GATEWAY_LEFT, GATEWAY_RIGHT, Lab, Process};
use palisade_tests::require_root;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

const ACCEPT: &str = include_str!("../data/rules/accept.v4.rules");

const WARNINGS: Option<i32> = Some(5);
const FAULTS: Option<i32> = Some(6);

/// Where an operator of the gateway sits: in its namespace, beside a daemon or without.
struct Operator<'lab> {
    lab: &'lab Lab,
    socket: String,
    journal: String,
}

impl<'lab> Operator<'lab> {
    fn of(lab: &'lab Lab, socket: &Path, journal: &Path) -> Self {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        Self { lab, socket: text(socket), journal: text(journal) }
    }

    fn doctor(&self, args: &[&str]) -> Exit {
        let journal = format!("net.journal_dir={}", self.journal);
        let fwctl = binary("fwctl").to_string_lossy().into_owned();
        let known = [
            "--socket",
            &self.socket,
            "doctor",
            "--left",
            GATEWAY_LEFT,
            "--right",
            GATEWAY_RIGHT,
            "--set",
            &journal,
        ];
        self.lab.gateway.exec(&fwctl, &[&known, args].concat())
    }

    /// What is found, and the exit code.
    #[track_caller]
    fn findings(&self, args: &[&str]) -> (Vec<Value>, Option<i32>) {
        let exit = self.doctor(&[args, &["--json"]].concat());
        let report: Value =
            serde_json::from_str(&exit.stdout).unwrap_or_else(|error| panic!("{error} in {exit:?}"));
        (report["findings"].as_array().cloned().unwrap_or_default(), exit.code)
    }
}

/// The finding of this check about this subject.
fn find<'a>(findings: &'a [Value], check: &str, subject: &str) -> Option<&'a Value> {
    findings.iter().find(|finding| finding["check"] == check && finding["subject"] == subject)
}

/// Attaches the program of a gateway that runs to another NIC, by netlink, as an old version of it would have left it.
fn plant_program(lab: &Lab) {
    let elsewhere = Lab::new();
    let daemon = Daemon::start(&elsewhere, ACCEPT);
    let (name, id) = elsewhere.xdp_program(GATEWAY_LEFT).expect("a gateway has a program on each NIC");
    assert_eq!(name, "palisade_xdp");
    lab.gateway.run("bpftool", &["net", "attach", "xdpdrv", "id", &id.to_string(), "dev", GATEWAY_LEFT]);
    drop(daemon);
    assert!(lab.xdp_program(GATEWAY_LEFT).is_some(), "it stays when its gateway has gone");
}

#[test]
fn without_a_daemon_planted_faults_are_found_and_mended() {
    require_root!();
    let lab = Lab::new();
    let dir = TempDir::new().unwrap();
    let operator = Operator::of(&lab, &dir.path().join("no.sock"), &dir.path().join("journal"));
    let (before, _) = operator.findings(&[]);
    for (check, subject) in [("program", GATEWAY_LEFT), ("mtu", "wire0"), ("journal", GATEWAY_LEFT)] {
        assert_eq!(find(&before, check, subject), None);
    }
    // A gateway that is killed leaves its notes and its changes.
    for nic in [GATEWAY_LEFT, GATEWAY_RIGHT] {
        lab.gateway.run("ethtool", &["-K", nic, "gro", "on"]);
    }
    let offloads = lab.offloads(GATEWAY_LEFT);
    let _ = Daemon::builder(&lab).rules(ACCEPT).set("net.journal_dir", &operator.journal).start().kill();
    assert_ne!(lab.offloads(GATEWAY_LEFT), offloads);
    plant_program(&lab);
    lab.gateway.ip(&["link", "set", "dev", GATEWAY_RIGHT, "mtu", "1400"]);

    let planted =
        [("program", GATEWAY_LEFT), ("mtu", "wire0"), ("journal", GATEWAY_LEFT), ("journal", GATEWAY_RIGHT)];
    let (found, code) = operator.findings(&[]);
    assert_eq!(code, FAULTS);
    for (check, subject) in planted {
        let finding =
            find(&found, check, subject).unwrap_or_else(|| panic!("no {check} of {subject}: {found:#?}"));
        assert_eq!((&finding["can_be_fixed"], &finding["fixed"]), (&true.into(), &false.into()));
        assert!(finding["mend"].as_str().is_some_and(|mend| !mend.is_empty()), "{finding:#}");
    }
    // Looking changes nothing.
    assert!(lab.xdp_program(GATEWAY_LEFT).is_some());

    let (mended, code) = operator.findings(&["--fix"]);
    assert_ne!(code, FAULTS, "{mended:#?}");
    for (check, subject) in planted {
        let finding = find(&mended, check, subject).unwrap_or_else(|| panic!("no {check} of {subject}"));
        assert_eq!(finding["fixed"], true, "{finding:#}");
    }
    assert_eq!(lab.xdp_program(GATEWAY_LEFT), None);
    assert_eq!(lab.gateway.link(GATEWAY_LEFT)["mtu"], 1400);
    assert_eq!(lab.offloads(GATEWAY_LEFT), offloads);
    let (left, _) = operator.findings(&[]);
    for (check, subject) in planted {
        assert_eq!(find(&left, check, subject), None);
    }
    // And the gateway starts.
    let _ = Daemon::start(&lab, ACCEPT);
}

#[test]
fn beside_a_daemon_an_offload_that_came_back_is_found_and_mended() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::start(&lab, ACCEPT);
    let operator = Operator::of(&lab, &daemon.socket(), &daemon.socket().with_file_name("journal"));
    // On veth segmentation offload hangs on checksum offload and scatter-gather.
    let tso = ["-K", GATEWAY_LEFT, "tx", "on", "sg", "on", "tso", "on"];
    let (before, _) = operator.findings(&[]);
    assert_eq!(find(&before, "offloads", GATEWAY_LEFT), None, "{before:#?}");
    assert_eq!(find(&before, "program", GATEWAY_LEFT), None, "the daemon's own is no finding");
    lab.gateway.run("ethtool", &tso);
    let (found, code) = operator.findings(&[]);
    assert_eq!(code, WARNINGS, "{found:#?}");
    let finding = find(&found, "offloads", GATEWAY_LEFT).expect("tso is on");
    assert!(finding["what"].as_str().is_some_and(|what| what.contains("tso")), "{finding:#}");

    let text = operator.doctor(&["--fix"]).stdout;
    assert!(text.contains(&format!("mended  {GATEWAY_LEFT} (offloads)")), "{text}");
    // Not the line above them: of newer kinds of segmentation (Linux 6.18: AccECN) the old commands know nothing.
    let offloads = lab.offloads(GATEWAY_LEFT);
    assert!(
        offloads.contains("tx-tcp-segmentation: off") && offloads.contains("tx-checksumming: off"),
        "{offloads}"
    );
    assert_eq!(find(&operator.findings(&[]).0, "offloads", GATEWAY_LEFT), None);
    let _ = daemon.stats();
}

#[test]
fn nics_that_are_not_there_are_a_fault_and_nothing_named_is_none() {
    require_root!();
    let fwctl = |args: &[&str]| {
        let mut command = Command::new(binary("fwctl"));
        command.args(["--socket", "/nonexistent/fwd.sock", "doctor"]).args(args);
        Process::spawn(command).wait(std::time::Duration::from_secs(20))
    };
    let exit = fwctl(&["--left", "nobody0", "--right", "nobody1"]);
    assert_eq!(exit.code, FAULTS, "{exit:?}");
    assert!(exit.stdout.contains("FAULT   nobody0 (nic): there is no interface `nobody0`"), "{exit:?}");
    let exit = fwctl(&[]);
    assert!(exit.code == Some(0) || exit.code == WARNINGS, "{exit:?}");
    assert!(exit.stdout.contains("only the machine itself was looked at"), "{exit:?}");
}
