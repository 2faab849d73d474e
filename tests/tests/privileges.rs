//! What the daemon gives up once it is set up, and that everything works without: as a system user, with one capability, its
//! workers with none and under a filter of system calls.

use palisade_tests::daemon::{Daemon, DaemonBuilder};
use palisade_tests::lab::{GATEWAY_LEFT, GATEWAY_RIGHT, Lab, Link};
use palisade_tests::require_root;
use palisade_tests::traffic;
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

const RULES: &str = include_str!("../data/rules/gateway.v4.rules");

/// A system user that every Debian has, and its number.
const USER: (&str, u32) = ("daemon", 1);

/// CAP_NET_ADMIN, as /proc shows it.
const NET_ADMIN: &str = "0000000000001000";
const NONE: &str = "0000000000000000";

fn passes(lab: &Lab) -> bool {
    traffic::udp_echo(&lab.left, &lab.right, false, 7000, 1, 10) == 1
}

/// One line of a thread's or process's status.
fn status(path: &str, name: &str) -> String {
    let text = fs::read_to_string(format!("{path}/status")).expect("the process is there");
    let line =
        text.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).expect("the line is there");
    line.trim().to_owned()
}

/// Status files of its workers.
fn workers(pid: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process is there").flatten();
    let paths = tasks.map(|task| task.path().to_string_lossy().into_owned());
    let comm = |path: &str| fs::read_to_string(format!("{path}/comm")).unwrap_or_default();
    paths.filter(|path| comm(path).starts_with("worker-")).collect()
}

fn as_user(lab: &Lab) -> DaemonBuilder<'_> {
    Daemon::builder(lab).reachable().rules(RULES).set("privileges.user", USER.0)
}

