//! `fwctl stats`: what the daemon counts, for people (100 columns) or as JSON.

use super::CliError;
use super::args::StatsArgs;
use super::client::Client;
use crate::api::types::{
    DropCount, FlowStats, HandoffRow, PeerRow, PortMode, PortStats, QueueStats, Rate, RssWord, Side, Stalled,
    Stats, Traffic, WireStats, WorkerStats,
};
use dataplane::reason::DropReason;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write};
use std::time::Duration;

/// Width that text is wrapped at.
const COLUMNS: usize = 100;

/// Moves to the top left corner and clears the screen from there: ECMA-48 CUP and ED.
const CLEAR: &str = "\x1b[H\x1b[2J";

pub(super) fn run(client: &Client, args: &StatsArgs, out: &mut dyn Write) -> Result<(), CliError> {
    let Some(secs) = args.watch else { return print(client, args, out) };
    let on_screen = !args.json && std::io::stdout().is_terminal();
    loop {
        let mut text = Vec::new();
        print(client, args, &mut text)?;
        if on_screen {
            write!(out, "{CLEAR}")?;
        }
        out.write_all(&text)?;
        if !on_screen && !args.json {
            writeln!(out)?;
        }
        out.flush()?;
        std::thread::sleep(Duration::from_secs_f64(secs));
    }
}

fn print(client: &Client, args: &StatsArgs, out: &mut dyn Write) -> Result<(), CliError> {
    let answer = client.get_bytes("/v1/stats")?;
    if args.json {
        out.write_all(&answer)?;
        return Ok(writeln!(out)?);
    }
    Ok(out.write_all(render(&client.parse(&answer)?, args.all).as_bytes())?)
}

/// The whole report. With `all`, counters that are zero too.
pub(super) fn render(stats: &Stats, all: bool) -> String {
    let Stats { uptime_ms, generation, wires, ports, workers, drops, invalid, flows } = stats;
    let mut out = format!("up {}, rules and settings of generation {generation}\n", duration(*uptime_ms));
    for wire in wires {
        render_wire(&mut out, wire, wires.len() > 1, all);
    }
    out.push_str("\nNICs\n");
    for port in ports {
        render_port(&mut out, port);
    }
    out.push_str("\nworkers\n");
    for worker in workers {
        render_worker(&mut out, worker);
    }
    render_flows(&mut out, flows);
    out.push_str("\ndropped, all wires\n");
    render_drops(&mut out, drops, all);
    let mut causes = invalid.iter().filter(|(_, packets)| all || **packets > 0).peekable();
    if causes.peek().is_some() {
        out.push_str("\nINVALID to connection tracking (the rules decide about them)\n");
    }
    for (cause, packets) in causes {
        line(&mut out, format_args!("  {cause:<24} {packets:>15}"));
    }
    out
}

/// Appends a line.
fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = out.write_fmt(text);
    out.push('\n');
}

fn render_wire(out: &mut String, wire: &WireStats, with_reasons: bool, all: bool) {
    let WireStats {
        name,
        left,
        right,
        left_to_right,
        right_to_left,
        left_to_right_rate,
        right_to_left_rate,
        drops,
    } = wire;
    line(out, format_args!("\nwire {name}: {left} <-> {right}"));
    traffic(out, "left to right", *left_to_right, Some(*left_to_right_rate));
    traffic(out, "right to left", *right_to_left, Some(*right_to_left_rate));
    let dropped = drops.iter().fold(Traffic::default(), |sum, drop| Traffic {
        packets: sum.packets.saturating_add(drop.packets),
        bytes: sum.bytes.saturating_add(drop.bytes),
    });
    traffic(out, "dropped", dropped, None);
    if with_reasons && dropped.packets > 0 {
        render_drops(out, drops, all);
    }
}

fn render_port(out: &mut String, port: &PortStats) {
    let PortStats { name, wire, side, mode, zero_copy, link_up, mtu, rx, tx, rx_rate, tx_rate, rss, queues } =
        port;
    let side = match side {
        Side::Left => "left",
        Side::Right => "right",
    };
    let mode = match mode {
        PortMode::Native => "native XDP",
        PortMode::Generic => "generic XDP (slow)",
    };
    let copy = if *zero_copy { "zero-copy" } else { "copy" };
    let link = if *link_up { "up" } else { "DOWN" };
    line(out, format_args!("  {name} ({wire} {side}): link {link}, {mode}, {copy}, MTU {mtu}"));
    traffic(out, "rx", *rx, Some(*rx_rate));
    traffic(out, "tx", *tx, Some(*tx_rate));
    if rss.state == RssWord::Differs {
        line(out, format_args!("    RSS differs from the workers: {}", rss.refused.join("; ")));
    }
    for queue in queues {
        render_queue(out, queue);
    }
}

fn render_queue(out: &mut String, counters: &QueueStats) {
    let QueueStats {
        queue,
        worker,
        rx_descs,
        tx_descs,
        rx_dropped,
        rx_ring_full,
        fill_ring_empty,
        invalid_descs,
        frames_held,
        kicks,
        kicks_again,
    } = counters;
    let trouble = [
        ("kernel dropped", rx_dropped),
        ("rx ring full", rx_ring_full),
        ("fill ring empty", fill_ring_empty),
        ("invalid", invalid_descs),
        ("kicks again", kicks_again),
    ];
    let mut words = vec![
        format!("rx {rx_descs}"),
        format!("tx {tx_descs}"),
        format!("kicks {kicks}"),
        format!("frames {frames_held}"),
    ];
    words.extend(
        trouble.iter().filter(|(_, count)| **count > 0).map(|(what, count)| format!("{what} {count}")),
    );
    wrapped(out, &format!("    queue {queue} on worker {worker}: "), &words.join(", "));
}

