//! Screens, drawn into memory from answers made up here, and what keys do.

use super::draw;
use super::filter::Filter;
use super::look::Look;
use super::state::{Answer, Ask, Ends, State, Tab};
use crate::api::types::*;
use dataplane::reason::DropReason;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::net::IpAddr;
use std::time::{Duration, Instant};

const LOOK: Look = Look { colour: true, unicode: true };

fn ask() -> Ask {
    Ask { interval: Duration::from_secs(1), by: TopBy::Bytes, entries: 200, filter: Filter::default() }
}

/// Counters after so many seconds of the same traffic, on so many NICs and workers.
fn stats(secs: u64, ports: usize, workers: u8) -> Stats {
    let traffic = |pps: u64| Traffic { packets: pps * secs, bytes: pps * secs * 1000 };
    let drops = DropReason::ALL.iter().map(|reason| {
        let pps = match reason {
            DropReason::PolicyDrop => 1_200,
            DropReason::RuleDrop => 30,
            _ => 0,
        };
        DropCount { reason: reason.name().into(), packets: pps * secs, bytes: pps * secs * 60 }
    });
    let port = |number: usize| PortStats {
        name: format!("enp{number}s0f0np0"),
        wire: format!("wire{}", number / 2),
        side: if number.is_multiple_of(2) { Side::Left } else { Side::Right },
        link_up: true,
        rx: traffic(1_234_567),
        tx: traffic(1_200_000),
        queues: vec![QueueStats {
            rx_descs: 1_234_567 * secs,
            frames_held: 2048,
            kicks: 40 * secs,
            ..QueueStats::default()
        }],
        ..PortStats::default()
    };
    let worker = |id: u8| WorkerStats {
        id,
        core: u32::from(id) + 2,
        rx: traffic(1_234_567),
        bursts: 50_000 * secs,
        idle_polls: 20_000 * secs,
        flows: 61_728,
        ..WorkerStats::default()
    };
    Stats {
        uptime_ms: secs * 1000,
        generation: 7,
        wires: Vec::new(),
        ports: (0..ports).map(port).collect(),
        workers: (0..workers).map(worker).collect(),
        drops: drops.collect(),
        invalid: [("bad_checksum".to_owned(), 3 * secs)].into(),
        flows: FlowStats { count: 123_456, max: 1_048_576, inserted: 900 * secs, ..FlowStats::default() },
    }
}

fn top() -> TopReport {
    let rate = |number: u64| Rate { packets_per_sec: 90_000 / number, bits_per_sec: 987_654_321 / number };
    let addr = |number: u64| -> IpAddr {
        if number.is_multiple_of(3) {
            format!("2001:db8:1234:5678:9abc:def0:1234:{number:x}").parse().unwrap()
        } else {
            format!("203.0.113.{}", number % 250).parse().unwrap()
        }
    };
    let flow = |number: u64| TopFlow {
        family: if number.is_multiple_of(3) { Family::V6 } else { Family::V4 },
        proto: 6,
        proto_name: "tcp".into(),
        src: addr(number),
        dst: addr(number + 30),
        key: FlowKey::Ports { sport: 50_000, dport: 443 },
        state: Some("ESTABLISHED".into()),
        worker: 0,
        id: number,
        is_new: number == 2,
        forth: rate(number),
        back: rate(number * 20),
    };
    let host = |number: u64| TopHost {
        addr: addr(number),
        sent: rate(number),
        received: rate(number * 2),
        flows: 12,
        new_per_sec: 3,
    };
    let service = |number: u64| TopService {
        proto: 17,
        proto_name: "udp".into(),
        port: Some(u16::try_from(number).unwrap()),
        forth: rate(number),
        back: rate(number),
        flows: 5,
        new_per_sec: 0,
    };
    let rule = |number: u64| TopRule {
        family: Family::V4,
        table: "filter".into(),
        chain: "FORWARD".into(),
        num: Some(u32::try_from(number).unwrap()),
        rule: format!("-A FORWARD -s 198.51.100.{number}/32 -p tcp -m tcp --dport 443 -j ACCEPT"),
        rate: rate(number),
    };
    TopReport {
        flows_count: 123_456,
        flows: (1..60).map(flow).collect(),
        hosts: (1..60).map(host).collect(),
        sources: (1..5).map(host).collect(),
        destinations: (1..3).map(host).collect(),
        services: (1..9).map(service).collect(),
        rules: (1..30).map(rule).collect(),
        slack: TopSlack { hosts: 2_000_000, ..TopSlack::default() },
        ..TopReport::default()
    }
}

