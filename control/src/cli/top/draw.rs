//! The screen: a head that is always there, the list or lists chosen, and a line of keys at the bottom. Every line is made to
//! fit; what is cut has a mark, what does not fit at all is said to be missing. Pure: state in, frame out.

use super::lists::{self, List};
use super::look::{Look, Tone, count, short};
use super::state::{Past, State, Tab};
use crate::api::types::{PortStats, Rate, Side, TopBy};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use std::time::Instant;

/// The smallest screen that says anything.
const LEAST: (u16, u16) = (40, 10);

/// NICs in the head; all are in the list of workers and queues.
const PORTS_MAX: usize = 4;

/// Share of a full table from which it is said.
const FULL_PERCENT: u64 = 90;

/// Draws it all.
pub(super) fn screen(frame: &mut Frame<'_>, state: &State, look: Look, now: Instant) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = format!("{}x{}: {}x{} needed", area.width, area.height, LEAST.0, LEAST.1);
        lines(frame, area, vec![Line::from(look.fit(&text, area.width.into()))]);
        return;
    }
    let columns = usize::from(area.width);
    if state.is_help {
        lines(frame, area, help(look, columns, usize::from(area.height)));
        return;
    }
    let mut head = vec![title(state, look, columns), tabs(state, look, columns)];
    head.extend(alerts(state, look, columns, now));
    head.extend(traffic(state, look, columns));
    // At least three lines are for the list.
    head.truncate(usize::from(area.height) - 4);
    let head_rows = u16::try_from(head.len()).unwrap_or(area.height);
    let foot = Rect { y: area.bottom() - 1, height: 1, ..area };
    let body = Rect { y: area.y + head_rows, height: area.height - head_rows - 1, ..area };
    lines(frame, Rect { height: head_rows, ..area }, head);
    lines(frame, foot, vec![footer(state, look, columns)]);
    match state.tab {
        Tab::Overview => overview(frame, body, state, look),
        tab => one(frame, body, chosen(tab, state, look, columns), look, state.scroll),
    }
}

/// Puts lines into a part of the screen.
fn lines(frame: &mut Frame<'_>, area: Rect, lines: Vec<Line<'static>>) {
    for (line, y) in lines.into_iter().zip(area.y..area.bottom()) {
        frame.render_widget(line, Rect { y, height: 1, ..area });
    }
}

/// The list that a tab is for.
fn chosen(tab: Tab, state: &State, look: Look, columns: usize) -> List {
    match tab {
        Tab::Overview | Tab::Flows => lists::flows(state, look, columns),
        Tab::Hosts => lists::hosts(state, look, columns, false),
        Tab::Services => lists::services(state, look, columns),
        Tab::Rules => lists::rules(state, look, columns),
        Tab::Drops => lists::drops(state, look, columns, false),
        Tab::Workers => lists::workers(state, look, columns),
    }
}

/// The largest of a list. That there are others goes without saying; its own screen has them.
fn best(frame: &mut Frame<'_>, area: Rect, list: List) {
    lines(frame, area, [vec![list.head], list.rows].concat());
}

/// A list, scrolled; what is below the edge is said to be there.
fn one(frame: &mut Frame<'_>, area: Rect, list: List, look: Look, scroll: usize) {
    let room = usize::from(area.height).saturating_sub(1);
    let total = list.rows.len();
    let first = scroll.min(total.saturating_sub(room));
    let mut rows: Vec<Line<'static>> = list.rows.into_iter().skip(first).take(room).collect();
    let below = total - first - rows.len();
    if below > 0 && room > 1 {
        rows.pop();
        rows.push(Line::from(look.span(format!("  {} {} more below", look.cut(), below + 1), Tone::Dim)));
    }
    lines(frame, area, [vec![list.head], rows].concat());
}

