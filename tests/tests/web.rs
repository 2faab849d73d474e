//! The web page as somebody sees it: a real daemon with traffic, a real browser that opens its page.
//!
//! With `PALISADE_SCREENSHOTS=DIR` the pictures of the documentation are taken on the way.

use palisade_tests::browser::Browser;
use palisade_tests::daemon::Daemon;
use palisade_tests::lab::{Lab, Netns};
use palisade_tests::{require_root, traffic};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

const RULES: &str = include_str!("../data/rules/gateway.v4.rules");

const RULES6: &str = "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -p ipv6-icmp -j ACCEPT\nCOMMIT\n";

/// Where the page is, inside the gateway's namespace.
const SITE: &str = "http://127.0.0.1:8080";

/// A daemon between two hosts with its page on TCP open in a browser, or `None` where there is no browser.
fn open(lab: &Lab) -> Option<(Daemon, Browser)> {
    let Some(mut browser) = Browser::start(&lab.gateway) else {
        eprintln!("skipped: there is no Chromium here (apt-get install chromium-headless-shell)");
        return None;
    };
    let daemon = Daemon::builder(lab).rules(RULES).rules6(RULES6).set("web.listen", "127.0.0.1:8080").start();
    browser.size(1280, 860, false);
    browser.dark(false);
    browser.open(SITE);
    browser.until("live page", "document.getElementById('live')?.textContent", |text| text == "live");
    Some((daemon, browser))
}

