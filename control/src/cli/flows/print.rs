//! Flows as conntrack prints them, one line each. Pure.

use super::action::Output;
use crate::api::types::{Family, FlowKey, FlowRow, FlowSide};
use std::io::{self, Write};

/// One line of `conntrack -L`.
///
/// # Errors
/// If it cannot be written.
pub fn write_flow(row: &FlowRow, output: &Output, out: &mut dyn Write) -> io::Result<()> {
    write_head(row, Some(row.timeout_secs), output, out)?;
    write_sides(row, true, out)?;
    write!(out, "mark={} ", row.mark)?;
    write_zone(row, out)?;
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

/// Protocols, timer and state.
fn write_head(row: &FlowRow, timer: Option<u32>, output: &Output, out: &mut dyn Write) -> io::Result<()> {
    if output.extended {
        let (name, number) = if row.family == Family::V4 { ("ipv4", 2) } else { ("ipv6", 10) };
        write!(out, "{name:<8} {number} ")?;
    }
    write!(out, "{:<8} {} ", row.proto_name, row.proto)?;
    if let Some(secs) = timer {
        write!(out, "{secs} ")?;
    }
    if let Some(state) = &row.state {
        write!(out, "{state} ")?;
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
