//! Flows as conntrack prints them, one line each.

use super::action::{Format, Output};
use super::facts::Facts;
use super::{save, xml};
use crate::api::types::{EventKind, EventRow, Family, FlowKey, FlowRow, FlowSide};
use chrono::{Local, TimeZone as _};
use std::io::{self, Write};

/// One line of `conntrack -L`.
///
/// # Errors
/// If it cannot be written.
pub fn write_flow(row: &FlowRow, output: &Output, out: &mut dyn Write) -> io::Result<()> {
    match output.format {
        Format::Json => write_json(row, out),
        Format::Xml => xml::write_flow(&Facts::of_flow(row), output, out),
        Format::Save => save::write_flow(&Facts::of_flow(row), out),
        Format::Line => write_line(&Facts::of_flow(row), output, out),
    }
}

/// One line of `conntrack -D`.
///
/// # Errors
/// If it cannot be written.
pub fn write_deleted(row: &FlowRow, output: &Output, out: &mut dyn Write) -> io::Result<()> {
    match output.format {
        Format::Save => save::write_flow(&Facts::of_deleted(row), out),
        _ => write_flow(row, output, out),
    }
}

/// One line of `conntrack -E`.
///
/// # Errors
/// If it cannot be written.
pub fn write_event(event: &EventRow, output: &Output, out: &mut dyn Write) -> io::Result<()> {
    match output.format {
        Format::Json => write_json(event, out),
        Format::Xml => xml::write_flow(&Facts::of_event(event), output, out),
        Format::Save => save::write_flow(&Facts::of_event(event), out),
        Format::Line => write_line(&Facts::of_event(event), output, out),
    }
}

/// Data as the API has it, on a line.
pub(super) fn write_json(row: &impl serde::Serialize, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, row)?;
    writeln!(out)
}

/// What stands in front of an event.
pub(super) const fn tag(kind: EventKind) -> &'static str {
    match kind {
        EventKind::New => "[NEW]",
        EventKind::Update => "[UPDATE]",
        EventKind::Destroy => "[DESTROY]",
    }
}

/// Ends a line whose every word is followed by a blank.
pub(super) fn end_line(mut line: Vec<u8>, out: &mut dyn Write) -> io::Result<()> {
    line.pop();
    line.push(b'\n');
    out.write_all(&line)
}

fn write_line(facts: &Facts<'_>, output: &Output, out: &mut dyn Write) -> io::Result<()> {
    let row = facts.row;
    if let (Some(at_us), true) = (facts.at_us, output.timestamp) {
        write!(out, "[{}.{:06}]\t", at_us / 1_000_000, at_us % 1_000_000)?;
    }
    let mut line = Vec::with_capacity(256);
    if let Some(kind) = facts.kind {
        write!(line, "{:>9} ", tag(kind))?;
    }
    if output.extended {
        let (name, number) = if row.family == Family::V4 { ("ipv4", 2) } else { ("ipv6", 10) };
        write!(line, "{name:<8} {number} ")?;
    }
    write!(line, "{:<8} {} ", row.proto_name, row.proto)?;
    if let Some(secs) = facts.timer {
        write!(line, "{secs} ")?;
    }
    if let Some(state) = facts.state {
        write!(line, "{state} ")?;
    }
    write_side(&row.orig, "orig", facts.counters, &mut line)?;
    if !row.seen_reply {
        write!(line, "[UNREPLIED] ")?;
    }
    write_side(&row.reply, "reply", facts.counters, &mut line)?;
    if row.assured {
        write!(line, "[ASSURED] ")?;
    }
    if row.kept {
        write!(line, "[KEPT] ")?;
    }
    if let Some(mark) = facts.mark {
        write!(line, "mark={mark} ")?;
    }
    if row.zone != 0 {
        write!(line, "zone={} ", row.zone)?;
    }
    write_times(facts, output, &mut line)?;
    if let Some(helper) = facts.helper {
        write!(line, "helper={helper} ")?;
    }
    if facts.kind.is_none() {
        // Nothing of ours holds a second reference to a flow, as a busy kernel may: it is always one.
        write!(line, "use=1 ")?;
    }
    if output.id {
        write!(line, "id={} ", row.id)?;
    }
    if output.labels && !facts.labels.is_empty() {
        write!(line, "labels={} ", facts.labels.join(","))?;
    }
    // conntrack names the process too; ours was a client of the daemon's.
    if facts.asked {
        write!(line, "[USERSPACE] ")?;
    }
    end_line(line, out)
}

/// How long a flow has lasted, and from when to when, while that is known (`nf_conntrack_timestamp`).
fn write_times(facts: &Facts<'_>, output: &Output, line: &mut Vec<u8>) -> io::Result<()> {
    let Some((start, secs)) = facts.lasted() else { return Ok(()) };
    write!(line, "delta-time={secs} ")?;
    if output.ktimestamp {
        write!(line, "[start={}] ", calendar(start))?;
        if let Some(stop) = facts.row.stop_ms {
            write!(line, "[stop={}] ", calendar(stop))?;
        }
    }
    Ok(())
}

/// A time as ctime(3) writes it, in the operator's time zone.
fn calendar(millis: u64) -> String {
    let time = i64::try_from(millis).ok().and_then(|millis| Local.timestamp_millis_opt(millis).single());
    time.map_or_else(|| "?".to_owned(), |time| time.format("%a %b %e %H:%M:%S %Y").to_string())
}

fn write_side(side: &FlowSide, name: &str, counters: bool, line: &mut Vec<u8>) -> io::Result<()> {
    let FlowSide { src, dst, key, zone, packets, bytes } = side;
    write!(line, "src={src} dst={dst} ")?;
    match key {
        FlowKey::Ports { sport, dport } => write!(line, "sport={sport} dport={dport} ")?,
        FlowKey::Icmp { ty, code, id } => write!(line, "type={ty} code={code} id={id} ")?,
        FlowKey::Gre { srckey, dstkey } => write!(line, "srckey={srckey:#x} dstkey={dstkey:#x} ")?,
        FlowKey::None {} => {}
    }
    if *zone != 0 {
        write!(line, "zone-{name}={zone} ")?;
    }
    match (packets, bytes) {
        (Some(packets), Some(bytes)) if counters => write!(line, "packets={packets} bytes={bytes} "),
        _ => Ok(()),
    }
}