/// What `ssh -L 8080:/run/palisade/fwd.sock` does: connections to an address go to the daemon's socket. Ends when dropped.
struct Forward {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Forward {
    fn start(netns: &Netns, socket: &Path) -> Self {
        let listener = traffic::listen(netns, SocketAddr::from(([127, 0, 0, 1], 8080)));
        listener.set_nonblocking(true).expect("a listener can be made not to wait");
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, socket) = (Arc::clone(&stop), socket.to_owned());
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let Ok((client, _)) = listener.accept() else {
                    thread::sleep(Duration::from_millis(5));
                    continue;
                };
                // Nobody there: the client sees its connection end.
                if let Ok(server) = UnixStream::connect(&socket) {
                    join(client, server);
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Copies both ways until both sides have closed.
fn join(client: TcpStream, server: UnixStream) {
    // Accepted from a listener that does not wait; this one is to.
    let _ = client.set_nonblocking(false);
    let (Ok(mut from_client), Ok(mut to_server)) = (client.try_clone(), server.try_clone()) else { return };
    thread::spawn(move || {
        let _ = io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    let (mut client, mut server) = (client, server);
    thread::spawn(move || {
        let _ = io::copy(&mut server, &mut client);
        let _ = client.shutdown(Shutdown::Both);
    });
}

/// Datagrams that pass and are answered, and ones that no rule lets through, until it is dropped.
struct Traffic {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Traffic {
    fn start(lab: &Lab) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let echo = traffic::udp_socket(&lab.right.netns, SocketAddr::new(lab.right.addr(false), 7000));
        let client = traffic::udp_socket(&lab.left.netns, SocketAddr::new(lab.left.addr(false), 5555));
        let to = SocketAddr::new(lab.right.addr(false), 7000);
        echo.set_read_timeout(Some(Duration::from_millis(200))).expect("above zero");
        let repeat = |work: Box<dyn FnMut() + Send>| {
            let (stop, mut work) = (Arc::clone(&stop), work);
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    work();
                }
            })
        };
        let answering = repeat(Box::new(move || answer(&echo)));
        let sending = repeat(Box::new(move || {
            for port in [7000, 7000, 7000, 7000, 6666] {
                let _ = client.send_to(&[0x5a; 900], SocketAddr::new(to.ip(), port));
            }
            thread::sleep(Duration::from_millis(10));
        }));
        Self { stop, threads: vec![answering, sending] }
    }
}

fn answer(echo: &UdpSocket) {
    let mut datagram = [0; 2000];
    if let Ok((len, from)) = echo.recv_from(&mut datagram) {
        let _ = echo.send_to(datagram.get(..len).unwrap_or_default(), from);
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Goes to a view, by the key that is for it.
fn go(browser: &mut Browser, key: &str, view: &str) {
    browser.evaluate("document.activeElement.blur()");
    browser.press(key);
    let shown = format!("!document.getElementById('view-{view}').hidden && location.hash");
    browser.until("view", &shown, |hash| *hash == json!(format!("#{view}")));
}

/// Fills a field in as if it had been typed.
fn fill(browser: &mut Browser, field: &str, text: &str) {
    browser.evaluate(&format!(
        "(() => {{ const field = document.querySelector({field:?}); field.value = {text:?}; \
         field.dispatchEvent(new Event('input', {{ bubbles: true }})); }})()"
    ));
}

/// A number that the page shows, its groups of three put together.
fn number(text: &Value) -> u64 {
    let digits: String = text.as_str().unwrap_or_default().chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

/// Takes a picture for the documentation if somebody wants it.
fn picture(browser: &mut Browser, name: &str) {
    if let Some(dir) = std::env::var_os("PALISADE_SCREENSHOTS") {
        browser.screenshot(&PathBuf::from(dir).join(format!("{name}.png")));
    }
}

#[test]
fn the_page_shows_what_the_daemon_counts_finds_flows_and_asks_nobody_else() {
    require_root!();
    let lab = Lab::new();
    let Some((daemon, mut browser)) = open(&lab) else { return };
    let running = Traffic::start(&lab);

    // Numbers move by themselves, and drops have their reason.
    let dropped = "document.querySelector('[data-reason=policy_drop] td:nth-child(4)')?.textContent";
    let first = number(&browser.until("drops", dropped, |text| number(text) > 0));
    browser.until("more drops", dropped, |text| number(text) > first);
    browser.until("throughput", "document.getElementById('now-forwarded').textContent", |text| {
        text.as_str().is_some_and(|text| text.contains("bit/s") && !text.starts_with('0'))
    });
    browser.until(
        "line",
        "document.querySelector('.chart-box .stroke').getAttribute('d').split('L').length",
        |points| points.as_u64() > Some(4),
    );
    browser.until("busiest flow", "document.querySelector('.busiest tbody').innerText", |text| {
        text.as_str().is_some_and(|text| text.contains("udp 10.77.0.1:5555 → 10.77.0.2:7000"))
    });
    browser.evaluate("[...document.querySelectorAll('.busiest button')].find((one) => one.textContent === 'hosts').click()");
    browser.until("busiest host", "document.querySelector('.busiest tbody tr td')?.innerText", |text| {
        text.as_str().is_some_and(|text| text.starts_with("10.77.0."))
    });
    browser.evaluate("[...document.querySelectorAll('.busiest button')].find((one) => one.textContent === 'flows').click()");
    if std::env::var_os("PALISADE_SCREENSHOTS").is_some() {
        thread::sleep(Duration::from_secs(120));
    }
    picture(&mut browser, "web-overview");

    // Rules have the counters of the API.
    go(&mut browser, "2", "rules");
    browser.until("rate of a rule", "document.querySelectorAll('.rules svg:not([hidden])').length", |bars| {
        bars.as_u64() > Some(0)
    });
    picture(&mut browser, "web-rules");
    drop(running);
    let rows = "JSON.stringify([...document.querySelectorAll('.rules tr[data-rule]')].map((row) => \
        [row.dataset.rule, ...[1, 2].map((at) => Number(row.cells[at].textContent.replace(/\\D/g, '')))]))";
    let counted = |daemon: &Daemon| {
        let views = daemon.fwctl_json(&["rules"]);
        let views =
            views.as_array().expect("families").iter().flat_map(|view| view["chains"].as_array()).flatten();
        let rules = views
            .filter(|chain| chain["table"] == "filter")
            .filter_map(|chain| chain["rules"].as_array())
            .flatten();
        let rows: Vec<Value> =
            rules.map(|rule| json!([rule["id"], rule["packets"], rule["bytes"]])).collect();
        assert!(rows.len() > 10, "{rows:?}");
        Value::from(rows).to_string()
    };
    browser.until("counters of the API", rows, |shown| *shown == json!(counted(&daemon)));
    fill(&mut browser, "#view-rules input[type=search]", "public udp 7000");
    browser.until("filtered rules", "document.querySelectorAll('.rules tr[data-rule]').length", |rows| {
        rows == 1
    });

    // A flow is found by what conntrack calls it, and shown as fwctl shows it.
    go(&mut browser, "3", "flows");
    fill(&mut browser, "#view-flows input", "udp 10.77.0.2 :7000 sport=5555");
    browser.evaluate("document.querySelector('#view-flows form').requestSubmit()");
    browser.until("flow", "document.querySelectorAll('#flows-table tr.row').length", |rows| rows == 1);
    let shown = browser.evaluate("document.querySelector('#flows-table .detail .wrap').textContent");
    let flow = daemon.fwctl(&["flows", "-L", "-p", "udp", "--sport", "5555", "--dport", "7000"]);
    let words = |line: &str| {
        let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        // The time left may have changed in between.
        assert!(words.len() > 10, "{line}");
        words.remove(2);
        words
    };
    assert_eq!(words(shown.as_str().unwrap_or_default()), words(&flow));
    fill(&mut browser, "#view-flows input", "10.77.0.1 nonsense");
    browser.evaluate("document.querySelector('#view-flows form').requestSubmit()");
    browser.until("refusal", "document.querySelector('#view-flows .said').textContent", |said| {
        said.as_str().is_some_and(|said| said.starts_with("Not understood: nonsense."))
    });
    fill(&mut browser, "#view-flows input", "");
    browser.evaluate("document.querySelector('#view-flows form').requestSubmit()");
    browser.until("all flows", "document.querySelectorAll('#flows-table tr.row').length", |rows| {
        rows.as_u64() > Some(0)
    });
    picture(&mut browser, "web-flows");

    // What would become of a packet is what fwctl explain says of it.
    go(&mut browser, "4", "explain");
    for (dport, words, verdict) in [
        ("443", "It is accepted", "accept"),
        ("23", "It is rejected", "reject"),
        ("24", "It is dropped", "drop"),
    ] {
        for (field, text) in [("src", "10.77.0.1"), ("dst", "10.77.0.2"), ("dport", dport)] {
            fill(&mut browser, &format!("#view-explain input[name={field}]"), text);
        }
        browser.evaluate("document.querySelector('#view-explain form').requestSubmit()");
        let shown = browser.until("verdict", "document.querySelector('#verdict')?.textContent", |text| {
            text.as_str().is_some_and(|text| text.starts_with(words))
        });
        let to = format!("10.77.0.2:{dport}");
        let said = daemon.fwctl_json(&["explain", "--in", "left", "tcp", "10.77.0.1", &to]);
        assert_eq!(said["verdict"]["verdict"], verdict, "{said:#}");
        let rule = said["verdict"]["rule"]["text"].as_str().unwrap_or_default();
        assert!(
            !rule.is_empty() && shown.as_str().is_some_and(|shown| shown.contains(rule)),
            "{shown}: {said:#}"
        );
        let steps = browser.evaluate("document.querySelectorAll('#explained .steps [data-kind]').length");
        assert_eq!(Some(steps), said["steps"].as_array().map(|steps| json!(steps.len())), "{said:#}");
        if dport == "23" {
            picture(&mut browser, "web-explain");
        }
    }
    fill(&mut browser, "#view-explain input[name=src]", "10.77.0");
    browser.evaluate("document.querySelector('#view-explain form').requestSubmit()");
    browser.until("refusal", "document.querySelector('#view-explain .note.bad')?.textContent", |text| {
        text.as_str().is_some_and(|text| text.contains("src") || text.contains("address"))
    });
    browser.forgive_status(400);

    // Workers, and who changed what: a change that waits is said on every view.
    go(&mut browser, "5", "workers");
    browser.until("worker", "document.querySelectorAll('#workers-table tbody tr').length", |rows| rows == 1);
    picture(&mut browser, "web-workers");
    go(&mut browser, "6", "history");
    browser.until("history", "document.querySelector('#history-table tbody').innerText", |text| {
        text.as_str().is_some_and(|text| text.contains("start with") && text.contains("runs"))
    });
    let path = daemon.file("again.v4", RULES);
    daemon.fwctl(&["apply", "--confirm", "300s", "--comment", "once more", &path.to_string_lossy()]);
    browser.until("warning", "document.getElementById('alerts').textContent", |text| {
        text.as_str().is_some_and(|text| text.contains("Ruleset 2 waits for its confirmation"))
    });
    picture(&mut browser, "web-history");
    daemon.fwctl(&["confirm"]);
    browser.until("end of the warning", "document.getElementById('alerts').textContent", |text| text == "");

    // Nothing is cut on a phone, and dark is dark.
    let light = browser.evaluate("getComputedStyle(document.body).backgroundColor");
    browser.dark(true);
    assert_ne!(browser.evaluate("getComputedStyle(document.body).backgroundColor"), light);
    for (key, view) in [
        ("6", "history"),
        ("5", "workers"),
        ("4", "explain"),
        ("3", "flows"),
        ("2", "rules"),
        ("1", "overview"),
    ] {
        browser.size(390, 844, true);
        go(&mut browser, key, view);
        let width = browser.evaluate("document.documentElement.scrollWidth");
        assert_eq!(width, 390, "{view} is wider than a phone");
        picture(&mut browser, &format!("web-phone-{view}"));
        browser.size(1280, 860, false);
        picture(&mut browser, &format!("web-dark-{view}"));
    }

    assert!(browser.complaints().is_empty(), "{:#?}", browser.complaints());
    let foreign: Vec<_> = browser.requests().iter().filter(|url| !url.starts_with(SITE)).collect();
    assert!(foreign.is_empty(), "{foreign:?}");

    // The policy holds: nothing could be run, loaded or asked elsewhere if somebody got text in where it does not belong.
    let thrown = "(() => { try { document.body.innerHTML = '<b>x</b>'; return 'done'; } catch (error) { return error.name; } })()";
    assert_eq!(browser.evaluate(thrown), "TypeError");
    let asked = "fetch('http://192.0.2.1/').then(() => 'done', (error) => error.name)";
    assert_eq!(browser.evaluate(asked), "TypeError");
    let script = "(() => { try { const script = document.createElement('script'); \
        script.append('window.ran = true'); document.head.append(script); } \
        catch { /* refused as well */ } return window.ran === true; })()";
    assert_eq!(browser.evaluate(script), false);
    assert!(!browser.complaints().is_empty(), "the browser says what it has refused");
    browser.forgive();

    // Without the daemon the page says so, and stays.
    daemon.stop(Signal::TERM);
    browser.until("end of the daemon", "document.getElementById('alerts').textContent", |text| {
        text.as_str().is_some_and(|text| text.contains("The daemon has not answered"))
    });
}

#[test]
fn another_site_in_the_same_browser_changes_and_reads_nothing() {
    require_root!();
    let lab = Lab::new();
    let Some((daemon, mut browser)) = open(&lab) else { return };
    assert_eq!(traffic::udp_echo(&lab.left, &lab.right, false, 7000, 1, 10), 1);
    let flows = || daemon.fwctl(&["flows", "-C", "-p", "udp"]).trim().parse::<u64>().expect("a number");
    assert!(flows() > 0);
    let flush = format!(
        "fetch('{SITE}/v1/flows/flush', {{ method: 'POST', mode: 'no-cors' }}).then(() => 'sent', () => 'failed')"
    );
    let read = format!("fetch('{SITE}/v1/stats').then((answer) => answer.text(), () => 'failed')");

    // Another site by another name, a page without an origin, and one that only looks like ours.
    browser.open("data:text/html,elsewhere");
    browser.until("other site", "location.protocol", |protocol| protocol == "data:");
    browser.evaluate(&flush);
    assert_eq!(browser.evaluate(&read), "failed");
    assert!(flows() > 0, "flushed from a page without an origin");

    // A name of somebody else's that leads here: what DNS rebinding comes to.
    let request = "POST /v1/flows/flush HTTP/1.1\r\nHost: evil.example:8080\r\nOrigin: http://evil.example:8080\r\n\
        Sec-Fetch-Site: same-origin\r\nContent-Length: 0\r\n\r\n";
    let answer = lab.gateway.within(|| {
        use std::io::{Read as _, Write as _};
        let mut stream = TcpStream::connect("127.0.0.1:8080").expect("somebody listens");
        stream.write_all(request.as_bytes()).expect("it is read");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    });
    assert!(answer.starts_with("HTTP/1.1 421 "), "{answer}");
    assert!(flows() > 0, "flushed by another name");

    // The page itself may ask, as long as the daemon is asked directly.
    browser.open(SITE);
    browser.until("live page", "document.getElementById('live')?.textContent", |text| text == "live");
    let own = browser.evaluate("fetch('/v1/flows/count').then((answer) => answer.json())");
    assert_eq!(own["count"].as_u64().map(|count| count > 0), Some(true), "{own}");
}

#[test]
fn through_the_socket_the_page_confirms_and_goes_back_if_it_may() {
    require_root!();
    let lab = Lab::new();
    let Some(mut browser) = Browser::start(&lab.gateway) else {
        eprintln!("skipped: there is no Chromium here (apt-get install chromium-headless-shell)");
        return;
    };
    let daemon = Daemon::builder(&lab).rules(RULES).set("web.write", "true").start();
    let _forward = Forward::start(&lab.gateway, &daemon.socket());
    browser.size(1280, 860, false);
    browser.open(SITE);
    browser.until("live page", "document.getElementById('live')?.textContent", |text| text == "live");
    let click = |browser: &mut Browser, name: &str| {
        let button = format!(
            "[...document.querySelectorAll('button')].find((one) => one.textContent === {name:?} && !one.hidden)"
        );
        browser.until(name, &format!("Boolean({button})"), |there| *there == true);
        browser.evaluate(&format!("{button}.click()"));
    };
    let running = |daemon: &Daemon| daemon.fwctl_json(&["history"])["running"].as_u64();
    let path = daemon.file("nothing.v4", "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n");
    daemon.fwctl(&["apply", "--confirm", "300s", &path.to_string_lossy()]);
    click(&mut browser, "Keep it");
    browser.until("end of the warning", "document.getElementById('alerts').textContent", |text| text == "");
    let history = daemon.fwctl_json(&["history"]);
    assert_eq!((&history["pending"], running(&daemon)), (&Value::Null, Some(2)));

    go(&mut browser, "6", "history");
    click(&mut browser, "go back to it (60 s to confirm)");
    browser.until("warning", "document.getElementById('alerts').textContent", |text| {
        text.as_str().is_some_and(|text| text.contains("Ruleset 3 waits for its confirmation"))
    });
    let history = daemon.fwctl_json(&["history"]);
    let last = history["entries"].as_array().and_then(|entries| entries.last()).expect("entries");
    assert_eq!((&last["restores"], &last["outcome"]), (&json!(1), &json!("unconfirmed")), "{history:#}");
    assert_eq!(traffic::udp_echo(&lab.left, &lab.right, false, 7000, 1, 10), 1);
    click(&mut browser, "Take it back now");
    browser.until("end of the warning", "document.getElementById('alerts').textContent", |text| text == "");
    assert_eq!(running(&daemon), Some(4));
    assert_eq!(traffic::udp_echo(&lab.left, &lab.right, false, 7000, 1, 10), 0);
    assert!(browser.complaints().is_empty(), "{:#?}", browser.complaints());
}

#[test]
fn ten_thousand_rules_and_many_flows_are_bounded_rows() {
    require_root!();
    let lab = Lab::new();
    let Some((daemon, mut browser)) = open(&lab) else { return };
    let mut rules = "*filter\n:FORWARD DROP [0:0]\n".to_owned();
    for n in 0..10_000_u32 {
        rules += &format!(
            "-A FORWARD -s 10.{}.{}.0/24 -p tcp --dport {} -j ACCEPT\n",
            n >> 8,
            n & 255,
            1 + n % 60_000
        );
    }
    rules += "COMMIT\n";
    daemon.apply(&rules);
    go(&mut browser, "2", "rules");
    let shown = "document.querySelector('#view-rules .foot span').textContent";
    browser.until("bounds", shown, |text| {
        number(&json!(text.as_str().unwrap_or("").split("more").next())) > 0
            && text.as_str().is_some_and(|text| text.contains("10\u{202f}001 rules"))
    });
    let rows = browser.evaluate("document.querySelectorAll('.rules tr').length");
    assert!(rows.as_u64() < Some(300), "{rows} rows are drawn");
    fill(&mut browser, "#view-rules input[type=search]", "10.39.15.0/24");
    let found =
        "[...document.querySelectorAll('.rules tr[data-rule]')].map((row) => row.innerText).join('|')";
    browser.until("the rule", found, |text| {
        text.as_str().is_some_and(|text| text.contains("10.39.15.0/24") && !text.contains('|'))
    });

    // Thousands of flows: some, and how many more.
    daemon.apply(RULES);
    let to = SocketAddr::new(lab.right.addr(false), 7000);
    lab.left.netns.within(|| {
        for _ in 0..3000 {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a port is free");
            socket.send_to(b"x", to).expect("the route is there");
        }
    });
    let flows = || daemon.fwctl(&["flows", "-C", "-p", "udp"]).trim().parse::<u64>().expect("a number");
    let deadline = std::time::Instant::now() + traffic::PATIENCE;
    while flows() < 1000 {
        assert!(std::time::Instant::now() < deadline, "{} flows", flows());
        thread::sleep(Duration::from_millis(50));
    }
    go(&mut browser, "3", "flows");
    fill(&mut browser, "#view-flows input", "10.77.0.0/24 :7000");
    browser.evaluate("document.querySelector('#view-flows form').requestSubmit()");
    browser.until("bounds", "document.querySelector('#view-flows .foot span').textContent", |text| {
        let text = text.as_str().unwrap_or_default();
        // Both ends are within the network: no flow counts twice.
        let all = text.strip_prefix("First 200 of ").and_then(|rest| rest.split(" flow").next());
        all.is_some_and(|all| (1000..=3000).contains(&number(&json!(all))))
    });
    let rows = browser.evaluate("document.querySelectorAll('#flows-table tr.row').length");
    assert_eq!(rows, 200);
    assert!(browser.complaints().is_empty(), "{:#?}", browser.complaints());
}

#[test]
fn what_is_typed_to_find_flows_is_understood() {
    require_root!();
    let lab = Lab::new();
    let Some((_daemon, mut browser)) = open(&lab) else { return };
    for (typed, filters) in [
        ("", json!([{}])),
        ("tcp", json!([{ "proto": 6 }])),
        ("47", json!([{ "dport": "47" }])),
        ("10.0.0.1", json!([{ "src": "10.0.0.1" }, { "dst": "10.0.0.1" }])),
        ("fd00::/64", json!([{ "src": "fd00::/64" }, { "dst": "fd00::/64" }])),
        (
            "[fd00::1]:53 udp",
            json!([{ "proto": 17, "src": "fd00::1", "sport": "53" }, { "proto": 17, "dst": "fd00::1", "dport": "53" }]),
        ),
        (":443 SYN_SENT", json!([{ "state": "SYN_SENT", "dport": "443" }])),
        ("tcp 443 assured", json!([{ "proto": 6, "assured": true, "dport": "443" }])),
        (
            "10.0.0.1 10.0.0.2:80",
            json!([{ "src": "10.0.0.1", "dst": "10.0.0.2", "dport": "80" }, { "src": "10.0.0.2", "sport": "80", "dst": "10.0.0.1" }]),
        ),
        ("-p tcp -s 10.0.0.0/8 --dport 22", json!([{ "proto": 6, "src": "10.0.0.0/8", "dport": "22" }])),
        (
            "tcp 6 431999 ESTABLISHED src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 packets=1 bytes=2 src=10.0.0.2 dst=10.0.0.1 \
             sport=2 dport=1 [ASSURED] mark=0 use=1",
            json!([{ "proto": 6, "state": "ESTABLISHED", "src": "10.0.0.1", "dst": "10.0.0.2", "sport": "1", "dport": "2",
                "reply_src": "10.0.0.2", "reply_dst": "10.0.0.1", "reply_sport": "2", "reply_dport": "1", "assured": true, "mark": "0" }]),
        ),
    ] {
        let expression =
            format!("import('/assets/search.js').then(({{ understand }}) => understand({typed:?}))");
        let said = browser.evaluate(&expression);
        assert_eq!((&said["filters"], &said["wrong"]), (&filters, &json!([])), "{typed}");
    }
    for (typed, both) in [
        ("10.0.0.0/8", json!({ "src": "10.0.0.0/8", "dst": "10.0.0.0/8" })),
        ("10.0.0.0/8 :443", json!({ "src": "10.0.0.0/8", "dst": "10.0.0.0/8", "dport": "443" })),
        (":443", Value::Null),
        ("10.0.0.1 10.0.0.2", Value::Null),
    ] {
        let expression =
            format!("import('/assets/search.js').then(({{ understand }}) => understand({typed:?}).both)");
        assert_eq!(browser.evaluate(&expression), both, "{typed}");
    }
    for (typed, wrong) in [
        ("tcp what", "what"),
        ("-p nothing", "-p nothing"),
        ("src=", "src="),
        ("proto=999", "proto=999"),
        ("-s", "-s"),
        ("1.2.3.4 1.2.3.5 1.2.3.6", "1.2.3.6"),
        ("colour=red", "colour=red"),
    ] {
        let expression =
            format!("import('/assets/search.js').then(({{ understand }}) => understand({typed:?}).wrong)");
        assert_eq!(browser.evaluate(&expression), json!([wrong]), "{typed}");
    }
}
