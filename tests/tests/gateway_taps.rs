//! `fwctl capture`, `trace` and `drops` with a real daemon and real traffic, read by the tools that people read captures with.

use palisade_tests::daemon::{Daemon, binary};
use palisade_tests::lab::{Lab, Process};
use palisade_tests::require_root;
use palisade_tests::traffic;
use rustix::process::Signal;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const RULES: &str = "\
*mangle
-A FORWARD -p udp -m udp --dport 7001 -j TTL --ttl-set 9
COMMIT
*filter
:FORWARD ACCEPT [0:0]
:services - [0:0]
-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT
-A FORWARD -p udp -j services
-A services -p udp -m udp --dport 7002 -j DROP
-A services -p udp -m udp --dport 7003 -j REJECT
COMMIT
";

/// Starts `fwctl` and waits until the daemon has it listen.
fn started(daemon: &Daemon, args: &[&str]) -> Process {
    let before = generation(daemon);
    let mut command = Command::new(binary("fwctl"));
    command.arg("--socket").arg(daemon.socket()).args(args);
    let process = Process::spawn(command);
    until("it listens", || generation(daemon) > before);
    process
}

/// Hanging a tap in and out makes another snapshot.
fn generation(daemon: &Daemon) -> u64 {
    daemon.stats().generation()
}

/// Sends datagrams to where nobody need answer.
fn send(lab: &Lab, port: u16, count: u32) {
    let socket = traffic::udp_socket(&lab.left.netns, SocketAddr::new(lab.left.addr(false), 0));
    for _ in 0..count {
        socket.send_to(b"hello", SocketAddr::new(lab.right.addr(false), port)).expect("it can be sent");
    }
}

/// A file system with room for 256 KiB. Gone when dropped.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(at: &'a Path) -> Self {
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(at).status();
        assert!(done.is_ok_and(|status| status.success()), "a file system can be mounted");
        Self(at)
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What tcpdump makes of a capture file.
fn tcpdump(path: &Path) -> Vec<String> {
    let mut command = Command::new("tcpdump");
    command.args(["-nvr"]).arg(path);
    let text = Process::spawn(command).wait(Duration::from_secs(10)).expect_success("tcpdump");
    // A packet takes two lines with -v.
    text.split('\n').filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn comments(path: &Path) -> Vec<String> {
    let bytes = std::fs::read(path).expect("a capture");
    let text = String::from_utf8_lossy(&bytes);
    let starts = text.match_indices("verdict=").map(|(at, _)| at);
    starts.map(|at| text[at..].split('\0').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn captures_have_the_packets_and_what_became_of_them() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::start(&lab, RULES);
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("all.pcapng");
    let name = path.display().to_string();
    let process = started(&daemon, &["capture", "-w", &name, "udp portrange 7001-7003"]);
    assert_eq!(traffic::udp_echo(&lab.left, &lab.right, false, 7001, 2, 100), 2);
    send(&lab, 7002, 1);
    send(&lab, 7003, 1);
    until("they are captured", || comments(&path).len() == 6);
    process.signal(Signal::INT);
    let ended = process.wait(Duration::from_secs(10));
    assert!(ended.stderr.contains("6 packets captured, 0 lost"), "{}", ended.stderr);
    let comments = comments(&path);
    let has =
        |parts: &[&str]| comments.iter().filter(|line| parts.iter().all(|part| line.contains(part))).count();
    assert_eq!(has(&["verdict=accept ct=NEW", "rule=filter/FORWARD:policy"]), 1, "{comments:#?}");
    assert_eq!(has(&["verdict=accept ct=ESTABLISHED", "rule=filter/FORWARD:1 -A FORWARD -m conntrack"]), 3);
    assert_eq!(has(&["verdict=drop reason=rule_drop ct=NEW", "rule=filter/services:1 -A services"]), 1);
    assert_eq!(has(&["verdict=reject reason=rule_reject ct=NEW", "rule=filter/services:2"]), 1);
    let lines = tcpdump(&path);
    assert_eq!(
        lines.iter().filter(|line| line.contains("ttl 9,")).count(),
        2,
        "as the rules have made them: {lines:#?}"
    );
}

/// A capture of a second is one of a second, also when its reader takes longer and packets go on coming.
#[test]
fn captures_end_in_time_whoever_reads_them() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::start(&lab, RULES);
    let before = generation(&daemon);
    let mut command = Command::new(binary("fwctl"));
    command.arg("--socket").arg(daemon.socket()).args(["capture", "--for", "1s", "-w", "-", "udp port 7001"]);
    let mut capture =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("fwctl can be started");
    until("it listens", || generation(&daemon) > before);
    let (socket, to) = (
        traffic::udp_socket(&lab.left.netns, SocketAddr::new(lab.left.addr(false), 0)),
        SocketAddr::new(lab.right.addr(false), 7001),
    );
    // 3 s of 14 MB each: more than is on the way between daemon and reader, less than waits in the daemon.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        for _ in 0..10 {
            socket.send_to(&[0; 1400], to).expect("it can be sent");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("second.pcapng");
    let mut file = std::fs::File::create(&path).expect("a file");
    std::io::copy(&mut capture.stdout.take().expect("a pipe"), &mut file).expect("it can be read");
    assert!(capture.wait().expect("fwctl ends").success());
    let mut command = Command::new("tcpdump");
    command.args(["-ttnr"]).arg(&path);
    let text = Process::spawn(command).wait(Duration::from_secs(10)).expect_success("tcpdump");
    let times: Vec<f64> = text
        .lines()
        .map(|line| line.split(' ').next().and_then(|time| time.parse().ok()).expect(line))
        .collect();
    let (first, last) = (times.first().expect("packets"), times.last().expect("packets"));
    assert!(last - first < 1.5, "{} packets in {} s", times.len(), last - first);
    assert!(times.len() > 100, "{} packets", times.len());
}

#[test]
fn captures_can_be_of_any_point_of_drops_and_of_one_rule() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::start(&lab, RULES);
    let dir = tempfile::tempdir().expect("a directory");
    let run = |args: &[&str], name: &str| {
        let path = dir.path().join(name);
        let file = path.display().to_string();
        let process = started(&daemon, &[&["capture", "-w", &file], args].concat());
        (path, process)
    };
    let (rx, rx_process) = run(&["--point", "rx", "-c", "3", "udp"], "rx");
    let (tx, tx_process) = run(&["--point", "tx", "-c", "3", "udp or icmp"], "tx");
    let (drops, drops_process) = run(&["--drops", "-c", "2", "udp"], "drops");
    let (rule, rule_process) = run(&["--rule", "services:2", "-c", "1", "-s", "60"], "rule");
    send(&lab, 7001, 1);
    send(&lab, 7002, 1);
    send(&lab, 7003, 1);
    for process in [rx_process, tx_process, drops_process, rule_process] {
        assert_eq!(process.wait(Duration::from_secs(10)).code, Some(0));
    }
    let rx = tcpdump(&rx).join("\n");
    assert!(rx.contains(".7001: ") && rx.contains(".7002: ") && rx.contains(".7003: "), "{rx}");
    let tx = tcpdump(&tx).join("\n");
    assert!(tx.contains(".7001: ") && tx.contains("port 7003 unreachable"), "{tx}");
    let drops = comments(&drops);
    assert!(
        drops.len() == 2 && drops[0].contains("rule_drop") && drops[1].contains("rule_reject"),
        "{drops:?}"
    );
    let comment = comments(&rule);
    assert!(comment.len() == 1 && comment[0].contains("rule=filter/services:2 "), "{comment:?}");
}