fn counters(secs: u64) -> Answer {
    Answer::Counters(Box::new(stats(secs, 2, 2)), Box::default())
}

/// A state that has had answers for a while.
fn full() -> State {
    let now = Instant::now();
    let mut state = State::new(ask(), now);
    for secs in 100..160 {
        state.take(counters(secs), now);
    }
    state.take(Answer::Top(ask(), Box::new(top())), now);
    state
}

fn draw(state: &State, look: Look, (columns, rows): (u16, u16)) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal.draw(|frame| draw::screen(frame, state, look, state.answered)).unwrap();
    let buffer = terminal.backend().buffer();
    let row = |y: u16| (0..columns).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..rows).map(|y| row(y).trim_end().to_owned()).collect()
}

fn press(state: &mut State, keys: &str) -> bool {
    let one = |asks: bool, key| state.press(KeyEvent::new(KeyCode::Char(key), KeyModifiers::NONE)) || asks;
    keys.chars().fold(false, one)
}

fn key(state: &mut State, code: KeyCode) -> bool {
    state.press(KeyEvent::new(code, KeyModifiers::NONE))
}

#[track_caller]
fn assert_shows(screen: &[String], pieces: &[&str]) {
    for piece in pieces {
        assert!(
            screen.iter().any(|line| line.contains(piece)),
            "{piece:?} is missing in\n{}",
            screen.join("\n")
        );
    }
}

#[test]
fn the_first_screen_shows_what_matters_at_80x24() {
    let screen = draw(&full(), LOOK, (80, 24));
    println!("{}", screen.join("\n"));
    assert_shows(
        &screen,
        &[
            "palisade  up 00:02:39  rules 0  every 1.0 s, by bytes",
            " 1 Overview  2 Flows  3 Hosts ",
            "in           2.46M pps 19.7G bit/s  ███",
            "out          2.40M pps 19.2G bit/s  ███",
            "<enp0s0f0np0 rx 1.23M pps 9.87G bit/s  tx 1.20M pps 9.60G bit/s  ███",
            "flows  123,456 of 1,048,576 (11 %)  new 900/s  dropped 1.23k/s",
            "workers  0: 71 % busy  1: 71 % busy",
            "   987M   49.3M   94.5k  tcp 203.0.113.1:50000 > 203.0.113.31:443 ESTABLISHED",
            "   987M    493M  203.0.113.1  ",
            "FORWARD 1: -s 198.51.1",
            "  1.20k  policy_drop",
            "q quit",
        ],
    );
    assert!(screen.iter().all(|line| !line.is_empty()), "every line is used");
}

#[test]
fn a_large_screen_has_more_of_it_side_by_side() {
    let screen = draw(&full(), LOOK, (200, 60));
    println!("{}", screen.join("\n"));
    assert_shows(
        &screen,
        &["FORWARD 9: -s 198.51.100.9/32", "tcp [2001:db8:1234:5678:9abc:def0:1234:3]:50000", "██"],
    );
    let side_by_side = screen
        .iter()
        .any(|line| line.contains("sent") && line.contains("rule") && line.contains("dropped for"));
    assert!(side_by_side, "{}", screen.join("\n"));
}