fn wait_until(what: &str, is_there: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_there() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn rights_are_given_up_and_everything_works_without_them() {
    require_root!();
    let lab = Lab::new();
    let nics = [GATEWAY_LEFT, GATEWAY_RIGHT];
    for nic in nics {
        lab.gateway.run("ethtool", &["-K", nic, "gro", "on"]);
    }
    let before = nics.map(|nic| lab.offloads(nic));
    let daemon = as_user(&lab).start();
    let pid = daemon.process().pid();
    let process = format!("/proc/{pid}");
    assert_eq!(status(&process, "Uid").split_whitespace().next(), Some("1"));
    for (name, expected) in
        [("CapPrm", NET_ADMIN), ("CapEff", NET_ADMIN), ("CapInh", NONE), ("CapBnd", NONE), ("CapAmb", NONE)]
    {
        assert_eq!(status(&process, name), expected, "{name}");
    }
    assert_eq!(status(&process, "NoNewPrivs"), "1");
    assert!(!status(&process, "Groups").split(' ').any(|group| group == "0"), "root's groups are gone");
    let threads = workers(pid);
    assert_eq!(threads.len(), 1);
    for worker in &threads {
        assert_eq!((status(worker, "CapPrm"), status(worker, "Seccomp")), (NONE.to_owned(), "2".to_owned()));
    }
    // Packets of all kinds, rules by all ways, and the files about them.
    assert!(passes(&lab));
    assert!(
        lab.left.netns.exec("ping", &["-c", "2", "-i", "0.1", &lab.right.v4.to_string()]).code == Some(0)
    );
    let dir = daemon.socket().parent().expect("a directory").to_owned();
    daemon.apply("*filter\n:FORWARD DROP [0:0]\nCOMMIT\n");
    assert!(!passes(&lab));
    let generation = daemon.stats().generation();
    daemon.signal(Signal::HUP);
    daemon.stats_until("the rules of the file", |stats| stats.generation() > generation);
    assert!(passes(&lab));
    daemon.fwctl(&["rollback"]);
    daemon.fwctl(&["rollback"]);
    assert!(passes(&lab));
    for file in ["state/history/000002.v4", "state/audit.log"] {
        assert_eq!(fs::metadata(dir.join(file)).map(|meta| meta.uid()).ok(), Some(USER.1), "{file}");
    }
    assert!(daemon.fwctl_json(&["history"])["trouble"].is_null());
    daemon.fwctl(&["config", "set", "idle=sleep", "log.level=debug"]);
    daemon.fwctl(&["workers", "rebalance"]);
    assert!(passes(&lab));
    // A cable.
    lab.set_cable(Link::Left, false);
    wait_until("the link is seen going down", || daemon.process().stderr().contains("link down"));
    lab.set_cable(Link::Left, true);
    wait_until("the link is seen coming up", || daemon.process().stderr().contains("link up"));
    assert!(traffic::udp_echo(&lab.left, &lab.right, false, 7000, 20, 10) > 0);
    // What it runs as is known to whoever asks.
    let doctor = daemon.try_fwctl(&["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&doctor.stdout).expect("JSON");
    assert_eq!(report["runs_as"]["user"], USER.0);
    assert_eq!(report["runs_as"]["capabilities"], serde_json::json!(["CAP_NET_ADMIN"]));
    assert_eq!(report["runs_as"]["workers_filtered"], true);

    let stopped = daemon.stop(Signal::TERM);
    assert_eq!(stopped.code, Some(0), "{}", stopped.stderr);
    assert!(
        !stopped.stderr.contains("could not put back") && !stopped.stderr.contains("SIGHUP will not work"),
        "{}",
        stopped.stderr
    );
    assert_eq!(nics.map(|nic| lab.offloads(nic)), before);
    assert!(nics.iter().all(|nic| lab.xdp_program(nic).is_none()));
}

#[test]
fn queue_counts_and_naps_are_put_back_without_root() {
    require_root!();
    let lab = Lab::builder().queues(2).build();
    let napi = |lab: &Lab| {
        lab.gateway.within(|| {
            let file = format!("/sys/class/net/{GATEWAY_LEFT}/napi_defer_hard_irqs");
            fs::read_to_string(file).ok()
        })
    };
    let before = napi(&lab);
    let daemon = as_user(&lab).set("busy_poll_us", "20").set("queues", "1").try_start();
    // A NIC whose count of queues cannot be set is another test's business.
    let Ok(daemon) = daemon else { return };
    assert!(passes(&lab));
    let stopped = daemon.stop(Signal::TERM);
    assert_eq!(stopped.code, Some(0));
    assert!(!stopped.stderr.contains("could not put back"), "{}", stopped.stderr);
    assert_eq!(napi(&lab), before);
    assert!(lab.gateway.run("ethtool", &["-l", GATEWAY_LEFT]).contains("2"));
}

#[test]
fn the_filter_lets_every_way_of_waiting_work_and_can_be_switched_off() {
    require_root!();
    let lab = Lab::new();
    for (idle, filter, seccomp) in [("spin", "on", "2"), ("sleep", "log", "2"), ("adaptive", "off", "0")] {
        let daemon = as_user(&lab).set("idle", idle).set("privileges.seccomp", filter).start();
        for worker in workers(daemon.process().pid()) {
            assert_eq!(status(&worker, "Seccomp"), seccomp, "{filter}");
        }
        assert!(passes(&lab), "{idle} {filter}");
        assert!(traffic::udp_echo(&lab.left, &lab.right, true, 7000, 5, 10) > 0, "{idle} {filter}");
        daemon.fwctl(&["flows", "-F"]);
        assert!(passes(&lab));
        assert_eq!(daemon.stop(Signal::TERM).code, Some(0));
    }
}

#[test]
fn a_user_that_is_not_there_and_directories_that_are_not_ours_are_refused() {
    require_root!();
    let lab = Lab::new();
    let refused = Daemon::builder(&lab).rules(RULES).set("privileges.user", "no-such-user").fail();
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("useradd --system"), "{}", refused.stderr);
    let foreign = tempfile::TempDir::with_prefix("palisade-foreign-").expect("a temporary directory");
    fs::set_permissions(foreign.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("ours");
    fs::write(foreign.path().join("passwd"), "").expect("written");
    let refused = as_user(&lab).set("state.dir", &foreign.path().to_string_lossy()).fail();
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("state.dir") && refused.stderr.contains("not ours"),
        "{}",
        refused.stderr
    );
    let owner = |path: &Path| fs::metadata(path).expect("there").uid();
    assert_eq!((owner(foreign.path()), owner(&foreign.path().join("passwd"))), (0, 0));
    // The NICs are as they were.
    assert!(lab.xdp_program(GATEWAY_LEFT).is_none());
}

#[test]
fn root_may_stay_root_with_fewer_rights() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::builder(&lab).rules(RULES).set("privileges.user", "root").start();
    let process = format!("/proc/{}", daemon.process().pid());
    assert_eq!(status(&process, "Uid").split_whitespace().next(), Some("0"));
    assert_eq!(
        (status(&process, "CapPrm"), status(&process, "CapBnd")),
        (NET_ADMIN.to_owned(), NONE.to_owned())
    );
    assert!(passes(&lab));
    assert_eq!(daemon.stop(Signal::TERM).code, Some(0));
}
