//! Starting, ending and failing: nothing is left attached, nothing of anybody else's is touched, errors say what to do.

use palisade_tests::daemon::{Daemon, Stats};
use palisade_tests::lab::{Exit, GATEWAY_LEFT, GATEWAY_RIGHT, Lab};
use palisade_tests::{require_root, traffic};
use rustix::process::Signal;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

const RULES: &str = include_str!("../data/rules/gateway.v4.rules");
const ACCEPT: &str = include_str!("../data/rules/accept.v4.rules");
const NICS: [&str; 2] = [GATEWAY_LEFT, GATEWAY_RIGHT];

#[track_caller]
fn assert_untouched(lab: &Lab) {
    for nic in NICS {
        assert_eq!(lab.xdp_program(nic), None, "{nic} has a program attached");
        assert_eq!(lab.gateway.link(nic)["promiscuity"], 0, "{nic} is promiscuous");
    }
}

/// One clear error: exit code 1, no backtrace, and it names what is wrong.
#[track_caller]
fn assert_says(exit: &Exit, words: &[&str]) {
    assert_eq!(exit.code, Some(1), "{exit:?}");
    let text = exit.stderr.to_lowercase();
    assert!(words.iter().all(|word| text.contains(&word.to_lowercase())), "{words:?} in {text}");
    assert!(!text.contains("panicked") && !text.contains("backtrace"), "{text}");
}

/// Whether traffic passes. A first round may be lost to the hosts' neighbour tables, which saw their wire cut.
fn pings(lab: &Lab) -> bool {
    (0..3).any(|_| traffic::ping(&lab.left.netns, lab.right.v4.into(), 3, 56) == 3)
}

#[test]
fn it_detaches_and_puts_offloads_back_when_told_to_end() {
    require_root!();
    for signal in [Signal::TERM, Signal::INT] {
        let lab = Lab::new();
        for nic in NICS {
            lab.gateway.run("ethtool", &["-K", nic, "gro", "on"]);
        }
        let before = NICS.map(|nic| lab.offloads(nic));
        let daemon = Daemon::start(&lab, RULES);
        for nic in NICS {
            assert!(lab.xdp_program(nic).is_some(), "{nic} has no program");
            assert!(lab.offloads(nic).contains("generic-receive-offload: off"), "{nic}");
        }
        assert!(pings(&lab));
        let socket = daemon.socket();
        let exit = daemon.stop(signal);
        assert_eq!(exit.code, Some(0), "{exit:?}");
        assert_untouched(&lab);
        assert_eq!(NICS.map(|nic| lab.offloads(nic)), before);
        assert!(!socket.exists());
    }
}

#[test]
fn after_kill_9_the_next_start_finds_the_wire_free_and_cleans_up() {
    require_root!();
    let lab = Lab::new();
    for nic in NICS {
        lab.gateway.run("ethtool", &["-K", nic, "gro", "on"]);
    }
    let before = NICS.map(|nic| lab.offloads(nic));
    // Where what was changed is noted outlives the daemon, as /run does.
    let journal = TempDir::new().unwrap();
    let start = || {
        let dir = journal.path().to_string_lossy().into_owned();
        Daemon::builder(&lab).rules(RULES).set("net.journal_dir", &dir).start()
    };
    let daemon = start();
    assert!(pings(&lab));
    let exit = daemon.kill();
    assert_eq!(exit.code, None);
    let daemon = start();
    assert!(pings(&lab));
    let exit = daemon.stop(Signal::TERM);
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert_untouched(&lab);
    assert_eq!(NICS.map(|nic| lab.offloads(nic)), before);
}

