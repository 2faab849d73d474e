use super::backend::ApplyError;
use super::limits::Limits;
use super::listener::{Place, Serves};
use super::routes::ROUTES;
use super::server::{ServeError, Server};
use super::testing::{Fake, flow, tcp_flow};
use super::types::*;
use crate::web::Access;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A served [`Fake`] in a directory of its own.
pub(super) struct Rig {
    dir: tempfile::TempDir,
    fake: Arc<Fake>,
    server: Server,
}

impl Rig {
    pub(super) fn new(fake: Fake) -> Self {
        Self::with_limits(fake, Limits::default())
    }

    fn with_limits(fake: Fake, limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fake = Arc::new(fake);
        let place =
            Place { addr: ([127, 0, 0, 1], 0).into(), setting: "metrics.listen", serves: Serves::Metrics };
        let path = dir.path().join("fwd.sock");
        let page = Serves::Web(Access::page(&["gw.example.org".to_owned()]));
        let page = Place { addr: ([127, 0, 0, 1], 0).into(), setting: "web.listen", serves: page };
        let server = Server::start_with(&path, None, fake.clone(), limits, &[place, page]).unwrap();
        Self { dir, fake, server }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("fwd.sock")
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.path()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Sends raw HTTP; gives status and body.
    fn raw(&self, request: &str) -> (u16, String) {
        let mut stream = self.connect();
        // The server may answer and close before it has everything: that is what some tests are about.
        let _ = stream.write_all(request.as_bytes());
        answer(stream)
    }

    pub(super) fn get(&self, target: &str) -> (u16, String) {
        self.raw(&format!("GET {target} HTTP/1.0\r\nHost: fwd\r\n\r\n"))
    }

    pub(super) fn post(&self, target: &str, body: &str) -> (u16, String) {
        self.raw(&format!(
            "POST {target} HTTP/1.0\r\nHost: fwd\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    }
}

fn answer(mut stream: impl std::io::Read) -> (u16, String) {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, body.to_owned())
}

fn error_of((status, body): (u16, String)) -> (u16, ErrorKind, String) {
    let error: ErrorBody = serde_json::from_str(&body).unwrap_or_else(|e| panic!("{e}: {status} {body:?}"));
    (status, error.kind, error.message)
}

fn rules_view(family: Family) -> RulesView {
    let chains = vec![ChainView::default()];
    RulesView { family, generation: 1, text: "-P FORWARD DROP\n".into(), chains, kept: KeptView::default() }
}

#[test]
fn version_and_stats_are_served_as_json() {
    let stats = Stats { uptime_ms: 5, generation: 3, ..Stats::default() };
    let rig = Rig::new(Fake { stats: stats.clone(), ..Fake::default() });
    let (status, body) = rig.get("/v1/version");
    let version: Version = serde_json::from_str(&body).unwrap();
    assert_eq!((status, version.pid), (200, std::process::id()));
    let (status, body) = rig.get("/v1/stats");
    assert_eq!((status, serde_json::from_str::<Stats>(&body).unwrap()), (200, stats));
}

#[test]
fn rules_come_for_one_family_or_both() {
    let rules = vec![rules_view(Family::V4), rules_view(Family::V6)];
    let rig = Rig::new(Fake { rules: rules.clone(), ..Fake::default() });
    let get = |target: &str| serde_json::from_str::<Vec<RulesView>>(&rig.get(target).1).unwrap();
    assert_eq!(get("/v1/rules"), rules);
    assert_eq!(get("/v1/rules?family=6"), rules[1..]);
    assert_eq!(rig.get("/v1/rules?family=5").0, 400);
    let only_v4 = Rig::new(Fake { rules: rules[..1].to_vec(), ..Fake::default() });
    assert_eq!(only_v4.get("/v1/rules?family=6"), (200, "[]".to_owned()));
}

#[test]
fn flows_are_lines_and_every_filter_narrows() {
    let mut echo = flow(
        58,
        "fd00:1::2",
        "fd00:2::2",
        FlowKey::Icmp { ty: 128, code: 0, id: 7 },
        FlowKey::Icmp { ty: 129, code: 0, id: 7 },
    );
    (echo.mark, echo.seen_reply) = (0x10, true);
    let mut tcp = tcp_flow(1000, "ESTABLISHED");
    tcp.assured = true;
    let other = flow(253, "10.9.0.1", "10.9.0.2", FlowKey::None {}, FlowKey::None {});
    let rig = Rig::new(Fake { flows: vec![echo.clone(), tcp.clone(), other.clone()], ..Fake::default() });
    let get = |query: &str| -> Vec<FlowRow> {
        let (status, body) = rig.get(&format!("/v1/flows?{query}"));
        assert_eq!(status, 200, "{body}");
        body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    assert_eq!(get(""), [echo.clone(), tcp.clone(), other.clone()]);
    for (query, expected) in [
        ("family=6", &echo),
        ("proto=6", &tcp),
        ("src=10.9.0.0/24", &other),
        ("dst=10.2.0.2", &tcp),
        ("sport=1000", &tcp),
        ("dport=80", &tcp),
        ("state=ESTABLISHED", &tcp),
        ("assured=true", &tcp),
        ("seen_reply=true", &echo),
        ("mark=16", &echo),
        ("reply_src=fd00:2::/64", &echo),
        ("reply_dst=10.9.0.1", &other),
    ] {
        assert_eq!(get(query), std::slice::from_ref(expected), "{query}");
    }
    assert_eq!(get("proto=6&dport=81"), []);
    assert_eq!(rig.get("/v1/flows/count?family=4"), (200, r#"{"count":2}"#.to_owned()));
    for query in ["colour=red", "src=10.0.0.0/33", "sport=65536", "src=eth0"] {
        assert_eq!(error_of(rig.get(&format!("/v1/flows?{query}"))).1, ErrorKind::BadRequest, "{query}");
    }
}

#[test]
fn a_listener_may_stay_longer_than_others_and_one_too_many_is_refused() {
    let limits = Limits { connection_timeout: Duration::from_millis(200), ..Limits::default() };
    let event = EventRow {
        kind: EventKind::New,
        at_us: 5,
        lost: 0,
        changed: Vec::new(),
        asked: false,
        flow: tcp_flow(1, "SYN_SENT"),
    };
    let rig =
        Rig::with_limits(Fake { events: vec![event.clone()], endless: true, ..Fake::default() }, limits);
    let mut listener = rig.connect();
    listener.write_all(b"GET /v1/flows/events HTTP/1.0\r\nHost: x\r\n\r\n").unwrap();
    let (mut text, mut piece) = (String::new(), [0; 4096]);
    let start = std::time::Instant::now();
    while start.elapsed() < Duration::from_millis(700) {
        let len = listener.read(&mut piece).unwrap();
        assert!(len > 0, "the connection ended after {:?}", start.elapsed());
        text.push_str(std::str::from_utf8(&piece[..len]).unwrap());
    }
    let line = text.lines().find(|line| line.starts_with('{')).unwrap();
    assert_eq!(serde_json::from_str::<EventRow>(line).unwrap(), event);
    assert!(text.lines().filter(|line| line.is_empty()).count() > 10, "signs of life: {text}");

    let deaf = Rig::new(Fake { deaf: Some("no more".to_owned()), ..Fake::default() });
    assert_eq!(error_of(deaf.get("/v1/flows/events")), (409, ErrorKind::Busy, "no more".to_owned()));
    assert_eq!(error_of(deaf.get("/v1/flows/events?colour=red")).0, 400);
}

#[test]
fn deletions_are_lines_that_end_with_how_many() {
    let flows: Vec<FlowRow> = (1..=3).map(|port| tcp_flow(port, "ESTABLISHED")).collect();
    let rig = Rig::new(Fake { flows: flows.clone(), stuck: 2, ..Fake::default() });
    let lines = |(status, body): (u16, String)| -> Vec<TallyLine> {
        assert_eq!(status, 200, "{body}");
        body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let end = |count| TallyLine::End(Tally { count, remained: 2, unlabelled: 0 });
    assert_eq!(lines(rig.post("/v1/flows/delete?sport=2", "")), [TallyLine::Flow(flows[1].clone()), end(1)]);
    let marked = FlowRow { mark: 5, ..flows[2].clone() };
    let update = r#"{"filter":{"sport":3},"mark":"0x5"}"#;
    assert_eq!(lines(rig.post("/v1/flows/update", update)), [TallyLine::Flow(marked), end(1)]);
    assert_eq!(
        rig.post("/v1/flows/flush", ""),
        (200, r#"{"count":3,"remained":2,"unlabelled":0}"#.to_owned())
    );
    for (target, body) in [
        ("/v1/flows/delete?colour=red", ""),
        ("/v1/flows/update", ""),
        ("/v1/flows/update", r#"{"filter":{}}"#),
        ("/v1/flows/update", r#"{"filter":{},"mark":"x"}"#),
        ("/v1/flows/update", r#"{"fliter":{},"mark":"1"}"#),
    ] {
        assert_eq!(error_of(rig.post(target, body)).1, ErrorKind::BadRequest, "{target} {body}");
    }
}

#[test]
fn a_prefix_length_covers_the_bits_it_says() {
    let within = |net: &str, addr: &str| net.parse::<Net>().unwrap().contains(addr.parse().unwrap());
    assert!(within("0.0.0.0/0", "255.1.2.3") && within("::/0", "ff::1"));
    assert!(within("10.0.0.0/9", "10.127.0.1") && !within("10.0.0.0/9", "10.128.0.1"));
    assert!(within("10.0.0.1", "10.0.0.1") && !within("10.0.0.1/32", "10.0.0.0"));
    assert!(within("fd00::/8", "fdff::1") && !within("fd00::/8", "fe00::1") && !within("::/0", "1.2.3.4"));
}

#[test]
fn apply_hands_the_text_over_and_reports() {
    let rig = Rig::new(Fake::default());
    let request = ApplyRequest {
        v4: Some(RulesText { file: "r4".into(), text: "*filter".into() }),
        ..ApplyRequest::default()
    };
    let (status, body) = rig.post("/v1/apply", &serde_json::to_string(&request).unwrap());
    let report: ApplyReport = serde_json::from_str(&body).unwrap();
    assert_eq!((status, report.generation, report.flows_kept), (200, 8, 1000));
    assert_eq!(*rig.fake.applied.lock().unwrap(), [request]);
}

#[test]
fn a_packet_is_explained_or_it_is_said_why_not() {
    let rig = Rig::new(Fake::default());
    let (status, body) = rig.post("/v1/explain", r#"{"in":"eth1","frame":"00"}"#);
    assert_eq!(status, 200);
    let told: Explanation = serde_json::from_str(&body).unwrap();
    assert_eq!(told.packet.ingress, "eth1");
    let (_, kind, message) = error_of(rig.post("/v1/explain", r#"{"in":"eth1","fraem":"00"}"#));
    assert_eq!(kind, ErrorKind::BadRequest);
    assert!(message.contains("fraem"), "{message}");
    let error = ApplyError { kind: ErrorKind::BadRequest, message: "no NIC".into(), diagnostics: Vec::new() };
    let rig = Rig::new(Fake { refuse: Some(error), ..Fake::default() });
    assert_eq!(error_of(rig.post("/v1/explain", r#"{"in":"eth9"}"#)).2, "no NIC");
}

#[test]
fn refused_rules_come_back_with_every_diagnostic() {
    let diagnostic =
        Diagnostic { line: 3, column: 9, message: "no such target".into(), ..Diagnostic::default() };
    for (kind, status) in [(ErrorKind::BadRules, 422), (ErrorKind::Unsupported, 422), (ErrorKind::Busy, 409)]
    {
        let refuse = ApplyError { kind, message: "1 error".into(), diagnostics: vec![diagnostic.clone()] };
        let rig = Rig::new(Fake { refuse: Some(refuse), ..Fake::default() });
        let (got, body) = rig.post("/v1/apply", r#"{"v6":{"file":"r6","text":""}}"#);
        let error: ErrorBody = serde_json::from_str(&body).unwrap();
        assert_eq!((got, error.kind, error.diagnostics), (status, kind, vec![diagnostic.clone()]));
    }
}

#[test]
fn requests_that_make_no_sense_are_refused_with_a_reason() {
    let rig = Rig::new(Fake::default());
    let (status, kind, message) = error_of(rig.post("/v1/apply", "{\"v4\":"));
    assert_eq!((status, kind), (400, ErrorKind::BadRequest));
    assert!(message.starts_with("the request is not understood: EOF"), "{message}");
    let (_, _, message) = error_of(rig.post("/v1/apply", r#"{"v5":null}"#));
    assert!(message.contains("unknown field `v5`"), "{message}");
    assert_eq!(error_of(rig.post("/v1/apply", "{}")).2, "the request has no rules for either family");
    assert_eq!(error_of(rig.get("/v2/stats")).0, 404);
    assert_eq!(error_of(rig.get("/v1/apply")).0, 405);
    assert_eq!(rig.raw("EHLO fwd\r\n\r\n").0, 400);
    assert_eq!(rig.raw("\u{0}\u{1}garbage").0, 400);
}

#[test]
fn a_request_over_the_limit_is_refused_announced_or_not() {
    let rig = Rig::with_limits(Fake::default(), Limits { body_max_bytes: 1000, ..Limits::default() });
    let body = "x".repeat(2000);
    assert_eq!(error_of(rig.post("/v1/apply", &body)).0, 413);
    let chunked = format!(
        "POST /v1/apply HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n{body}\r\n0\r\n\r\n"
    );
    assert_eq!(rig.raw(&chunked).0, 413);
    assert!(rig.fake.applied.lock().unwrap().is_empty());
}

#[test]
fn a_backend_that_fails_answers_for_itself_only() {
    let rig = Rig::new(Fake::default());
    let (status, kind, _) = error_of(rig.post("/v1/apply", r#"{"v4":{"file":"f","text":"panic"}}"#));
    assert_eq!((status, kind), (500, ErrorKind::Internal));
    assert_eq!(rig.get("/v1/stats").0, 200);
}

#[test]
fn a_list_that_fails_halfway_does_not_look_complete() {
    let rig = Rig::new(Fake { flows: vec![tcp_flow(1, "ESTABLISHED")], ..Fake::default() });
    let list = || rig.raw("GET /v1/flows HTTP/1.1\r\nHost: x\r\n\r\n");
    let (status, body) = list();
    assert!(status == 200 && body.ends_with("\r\n0\r\n\r\n"), "{status} {body:?}");
    let walk = Arc::clone(&rig.fake.walk);
    let fails = std::thread::spawn(move || {
        let _walk = walk.lock().unwrap();
        panic!("while a walk waits");
    });
    assert!(fails.join().is_err());
    let (_, body) = list();
    assert!(!body.ends_with("0\r\n\r\n"), "{body:?}");
    assert_eq!(rig.get("/v1/stats").0, 200);
}

#[test]
fn slow_and_silent_clients_hold_nobody_up_and_are_cut_off() {
    let limits = Limits {
        connections_max: 8,
        head_timeout: Duration::from_millis(200),
        body_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let rig = Rig::with_limits(Fake::default(), limits);
    let silent = rig.connect();
    let mut half_a_head = rig.connect();
    half_a_head.write_all(b"GET /v1/st").unwrap();
    let mut half_a_body = rig.connect();
    half_a_body.write_all(b"POST /v1/apply HTTP/1.0\r\nContent-Length: 50\r\n\r\n{").unwrap();
    assert_eq!(rig.get("/v1/stats").0, 200);
    // Each of them is told off, or just cut off, in the end.
    assert!(matches!(answer(silent).0, 0 | 408));
    assert!(matches!(answer(half_a_head).0, 0 | 408));
    assert_eq!(error_of(answer(half_a_body)).0, 408);
}

#[test]
fn silent_connections_over_the_limit_make_room_for_others() {
    let rig = Rig::with_limits(Fake::default(), Limits { connections_max: 4, ..Limits::default() });
    let silent: Vec<UnixStream> = (0..40).map(|_| rig.connect()).collect();
    assert_eq!(rig.get("/v1/stats").0, 200);
    // All but the newest are closed, long before their time for a head is over.
    let started = std::time::Instant::now();
    for closed in silent.into_iter().take(36) {
        assert_eq!(answer(closed).0, 0);
    }
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn requests_over_a_clients_share_wait_and_are_refused_in_the_end() {
    let limits =
        Limits { requests_per_client: 2, turn_timeout: Duration::from_millis(200), ..Limits::default() };
    let rig = Rig::with_limits(
        Fake { flows: vec![tcp_flow(1, "ESTABLISHED")], repeat: 99_999, ..Fake::default() },
        limits,
    );
    let mut unread: Vec<UnixStream> = (0..2)
        .map(|_| {
            let mut stream = rig.connect();
            stream.write_all(b"GET /v1/flows HTTP/1.0\r\nHost: x\r\n\r\n").unwrap();
            stream
        })
        .collect();
    walk_at_rest(&rig);
    let (status, kind, message) = error_of(rig.get("/v1/stats"));
    assert_eq!((status, kind), (503, ErrorKind::Busy), "{message}");
    unread.pop();
    while rig.get("/v1/stats").0 != 200 {}
}

#[test]
fn an_answer_that_nobody_reads_is_given_up() {
    let limits =
        Limits { write_timeout: Duration::from_millis(100), requests_per_client: 1, ..Limits::default() };
    let chain = ChainView { name: "x".repeat(8 << 20), ..ChainView::default() };
    let view = RulesView { chains: vec![chain], ..rules_view(Family::V4) };
    let rig = Rig::with_limits(Fake { rules: vec![view], ..Fake::default() }, limits);
    let mut unread = rig.connect();
    unread.write_all(b"GET /v1/rules HTTP/1.0\r\nHost: x\r\n\r\n").unwrap();
    // Its place is free again although it is still there.
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(rig.get("/v1/stats").0, 200);
    let mut bytes = Vec::new();
    let _ = unread.read_to_end(&mut bytes);
    assert!((1..8 << 20).contains(&bytes.len()), "{}", bytes.len());
}

/// Sends raw HTTP to the TCP listener.
fn tcp(rig: &Rig, request: &str) -> (u16, String) {
    let mut stream = std::net::TcpStream::connect(rig.server.addrs()[0]).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let _ = stream.write_all(request.as_bytes());
    answer(stream)
}

#[test]
fn the_page_on_tcp_shows_and_changes_nothing() {
    let expected = vec![rules_view(Family::V4)];
    let rig = Rig::new(Fake {
        rules: expected.clone(),
        flows: vec![tcp_flow(1, "ESTABLISHED")],
        ..Fake::default()
    });
    let ask = |request: &str, host: &str| {
        let mut stream = std::net::TcpStream::connect(rig.server.addrs()[1]).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let body = if request.starts_with("POST") { "Content-Length: 0\r\n" } else { "" };
        stream.write_all(format!("{request} HTTP/1.1\r\nHost: {host}\r\n{body}\r\n").as_bytes()).unwrap();
        answer(stream)
    };
    let local = "127.0.0.1:8080";
    for host in [local, "localhost", "GW.example.org:8080"] {
        assert!(ask("GET /", host).1.starts_with("<!doctype html>"), "{host}");
    }
    assert_eq!(serde_json::from_str::<Vec<RulesView>>(&ask("GET /v1/rules", local).1).unwrap(), expected);
    assert!(ask("GET /v1/flows?dport=80", local).1.contains("ESTABLISHED"));
    for request in [
        "POST /v1/apply",
        "POST /v1/confirm",
        "POST /v1/rollback",
        "POST /v1/flows/flush",
        "POST /v1/sysctl",
        "GET /v1/sysctl",
        "GET /v1/flows/events",
        "GET /metrics",
        "GET /nothing",
        "DELETE /v1/flows",
    ] {
        let (status, kind, message) = error_of(ask(request, local));
        assert_eq!((status, kind), (403, ErrorKind::Forbidden), "{request}");
        assert!(message.contains("not served on TCP"), "{message}");
    }
    for host in ["evil.example", "fwd", "gw.example.org.evil.example"] {
        let (status, _, message) = error_of(ask("GET /v1/stats", host));
        assert_eq!(status, 421, "{host}");
        assert!(message.contains(host) && message.contains("web.hosts"), "{message}");
    }
    let view = WebView { listen: Some(rig.server.addrs()[1]), write: false };
    for (_, said) in [ask("GET /v1/web", local), rig.get("/v1/web")] {
        assert_eq!(serde_json::from_str::<WebView>(&said).unwrap(), view);
    }
}

#[test]
fn a_tcp_listener_serves_metrics_and_nothing_else() {
    let rig = Rig::new(Fake { stats: Stats { generation: 7, ..Stats::default() }, ..Fake::default() });
    let (status, text) = tcp(&rig, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!((status, text.lines().last()), (200, Some("# EOF")));
    assert!(text.contains("\npalisade_generation 7.0\n"), "{text}");
    assert!(rig.get("/metrics").1.contains("\npalisade_generation 7.0\n"), "at the socket as well");
    let old = tcp(&rig, "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/plain\r\n\r\n").1;
    assert!(!old.contains("# EOF") && old.contains("\npalisade_generation 7.0\n"), "{old}");
    for request in ["GET /v1/stats", "GET /v1/rules", "POST /v1/flows/flush", "POST /v1/apply", "GET /"] {
        let request = format!("{request} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(error_of(tcp(&rig, &request)).0, 404, "{request}");
    }
    assert_eq!(tcp(&rig, "POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n").0, 405);
}

#[test]
fn a_browser_that_was_sent_here_by_another_name_gets_nothing() {
    let rig = Rig::new(Fake::default());
    for host in ["Host: evil.example:9100\r\n", "Host: \r\n", ""] {
        let (status, kind, _) = error_of(tcp(&rig, &format!("GET /metrics HTTP/1.1\r\n{host}\r\n")));
        assert_eq!((status, kind), (421, ErrorKind::BadRequest), "{host}");
    }
    let absolute = "GET http://evil.example/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(error_of(tcp(&rig, absolute)).0, 421);
}

#[test]
fn an_address_that_cannot_be_listened_on_says_which_setting_and_what_to_do() {
    let rig = Rig::new(Fake::default());
    let start = |addr: &str| {
        let addr = addr.parse().unwrap();
        let place = Place { addr, setting: "metrics.listen", serves: Serves::Metrics };
        let path = rig.dir.path().join("other.sock");
        let error = Server::start_with(&path, None, Arc::new(Fake::default()), Limits::default(), &[place]);
        error.err().unwrap().to_string()
    };
    let taken = rig.server.addrs()[0].to_string();
    let message = start(&taken);
    assert!(message.starts_with(&format!("cannot listen on {taken} (metrics.listen): ")), "{message}");
    assert!(message.ends_with("another program has this port: choose another one"), "{message}");
    let message = start("192.0.2.1:9100");
    assert!(message.ends_with("no interface of this machine has the address"), "{message}");
}

#[test]
fn work_for_a_client_that_has_gone_keeps_its_place() {
    let limits =
        Limits { requests_per_client: 1, turn_timeout: Duration::from_millis(200), ..Limits::default() };
    // A walk over flows that has nothing to tell notices nothing of the client.
    let fake = Fake { flows: vec![tcp_flow(1, "ESTABLISHED")], ..Fake::default() };
    let walk = Arc::clone(&fake.walk);
    let rig = Rig::with_limits(fake, limits);
    let walking = walk.lock().unwrap();
    let mut gone = rig.connect();
    gone.write_all(b"GET /v1/flows?sport=2 HTTP/1.0\r\nHost: x\r\n\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(50));
    drop(gone);
    assert_eq!(error_of(rig.get("/v1/stats")).0, 503);
    drop(walking);
}

#[test]
fn large_bodies_wait_for_each_other_and_small_ones_do_not() {
    let limits = Limits { body_timeout: Duration::from_millis(1500), ..Limits::default() };
    let rig = Rig::with_limits(Fake::default(), limits);
    let large =
        |length: usize| format!("POST /v1/apply HTTP/1.0\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
    let mut held: Vec<UnixStream> = (0..2)
        .map(|_| {
            let mut stream = rig.connect();
            stream.write_all(large(4 << 20).as_bytes()).unwrap();
            stream.write_all(&vec![b' '; 2 << 20]).unwrap();
            stream
        })
        .collect();
    let third = std::thread::scope(|scope| {
        let third = scope.spawn(|| rig.raw(&format!("{}{}", large(2 << 20), " ".repeat(2 << 20))));
        assert_eq!(rig.post("/v1/apply", r#"{"v4":{"file":"f","text":"x"}}"#).0, 200, "a small one");
        let held = held.drain(..).map(answer);
        assert!(held.into_iter().all(|held| error_of(held).0 == 408));
        third.join().unwrap()
    });
    // It waited until they were given up, or as long as it may.
    assert!(matches!(error_of(third).0, 400 | 408));
}

#[test]
fn only_rules_and_sets_may_be_large() {
    let rig = Rig::new(Fake::default());
    let large = " ".repeat((1 << 20) + 1);
    for route in ROUTES.iter().filter(|route| route.method == "post") {
        let may_be_large = ["/v1/apply", "/v1/diff", "/v1/sets"].contains(&route.path);
        let takes_none = ["/flush", "/confirm", "/delete", "/sysctl", "/rebalance", "/reload"]
            .iter()
            .any(|end| route.path.ends_with(end));
        let is_refused = rig.post(route.path, &large).0 == 413;
        assert_eq!(is_refused, !may_be_large && !takes_none, "{route:?}");
    }
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let rig = Rig::with_limits(Fake::default(), Limits { head_max_bytes: 16 << 10, ..Limits::default() });
    let request = format!("GET /v1/stats HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(40_000));
    assert_eq!(rig.raw(&request).0, 431);
    assert_eq!(rig.get("/v1/stats").0, 200);
}

/// Waits until the walk over the flows stands still; gives how far it got.
fn walk_at_rest(rig: &Rig) -> u64 {
    let mut before = u64::MAX;
    while rig.fake.walked.load(Ordering::Relaxed) != before {
        before = rig.fake.walked.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(150));
    }
    before
}

#[test]
fn a_long_list_waits_for_its_reader_instead_of_filling_memory() {
    let rig = Rig::new(Fake { flows: vec![tcp_flow(1, "ESTABLISHED")], repeat: 99_999, ..Fake::default() });
    let mut slow = rig.connect();
    slow.write_all(b"GET /v1/flows HTTP/1.0\r\nHost: x\r\n\r\n").unwrap();
    let walked = walk_at_rest(&rig);
    assert!((1..20_000).contains(&walked), "the walk went on without a reader: {walked}");
    assert_eq!(rig.get("/v1/stats").0, 200);
    let (status, body) = answer(slow);
    assert_eq!((status, body.lines().count()), (200, 100_000));
}

#[test]
fn a_stuck_reader_ends_the_walk_and_can_tell_that_lines_are_missing() {
    let limits = Limits { write_timeout: Duration::from_millis(50), ..Limits::default() };
    let rig = Rig::with_limits(
        Fake { flows: vec![tcp_flow(1, "ESTABLISHED")], repeat: 99_999, ..Fake::default() },
        limits,
    );
    let mut stuck = rig.connect();
    stuck.write_all(b"GET /v1/flows HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let walked = walk_at_rest(&rig);
    assert!((1..20_000).contains(&walked), "the walk went on without a reader: {walked}");
    let (status, body) = answer(stuck);
    assert_eq!(status, 200);
    assert!(!body.ends_with("\r\n0\r\n\r\n"), "the answer looks complete");
}

#[test]
fn the_socket_is_for_root_and_the_group_and_goes_away_at_the_end() {
    let rig = Rig::new(Fake::default());
    let path = rig.path();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o660);
    let left_behind: Vec<_> =
        std::fs::read_dir(rig.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left_behind.len(), 2, "{left_behind:?}");
    let Rig { dir, server, .. } = rig;
    drop(server);
    assert!(!path.exists());
    drop(dir);
}

#[test]
fn a_lock_is_not_taken_through_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("s"), dir.path().join("shadow"));
    std::fs::write(&other, "secret").unwrap();
    std::os::unix::fs::symlink(&other, dir.path().join("s.lock")).unwrap();
    let refused = Server::start(&path, None, Arc::new(Fake::default())).err().unwrap();
    assert!(matches!(refused, ServeError::Socket { action: "lock", .. }), "{refused}");
    assert_eq!(std::fs::read_to_string(&other).unwrap(), "secret");
}

#[test]
fn a_socket_of_the_configured_group_belongs_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let unknown = Server::start(&path, Some("no-such-group-here"), Arc::new(Fake::default()));
    let message = unknown.err().unwrap().to_string();
    assert_eq!(
        message,
        "there is no group `no-such-group-here`; create it (groupadd no-such-group-here) or change api.group"
    );
    // Files one makes belong to oneself.
    let me = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(dir.path()).unwrap());
    if me != 0 {
        println!("skipped: needs root");
        return;
    }
    let _server = Server::start(&path, Some("daemon"), Arc::new(Fake::default())).unwrap();
    let meta = std::fs::metadata(&path).unwrap();
    let daemon = nix::unistd::Group::from_name("daemon").unwrap().unwrap().gid.as_raw();
    assert_eq!(std::os::unix::fs::MetadataExt::gid(&meta), daemon);
}

#[test]
fn a_live_socket_is_respected_a_stale_one_replaced_and_a_file_never_touched() {
    let rig = Rig::new(Fake::default());
    let error = Server::start(&rig.path(), None, Arc::new(Fake::default())).err().unwrap();
    let expected = format!(
        "another fwd (process {}) listens on {}; give this one a socket of its own with --socket PATH (and fwctl the same --socket PATH)",
        std::process::id(),
        rig.path().display()
    );
    assert_eq!(error.to_string(), expected);
    assert_eq!(rig.get("/v1/stats").0, 200);

    let stale = rig.dir.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let _server = Server::start(&stale, None, Arc::new(Fake::default())).unwrap();

    let foreign = rig.dir.path().join("foreign.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&foreign).unwrap();
    let error = Server::start(&foreign, None, Arc::new(Fake::default())).err().unwrap();
    assert!(error.to_string().starts_with("another program listens on"), "{error}");

    let file = rig.dir.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    let error = Server::start(&file, None, Arc::new(Fake::default())).err().unwrap();
    assert!(matches!(error, ServeError::NotASocket { .. }), "{error}");
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");

    let long = rig.dir.path().join("x".repeat(120));
    let error = Server::start(&long, None, Arc::new(Fake::default())).err().unwrap();
    assert!(error.to_string().contains("more than 107 bytes"), "{error}");
}

#[test]
fn stopping_waits_for_no_idle_client() {
    let rig = Rig::new(Fake::default());
    let _idle = rig.connect();
    let started = std::time::Instant::now();
    drop(rig);
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn stopping_cuts_off_a_reader_that_is_stuck() {
    let rig = Rig::new(Fake { flows: vec![tcp_flow(1, "ESTABLISHED")], repeat: 99_999, ..Fake::default() });
    let mut stuck = rig.connect();
    stuck.write_all(b"GET /v1/flows HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    walk_at_rest(&rig);
    let Rig { dir: _dir, fake, server } = rig;
    drop(server);
    assert!(!answer(stuck).1.ends_with("\r\n0\r\n\r\n"), "the answer looks complete");
    // The walk lets go of the daemon: ours is the last reference in the end.
    for _ in 0..100 {
        if Arc::strong_count(&fake) == 1 {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("the walk goes on");
}

#[test]
fn flow_rows_survive_json_whatever_their_key() {
    for key in [
        FlowKey::Ports { sport: 1, dport: 2 },
        FlowKey::Icmp { ty: 8, code: 0, id: 9 },
        FlowKey::Gre { srckey: 0, dstkey: 3 },
        FlowKey::None {},
    ] {
        let row = flow(6, "10.0.0.1", "10.0.0.2", key, key);
        let text = serde_json::to_string(&row).unwrap();
        assert_eq!(serde_json::from_str::<FlowRow>(&text).unwrap(), row, "{text}");
    }
    let text = serde_json::to_string(&tcp_flow(5, "ESTABLISHED")).unwrap();
    assert!(
        text.contains(
            r#""orig":{"src":"10.1.0.2","dst":"10.2.0.2","sport":5,"dport":80,"packets":0,"bytes":0}"#
        ),
        "{text}"
    );
}

#[test]
fn top_takes_its_own_parameters_and_those_of_flows() {
    let rig = Rig::new(Fake { top: TopReport { flows_count: 7, ..TopReport::default() }, ..Fake::default() });
    let report = |target: &str| -> TopReport {
        let (status, body) = rig.get(target);
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    };
    let plain = report("/v1/top");
    assert_eq!((plain.interval_ms, plain.by, plain.flows_count), (1000, TopBy::Bytes, 7));
    let full = report("/v1/top?dport=443&interval_ms=250&src=10.0.0.0/8&by=new&n=3");
    assert_eq!((full.interval_ms, full.by, full.flows_count), (250, TopBy::New, 443));
    for (target, word) in [
        ("/v1/top?interval_ms=100", "200 to 10000"),
        ("/v1/top?n=0", "1 to 1000"),
        ("/v1/top?host=10.0.0.0/40", "/40"),
        ("/v1/top?by=size", "size"),
        ("/v1/top?dport=x", "dport"),
        ("/v1/top?what=x", "what"),
        ("/v1/top?n=1&n=2", "n"),
    ] {
        let (status, kind, message) = error_of(rig.get(target));
        assert_eq!((status, kind), (400, ErrorKind::BadRequest), "{target}");
        assert!(message.contains(word), "{target}: {message}");
    }
    let refuse = Some(ApplyError::new(ErrorKind::Busy, "others look"));
    let (status, kind, _) = error_of(Rig::new(Fake { refuse, ..Fake::default() }).get("/v1/top"));
    assert_eq!((status, kind), (409, ErrorKind::Busy));
}

/// Status, head in lower case, and body.
fn whole(rig: &Rig, request: &str) -> (u16, String, String) {
    let mut stream = rig.connect();
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), body.to_owned())
}

#[test]
fn the_page_is_served_with_headers_that_keep_other_sites_out() {
    let rig = Rig::new(Fake::default());
    for (path, media_type, begins) in [
        ("/", "text/html; charset=utf-8", "<!doctype html>"),
        ("/assets/main.js", "text/javascript; charset=utf-8", "// "),
        ("/assets/style.css", "text/css; charset=utf-8", "/* "),
        ("/assets/icon.svg", "image/svg+xml", "<svg "),
        ("/v1/version", "application/json", "{"),
        ("/nothing", "application/json", "{"),
    ] {
        let (_, head, body) = whole(&rig, &format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n"));
        assert!(body.starts_with(begins), "{path}: {body}");
        for header in [
            &format!("content-type: {media_type}"),
            "x-content-type-options: nosniff",
            "x-frame-options: deny",
            "referrer-policy: no-referrer",
            "cache-control: no-store",
            "cross-origin-resource-policy: same-origin",
        ] {
            assert!(head.contains(&format!("\r\n{header}")), "{path}: no {header} in {head}");
        }
        let policy = head.split("content-security-policy: ").nth(1).unwrap();
        for word in ["default-src 'none'", "script-src 'self';", "frame-ancestors 'none'", "base-uri 'none'"]
        {
            assert!(policy.contains(word), "{path}: no {word} in {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
    }
    let (status, head, body) = whole(&rig, "HEAD / HTTP/1.0\r\n\r\n");
    assert_eq!((status, body.as_str()), (200, ""));
    assert!(head.contains("content-length: "), "{head}");
}

#[test]
fn unknown_paths_and_methods_of_the_page_are_refused_in_words() {
    let rig = Rig::new(Fake::default());
    for path in
        ["/index.html", "/assets/", "/assets/nothing.js", "/assets/../v1/stats", "/assets/%2e%2e/x", "//"]
    {
        let (status, kind, _) = error_of(rig.get(path));
        assert_eq!((status, kind), (404, ErrorKind::NotFound), "{path}");
    }
    for path in ["/", "/assets/main.js", "/v1/rules/counters"] {
        assert_eq!(rig.post(path, "").0, 405, "{path}");
    }
}

#[test]
fn what_another_site_asks_for_through_a_browser_is_refused_and_not_done() {
    let rig = Rig::new(Fake::default());
    let body = r#"{"v4":{"file":"r","text":""}}"#;
    let post = |headers: &str| {
        rig.raw(&format!("POST /v1/apply HTTP/1.0\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()))
    };
    for headers in [
        "Host: localhost:8080\r\nOrigin: http://evil.example\r\n",
        "Host: localhost:8080\r\nSec-Fetch-Site: cross-site\r\n",
    ] {
        let (status, kind, message) = error_of(post(headers));
        assert_eq!((status, kind), (403, ErrorKind::Forbidden), "{headers}: {message}");
    }
    assert_eq!(error_of(post("Host: evil.example:8080\r\n")).0, 421);
    // Our own page may not either, unless it may change something.
    let own = "Host: localhost:8080\r\nOrigin: http://localhost:8080\r\nSec-Fetch-Site: same-origin\r\n";
    let (status, kind, message) = error_of(post(own));
    assert_eq!((status, kind), (403, ErrorKind::Forbidden));
    assert!(message.contains("web.write"), "{message}");
    assert!(rig.fake.applied.lock().unwrap().is_empty());

    let path = rig.dir.path().join("other.sock");
    let access = Access::socket(&[], true);
    let fake = rig.fake.clone();
    let _server = Server::start_for(&path, None, fake, Limits::default(), &[], access).unwrap();
    let mut stream = UnixStream::connect(&path).unwrap();
    let request = format!("POST /v1/apply HTTP/1.0\r\n{own}Content-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).unwrap();
    assert_eq!(answer(stream).0, 200);
    assert_eq!(rig.fake.applied.lock().unwrap().len(), 1);
}

#[test]
fn counters_of_rules_come_in_the_order_of_the_rules() {
    let rule = |packets| RuleView { packets, bytes: packets * 100, ..RuleView::default() };
    let policy = Some(PolicyView { verdict: "DROP".into(), packets: 5, bytes: 50 });
    let chains = vec![
        ChainView { name: "FORWARD".into(), policy, rules: vec![rule(1), rule(0)], ..ChainView::default() },
        ChainView { name: "user".into(), rules: vec![rule(7)], ..ChainView::default() },
    ];
    let kept = KeptView { packets: 3, bytes: 9 };
    let view = RulesView { family: Family::V6, generation: 9, text: String::new(), chains, kept };
    let rig = Rig::new(Fake { rules: vec![view], ..Fake::default() });
    let said = r#"[{"family":6,"generation":9,"chains":[{"policy":[5,50],"rules":[[1,100],[0,0]]},"#;
    let rest = r#"{"policy":null,"rules":[[7,700]]}],"kept":{"packets":3,"bytes":9}}]"#;
    assert_eq!(rig.get("/v1/rules/counters"), (200, format!("{said}{rest}")));
    assert_eq!(rig.get("/v1/rules/counters?family=4"), (200, "[]".to_owned()));
    assert_eq!(rig.get("/v1/rules/counters?family=5").0, 400);
}