/// Flows, and below them hosts beside rules and drops.
fn overview(frame: &mut Frame<'_>, area: Rect, state: &State, look: Look) {
    let columns = usize::from(area.width);
    if area.height < 9 || area.width < 60 {
        return one(frame, area, lists::flows(state, look, columns), look, state.scroll);
    }
    let upper = Rect { height: area.height / 2, ..area };
    let lower = Rect { y: upper.bottom(), height: area.height - upper.height, ..area };
    best(frame, upper, lists::flows(state, look, columns));
    let part = |from: u16, to: u16| Rect { x: area.x + from, width: to - from, ..lower };
    let width = |rect: Rect| usize::from(rect.width);
    if area.width >= 120 {
        let (third, two) = (area.width * 3 / 10, area.width * 7 / 10);
        let [left, middle, right] = [part(0, third - 2), part(third, two - 2), part(two, area.width)];
        best(frame, left, lists::hosts(state, look, width(left), true));
        best(frame, middle, lists::rules(state, look, width(middle)));
        best(frame, right, lists::drops(state, look, width(right), true));
        return;
    }
    let half = area.width / 2;
    let [left, right] = [part(0, half - 2), part(half, area.width)];
    best(frame, left, lists::hosts(state, look, width(left), true));
    let rules = Rect { height: right.height / 2, ..right };
    let drops = Rect { y: rules.bottom(), height: right.height - rules.height, ..right };
    best(frame, rules, lists::rules(state, look, width(rules)));
    best(frame, drops, lists::drops(state, look, width(drops), true));
}

fn title(state: &State, look: Look, columns: usize) -> Line<'static> {
    let mut spans = vec![look.span("palisade", Tone::Head)];
    if let Some(stats) = &state.stats {
        let up = crate::cli::stats::duration(stats.uptime_ms);
        spans.push(Span::raw(format!("  up {up}  rules {}", state.history.running)));
    }
    let by = match state.ask.by {
        TopBy::Bytes => "bytes",
        TopBy::Packets => "packets",
        TopBy::New => "new flows",
    };
    let interval = state.ask.interval.as_millis();
    spans.push(Span::raw(format!("  every {}.{} s, by {by}", interval / 1000, interval % 1000 / 100)));
    if state.is_paused {
        spans.push(Span::raw("  "));
        spans.push(look.span(" PAUSED ", Tone::Chosen));
    }
    if !state.ask.filter.text.is_empty() {
        spans.push(look.span(format!("  filter: {}", state.ask.filter.text), Tone::Warn));
    }
    look.fit_line(Line::from(spans), columns)
}

fn tabs(state: &State, look: Look, columns: usize) -> Line<'static> {
    let mut spans = Vec::new();
    for (number, tab) in (1..).zip(Tab::ALL) {
        let text = format!(" {number} {} ", tab.name());
        spans.push(if tab == state.tab { look.span(text, Tone::Chosen) } else { Span::raw(text) });
    }
    look.fit_line(Line::from(spans), columns)
}

/// What has to be looked at: what is wrong now, and what will happen by itself.
fn alerts(state: &State, look: Look, columns: usize, now: Instant) -> Vec<Line<'static>> {
    let mut alerts: Vec<(Tone, String)> = Vec::new();
    if let Some(why) = &state.trouble {
        alerts.push((Tone::Alarm, why.clone()));
    } else if let Some(silent) = state.silence(now) {
        alerts.push((Tone::Alarm, format!("no answer from fwd for {} s", silent.as_secs())));
    }
    if let Some(pending) = &state.history.pending {
        let text = format!(
            "change {} waits for `fwctl confirm`: back to {} in {} s",
            pending.number, pending.back_to, pending.secs_left
        );
        alerts.push((Tone::Warn, text));
    }
    if let Some(stats) = &state.stats {
        for worker in stats.workers.iter().filter(|worker| worker.stalled.is_some()) {
            let why = worker.stalled.as_ref().map_or("", |stalled| stalled.why.as_str());
            alerts.push((Tone::Alarm, format!("worker {} does not poll: {why}", worker.id)));
        }
        for port in stats.ports.iter().filter(|port| !port.link_up) {
            alerts.push((Tone::Alarm, format!("{} ({}): link is down", port.name, port.wire)));
        }
        let flows = &stats.flows;
        let percent = (flows.count * 100).checked_div(flows.max).unwrap_or(0);
        if percent >= FULL_PERCENT {
            alerts.push((Tone::Warn, format!("the flow table is {percent} % full")));
        }
    }
    if let Some(rates) = &state.rates {
        let lost: u64 = rates.ports.iter().flat_map(|port| &port.queues).map(|queue| queue.rx_dropped).sum();
        if lost > 0 {
            let text =
                format!("{} packets/s are lost in front of the gateway: rings are full (tab 7)", short(lost));
            alerts.push((Tone::Warn, text));
        }
        if rates.refused > 0 {
            alerts.push((
                Tone::Warn,
                format!("{} new flows/s find no room in the table", short(rates.refused)),
            ));
        }
    }
    if let Some(trouble) = &state.history.trouble {
        alerts.push((Tone::Warn, format!("history of the rules: {trouble}")));
    }
    alerts
        .into_iter()
        .map(|(tone, text)| look.fit_line(Line::from(look.span(format!("! {text}"), tone)), columns))
        .collect()
}

