//! Who has the most, asked of a real daemon with real traffic, and `fwctl top` on a real terminal.

use nix::pty::{Winsize, openpty};
use nix::sys::termios::{LocalFlags, tcgetattr};
use palisade_tests::daemon::{Daemon, binary};
use palisade_tests::lab::{Host, Lab};
use palisade_tests::require_root;
use palisade_tests::traffic;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const RULES: &str = "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
    -A FORWARD -p udp -m udp --dport 7000 -j ACCEPT\n-A FORWARD -p udp -m udp --dport 7001 -j ACCEPT\nCOMMIT\n";

const PATIENCE: Duration = Duration::from_secs(30);

/// Sends datagrams from the left host until it is dropped: `size` bytes of payload each, `pps` a second.
struct Stream {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Stream {
    fn start(lab: &Lab, from: &Host, port: u16, size: usize, pps: u32) -> Self {
        let to = std::net::SocketAddr::new(lab.right.addr(false), port);
        let socket = from
            .netns
            .within(|| std::net::UdpSocket::bind(std::net::SocketAddr::new(from.addr(false), 0)))
            .expect("a socket");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let payload = vec![0; size];
            while !stopped.load(Ordering::Relaxed) {
                // Nobody listens there: refusals come back as errors of the next call.
                let _ = socket.send_to(&payload, to);
                thread::sleep(Duration::from_secs(1) / pps);
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

/// Asks until the answer is as it should be.
#[track_caller]
fn top_until(daemon: &Daemon, args: &[&str], is_there: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let picture = daemon.fwctl_json(&[&["top", "-i", "0.5"], args].concat());
        if is_there(&picture["top"]) {
            return picture;
        }
        assert!(Instant::now() < deadline, "{picture:#}\n{}", daemon.process().stderr());
    }
}

#[test]
fn flows_hosts_services_and_rules_are_ordered_by_what_they_carry() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::start(&lab, RULES);
    let _fat = Stream::start(&lab, &lab.left, 7000, 1200, 100);
    let _busy = Stream::start(&lab, &lab.left, 7001, 10, 400);
    let _refused = Stream::start(&lab, &lab.left, 9, 10, 50);
    let order = |top: &Value| -> Vec<u64> {
        let ports = top["services"].as_array().into_iter().flatten().map(|service| service["port"].as_u64());
        ports.map(Option::unwrap_or_default).collect()
    };
    let both = |list: &Value| list.as_array().is_some_and(|list| list.len() == 2);
    let picture = top_until(&daemon, &[], |top| both(&top["flows"]) && order(top) == [7000, 7001]);
    let top = &picture["top"];
    assert_eq!((&top["flows"][0]["dport"], &top["flows"][0]["proto_name"]), (&7000.into(), &"udp".into()));
    let rate = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{top:#}"));
    // 100 datagrams of 1228 bytes a second, or fewer on a busy machine: bytes of a packet are exact.
    let forth = &top["flows"][0]["forth"];
    let per_packet = rate(&forth["bits_per_sec"]) / rate(&forth["packets_per_sec"]).max(1);
    assert!((1200 * 8..=1300 * 8).contains(&per_packet), "{top:#}");
    assert_eq!(rate(&top["flows"][0]["back"]["packets_per_sec"]), 0);
    let left = lab.left.addr(false).to_string();
    let right = lab.right.addr(false).to_string();
    assert_eq!(
        (&top["sources"][0]["addr"], &top["destinations"][0]["addr"]),
        (&left.into(), &right.clone().into())
    );
    assert_eq!(top["destinations"][0]["flows"], 2);
    assert!(top["hosts"].as_array().is_some_and(|hosts| hosts.len() == 2));
    assert_eq!(top["slack"]["hosts"], 0);
    let rules: Vec<&str> =
        top["rules"].as_array().into_iter().flatten().filter_map(|rule| rule["rule"].as_str()).collect();
    assert!(
        rules.contains(&"-P FORWARD DROP")
            && rules.contains(&"-A FORWARD -p udp -m udp --dport 7001 -j ACCEPT"),
        "{rules:?}"
    );

    // By packets it is the other way round; and only what is asked for.
    top_until(&daemon, &["--by", "packets"], |top| order(top) == [7001, 7000]);
    top_until(&daemon, &["port", "7001", "udp", "host", &right], |top| order(top) == [7001]);
    let nobody = top_until(&daemon, &["tcp"], |_| true);
    assert_eq!((&nobody["top"]["flows_active"], &nobody["top"]["flows_count"]), (&0.into(), &2.into()));
    // Flows that begin. A machine that is busy elsewhere may take longer than the answer before this one is good for.
    let deadline = Instant::now() + PATIENCE;
    let news = loop {
        let _ = daemon.fwctl_json(&["top", "-i", "0.5"]);
        for _ in 0..3 {
            let _ = traffic::udp_echo(&lab.left, &lab.right, false, 7001, 1, 10);
        }
        let news = daemon.fwctl_json(&["top", "-i", "3", "--by", "new"]);
        if news["top"]["flows_new"] == 3 {
            break news;
        }
        assert!(Instant::now() < deadline, "{news:#}");
    };
    let new: Vec<&Value> =
        news["top"]["flows"].as_array().into_iter().flatten().map(|flow| &flow["is_new"]).collect();
    assert_eq!(new, [true, true, true]);

    // As text, without a terminal.
    let text = daemon.fwctl(&["top", "--once", "-i", "0.5"]);
    for piece in ["flows  ", "policy_drop", "udp/7000", "fill empty", &right] {
        assert!(text.contains(piece), "{piece} is missing in\n{text}");
    }
}

/// `fwctl top` on a terminal of its own, and what is to be seen there.
struct Terminal {
    child: Child,
    keys: File,
    screen: Arc<Mutex<vt100::Parser>>,
    /// The end that it is attached to: its settings can be looked at when it is gone.
    slave: File,
}

impl Terminal {
    fn start(daemon: &Daemon, term: &str) -> Self {
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).expect("a pseudo-terminal");
        let (master, slave) = (File::from(pty.master), File::from(pty.slave));
        let end = || Stdio::from(slave.try_clone().expect("a second descriptor"));
        // With it as the controlling terminal, so that resizing is told as it is to anybody.
        let child = Command::new("setsid")
            .arg("--ctty")
            .arg(binary("fwctl"))
            .arg("--socket")
            .arg(daemon.socket())
            .args(["top", "-i", "0.5"])
            .env("TERM", term)
            .env("LC_ALL", "C.UTF-8")
            .env_remove("NO_COLOR")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("fwctl starts");
        let screen = Arc::new(Mutex::new(vt100::Parser::new(24, 80, 1000)));
        let seen = Arc::clone(&screen);
        let mut output = master.try_clone().expect("a second descriptor");
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                seen.lock().expect("no panic").process(&bytes[..count]);
            }
        });
        Self { child, keys: master, screen, slave }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("keys can be pressed");
    }

    fn resize(&self, rows: u16, columns: u16) {
        self.screen.lock().expect("no panic").screen_mut().set_size(rows, columns);
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&self.slave, size).expect("a terminal can be resized");
    }

    /// Waits until all of this is on the screen.
    #[track_caller]
    fn until(&self, pieces: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.screen.lock().expect("no panic").screen().contents();
            if pieces.iter().all(|piece| seen.contains(piece)) {
                return println!("{seen}\n");
            }
            assert!(Instant::now() < deadline, "{pieces:?} are not in\n{seen}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("a signal can be sent");
    }

    /// Waits for its end and makes sure that the terminal is as it was before.
    #[track_caller]
    fn ends(mut self) {
        let deadline = Instant::now() + PATIENCE;
        let mut running = || self.child.try_wait().expect("a child can be waited for");
        let status = loop {
            if let Some(status) = running() {
                break status;
            }
            assert!(Instant::now() < deadline, "it still runs");
            thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(status.code(), Some(0));
        let given_back = || {
            let parser = self.screen.lock().expect("no panic");
            let screen = parser.screen();
            !screen.alternate_screen() && !screen.hide_cursor() && screen.contents().is_empty()
        };
        while !given_back() {
            assert!(Instant::now() < deadline, "the screen is not as it was");
            thread::sleep(Duration::from_millis(20));
        }
        let modes = tcgetattr(&self.slave).expect("a terminal").local_flags;
        assert!(modes.contains(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG), "{modes:?}");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_screen_lives_on_a_terminal_and_gives_it_back() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::start(&lab, RULES);
    let _stream = Stream::start(&lab, &lab.left, 7000, 1200, 100);
    let _refused = Stream::start(&lab, &lab.left, 9, 10, 50);
    let to = format!(" > {}:7000", lab.right.addr(false));
    let mut terminal = Terminal::start(&daemon, "xterm-256color");
    terminal.until(&[
        "palisade  up ",
        "flows  1 of ",
        &to,
        "FORWARD 2: -p udp",
        "  policy_drop",
        "<left",
        "q quit",
    ]);
    terminal.press("6");
    terminal.until(&["since start", "policy_drop: "]);
    terminal.press("2/udp dport 53\r");
    terminal.until(&["filter: udp dport 53", "  nothing"]);
    // A larger terminal is used, a smaller one too.
    terminal.press("\x1b");
    terminal.until(&[&to]);
    terminal.press("1");
    terminal.resize(50, 160);
    terminal.until(&[&to, "1-7 lists"]);
    terminal.resize(9, 30);
    terminal.until(&["30x9: 40x10 needed"]);
    terminal.resize(12, 60);
    terminal.until(&["flows  1 of ", "pkts/s  flow", "q quit"]);
    terminal.press("q");
    terminal.ends();

    for signal in [Signal::TERM, Signal::HUP] {
        let terminal = Terminal::start(&daemon, "xterm");
        terminal.until(&["flows  1 of "]);
        terminal.signal(signal);
        terminal.ends();
    }
    // A daemon that goes is missed.
    let mut terminal = Terminal::start(&daemon, "xterm");
    terminal.until(&["flows  1 of "]);
    daemon.stop(Signal::TERM);
    terminal.until(&["! there is no socket", "is fwd running?"]);
    terminal.press("\x03");
    terminal.ends();
}

#[test]
fn what_can_only_print_gets_text() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::start(&lab, RULES);
    assert_eq!(traffic::udp_echo(&lab.left, &lab.right, false, 7000, 1, 10), 1);
    let terminal = Terminal::start(&daemon, "dumb");
    terminal.resize(200, 100);
    terminal.until(&["no terminal to draw on", "worker  core", "fill empty"]);
    let parser = terminal.screen.lock().expect("no panic");
    assert!(!parser.screen().alternate_screen());
    let formatted = String::from_utf8_lossy(&parser.screen().contents_formatted()).into_owned();
    assert!(!formatted.contains("\x1b[1m") && !formatted.contains("\x1b[3"), "no colours: {formatted:?}");
}
