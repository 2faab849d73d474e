//! Several workers on real NICs: what these refuse is said, queue counts are made alike and put back, and flows change
//! their worker under traffic.

use palisade_tests::daemon::{Daemon, Stats};
use palisade_tests::lab::{GATEWAY_LEFT, GATEWAY_RIGHT, Lab};
use palisade_tests::{require_root, traffic};
use rustix::process::Signal;
use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

const ACCEPT: &str = include_str!("../data/rules/accept.v4.rules");
const NICS: [&str; 2] = [GATEWAY_LEFT, GATEWAY_RIGHT];
/// What takes longer is taken for lost: far more than any stream holds a datagram up.
const LATE: Duration = Duration::from_secs(3);
const TRANSFER_BYTES: u64 = 24 << 20;

/// How many queues the gateway's NICs use.
fn queues(lab: &Lab) -> [usize; 2] {
    NICS.map(|nic| {
        let text = lab.gateway.run("ethtool", &["-l", nic]);
        let now = text.split("Current hardware settings").nth(1).expect("ethtool shows what is set");
        let rx = now.lines().find_map(|line| line.strip_prefix("RX:")).expect("a veth has rx queues");
        rx.trim().parse().expect("a number")
    })
}

#[test]
fn a_nic_without_rss_is_said_to_have_none() {
    require_root!();
    let lab = Lab::builder().queues(2).build();
    let daemon = Daemon::builder(&lab).rules(ACCEPT).set("workers.cores", "2").start();
    let stats = daemon.fwctl_json(&["stats"]);
    for port in 0..2 {
        let rss = &stats["ports"][port]["rss"];
        assert_eq!((&rss["state"], &rss["movable"]), (&"differs".into(), &false.into()));
        assert!(rss["refused"][0].as_str().is_some_and(|why| why.contains("no RSS")), "{rss}");
    }
    assert!(daemon.fwctl(&["stats"]).contains("RSS differs from the workers"));
    let workers = daemon.fwctl_json(&["workers", "--interval-ms", "50"]);
    assert_eq!(workers["ownership"], "secret");
    assert_eq!(workers["nics_stay"].as_array().map(Vec::len), Some(2));
    assert!(
        daemon.process().stderr().contains("handed from worker to worker"),
        "{}",
        daemon.process().stderr()
    );
}

/// Name, cores and nice value of every thread of a daemon.
fn threads(daemon: &Daemon) -> Vec<(String, String, i32)> {
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.process().pid())).expect("it runs");
    let read = |task: fs::DirEntry| {
        let file = |name: &str| fs::read_to_string(task.path().join(name)).ok();
        let (name, status, stat) = (file("comm")?, file("status")?, file("stat")?);
        let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
        // proc(5): nice is the 19th field, the 17th behind the name in brackets.
        let nice = stat.rsplit_once(") ")?.1.split(' ').nth(16)?;
        Some((name.trim().to_owned(), cores.trim().to_owned(), nice.parse().ok()?))
    };
    tasks.flatten().filter_map(read).collect()
}

#[test]
fn control_threads_leave_workers_their_cores_and_long_lists_come_last() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::builder(&lab).rules(ACCEPT).core(0).start();
    let is_alone = thread::available_parallelism().is_ok_and(|cores| cores.get() == 1);
    for (name, cores, nice) in threads(&daemon) {
        let is_worker = name.starts_with("worker-");
        let has_it = cores.starts_with('0');
        assert_eq!(has_it, is_worker || is_alone, "{name} may run on {cores}");
        assert!(nice < 19, "{name}");
    }
    thread::scope(|scope| {
        let asks = scope.spawn(|| daemon.fwctl(&["top", "--once", "--interval", "2"]));
        let comes_last = loop {
            let found =
                threads(&daemon).into_iter().find(|(name, _, nice)| name == "api-list" && *nice == 19);
            if found.is_some() || asks.is_finished() {
                break found.is_some();
            }
        };
        assert!(comes_last, "what looks at all flows");
    });
}

#[test]
fn queues_are_counted_alike_and_put_back() {
    require_root!();
    let lab = Lab::builder().queues(2).build();
    lab.left.netns.run("ethtool", &["-L", "eth0", "rx", "1", "tx", "1"]);
    lab.gateway.run("ethtool", &["-L", GATEWAY_LEFT, "rx", "1", "tx", "1"]);
    assert_eq!(queues(&lab), [1, 2]);
    let journal = TempDir::new().expect("a temporary directory can be made");
    let start = || {
        let dir = journal.path().to_string_lossy().into_owned();
        let daemon = Daemon::builder(&lab).rules(ACCEPT).set("net.journal_dir", &dir).set("queues", "2");
        daemon.start()
    };
    let daemon = start();
    assert_eq!(queues(&lab), [2, 2]);
    assert!(traffic::ping(&lab.left.netns, lab.right.v4.into(), 5, 56) > 0);
    let _ = daemon.kill();
    assert_eq!(queues(&lab), [2, 2], "nobody was there to put it back");
    let daemon = start();
    let exit = daemon.stop(Signal::TERM);
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert_eq!(queues(&lab), [1, 2], "{exit:?}");
}

