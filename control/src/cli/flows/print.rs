//! Flows as conntrack prints them, one line each.

use super::action::Output;
use super::events::tag;
use crate::api::types::{Changed, EventKind, EventRow, Family, FlowKey, FlowRow, FlowSide};
use chrono::{Local, TimeZone as _};
use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

/// One line of `conntrack -L`.
///
/// # Errors
/// If it cannot be written.
pub fn write_flow(row: &FlowRow, output: &Output, out: &mut dyn Write) -> io::Result<()> {
    write_head(row, Some(row.timeout_secs), true, output, out)?;
    write_sides(row, true, out)?;
    write!(out, "mark={} ", row.mark)?;
    write_zone(row, out)?;
    write_times(row, output, out)?;
    if let Some(helper) = &row.helper {
        write!(out, "helper={helper} ")?;
    }
    // Nothing of ours holds a second reference to a flow, as a busy kernel may: `use` is always one.
    write!(out, "use=1")?;
    if output.id {
        write!(out, " id={}", row.id)?;
    }
    writeln!(out)
}

/// One line of `conntrack -E`. Counters come with the last word about a flow only.
///
/// # Errors
/// If it cannot be written.
pub fn write_event(row: &EventRow, output: &Output, out: &mut dyn Write) -> io::Result<()> {
    let EventRow { kind, at_us, lost: _, changed, asked, flow } = row;
    if output.timestamp {
        write!(out, "[{}.{:06}]\t", at_us / 1_000_000, at_us % 1_000_000)?;
    }
    let is_last = *kind == EventKind::Destroy;
    let mut line = Vec::with_capacity(256);
    write!(line, "{:>9} ", tag(*kind))?;
    // A timer that has run out is not mentioned.
    let timer = Some(flow.timeout_secs).filter(|secs| !is_last || *secs > 0);
    // And a state only if it is new.
    let state = *kind != EventKind::Update || changed.contains(&Changed::Protoinfo);
    write_head(flow, timer, state, output, &mut line)?;
    write_sides(flow, is_last, &mut line)?;
    if flow.mark != 0 || changed.contains(&Changed::Mark) {
        write!(line, "mark={} ", flow.mark)?;
    }
    write_zone(flow, &mut line)?;
    if is_last {
        write_times(flow, output, &mut line)?;
    }
    if let (Some(helper), false) = (&flow.helper, is_last) {
        write!(line, "helper={helper} ")?;
    }
    if output.id {
        write!(line, "id={} ", flow.id)?;
    }
    // conntrack names the process too; ours was a client of the daemon's.
    if *asked {
        write!(line, "[USERSPACE] ")?;
    }
    line.pop();
    line.push(b'\n');
    out.write_all(&line)
}

/// Protocols, timer and state.
fn write_head(
    row: &FlowRow,
    timer: Option<u32>,
    state: bool,
    output: &Output,
    out: &mut dyn Write,
) -> io::Result<()> {
    if output.extended {
        let (name, number) = if row.family == Family::V4 { ("ipv4", 2) } else { ("ipv6", 10) };
        write!(out, "{name:<8} {number} ")?;
    }
    write!(out, "{:<8} {} ", row.proto_name, row.proto)?;
    if let Some(secs) = timer {
        write!(out, "{secs} ")?;
    }
    if let (Some(name), true) = (&row.state, state) {
        write!(out, "{name} ")?;
    }
    Ok(())
}

/// Both directions and what is known of them.
fn write_sides(row: &FlowRow, counters: bool, out: &mut dyn Write) -> io::Result<()> {
    write_side(&row.orig, "orig", counters, out)?;
    if !row.seen_reply {
        write!(out, "[UNREPLIED] ")?;
    }
    write_side(&row.reply, "reply", counters, out)?;
    if row.assured {
        write!(out, "[ASSURED] ")?;
    }
    Ok(())
}

fn write_zone(row: &FlowRow, out: &mut dyn Write) -> io::Result<()> {
    if row.zone == 0 { Ok(()) } else { write!(out, "zone={} ", row.zone) }
}

/// How long a flow has lasted, and from when to when, while that is known (`nf_conntrack_timestamp`).
fn write_times(row: &FlowRow, output: &Output, out: &mut dyn Write) -> io::Result<()> {
    let Some(start) = row.start_ms else { return Ok(()) };
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let stop = row.stop_ms.map_or_else(now, |stop| stop / 1000);
    write!(out, "delta-time={} ", stop.saturating_sub(start / 1000))?;
    if output.ktimestamp {
        write!(out, "[start={}] ", calendar(start))?;
        if let Some(stop) = row.stop_ms {
            write!(out, "[stop={}] ", calendar(stop))?;
        }
    }
    Ok(())
}

/// A time as ctime(3) writes it, in the operator's time zone.
fn calendar(millis: u64) -> String {
    let time = i64::try_from(millis).ok().and_then(|millis| Local.timestamp_millis_opt(millis).single());
    time.map_or_else(|| "?".to_owned(), |time| time.format("%a %b %e %H:%M:%S %Y").to_string())
}

fn write_side(side: &FlowSide, name: &str, counters: bool, out: &mut dyn Write) -> io::Result<()> {
    let FlowSide { src, dst, key, zone, packets, bytes } = side;
    write!(out, "src={src} dst={dst} ")?;
    match key {
        FlowKey::Ports { sport, dport } => write!(out, "sport={sport} dport={dport} ")?,
        FlowKey::Icmp { ty, code, id } => write!(out, "type={ty} code={code} id={id} ")?,
        FlowKey::Gre { srckey, dstkey } => write!(out, "srckey={srckey:#x} dstkey={dstkey:#x} ")?,
        FlowKey::None {} => {}
    }
    if *zone != 0 {
        write!(out, "zone-{name}={zone} ")?;
    }
    match (packets, bytes) {
        (Some(packets), Some(bytes)) if counters => write!(out, "packets={packets} bytes={bytes} "),
        _ => Ok(()),
    }
}
