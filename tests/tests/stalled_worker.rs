//! A worker that stops polling: the others go on, the operator is told what is the matter and when it is over, and systemd's
//! watchdog hears nothing meanwhile.

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use palisade_tests::daemon::Daemon;
use palisade_tests::frames;
use palisade_tests::lab::{Lab, PacketSocket};
use palisade_tests::require_root;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const ACCEPT: &str = include_str!("../data/rules/accept.v4.rules");

/// Flows of a round, told apart by their source port.
const FLOWS: u16 = 64;
const FIRST_PORT: u16 = 20_000;

/// Every other flow lives on the other worker, and every other of those arrives at the one that goes on: more than a ring
/// between workers holds.
const ROUNDS_TO_FILL_RINGS: u32 = 400;

const PATIENCE: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_millis(300);

/// Holds one thread of another process still, as a debugger does, until it is dropped.
struct Held(Pid);

impl Held {
    fn new(thread: i32) -> Self {
        let thread = Pid::from_raw(thread);
        ptrace::seize(thread, ptrace::Options::empty()).expect("root may trace anybody");
        ptrace::interrupt(thread).expect("a thread that is traced can be stopped");
        waitpid(thread, Some(WaitPidFlag::__WALL)).expect("it stops");
        Self(thread)
    }
}