fn render_worker(out: &mut String, worker: &WorkerStats) {
    let WorkerStats {
        id,
        core,
        core_why,
        rx,
        rx_rate,
        forwarded,
        dropped,
        reject_answers,
        bursts,
        idle_polls,
        sleeps,
        flows,
        handed_off,
        taken_over,
        handoffs,
        peers,
        generation,
        stalls,
        stalled,
    } = worker;
    line(out, format_args!("  worker {id} on core {core}: {flows} flows, generation {generation}"));
    if !core_why.is_empty() {
        wrapped(out, "    core: ", core_why);
    }
    if let Some(Stalled { ms, why, advice }) = stalled {
        let secs = ms / 1000;
        wrapped(out, "    ", &format!("STALLED: has not polled for {secs} s: {why}. {advice}"));
    }
    traffic(out, "rx", *rx, Some(*rx_rate));
    traffic(out, "forwarded", *forwarded, None);
    // Tenths of a packet, rounded down.
    let tenths = rx.packets.saturating_mul(10).checked_div(*bursts).unwrap_or(0);
    let words = format!(
        "dropped {dropped}, reject answers {reject_answers}, handed off {handed_off}, taken over {taken_over}, \
         bursts {bursts} of {}.{} packets, idle polls {idle_polls}, sleeps {sleeps}, stalls {stalls}",
        tenths / 10,
        tenths % 10
    );
    wrapped(out, "    ", &words);
    render_handoffs(out, handoffs, peers);
}

/// What went to other workers and came from them, where there was any.
fn render_handoffs(out: &mut String, handoffs: &[HandoffRow], peers: &[PeerRow]) {
    let causes = handoffs.iter().filter(|row| row.out + row.taken > 0);
    let causes = causes.map(|HandoffRow { cause, out, taken }| format!("{cause} {out} out {taken} in"));
    let peers =
        peers.iter().map(|PeerRow { worker, out, taken }| format!("worker {worker} {out} out {taken} in"));
    let words: Vec<String> = causes.chain(peers).collect();
    if !words.is_empty() {
        wrapped(out, "    between workers: ", &words.join(", "));
    }
}

fn render_flows(out: &mut String, flows: &FlowStats) {
    let FlowStats { count, max, inserted, expired, evicted, closed, refused } = flows;
    line(out, format_args!("\nflows: {count} of at most {max}"));
    let words = format!(
        "made {inserted}, expired {expired}, closed by a packet {closed}, evicted for room {evicted}, refused for lack \
         of room {refused}"
    );
    wrapped(out, "  ", &words);
}

fn render_drops(out: &mut String, drops: &[DropCount], all: bool) {
    let mut none = true;
    for DropCount { reason, packets, bytes } in drops.iter().filter(|drop| all || drop.packets > 0) {
        none = false;
        let text =
            DropReason::ALL.iter().find(|known| known.name() == reason).map_or("", |known| known.text());
        wrapped(out, &format!("  {reason:<21} {packets:>12} packets {bytes:>15} bytes  "), text.trim());
    }
    if none {
        out.push_str("  nothing\n");
    }
}

fn traffic(out: &mut String, what: &str, traffic: Traffic, rate: Option<Rate>) {
    let Traffic { packets, bytes } = traffic;
    let text = format!("    {what:<13} {packets:>15} packets {bytes:>18} bytes");
    match rate {
        None => line(out, format_args!("{text}")),
        Some(Rate { packets_per_sec, bits_per_sec }) => {
            line(out, format_args!("{text} {packets_per_sec:>10} pps {:>14}", bit_rate(bits_per_sec)));
        }
    }
}

/// Appends `head` and then `text`, broken between words so that no line is longer than the screen, continued below
/// where it began.
fn wrapped(out: &mut String, head: &str, text: &str) {
    let indent = head.chars().count();
    let (mut current, mut words) = (head.to_owned(), 0);
    for word in text.split(' ') {
        if words > 0 && current.chars().count() + 1 + word.chars().count() > COLUMNS {
            line(out, format_args!("{current}"));
            (current, words) = (" ".repeat(indent), 0);
        }
        if words > 0 {
            current.push(' ');
        }
        current.push_str(word);
        words += 1;
    }
    line(out, format_args!("{}", current.trim_end()));
}

/// Bits a second with three significant digits or more, in decimal units as NICs are sold.
fn bit_rate(bits: u64) -> String {
    for (unit, size) in [("Gbit/s", 1_000_000_000), ("Mbit/s", 1_000_000), ("kbit/s", 1_000)] {
        if bits >= size {
            let hundredths = u128::from(bits) * 100 / u128::from(size);
            return format!("{}.{:02} {unit}", hundredths / 100, hundredths % 100);
        }
    }
    format!("{bits} bit/s")
}

/// Time in the largest units that fit, `1d 02:03:04`.
pub(super) fn duration(ms: u64) -> String {
    let secs = ms / 1000;
    let (days, hours, minutes, secs) = (secs / 86_400, secs / 3600 % 24, secs / 60 % 60, secs % 60);
    let clock = format!("{hours:02}:{minutes:02}:{secs:02}");
    if days > 0 { format!("{days}d {clock}") } else { clock }
}