/// What passes, NIC by NIC, the table and the workers.
fn traffic(state: &State, look: Look, columns: usize) -> Vec<Line<'static>> {
    let Some(stats) = &state.stats else { return Vec::new() };
    let mut out = Vec::new();
    let name_width = lists::name_width(&stats.ports).max(5) + 1;
    let rate =
        |rate: Rate| format!("{:>5} pps {:>5} bit/s", short(rate.packets_per_sec), short(rate.bits_per_sec));
    let with_bars = |name: &str, text: String, past: &Past| {
        let text = format!("{name:<name_width$} {text}  ");
        let room = columns.saturating_sub(text.chars().count());
        let mut spans = vec![Span::raw(text)];
        if room >= 8 {
            spans.push(look.span(look.spark(past.values(), room), Tone::Good));
        }
        look.fit_line(Line::from(spans), columns)
    };
    out.push(with_bars("in", rate(state.rx.now), &state.rx.past));
    out.push(with_bars("out", rate(state.tx.now), &state.tx.past));
    let none = Past::default();
    for (at, port) in stats.ports.iter().enumerate().take(PORTS_MAX) {
        let rates = state.rates.as_ref().and_then(|rates| rates.ports.get(at));
        let (rx, tx) = rates.map_or((port.rx_rate, port.tx_rate), |rates| (rates.rx, rates.tx));
        let text = format!("rx {}  tx {}", rate(rx), rate(tx));
        out.push(with_bars(&port_name(port), text, state.ports.get(at).unwrap_or(&none)));
    }
    if stats.ports.len() > PORTS_MAX {
        let text = format!("{} {} more NICs in tab 7", look.cut(), stats.ports.len() - PORTS_MAX);
        out.push(Line::from(look.span(text, Tone::Dim)));
    }
    out.push(look.fit_line(flows(state, look), columns));
    out.push(look.fit_line(workers(state, look), columns));
    out
}

fn port_name(port: &PortStats) -> String {
    let arrow = match port.side {
        Side::Left => "<",
        Side::Right => ">",
    };
    format!("{arrow}{}", port.name)
}

fn flows(state: &State, look: Look) -> Line<'static> {
    let Some(stats) = &state.stats else { return Line::default() };
    let (now, max) = (stats.flows.count, stats.flows.max);
    let percent = (now * 100).checked_div(max).unwrap_or(0);
    let mut spans = vec![Span::raw(format!("flows  {} of {} ({percent} %)", count(now), count(max)))];
    if let Some(rates) = &state.rates {
        spans.push(Span::raw(format!("  new {}/s", short(rates.inserted))));
        let dropped = format!("  dropped {}/s", short(rates.dropped().packets_per_sec));
        spans.push(Span::raw(dropped));
        if rates.evicted > 0 {
            spans.push(look.span(format!("  evicted {}/s", short(rates.evicted)), Tone::Warn));
        }
    }
    Line::from(spans)
}

fn workers(state: &State, look: Look) -> Line<'static> {
    let mut spans = vec![Span::raw("workers")];
    for (at, worker) in state.stats.iter().flat_map(|stats| &stats.workers).enumerate() {
        let rates = state.rates.as_ref().and_then(|rates| rates.workers.get(at));
        let busy = rates.and_then(|rates| rates.busy_percent);
        let text = match busy {
            Some(percent) => format!("  {}: {percent} % busy", worker.id),
            None => format!("  {}: idle", worker.id),
        };
        let is_busy = busy.is_some_and(|percent| percent >= 95);
        spans.push(match (&worker.stalled, is_busy) {
            (Some(_), _) => look.span(format!("  {}: STALLED", worker.id), Tone::Alarm),
            (None, true) => look.span(text, Tone::Warn),
            (None, false) => Span::raw(text),
        });
    }
    Line::from(spans)
}

