//! `fwctl flows -E`: what happens to flows, as it happens.

use super::super::client::Client;
use super::CliError;
use super::action::{Output, query};
use super::args::{EventArg, FlowsArgs};
use super::print::write_flow;
use crate::api::types::{EventKind, EventRow, FlowFilter};
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// Events until somebody stops us.
pub(super) fn events(
    client: &Client,
    args: &FlowsArgs,
    filter: &FlowFilter,
    output: &Output,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, CliError> {
    client.get_lines(&format!("/v1/flows/events{}", query(filter)), &mut |line| {
        if line.is_empty() {
            return Ok(out.flush()?);
        }
        let EventRow { kind, lost, flow } = client.parse(line)?;
        if lost > 0 {
            writeln!(err, "fwctl: {lost} events were lost: they came faster than they were read")?;
        }
        let (arg, tag) = match kind {
            EventKind::New => (EventArg::New, "    [NEW] "),
            EventKind::Update => (EventArg::Updates, " [UPDATE] "),
            EventKind::Destroy => (EventArg::Destroy, "[DESTROY] "),
        };
        let mask = &args.event_mask;
        if !mask.is_empty() && !mask.contains(&arg) && !mask.contains(&EventArg::All) {
            return Ok(());
        }
        if output.json {
            out.write_all(line)?;
            return Ok(writeln!(out)?);
        }
        if output.timestamp {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            write!(out, "[{}.{:<8}]\t", now.as_secs(), now.subsec_micros())?;
        }
        write!(out, "{tag}")?;
        Ok(write_flow(&flow, output, out)?)
    })?;
    Ok(0)
}
