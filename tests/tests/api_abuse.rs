//! Clients of the API that are many, silent, slow or too large: each of them gets its answer or is closed, whoever is honest
//! is served meanwhile, the daemon's memory stays what it was, and packets notice nothing.

use palisade_tests::daemon::Daemon;
use palisade_tests::lab::Lab;
use palisade_tests::require_root;
use palisade_tests::traffic;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

const RULES: &str =
    "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT\nCOMMIT\n";

const CONNECTIONS: usize = 2000;

/// Resident memory of a process, in KiB.
fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// What abusers send: nothing, half a head, a head without an end, a body that never comes, lists that nobody reads.
fn abuse(number: usize) -> String {
    match number % 6 {
        0 => String::new(),
        1 => "GET /v1/sta".to_owned(),
        2 => format!("GET /v1/stats HTTP/1.1\r\nHost: x\r\nX: {}", "y".repeat(8000)),
        3 => "POST /v1/apply HTTP/1.1\r\nHost: x\r\nContent-Length: 200000000\r\n\r\n{".to_owned(),
        4 => "GET /v1/rules HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        _ => "GET /v1/flows/events HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
    }
}

#[test]
fn thousands_of_connections_hold_up_neither_packets_nor_honest_clients() {
    require_root!();
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: Some(4096), ..limit };
    if limit.current.is_some_and(|current| current < 4096) && setrlimit(Resource::Nofile, wanted).is_err() {
        return eprintln!("skipped: not {CONNECTIONS} open files allowed");
    }
    let lab = Lab::new();
    let addr = "127.0.0.1:19101";
    let daemon = Daemon::builder(&lab).rules(RULES).set("metrics.listen", addr).start();
    assert_eq!(traffic::udp_echo(&lab.left, &lab.right, false, 7000, 10, 100), 10);
    let before = resident_kib(daemon.process().pid());
    let (stop, rounds) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        // Packets all the while.
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                assert!(traffic::udp_echo(&lab.left, &lab.right, false, 7001, 200, 400) > 0);
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        });
        let held: Vec<UnixStream> = (0..CONNECTIONS)
            .map(|number| {
                let mut stream = UnixStream::connect(daemon.socket()).unwrap();
                // It may be closed already: that is the point.
                let _ = stream.write_all(abuse(number).as_bytes());
                stream
            })
            .collect();
        let tcp: Vec<TcpStream> = (0..300)
            .map(|number| {
                let mut stream =
                    traffic::connect(&lab.gateway, addr.parse().unwrap(), traffic::PATIENCE).unwrap();
                let _ = stream.write_all(abuse(number).as_bytes());
                stream
            })
            .collect();
        for _ in 0..5 {
            let start = Instant::now();
            daemon.fwctl(&["stats"]);
            daemon.fwctl(&["flows", "-C"]);
            daemon.fwctl(&["rules"]);
            println!("three commands while {} connections are held: {:?}", held.len(), start.elapsed());
        }
        let mut scraped = traffic::connect(&lab.gateway, addr.parse().unwrap(), traffic::PATIENCE).unwrap();
        scraped.set_read_timeout(Some(traffic::PATIENCE)).unwrap();
        scraped.write_all(b"GET /metrics HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").unwrap();
        let mut page = String::new();
        scraped.read_to_string(&mut page).unwrap();
        assert!(page.ends_with("# EOF\n"), "{page}");
        let grown = resident_kib(daemon.process().pid()).saturating_sub(before);
        println!("the daemon has grown by {grown} KiB");
        assert!(grown < 64 << 10, "{grown} KiB");
        // Some more packets while all of them are held.
        let seen = rounds.load(Ordering::Relaxed);
        let deadline = Instant::now() + traffic::PATIENCE;
        while rounds.load(Ordering::Relaxed) < seen + 2 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(rounds.load(Ordering::Relaxed) >= seen + 2, "packets go on");
        drop((held, tcp));
        stop.store(true, Ordering::Relaxed);
    });
    let stats = daemon.stats_until("balance", |stats| stats.is_balanced());
    // Who waits for answers may starve on a machine this busy; what was lost, the counters know.
    assert_eq!((stats.dropped(), stats.queues("rx_dropped")), (0, 0), "{:#}", stats.0);
    let closed = daemon.process().stderr();
    assert!(!closed.contains("panic"), "{closed}");
}