#[test]
fn traced_packets_show_their_way_also_those_of_known_flows() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::start(&lab, RULES);
    let process = started(&daemon, &["trace", "--json", "-c", "4", "udp"]);
    assert_eq!(traffic::udp_echo(&lab.left, &lab.right, false, 7001, 1, 100), 1);
    send(&lab, 7002, 1);
    send(&lab, 7003, 1);
    let text = process.wait(Duration::from_secs(10)).expect_success("fwctl trace");
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let steps = |row: &Value| -> Vec<String> {
        let step = |step: &Value| {
            let number = step["number"].as_u64().map_or("end".to_owned(), |number| number.to_string());
            format!("{}:{number}", step["chain"].as_str().unwrap_or_default())
        };
        row["steps"].as_array().into_iter().flatten().map(step).collect()
    };
    let state = |row: &Value| row["ct"]["state"].as_str().unwrap_or_default().to_owned();
    assert_eq!(rows.len(), 4);
    assert_eq!((state(&rows[0]), state(&rows[1])), ("NEW".to_owned(), "ESTABLISHED".to_owned()));
    // Each table's chains, mangle's first: rules that match, and the ends of chains.
    let first = [
        "PREROUTING:end",
        "FORWARD:1",
        "FORWARD:end",
        "FORWARD:2",
        "services:end",
        "FORWARD:end",
        "POSTROUTING:end",
    ];
    assert_eq!(steps(&rows[0]), first);
    assert_eq!(steps(&rows[1]), ["PREROUTING:end", "FORWARD:end", "FORWARD:1", "POSTROUTING:end"]);
    assert_eq!(rows[2]["verdict"]["reason"]["name"], "rule_drop");
    assert_eq!(rows[2]["verdict"]["rule"]["text"], "-A services -p udp -m udp --dport 7002 -j DROP");
    assert_eq!(rows[3]["verdict"]["verdict"], "reject");
    let shown = started(&daemon, &["trace", "-c", "1", "--drops"]);
    send(&lab, 7002, 1);
    let shown = shown.wait(Duration::from_secs(10)).expect_success("fwctl trace");
    assert!(shown.contains("IPv4 udp 10.77.0.1:") && shown.contains("-A services -p udp"), "{shown}");
}