#[test]
fn what_is_to_be_left_is_left() {
    require_root!();
    let lab = Lab::builder().queues(2).build();
    lab.left.netns.run("ethtool", &["-L", "eth0", "rx", "1", "tx", "1"]);
    lab.gateway.run("ethtool", &["-L", GATEWAY_LEFT, "rx", "1", "tx", "1"]);
    let exit = Daemon::builder(&lab).rules(ACCEPT).set("net.rss", "leave").set("queues", "2").fail();
    assert!(exit.stderr.contains("net.rss is \"leave\""), "{exit:?}");
    let daemon = Daemon::builder(&lab).rules(ACCEPT).set("net.rss", "leave").start();
    assert_eq!(queues(&lab), [1, 2]);
    assert!(daemon.process().stderr().contains("cannot be made alike"), "{}", daemon.process().stderr());
}

/// Sends numbered datagrams from left to right and back, one after the other. Returns how many did not come home.
fn missing(lab: &Lab, count: u32) -> u64 {
    let server = SocketAddr::new(lab.right.addr(false), 7000);
    let echo = traffic::udp_socket(&lab.right.netns, server);
    let client = traffic::udp_socket(&lab.left.netns, SocketAddr::new(lab.left.addr(false), 0));
    client.connect(server).expect("the route is there");
    for socket in [&echo, &client] {
        socket.set_read_timeout(Some(LATE)).expect("a timeout above zero is taken");
    }
    let mut missing = 0;
    for number in 0..count {
        let (mut there, mut home) = ([0; 600], [0; 600]);
        there[..4].copy_from_slice(&number.to_be_bytes());
        client.send(&there).expect("a datagram can be sent");
        let back = echo.recv_from(&mut home).and_then(|(_, from)| echo.send_to(&home, from));
        if back.and_then(|_| client.recv(&mut home)).is_err() {
            missing += 1;
        } else {
            assert_eq!(home, there, "datagram {number}");
        }
    }
    missing
}

/// Every byte of every stream arrives, and no datagram is missing but for a reason that has nothing to do with it, while
/// buckets go to and fro.
#[test]
fn flows_change_their_worker_under_traffic() {
    require_root!();
    let lab = Lab::builder().queues(2).build();
    let daemon = Daemon::builder(&lab).rules(ACCEPT).set("workers.cores", "2").start();
    assert!(traffic::ping(&lab.left.netns, lab.right.v4.into(), 3, 56) > 0);
    let under_way = AtomicU32::new(7);
    let (mut moved, mut rounds) = (0, 0);
    let missing = thread::scope(|scope| {
        for port in 8000..8006 {
            let (lab, under_way) = (&lab, &under_way);
            scope.spawn(move || {
                traffic::tcp_both_ways(&lab.left, &lab.right, false, port, TRANSFER_BYTES);
                under_way.fetch_sub(1, Ordering::Relaxed);
            });
        }
        let (lab, under_way) = (&lab, &under_way);
        let datagrams = scope.spawn(move || {
            let missing = missing(lab, 500);
            under_way.fetch_sub(1, Ordering::Relaxed);
            missing
        });
        while under_way.load(Ordering::Relaxed) > 0 && rounds < 200 {
            let report = daemon.fwctl_json(&["workers", "rebalance", "--interval-ms", "50"]);
            let moves = report["moves"].as_array().expect("a list").clone();
            moved += moves.iter().filter(|one| one["done"] == true).count();
            assert_eq!(report["flows_lost"], 0);
            rounds += 1;
        }
        datagrams.join().expect("datagrams come back as they were sent")
    });
    assert!(moved > 0, "nothing moved in {rounds} rounds");
    let stats = daemon.stats_until("balance", Stats::is_balanced);
    for reason in ["bucket_moving", "flow_table_full"] {
        assert_eq!(stats.drops(reason), 0, "{reason}");
    }
    // Streams may be more than a worker keeps up with that shares its core with them, whether anything moves or not.
    let overrun: u64 = ["handoff_full", "frames_lent"].iter().map(|reason| stats.drops(reason)).sum();
    assert!(missing <= overrun, "{missing} datagrams are missing, {overrun} packets were too many");
}
