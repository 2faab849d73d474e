//! `-o save`: flows as the command lines of conntrack's that would make, change or delete them.

use super::facts::Facts;
use super::print::end_line;
use crate::api::types::{EventKind, FlowKey, FlowRow};
use std::io::{self, Write};

/// One line.
pub(super) fn write_flow(facts: &Facts<'_>, out: &mut dyn Write) -> io::Result<()> {
    let row = facts.row;
    let mut line = Vec::with_capacity(256);
    let command = match facts.kind {
        None | Some(EventKind::New) => "-A",
        Some(EventKind::Update) => "-U",
        Some(EventKind::Destroy) => "-D",
    };
    write!(line, "{command} ")?;
    if let Some(secs) = facts.timer {
        write!(line, "-t {secs} ")?;
    }
    write!(line, "-u {} ", status(row))?;
    let zones = [("-w", row.zone), ("--orig-zone", row.orig.zone), ("--reply-zone", row.reply.zone)];
    for (option, zone) in zones.into_iter().filter(|(_, zone)| *zone != 0) {
        write!(line, "{option} {zone} ")?;
    }
    let (orig, reply) = (&row.orig, &row.reply);
    write!(line, "-s {} -d {} -r {} -q {} ", orig.src, orig.dst, reply.src, reply.dst)?;
    match &*row.proto_name {
        "unknown" => write!(line, "-p {} ", row.proto)?,
        name => write!(line, "-p {name} ")?,
    }
    match (orig.key, reply.key) {
        (FlowKey::Ports { sport, dport }, FlowKey::Ports { sport: src, dport: dst }) => {
            write!(line, "--sport {sport} --dport {dport} --reply-port-src {src} --reply-port-dst {dst} ")?;
        }
        (FlowKey::Icmp { ty, code, id }, _) => {
            let name = &row.proto_name;
            write!(line, "--{name}-type {ty} --{name}-code {code} --{name}-id {id} ")?;
        }
        (FlowKey::Gre { srckey, dstkey }, FlowKey::Gre { srckey: src, dstkey: dst }) => {
            write!(line, "--srckey {srckey} --dstkey {dstkey} --reply-key-src {src} --reply-key-dst {dst} ")?;
        }
        _ => {}
    }
    if let Some(state) = facts.state {
        write!(line, "--state {state} ")?;
    }
    if facts.asked {
        write!(line, "[USERSPACE] ")?;
    }
    end_line(line, out)
}

fn status(row: &FlowRow) -> String {
    let bits = [(row.expected, "EXPECTED"), (row.seen_reply, "SEEN_REPLY"), (row.assured, "ASSURED")];
    let names: Vec<&str> = bits.into_iter().filter(|(has, _)| *has).map(|(_, name)| name).collect();
    if names.is_empty() { "UNSET".to_owned() } else { names.join(",") }
}
