//! The lists of `fwctl top`: a heading and lines. Numbers stand in columns of the same width on the left, names follow and
//! are cut with a mark where the place ends. Pure.

use super::look::{Look, Tone, count, short, width};
use super::rates::{QueueRates, WorkerRates};
use super::state::{Ends, State};
use crate::api::types::{
    Family, FlowKey, PortMode, PortStats, Rate, TopBy, TopFlow, TopHost, TopReport, TopRule, TopService,
};
use dataplane::reason::DropReason;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use std::net::IpAddr;

/// A heading and what stands below it.
pub(super) struct List {
    pub(super) head: Line<'static>,
    pub(super) rows: Vec<Line<'static>>,
}

/// Numbers, each in so many columns, and one text that takes what is left.
struct Table {
    look: Look,
    columns: usize,
    widths: &'static [usize],
}

impl Table {
    fn line(&self, numbers: &[String], text: &str, style: Style) -> Line<'static> {
        let mut line = String::new();
        for (number, width) in numbers.iter().zip(self.widths) {
            line.push_str(&format!("{number:>width$}"));
        }
        line.push_str("  ");
        line.push_str(text);
        Line::from(Span::styled(self.look.fit(&line, self.columns), style))
    }

    fn head(&self, names: &[&str], text: &str) -> Line<'static> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let line = self.line(&names, text, self.look.style(Tone::Head));
        // Up to the edge, so that lists can be told apart without borders.
        line
    }
}

fn bits(rate: Rate) -> String {
    short(rate.bits_per_sec)
}

/// What stands where there is nothing yet, or nothing at all.
fn nothing(state: &State, look: Look, is_known: bool) -> Line<'static> {
    let text = match (is_known, state.trouble.is_some()) {
        (true, _) => "  nothing",
        (false, true) => "  not known",
        (false, false) => "  waiting for the first answer",
    };
    Line::from(look.span(text, Tone::Dim))
}

fn list(state: &State, table: &Table, head: Line<'static>, rows: Option<Vec<Line<'static>>>) -> List {
    let rows = match rows {
        Some(rows) if !rows.is_empty() => rows,
        rows => vec![nothing(state, table.look, rows.is_some())],
    };
    List { head, rows }
}

/// A note that not all hosts could be counted.
fn slack_note(slack: u64, by: TopBy) -> String {
    match (slack, by) {
        (0, _) => String::new(),
        (slack, TopBy::Bytes) => format!(" (each may have {} bit/s more)", short(slack)),
        (slack, TopBy::Packets) => format!(" (each may have {} packets/s more)", short(slack)),
        (slack, TopBy::New) => format!(" (each may have {} new flows/s more)", short(slack)),
    }
}

fn endpoint(addr: IpAddr, port: Option<u16>) -> String {
    match (addr, port) {
        (addr, None) => addr.to_string(),
        (IpAddr::V4(addr), Some(port)) => format!("{addr}:{port}"),
        (IpAddr::V6(addr), Some(port)) => format!("[{addr}]:{port}"),
    }
}

fn protocol(name: &str, number: u8) -> String {
    if name == "unknown" { format!("proto-{number}") } else { name.to_owned() }
}

fn flow_text(flow: &TopFlow) -> String {
    let (sport, dport, more) = match flow.key {
        FlowKey::Ports { sport, dport } => (Some(sport), Some(dport), String::new()),
        FlowKey::Icmp { ty, code, id } => (None, None, format!(" type {ty} code {code} id {id}")),
        FlowKey::Gre { .. } | FlowKey::None {} => (None, None, String::new()),
    };
    let proto = protocol(&flow.proto_name, flow.proto);
    let state = flow.state.as_deref().map_or_else(String::new, |state| format!(" {state}"));
    let new = if flow.is_new { " new" } else { "" };
    format!("{proto} {} > {}{more}{state}{new}", endpoint(flow.src, sport), endpoint(flow.dst, dport))
}

pub(super) fn flows(state: &State, look: Look, columns: usize) -> List {
    let table = Table { look, columns, widths: &[7, 8, 8] };
    let head = table.head(&["bit/s >", "< bit/s", "pkts/s"], "flow");
    let row = |flow: &TopFlow| {
        let packets = flow.forth.packets_per_sec.saturating_add(flow.back.packets_per_sec);
        table.line(&[bits(flow.forth), bits(flow.back), short(packets)], &flow_text(flow), Style::new())
    };
    let rows = state.top.as_ref().map(|top| top.flows.iter().map(row).collect());
    list(state, &table, head, rows)
}

