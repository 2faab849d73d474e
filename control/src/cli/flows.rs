//! `fwctl flows`: tracked flows, line for line as `conntrack -L` prints them with accounting on.

use super::CliError;
use super::args::{FlowsArgs, StatusArg};
use super::client::Client;
use crate::api::types::{Family, FlowCount, FlowFilter, FlowKey, FlowRow, FlowSide};
use std::io::{self, Write};

pub(super) fn run(
    client: &Client,
    args: &FlowsArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), CliError> {
    let query = query(&filter(args));
    if args.count {
        let answer = client.get_bytes(&format!("/v1/flows/count{query}"))?;
        if args.json {
            out.write_all(&answer)?;
            return Ok(writeln!(out)?);
        }
        let FlowCount { count } = client.parse(&answer)?;
        return Ok(writeln!(out, "{count}")?);
    }
    let mut shown: u64 = 0;
    client.get_lines(&format!("/v1/flows{query}"), &mut |line| {
        shown += 1;
        if args.json {
            out.write_all(line)?;
            writeln!(out)?;
        } else {
            write_flow(&client.parse(line)?, out)?;
        }
        Ok(())
    })?;
    out.flush()?;
    if !args.json {
        writeln!(err, "fwctl v{}: {shown} flow entries have been shown.", env!("CARGO_PKG_VERSION"))?;
    }
    Ok(())
}

fn filter(args: &FlowsArgs) -> FlowFilter {
    FlowFilter {
        family: args.family.map(|family| Family::from(family).number()),
        proto: args.proto,
        src: args.src,
        dst: args.dst,
        reply_src: args.reply_src,
        reply_dst: args.reply_dst,
        sport: args.sport,
        dport: args.dport,
        state: args.state.clone(),
        assured: (args.status == Some(StatusArg::Assured)).then_some(true),
        seen_reply: match args.status {
            Some(StatusArg::SeenReply) => Some(true),
            Some(StatusArg::Unreplied) => Some(false),
            _ => None,
        },
        mark: args.mark,
    }
}

/// The filter as the query part of a URL, with its `?`; empty if nothing is filtered.
pub(super) fn query(filter: &FlowFilter) -> String {
    // A filter is a flat object of numbers, switches and texts, which are exactly the parameters of the URL.
    let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(filter) else { return String::new() };
    let pairs: Vec<String> = fields
        .iter()
        .map(|(name, value)| match value {
            serde_json::Value::String(text) => format!("{name}={}", percent_encode(text)),
            other => format!("{name}={other}"),
        })
        .collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

/// Everything but RFC 3986's unreserved characters as `%XX`.
fn percent_encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// One line of `conntrack -L`.
pub(super) fn write_flow(row: &FlowRow, out: &mut dyn Write) -> io::Result<()> {
    let FlowRow {
        family: _,
        proto,
        proto_name,
        timeout_secs,
        state,
        orig,
        reply,
        seen_reply,
        assured,
        mark,
        worker: _,
    } = row;
    write!(out, "{proto_name:<8} {proto} {timeout_secs} ")?;
    if let Some(state) = state {
        write!(out, "{state} ")?;
    }
    write_side(orig, out)?;
    if !seen_reply {
        write!(out, "[UNREPLIED] ")?;
    }
    write_side(reply, out)?;
    if *assured {
        write!(out, "[ASSURED] ")?;
    }
    // Nothing of ours holds a second reference to a flow, as a busy kernel may: `use` is always one.
    writeln!(out, "mark={mark} use=1")
}

fn write_side(side: &FlowSide, out: &mut dyn Write) -> io::Result<()> {
    let FlowSide { src, dst, key, packets, bytes } = side;
    write!(out, "src={src} dst={dst} ")?;
    match key {
        FlowKey::Ports { sport, dport } => write!(out, "sport={sport} dport={dport} ")?,
        FlowKey::Icmp { ty, code, id } => write!(out, "type={ty} code={code} id={id} ")?,
        FlowKey::Gre { srckey, dstkey } => write!(out, "srckey={srckey:#x} dstkey={dstkey:#x} ")?,
        FlowKey::None {} => {}
    }
    write!(out, "packets={packets} bytes={bytes} ")
}