#[test]
fn a_stale_program_of_ours_is_replaced() {
    require_root!();
    let lab = Lab::new();
    let bpffs = BpfFs::mount();
    let pin = bpffs.0.path().join("stale").to_string_lossy().into_owned();
    let daemon = Daemon::start(&lab, RULES);
    let (_, id) = lab.xdp_program(GATEWAY_LEFT).expect("the daemon attached one");
    run("bpftool", &["prog", "pin", "id", &id.to_string(), &pin]);
    let _ = daemon.kill();
    // Attached by netlink it belongs to nobody and stays: what an old version, or another tool, might leave.
    lab.gateway.ip(&["link", "set", "dev", GATEWAY_LEFT, "xdpdrv", "pinned", &pin]);
    assert_eq!(lab.xdp_program(GATEWAY_LEFT).map(|(_, id)| id), Some(id));
    let daemon = Daemon::start(&lab, RULES);
    assert!(pings(&lab));
    assert_ne!(lab.xdp_program(GATEWAY_LEFT).map(|(_, id)| id), Some(id));
    assert_eq!(daemon.stop(Signal::TERM).code, Some(0));
    assert_untouched(&lab);
}

#[test]
fn somebody_elses_program_is_named_and_left_alone() {
    require_root!();
    let lab = Lab::new();
    let dir = TempDir::new().unwrap();
    let object = build_foreign_program(dir.path());
    lab.gateway.ip(&["link", "set", "dev", GATEWAY_RIGHT, "xdpdrv", "obj", &object, "sec", "xdp"]);
    let foreign = lab.xdp_program(GATEWAY_RIGHT).expect("just attached");
    let exit = Daemon::builder(&lab).rules(RULES).fail();
    assert_says(&exit, &[GATEWAY_RIGHT, "someone_elses"]);
    assert_eq!(lab.xdp_program(GATEWAY_RIGHT), Some(foreign));
    assert_eq!(lab.xdp_program(GATEWAY_LEFT), None);
}

#[test]
fn two_daemons_share_a_machine_but_not_a_wire() {
    require_root!();
    let (one, other) = (Lab::new(), Lab::new());
    let daemons = [Daemon::start(&one, RULES), Daemon::start(&other, ACCEPT)];
    assert!(pings(&one) && pings(&other));
    assert_eq!(traffic::udp_echo(&one.left, &one.right, false, 4444, 1, 10), 0);
    assert_eq!(traffic::udp_echo(&other.left, &other.right, false, 4444, 1, 10), 1);
    let exit = Daemon::builder(&one).rules(ACCEPT).fail();
    assert_says(&exit, &[GATEWAY_LEFT]);
    assert!(pings(&one), "the first daemon goes on as if nothing had been tried");
    for daemon in daemons {
        let stats = daemon.stats_until("balance", Stats::is_balanced);
        assert!(stats.forwarded() > 0);
        assert_eq!(daemon.stop(Signal::TERM).code, Some(0));
    }
}