pub(super) fn hosts(state: &State, look: Look, columns: usize, is_brief: bool) -> List {
    let widths: &[usize] = if is_brief { &[7, 8] } else { &[7, 8, 8, 8, 7] };
    let table = Table { look, columns, widths };
    let of = |top: &TopReport| match state.ends {
        Ends::Both => (top.hosts.clone(), top.slack.hosts),
        Ends::Sources => (top.sources.clone(), top.slack.sources),
        Ends::Destinations => (top.destinations.clone(), top.slack.destinations),
    };
    let found = state.top.as_ref().map(|top| of(top));
    let name = match state.ends {
        Ends::Both => "host",
        Ends::Sources => "host that began flows",
        Ends::Destinations => "host that flows were begun to",
    };
    let note = found.as_ref().map_or_else(String::new, |(_, slack)| slack_note(*slack, state.ask.by));
    let head =
        table.head(&["sent", "recvd", "pkts/s", "flows", "new/s"][..widths.len()], &format!("{name}{note}"));
    let row = |host: &TopHost| {
        let packets = host.sent.packets_per_sec.saturating_add(host.received.packets_per_sec);
        let numbers = [
            bits(host.sent),
            bits(host.received),
            short(packets),
            short(host.flows),
            short(host.new_per_sec),
        ];
        table.line(&numbers, &host.addr.to_string(), Style::new())
    };
    let rows = found.map(|(hosts, _)| hosts.iter().map(row).collect());
    list(state, &table, head, rows)
}

pub(super) fn services(state: &State, look: Look, columns: usize) -> List {
    let table = Table { look, columns, widths: &[7, 8, 8, 8, 7] };
    let note =
        state.top.as_ref().map_or_else(String::new, |top| slack_note(top.slack.services, state.ask.by));
    let head = table.head(&["bit/s >", "< bit/s", "pkts/s", "flows", "new/s"], &format!("service{note}"));
    let row = |service: &TopService| {
        let packets = service.forth.packets_per_sec.saturating_add(service.back.packets_per_sec);
        let numbers = [
            bits(service.forth),
            bits(service.back),
            short(packets),
            short(service.flows),
            short(service.new_per_sec),
        ];
        let port = service.port.map_or_else(String::new, |port| format!("/{port}"));
        let name = format!("{}{port}", protocol(&service.proto_name, service.proto));
        table.line(&numbers, &name, Style::new())
    };
    let rows = state.top.as_ref().map(|top| top.services.iter().map(row).collect());
    list(state, &table, head, rows)
}

/// `FORWARD 3: -p tcp -j ACCEPT`, with table and family where they are not the usual ones.
fn rule_text(rule: &TopRule) -> String {
    let family = if rule.family == Family::V6 { "v6 " } else { "" };
    let table = if rule.table == "filter" { String::new() } else { format!("{} ", rule.table) };
    let place = match rule.num {
        Some(num) => format!("{} {num}:", rule.chain),
        None => format!("{} policy:", rule.chain),
    };
    let rest =
        rule.rule.split_once(&format!(" {} ", rule.chain)).map_or(rule.rule.as_str(), |(_, rest)| rest);
    format!("{family}{table}{place} {rest}")
}

pub(super) fn rules(state: &State, look: Look, columns: usize) -> List {
    let table = Table { look, columns, widths: &[7, 8] };
    let head = table.head(&["pkts/s", "bit/s"], "rule");
    let row = |rule: &TopRule| {
        table.line(&[short(rule.rate.packets_per_sec), bits(rule.rate)], &rule_text(rule), Style::new())
    };
    let rows = state.top.as_ref().map(|top| top.rules.iter().map(row).collect());
    list(state, &table, head, rows)
}