#[test]
fn the_last_drops_are_remembered_and_their_rules_keep_their_names() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::start(&lab, RULES);
    send(&lab, 7002, 2);
    send(&lab, 7003, 1);
    let drops = || daemon.fwctl(&["drops", "--reason", "rule_drop,rule_reject"]);
    until("three drops", || drops().lines().count() == 6);
    let text = drops();
    assert!(
        text.contains("    rule_drop, NEW, by services 1: -A services -p udp -m udp --dport 7002 -j DROP"),
        "{text}"
    );
    assert!(text.contains("    rule_reject, NEW, by services 2: "), "{text}");
    // The rule moves; those that it dropped before still are its.
    daemon.fwctl(&["rule", "insert", "services", "1", "-p", "tcp", "-j", "ACCEPT"]);
    let text = daemon.fwctl(&["drops", "--reason", "rule_drop", "-n", "1"]);
    assert!(text.contains("by services 2: -A services -p udp -m udp --dport 7002 -j DROP"), "{text}");
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("drops.pcapng");
    daemon.fwctl(&["drops", "--reason", "rule_drop,rule_reject", "--pcap", &path.display().to_string()]);
    assert_eq!(tcpdump(&path).iter().filter(|line| line.contains(".7002: ")).count(), 2);
    // As a capture says it.
    let comments = comments(&path);
    let has = |verdict: &str, rule: &str| {
        comments.iter().filter(|line| line.starts_with(verdict) && line.contains(rule)).count()
    };
    assert_eq!(
        has("verdict=drop reason=rule_drop ct=NEW in=", " rule=filter/services:2 -A"),
        2,
        "{comments:#?}"
    );
    assert_eq!(has("verdict=reject reason=rule_reject ct=NEW in=", " rule=filter/services:3 -A"), 1);
}

#[test]
fn what_is_wrong_is_said_and_nothing_begins() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::start(&lab, RULES);
    let before = generation(&daemon);
    let refused = |args: &[&str], code: i32, words: &str| {
        let exit = daemon.try_fwctl(args);
        assert_eq!(exit.code, Some(code), "{args:?}: {}", exit.stderr);
        assert!(exit.stderr.contains(words), "{args:?}: {}", exit.stderr);
    };
    refused(&["trace", "tcp", "prot", "80"], 2, "does not compile");
    refused(&["trace", "--in", "eth99"], 1, "`eth99` is none of the gateway's NICs");
    refused(&["trace", "--reason", "boredom"], 1, "`boredom` is no drop reason");
    refused(&["drops", "--reason", "boredom"], 2, "`boredom` is no drop reason");
    refused(&["trace", "--rule", "services:9"], 2, "chain services has rules 1 to 2");
    refused(&["trace", "--rule", "nowhere:1"], 2, "has no chain nowhere");
    refused(&["capture", "-w", "/nowhere/at/all", "-c", "1"], 1, "/nowhere/at/all");
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("older.pcapng");
    std::fs::write(&path, "an older capture").expect("a file");
    refused(
        &["capture", "-w", &path.display().to_string(), "--point", "rx", "--drops", "-c", "1"],
        1,
        "go with the point `verdict` alone",
    );
    assert_eq!(std::fs::read_to_string(&path).expect("the file"), "an older capture");
    assert_eq!(generation(&daemon), before);
}

#[test]
fn a_full_disk_ends_the_capture_and_leaves_a_good_file() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::start(&lab, RULES);
    let dir = tempfile::tempdir().expect("a directory");
    let disk = SmallDisk::mount(dir.path());
    let path = dir.path().join("all.pcapng");
    let name = path.display().to_string();
    let process = started(&daemon, &["capture", "-w", &name]);
    let ended = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let echoed = (0..40).map(|_| traffic::udp_echo(&lab.left, &lab.right, false, 7001, 20, 1000));
            assert_eq!(echoed.sum::<u32>(), 800);
        });
        let ended = process.wait(Duration::from_secs(30));
        sender.join().expect("traffic flows on");
        ended
    });
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("No space left on device"), "{}", ended.stderr);
    assert!(!tcpdump(&path).is_empty());
    drop(disk);
    assert_eq!(
        traffic::udp_echo(&lab.left, &lab.right, false, 7001, 3, 100),
        3,
        "the gateway has noticed nothing"
    );
}