#[test]
fn a_socket_in_use_is_refused_and_the_first_daemon_keeps_it() {
    require_root!();
    let (one, other) = (Lab::new(), Lab::new());
    let daemon = Daemon::start(&one, RULES);
    let socket = daemon.socket().to_string_lossy().into_owned();
    let exit = Daemon::builder(&other).rules(RULES).set("api.socket", &socket).fail();
    assert_says(&exit, &[&socket]);
    assert_untouched(&other);
    let mode = std::fs::metadata(daemon.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    assert!(daemon.stats().0.is_object());
}

#[test]
fn what_cannot_work_is_refused_with_one_error_and_nothing_attached() {
    require_root!();
    let lab = Lab::new();
    let good = || Daemon::builder(&lab).rules(RULES);
    assert_says(&good().ifaces(GATEWAY_LEFT, "nosuch0").fail(), &["nosuch0"]);
    assert_untouched(&lab);
    assert_says(&good().ifaces(GATEWAY_LEFT, GATEWAY_LEFT).fail(), &[GATEWAY_LEFT]);
    assert_untouched(&lab);
    assert_says(&good().ifaces(GATEWAY_LEFT, "lo").fail(), &["lo"]);
    assert_untouched(&lab);
    let bad = "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -p tcp --dprot 80 -j ACCEPT\n-A FORWARD -j NOWHERE\nCOMMIT\n";
    let exit = Daemon::builder(&lab).rules(bad).fail();
    assert_says(&exit, &["rules.v4:3:", "--dprot", "rules.v4:4:", "NOWHERE"]);
    assert_untouched(&lab);
    assert_says(&good().set("tcp_lose", "0").fail(), &["tcp_lose", "tcp_loose"]);
    assert_says(
        &Daemon::builder(&lab).arg("--rules").arg("/nonexistent/rules").fail(),
        &["/nonexistent/rules"],
    );
    assert_untouched(&lab);
}

#[test]
fn missing_privileges_are_named() {
    require_root!();
    let lab = Lab::new();
    // Still root by number, so that every file can be read, but without the powers.
    let powerless = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"];
    assert_says(&Daemon::builder(&lab).rules(RULES).wrapped_by(&powerless).fail(), &["cap_net_admin"]);
    assert_untouched(&lab);
    let no_memory =
        ["setpriv", "--bounding-set", "-ipc_lock,-sys_resource", "prlimit", "--memlock=65536:65536"];
    assert_says(&Daemon::builder(&lab).rules(RULES).wrapped_by(&no_memory).fail(), &["lock"]);
    assert_untouched(&lab);
}

/// A BPF file system of our own: the usual place is hidden inside `ip netns exec`.
struct BpfFs(TempDir);

impl BpfFs {
    fn mount() -> Self {
        let dir = TempDir::new().unwrap_or_else(|error| panic!("temporary directory: {error}"));
        run("mount", &["-t", "bpf", "bpf", &dir.path().to_string_lossy()]);
        Self(dir)
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

fn build_foreign_program(dir: &Path) -> String {
    let source = dir.join("foreign.c");
    let object = dir.join("foreign.o").to_string_lossy().into_owned();
    let text = "struct xdp_md;\n__attribute__((section(\"xdp\"), used)) int someone_elses(struct xdp_md *ctx) { return 2; }\n\
        char _license[] __attribute__((section(\"license\"), used)) = \"GPL\";\n";
    std::fs::write(&source, text).unwrap_or_else(|error| panic!("write {}: {error}", source.display()));
    run("clang", &["-O2", "-g", "-target", "bpf", "-c", &source.to_string_lossy(), "-o", &object]);
    object
}

#[track_caller]
fn run(program: &str, args: &[&str]) {
    let status =
        Command::new(program).args(args).status().unwrap_or_else(|error| panic!("start {program}: {error}"));
    assert!(status.success(), "{program} {args:?}: {status}");
}

#[test]
fn busy_polling_carries_traffic_and_puts_interrupts_off_only_while_it_runs() {
    require_root!();
    let lab = Lab::new();
    let settings = |nic: &str| {
        let read =
            |file: &str| lab.gateway.run("cat", &[&format!("/sys/class/net/{nic}/{file}")]).trim().to_owned();
        [read("napi_defer_hard_irqs"), read("gro_flush_timeout")]
    };
    let before = NICS.map(settings);
    let journal = TempDir::new().unwrap();
    let builder = || {
        let dir = journal.path().to_string_lossy().into_owned();
        Daemon::builder(&lab).rules(RULES).set("net.journal_dir", &dir)
    };
    let daemon = builder().set("xdp.busy_poll_us", "50").start();
    assert_eq!(NICS.map(settings), [["2", "200000"]; 2], "{}", daemon.process().stderr());
    assert!(pings(&lab));
    traffic::tcp_both_ways(&lab.left, &lab.right, false, 80, 1 << 20);
    let _ = daemon.kill();
    // The next start finds our own values, and puts back what was there before them, busy polling or not.
    let exit = builder().start().stop(Signal::TERM);
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert_eq!(NICS.map(settings), before);
}