#[test]
fn nothing_overlaps_or_is_cut_without_a_mark_at_any_size() {
    for tab in Tab::ALL {
        for is_help in [false, true] {
            let state = State { tab, is_help, ..full() };
            for size in [
                (1, 1),
                (5, 3),
                (39, 30),
                (80, 9),
                (40, 10),
                (60, 14),
                (80, 24),
                (119, 40),
                (120, 40),
                (300, 90),
            ] {
                let screen = draw(&state, LOOK, size);
                if size.0 < 40 || size.1 < 10 {
                    assert!(is_help || screen.iter().skip(1).all(String::is_empty), "{screen:?}");
                }
            }
        }
    }
    // A list in a narrow place and in a wide one: a line that is not the same ends with the mark.
    let state = full();
    type Make = fn(&State, Look, usize) -> super::lists::List;
    let lists: [Make; 7] = [
        super::lists::flows,
        |state, look, columns| super::lists::hosts(state, look, columns, false),
        |state, look, columns| super::lists::hosts(state, look, columns, true),
        super::lists::services,
        super::lists::rules,
        |state, look, columns| super::lists::drops(state, look, columns, false),
        super::lists::workers,
    ];
    let text = |line: &ratatui::text::Line<'_>| {
        line.spans.iter().map(|span| span.content.as_ref()).collect::<String>()
    };
    for list in lists {
        let wide = list(&state, LOOK, 1000);
        for columns in [20, 37, 58, 80] {
            let narrow = list(&state, LOOK, columns);
            for (narrow, wide) in
                narrow.rows.iter().chain([&narrow.head]).zip(wide.rows.iter().chain([&wide.head]))
            {
                let (narrow, wide) = (text(narrow), text(wide));
                assert!(narrow == wide || narrow.ends_with('…'), "{narrow:?} of {wide:?}");
                assert!(narrow.chars().count() <= columns);
            }
        }
    }
}

#[test]
fn every_list_has_its_screen() {
    let mut state = full();
    let shown = |state: &mut State, key: &str| {
        press(state, key);
        let screen = draw(state, LOOK, (100, 30));
        println!("{}", screen.join("\n"));
        screen
    };
    assert_shows(
        &shown(&mut state, "2"),
        &["bit/s > < bit/s  pkts/s  flow", "ESTABLISHED new", "… 40 more below"],
    );
    assert_shows(&shown(&mut state, "3"), &["host (each may have 2.00M bit/s more)", "203.0.113.1"]);
    assert_shows(&shown(&mut state, "e"), &["host that began flows"]);
    assert_shows(&shown(&mut state, "4"), &["udp/1"]);
    assert_shows(
        &shown(&mut state, "5"),
        &["FORWARD 2: -s 198.51.100.2/32 -p tcp -m tcp --dport 443 -j ACCEPT"],
    );
    assert_shows(&shown(&mut state, "6"), &["policy_drop: ", "       190,800", "INVALID", "bad_checksum"]);
    assert_shows(
        &shown(&mut state, "7"),
        &["71   24.6   1.23M     61,728", "fill empty", "2.04k", "enp1s0f0np0 copy"],
    );
    assert_shows(&shown(&mut state, "?"), &["q, Ctrl-C             quit"]);
    assert!(!state.is_over && !press(&mut state, "q"), "q only leaves the help");
    press(&mut state, "q");
    assert!(state.is_over);
}

#[test]
fn alerts_say_what_is_wrong_and_what_will_happen() {
    let mut state = full();
    let mut bad = stats(160, 2, 2);
    bad.ports[1].link_up = false;
    bad.ports[0].queues[0].rx_dropped = 5_000;
    bad.workers[1].stalled = Some(Stalled { ms: 3000, why: "it is stopped".into(), advice: String::new() });
    bad.flows.count = 1_000_000;
    bad.flows.refused = 70;
    let pending = Some(PendingView { number: 9, secs_left: 33, back_to: 8 });
    let history = HistoryReport { pending, running: 9, ..HistoryReport::default() };
    state.take(Answer::Counters(Box::new(bad), Box::new(history)), state.answered);
    let screen = draw(&state, Look { colour: false, unicode: false }, (80, 24));
    println!("{}", screen.join("\n"));
    assert_shows(
        &screen,
        &[
            "! change 9 waits for `fwctl confirm`: back to 8 in 33 s",
            "! worker 1 does not poll: it is stopped",
            "! enp1s0f0np0 (wire0): link is down",
            "! the flow table is 95 % full",
            "! 5.00k packets/s are lost",
            "! 70 new flows/s find no room",
            "1: STALLED",
        ],
    );
    assert!(screen.concat().is_ascii(), "what the terminal cannot show is not there");
    // All of it at once leaves room for the list on the smallest screen.
    let small = draw(&state, LOOK, (60, 12));
    assert_shows(&small, &["bit/s >", "q quit"]);
}

