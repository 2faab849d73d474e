//! `fwctl flows`: tracked flows, line for line as `conntrack -L` prints them with accounting on.

use super::CliError;
use super::args::{EventArg, FlowsArgs, OutputArg, StatusArg};
use super::client::Client;
use crate::api::types::{
    Deleted, EventKind, EventRow, Family, FlowCount, FlowFilter, FlowKey, FlowRow, FlowSide, TrackRow,
};
use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

pub(super) fn run(
    client: &Client,
    args: &FlowsArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, CliError> {
    if args.stats {
        return stats(client, out);
    }
    if args.event {
        return events(client, args, out, err);
    }
    if args.output.contains(&OutputArg::Timestamp) {
        return Err(CliError::Usage("`-o timestamp` goes with `-E`".to_owned()));
    }
    if args.delete || args.flush {
        return delete(client, args, out, err);
    }
    let query = query(&filter(args));
    let json = args.json || args.output.contains(&OutputArg::Json);
    if args.count {
        let answer = client.get_bytes(&format!("/v1/flows/count{query}"))?;
        if json {
            out.write_all(&answer)?;
            writeln!(out)?;
            return Ok(0);
        }
        let FlowCount { count } = client.parse(&answer)?;
        writeln!(out, "{count}")?;
        return Ok(0);
    }
    let mut shown: u64 = 0;
    client.get_lines(&format!("/v1/flows{query}"), &mut |line| {
        shown += 1;
        if json {
            out.write_all(line)?;
            writeln!(out)?;
        } else {
            write_flow(&client.parse(line)?, &args.output, out)?;
        }
        Ok(())
    })?;
    out.flush()?;
    if !json {
        said(err, shown, "shown")?;
    }
    Ok(0)
}

/// The last word, in the shape of conntrack's.
fn said(err: &mut dyn Write, count: u64, what: &str) -> io::Result<()> {
    writeln!(err, "fwctl v{}: {count} flow entries have been {what}.", env!("CARGO_PKG_VERSION"))
}

/// `-D` and `-F`. As with conntrack, finding nothing to delete is a failure.
fn delete(
    client: &Client,
    args: &FlowsArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, CliError> {
    let filter = filter(args);
    if args.flush && filter != FlowFilter::default() {
        return Err(CliError::Usage("`-F` deletes all flows; to delete some of them say `-D`".to_owned()));
    }
    if args.delete && filter == FlowFilter::default() {
        return Err(CliError::Usage("`-D` needs a filter; to delete all flows say `-F`".to_owned()));
    }
    let answer = client.post_bytes(&format!("/v1/flows/delete{}", query(&filter)), Vec::new())?;
    let Deleted { count, flows } = client.parse(&answer)?;
    for row in &flows {
        write_flow(row, &args.output, out)?;
    }
    out.flush()?;
    if args.flush {
        writeln!(err, "fwctl v{}: connection tracking table has been emptied.", env!("CARGO_PKG_VERSION"))?;
        return Ok(0);
    }
    said(err, count, "deleted")?;
    Ok(u8::from(count == 0))
}

/// `-E`: events until somebody stops us.
fn events(
    client: &Client,
    args: &FlowsArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, CliError> {
    client.get_lines(&format!("/v1/flows/events{}", query(&filter(args))), &mut |line| {
        if line.is_empty() {
            return Ok(out.flush()?);
        }
        let EventRow { kind, lost, flow } = client.parse(line)?;
        if lost > 0 {
            writeln!(err, "fwctl: {lost} events were lost: they came faster than they were read")?;
        }
        let (arg, tag) = match kind {
            EventKind::New => (EventArg::New, "    [NEW] "),
            EventKind::Update => (EventArg::Update, " [UPDATE] "),
            EventKind::Destroy => (EventArg::Destroy, "[DESTROY] "),
        };
        if !args.event_mask.is_empty() && !args.event_mask.contains(&arg) {
            return Ok(());
        }
        if args.json || args.output.contains(&OutputArg::Json) {
            out.write_all(line)?;
            return Ok(writeln!(out)?);
        }
        if args.output.contains(&OutputArg::Timestamp) {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            write!(out, "[{}.{:<8}]\t", now.as_secs(), now.subsec_micros())?;
        }
        write!(out, "{tag}")?;
        Ok(write_flow(&flow, &args.output, out)?)
    })?;
    Ok(0)
}

/// `-S`, in the words of `conntrack -S`. What our table cannot run into stands there as zero, for scripts that look.
fn stats(client: &Client, out: &mut dyn Write) -> Result<u8, CliError> {
    for row in client.get::<Vec<TrackRow>>("/v1/flows/stats")? {
        let TrackRow { worker, found, invalid, insert, insert_failed, drop, early_drop } = row;
        writeln!(
            out,
            "cpu={worker:<8}\tfound={found} invalid={invalid} insert={insert} insert_failed={insert_failed} \
             drop={drop} early_drop={early_drop} error=0 search_restart=0 clash_resolve=0 chaintoolong=0 "
        )?;
    }
    Ok(0)
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
pub(super) fn percent_encode(text: &str) -> String {
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
///
/// # Errors
/// If it cannot be written.
pub fn write_flow(row: &FlowRow, output: &[OutputArg], out: &mut dyn Write) -> io::Result<()> {
    let FlowRow {
        family,
        proto,
        proto_name,
        timeout_secs,
        state,
        orig,
        reply,
        seen_reply,
        assured,
        mark,
        helper,
        zone,
        worker: _,
        id,
    } = row;
    if output.contains(&OutputArg::Extended) {
        let (name, number) = if *family == Family::V4 { ("ipv4", 2) } else { ("ipv6", 10) };
        write!(out, "{name:<8} {number} ")?;
    }
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
    write!(out, "mark={mark} ")?;
    if *zone != 0 {
        write!(out, "zone={zone} ")?;
    }
    if let Some(helper) = helper {
        write!(out, "helper={helper} ")?;
    }
    write!(out, "use=1")?;
    if output.contains(&OutputArg::Id) {
        write!(out, " id={id}")?;
    }
    writeln!(out)
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
