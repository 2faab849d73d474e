//! The daemon as its systemd unit runs it: with the rights that the unit leaves it, telling systemd what it does, and putting
//! everything back at the end. The unit's other limits are tried by `./scripts/package --check`.

use palisade_tests::daemon::Daemon;
use palisade_tests::lab::{GATEWAY_LEFT, GATEWAY_RIGHT, Lab};
use palisade_tests::{require_root, traffic};
use rustix::process::Signal;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;
use tempfile::TempDir;

const RULES: &str = include_str!("../data/rules/gateway.v4.rules");
const UNIT: &str = include_str!("../../packaging/debian/palisade.service");

const PATIENCE: Duration = Duration::from_secs(10);

/// The rights that the unit leaves, as setpriv(1) takes them.
fn bounding_set() -> String {
    let lists = UNIT.lines().filter_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let names = lists.flat_map(|list| list.split(' ')).filter_map(|name| name.strip_prefix("CAP_"));
    let set = names.fold("-all".to_owned(), |set, name| format!("{set},+{}", name.to_ascii_lowercase()));
    assert!(set.contains("+net_admin"), "{set}");
    set
}

/// What systemd is told next, pings aside.
fn told(systemd: &UnixDatagram) -> String {
    loop {
        let said = message(systemd);
        if said != "WATCHDOG=1" {
            return said;
        }
    }
}

fn message(systemd: &UnixDatagram) -> String {
    let mut bytes = [0; 1024];
    let len = systemd.recv(&mut bytes).expect("systemd is told something in time");
    String::from_utf8_lossy(&bytes[..len]).trim().to_owned()
}

#[test]
fn the_service_needs_no_more_rights_than_its_unit_leaves_and_tells_systemd_all() {
    require_root!();
    let lab = Lab::new();
    let dir = TempDir::new().expect("a temporary directory");
    let socket = dir.path().join("notify");
    let systemd = UnixDatagram::bind(&socket).expect("a socket");
    systemd.set_read_timeout(Some(PATIENCE)).expect("a socket can be told");
    lab.gateway.run("ethtool", &["-K", GATEWAY_LEFT, "gro", "on"]);
    let before = [GATEWAY_LEFT, GATEWAY_RIGHT].map(|nic| lab.offloads(nic));
    let daemon = Daemon::builder(&lab)
        .rules(RULES)
        .wrapped_by(&[
            "env",
            &format!("NOTIFY_SOCKET={}", socket.display()),
            "WATCHDOG_USEC=600000",
            "setpriv",
            "--no-new-privs",
            "--bounding-set",
            &bounding_set(),
        ])
        .start();
    assert_eq!(told(&systemd), "READY=1");
    assert_eq!(message(&systemd), "WATCHDOG=1");
    assert!((0..3).any(|_| traffic::ping(&lab.left.netns, lab.right.v4.into(), 3, 56) == 3));

    daemon.signal(Signal::HUP);
    assert!(told(&systemd).starts_with("RELOADING=1"));
    assert_eq!(told(&systemd), "READY=1");
    assert!(!daemon.process().stderr().contains("ERROR"), "{}", daemon.process().stderr());
    daemon.apply(RULES);
    assert_eq!(message(&systemd), "WATCHDOG=1");

    let exit = daemon.stop(Signal::TERM);
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert_eq!(told(&systemd), "STOPPING=1");
    for nic in [GATEWAY_LEFT, GATEWAY_RIGHT] {
        assert_eq!(lab.xdp_program(nic), None, "{nic} has a program attached");
    }
    assert_eq!([GATEWAY_LEFT, GATEWAY_RIGHT].map(|nic| lab.offloads(nic)), before, "{}", exit.stderr);
    fs::remove_file(socket).expect("the socket is where it was");
}