fn footer(state: &State, look: Look, columns: usize) -> Line<'static> {
    match &state.typing {
        Some((text, None)) => look.fit_line(
            Line::from(vec![
                look.span("filter: ", Tone::Head),
                Span::raw(tail(text, columns.saturating_sub(32))),
                look.span(" ", Tone::Chosen),
                look.span("  Enter applies, Esc leaves", Tone::Dim),
            ]),
            columns,
        ),
        Some((text, Some(wrong))) => {
            let line = vec![
                look.span("filter: ", Tone::Head),
                Span::raw(format!("{}  ", tail(text, columns / 3))),
                look.span(wrong.clone(), Tone::Alarm),
            ];
            look.fit_line(Line::from(line), columns)
        }
        None => {
            let keys = match columns {
                0..=79 => "q quit  ? help  / filter  space pause",
                _ => "q quit  ? help  1-7 lists  b p n order  e ends  / filter  space pause  + - pace",
            };
            look.fit_line(Line::from(look.span(keys, Tone::Dim)), columns)
        }
    }
}

/// The end of a text that is being typed.
fn tail(text: &str, columns: usize) -> String {
    let count = text.chars().count();
    text.chars().skip(count.saturating_sub(columns)).collect()
}

fn help(look: Look, columns: usize, height: usize) -> Vec<Line<'static>> {
    const TEXT: &str = "\
1 to 7, Tab, arrows   which list: overview, flows, hosts, services, rules,
                      drops, workers with their rings
up, down, PgUp, PgDn  scroll
b, p, n               largest first by bytes, packets, or new flows
e                     hosts: both ends of flows, who began them, with whom
/                     filter for flows, hosts and services. Words: tcp udp ...,
                      proto N, host NET, src NET, dst NET, port N, sport N,
                      dport N, state NAME, mark N, zone N, ipv4, ipv6, new,
                      answered. An address alone is a host, a number a port.
Esc                   no filter
space                 stand still, go on
+, -                  look more often, less often
q, Ctrl-C             quit

bit/s > and < bit/s are of the direction of a flow's first packet and of the
other one, IP header on. Traffic of NICs is in Ethernet frames. k, M and G are
thousands. busy: polls of a worker's rings that brought packets. frames: those
on rings and with the NIC. lost: by the kernel in front of the gateway.
";
    let mut out =
        vec![Line::from(look.span("fwctl top: keys (any key goes back)", Tone::Head)), Line::default()];
    let text: Vec<&str> = TEXT.lines().collect();
    let room = height.saturating_sub(out.len());
    let is_cut = text.len() > room;
    let shown = if is_cut { room.saturating_sub(1) } else { room };
    out.extend(text.iter().take(shown).map(|line| Line::from(look.fit(line, columns))));
    if is_cut {
        let more =
            format!("{} {} more lines: `fwctl top --help` has them too", look.cut(), text.len() - shown);
        out.push(Line::from(look.span(look.fit(&more, columns), Tone::Dim)));
    }
    out
}

/// The whole of it as text, every list one below the other: what `--once` and `--batch` print.
pub(super) fn text(state: &State, look: Look, columns: usize, now: Instant) -> String {
    let mut all = vec![title(state, look, columns)];
    all.extend(alerts(state, look, columns, now));
    all.extend(traffic(state, look, columns));
    let entries = usize::from(state.ask.entries);
    for tab in &Tab::ALL[1..] {
        let List { head, rows } = chosen(*tab, state, look, columns);
        all.push(Line::default());
        all.push(head);
        // Workers and queues are not so many that one could leave some out.
        let most = if *tab == Tab::Workers { usize::MAX } else { entries };
        all.extend(rows.into_iter().take(most));
    }
    let mut text = String::new();
    for line in all {
        let line: String = line.spans.iter().map(|span| span.content.as_ref()).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