pub(super) fn drops(state: &State, look: Look, columns: usize, is_brief: bool) -> List {
    let widths: &[usize] = if is_brief { &[7] } else { &[7, 8, 14] };
    let table = Table { look, columns, widths };
    let head = table.head(&["pkts/s", "bit/s", "since start"][..widths.len()], "dropped for");
    let rows = state.stats.as_ref().map(|stats| {
        let mut rows: Vec<(u64, u64, Line<'static>)> = Vec::new();
        for (at, drop) in stats.drops.iter().enumerate().filter(|(_, drop)| drop.packets > 0) {
            let rate =
                state.rates.as_ref().and_then(|rates| rates.drops.get(at)).copied().unwrap_or_default();
            let text = DropReason::ALL.iter().find(|known| known.name() == drop.reason);
            let text = text.map_or_else(String::new, |known| format!(": {}", known.text().trim()));
            let numbers = [short(rate.packets_per_sec), bits(rate), count(drop.packets)];
            let style = if rate.packets_per_sec > 0 { Style::new() } else { look.style(Tone::Dim) };
            let text = if is_brief { drop.reason.clone() } else { format!("{}{text}", drop.reason) };
            let line = table.line(&numbers[..widths.len()], &text, style);
            rows.push((rate.packets_per_sec, drop.packets, line));
        }
        rows.sort_by_key(|(rate, total, _)| std::cmp::Reverse((*rate, *total)));
        let mut rows: Vec<Line<'static>> = rows.into_iter().map(|(.., line)| line).collect();
        if !is_brief {
            rows.extend(invalid(state, &table));
        }
        rows
    });
    list(state, &table, head, rows)
}

/// What connection tracking found INVALID, by cause; rules decide about it.
fn invalid(state: &State, table: &Table) -> Vec<Line<'static>> {
    let Some(stats) = &state.stats else { return Vec::new() };
    let seen = stats.invalid.iter().filter(|(_, packets)| **packets > 0);
    let row = |(cause, packets): (&String, &u64)| {
        let known =
            state.rates.as_ref().and_then(|rates| rates.invalid.iter().find(|(name, _)| name == cause));
        let rate = known.map_or(0, |(_, rate)| *rate);
        table.line(&[short(rate), String::new(), count(*packets)], cause, Style::new())
    };
    let rows: Vec<Line<'static>> = seen.map(row).collect();
    if rows.is_empty() {
        return rows;
    }
    let head =
        table.head(&["pkts/s", "", "since start"], "INVALID to connection tracking (rules decide about it)");
    [vec![Line::default(), head], rows].concat()
}

pub(super) fn workers(state: &State, look: Look, columns: usize) -> List {
    let table = Table { look, columns, widths: &[6, 6, 8, 7, 8, 11, 9, 9] };
    let head = table
        .head(&["worker", "core", "busy %", "burst", "pkts/s", "flows", "given/s", "taken/s"], "sleeps/s");
    let rows = state.stats.as_ref().map(|stats| {
        let mut rows = Vec::new();
        for (at, worker) in stats.workers.iter().enumerate() {
            let rates = state.rates.as_ref().and_then(|rates| rates.workers.get(at)).copied();
            let WorkerRates { rx, busy_percent, burst_tenths, handed_off, taken_over, sleeps } =
                rates.unwrap_or_default();
            let numbers = [
                worker.id.to_string(),
                worker.core.to_string(),
                busy_percent.map_or_else(|| "-".to_owned(), |percent| percent.to_string()),
                format!("{}.{}", burst_tenths / 10, burst_tenths % 10),
                short(rx.packets_per_sec),
                count(worker.flows),
                short(handed_off),
                short(taken_over),
            ];
            let style = worker.stalled.as_ref().map_or_else(Style::new, |_| look.style(Tone::Alarm));
            rows.push(table.line(&numbers, &short(sleeps), style));
        }
        rows.push(Line::default());
        rows.extend(queues(state, &stats.ports, look, columns));
        rows
    });
    list(state, &table, head, rows)
}

/// Rings and frames, queue by queue.
fn queues(state: &State, ports: &[PortStats], look: Look, columns: usize) -> Vec<Line<'static>> {
    let table = Table { look, columns, widths: &[6, 8, 8, 8, 8, 9, 12, 8, 9] };
    let names = ["queue", "worker", "rx/s", "tx/s", "lost/s", "rx full", "fill empty", "frames", "kicks/s"];
    let mut rows = vec![table.head(&names, "NIC")];
    for (at, port) in ports.iter().enumerate() {
        let rates = state.rates.as_ref().and_then(|rates| rates.ports.get(at));
        for (at, queue) in port.queues.iter().enumerate() {
            let QueueRates { rx, tx, rx_dropped, rx_ring_full, fill_ring_empty, invalid_descs: _, kicks } =
                rates.and_then(|rates| rates.queues.get(at)).copied().unwrap_or_default();
            let numbers = [
                queue.queue.to_string(),
                queue.worker.to_string(),
                short(rx),
                short(tx),
                short(rx_dropped),
                short(rx_ring_full),
                short(fill_ring_empty),
                short(queue.frames_held),
                short(kicks),
            ];
            let style = if rx_dropped > 0 { look.style(Tone::Warn) } else { Style::new() };
            let copy = match (port.zero_copy, port.mode) {
                (true, _) => "zero-copy",
                (false, PortMode::Native) => "copy",
                (false, PortMode::Generic) => "generic",
            };
            rows.push(table.line(&numbers, &format!("{} {copy}", port.name), style));
        }
    }
    rows
}

/// The width of the longest name of a NIC.
pub(super) fn name_width(ports: &[PortStats]) -> usize {
    ports.iter().map(|port| width(&port.name)).max().unwrap_or(0)
}