#[test]
fn a_daemon_that_is_gone_is_said_to_be_and_comes_back() {
    let mut state = full();
    state.take(Answer::Gone("nobody listens on /run/x: fwd is not running any more".into()), state.answered);
    assert_shows(
        &draw(&state, LOOK, (80, 24)),
        &["! nobody listens on /run/x: fwd is not running any more", "policy_drop"],
    );
    // Another one, whose counters begin again: no rates until there are two pictures of it.
    state.take(counters(2), state.answered);
    assert!(state.trouble.is_none() && state.rates.is_none());
    state.take(counters(3), state.answered);
    assert_eq!(state.rx.now.packets_per_sec, 2_469_134);
    // One that is there and does not answer.
    let later = state.answered + Duration::from_secs(7);
    assert_eq!(state.silence(later), Some(Duration::from_secs(7)));
    assert_eq!(state.silence(state.answered + Duration::from_secs(3)), None);
}

#[test]
fn before_the_first_answer_the_screen_says_so() {
    let state = State::new(ask(), Instant::now());
    assert_shows(&draw(&state, LOOK, (80, 24)), &["waiting for the first answer"]);
}

#[test]
fn keys_choose_what_is_asked_for() {
    let mut state = full();
    assert!(press(&mut state, "p") && state.ask.by == TopBy::Packets);
    assert!(state.top.is_none(), "the answer on the screen was another question's");
    state.take(Answer::Top(ask(), Box::new(top())), state.answered);
    assert!(state.top.is_none(), "and so is one that comes late");
    assert!(!press(&mut state, "p"), "nothing else to ask for");
    assert!(press(&mut state, "n+") && state.ask.interval == Duration::from_millis(500));
    assert!(!press(&mut state, "+") && press(&mut state, "--"));
    assert_eq!(state.ask.interval, Duration::from_secs(2));
    assert_eq!(state.ask.target(), "/v1/top?interval_ms=2000&by=new&n=200");

    press(&mut state, "/tcp dport x");
    assert!(!key(&mut state, KeyCode::Enter));
    assert_shows(&draw(&state, LOOK, (80, 24)), &["filter: tcp dport x", "`x` is no number"]);
    key(&mut state, KeyCode::Backspace);
    press(&mut state, "443");
    assert!(key(&mut state, KeyCode::Enter));
    assert_eq!(state.ask.filter.query, "&proto=6&dport=443");
    assert_shows(&draw(&state, LOOK, (80, 24)), &["filter: tcp dport 443"]);
    press(&mut state, "/q");
    assert!(!state.is_over, "letters are letters while a filter is typed");
    key(&mut state, KeyCode::Esc);
    assert_eq!(state.ask.filter.text, "tcp dport 443");
    assert!(key(&mut state, KeyCode::Esc) && state.ask.filter == Filter::default());

    key(&mut state, KeyCode::BackTab);
    assert_eq!(state.tab, Tab::Workers);
    key(&mut state, KeyCode::Tab);
    assert_eq!(state.tab, Tab::Overview);
    press(&mut state, "ee");
    assert_eq!(state.ends, Ends::Destinations);
    state.press(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
    assert!(state.is_over);
}

#[test]
fn paused_nothing_moves_and_lists_scroll_to_their_end() {
    let mut state = full();
    press(&mut state, "2 ");
    state.take(counters(500), state.answered);
    assert_eq!(state.stats.as_ref().map(|stats| stats.uptime_ms), Some(159_000));
    assert_shows(&draw(&state, LOOK, (80, 24)), &["PAUSED", "> 203.0.113.31:443"]);
    for _ in 0..20 {
        key(&mut state, KeyCode::PageDown);
    }
    let screen = draw(&state, LOOK, (80, 24));
    assert_shows(&screen, &["> 203.0.113.89:443"]);
    assert!(!screen.concat().contains("more below"));
}