impl Held {
    /// Waits until the thread is gone; whoever traces a thread has to take note of its end.
    fn wait_for_end(&self) {
        let deadline = Instant::now() + PATIENCE;
        while matches!(
            waitpid(self.0, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)),
            Ok(WaitStatus::StillAlive)
        ) {
            assert!(Instant::now() < deadline, "the thread does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = ptrace::detach(self.0, None);
    }
}

/// The thread of this name of the daemon.
fn thread_named(daemon: &Daemon, name: &str) -> i32 {
    let threads = fs::read_dir(format!("/proc/{}/task", daemon.process().pid())).expect("the daemon runs");
    let named = |entry: &fs::DirEntry| {
        fs::read_to_string(entry.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
    };
    let thread = threads.flatten().find(named).unwrap_or_else(|| panic!("no thread {name}"));
    thread.file_name().to_string_lossy().parse().expect("threads have numbers")
}

/// Sends a frame of every flow from the left; returns which come out on the right.
fn round(lab: &Lab, left: &PacketSocket, right: &PacketSocket, number: u32) -> BTreeSet<u16> {
    let payload = number.to_be_bytes();
    let ports = FIRST_PORT..FIRST_PORT + FLOWS;
    let sent: Vec<Vec<u8>> = ports.clone().map(|port| frames::udp_v4(lab, port, 7000, &payload)).collect();
    for frame in &sent {
        left.send(frame);
    }
    let mut come = BTreeSet::new();
    while come.len() < sent.len() {
        let Some(frame) = right.receive(SILENCE, |frame| sent.iter().any(|sent| sent == frame)) else {
            break;
        };
        come.extend(ports.clone().zip(&sent).find(|(_, sent)| **sent == frame).map(|(port, _)| port));
    }
    come
}

/// Pings that systemd would have got in a while.
fn pings(systemd: &UnixDatagram, time: Duration) -> usize {
    let forget_old = || {
        systemd.set_nonblocking(true).expect("a socket can be told");
        let mut message = [0; 256];
        while systemd.recv(&mut message).is_ok() {}
    };
    forget_old();
    std::thread::sleep(time);
    let mut count = 0;
    let mut message = [0; 256];
    while let Ok(len) = systemd.recv(&mut message) {
        count += usize::from(message[..len].starts_with(b"WATCHDOG=1"));
    }
    count
}

#[test]
fn the_others_go_on_and_the_operator_is_told() {
    require_root!();
    let lab = Lab::builder().queues(2).build();
    let dir = TempDir::new().unwrap();
    let notify = dir.path().join("notify");
    let systemd = UnixDatagram::bind(&notify).unwrap();
    let notify = format!("NOTIFY_SOCKET={}", notify.display());
    let daemon = Daemon::builder(&lab)
        .rules(ACCEPT)
        .set("workers.cores", "2")
        // These rules alone would need no flows.
        .set("flows.tracking", "always")
        .wrapped_by(&["env", &notify, "WATCHDOG_USEC=900000"])
        .start();
    let (left, right) = (lab.left_wire(), lab.right_wire());
    let all: BTreeSet<u16> = (FIRST_PORT..FIRST_PORT + FLOWS).collect();
    assert_eq!(round(&lab, &left, &right, 0), all);
    assert!(pings(&systemd, Duration::from_secs(1)) > 0);
    let stalled = |worker: usize| daemon.fwctl_json(&["stats"])["workers"][worker].clone();
    assert_eq!(stalled(1)["stalled"], serde_json::Value::Null);

    let held = Held::new(thread_named(&daemon, "worker-1"));
    let said = "has not polled for 1000 ms: its thread is stopped, by a debugger or a tracer";
    assert!(daemon.process().wait_for_stderr(said, PATIENCE), "{}", daemon.process().stderr());
    assert!(stalled(1)["stalled"]["ms"].as_u64().is_some_and(|ms| ms >= 1000), "{:#}", stalled(1));
    assert_eq!(stalled(0)["stalled"], serde_json::Value::Null);
    assert!(daemon.fwctl(&["stats"]).contains("STALLED: has not polled for"));
    assert_eq!(pings(&systemd, Duration::from_secs(1)), 0);
    // Whatever does not need the other worker comes through, in every round, while the ring to the other one fills.
    let through = round(&lab, &left, &right, 1);
    assert!(!through.is_empty() && through.len() < all.len(), "{through:?}");
    for number in 0..ROUNDS_TO_FILL_RINGS {
        for port in all.difference(&through) {
            left.send(&frames::udp_v4(&lab, *port, 7000, &number.to_be_bytes()));
        }
    }
    let stats = daemon.stats_until("drops at the full ring", |stats| stats.drops("handoff_full") > 0);
    assert!(stats.drops("handoff_full") < u64::from(ROUNDS_TO_FILL_RINGS * u32::from(FLOWS)));
    assert_eq!(round(&lab, &left, &right, 2), through);
    // What control does, it does for those that answer.
    assert!(daemon.fwctl(&["flows", "-C"]).trim().parse::<usize>().is_ok_and(|count| count >= through.len()));

    drop(held);
    assert!(
        daemon.process().wait_for_stderr(" polls again after ", PATIENCE),
        "{}",
        daemon.process().stderr()
    );
    assert_eq!((&stalled(1)["stalled"], stalled(1)["stalls"].as_u64()), (&serde_json::Value::Null, Some(1)));
    assert!(pings(&systemd, Duration::from_secs(1)) > 0);
    // What waited in rings comes out now; after that all is as it was.
    while right.receive(SILENCE, |_| true).is_some() {}
    assert_eq!(round(&lab, &left, &right, 3), all);
    let _ = daemon.stats_until("balance", palisade_tests::daemon::Stats::is_balanced);
}

#[test]
fn the_daemon_ends_with_a_worker_that_does_not() {
    require_root!();
    let lab = Lab::builder().queues(2).build();
    let daemon = Daemon::builder(&lab).rules(ACCEPT).set("workers.cores", "2").start();
    let held = Held::new(thread_named(&daemon, "worker-1"));
    daemon.signal(Signal::TERM);
    held.wait_for_end();
    let exit = daemon.stop(Signal::TERM);
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert!(exit.stderr.contains("worker-1 does not end: left behind"), "{}", exit.stderr);
    assert_eq!(lab.xdp_program("left"), None);
}

#[test]
fn a_daemon_that_was_stopped_as_a_whole_blames_no_worker() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::start(&lab, ACCEPT);
    daemon.signal(Signal::STOP);
    std::thread::sleep(Duration::from_secs(3));
    daemon.signal(Signal::CONT);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(daemon.fwctl_json(&["stats"])["workers"][0]["stalls"], 0, "{}", daemon.process().stderr());
}
