//! `fwctl flows -D`, `-F` and `-U`: flows deleted and changed.

use super::super::client::Client;
use super::action::{Output, query};
use super::print::{write_deleted, write_flow};
use super::{CliError, said};
use crate::api::types::{FlowFilter, FlowRow, Tally, TallyLine, UpdateRequest};
use std::io::{self, Write};

/// Prints a flow.
type WriteFlow = fn(&FlowRow, &Output, &mut dyn Write) -> io::Result<()>;

/// `-D`: deletes what fits, all flows without a filter. As with conntrack, finding nothing to delete is a failure.
pub(super) fn delete(
    client: &Client,
    filter: &FlowFilter,
    output: &Output,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, CliError> {
    let target = format!("/v1/flows/delete{}", query(filter));
    let tally = tallied(client, &target, Vec::new(), (output, write_deleted), out)?;
    said(err, tally.count, "flow entries have been deleted", output)?;
    remained(tally, "deleted")?;
    Ok(u8::from(tally.count == 0))
}

/// `-U`.
pub(super) fn update(
    client: &Client,
    request: &UpdateRequest,
    output: &Output,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, CliError> {
    let body = serde_json::to_vec(request).unwrap_or_default();
    let tally = tallied(client, "/v1/flows/update", body, (output, write_flow), out)?;
    said(err, tally.count, "flow entries have been updated", output)?;
    remained(tally, "updated")?;
    Ok(u8::from(tally.count == 0))
}

/// `-F`.
pub(super) fn flush(client: &Client, output: &Output, err: &mut dyn Write) -> Result<u8, CliError> {
    let tally: Tally = client.parse(&client.post_bytes("/v1/flows/flush", Vec::new())?)?;
    remained(tally, "deleted")?;
    if !output.is_json() {
        writeln!(err, "fwctl v{}: connection tracking table has been emptied.", env!("CARGO_PKG_VERSION"))?;
    }
    Ok(0)
}

/// Prints the flows of an answer as they come; gives how many there were.
fn tallied(
    client: &Client,
    target: &str,
    body: Vec<u8>,
    (output, write): (&Output, WriteFlow),
    out: &mut dyn Write,
) -> Result<Tally, CliError> {
    let mut tally = None;
    client.post_lines(target, body, &mut |line| {
        match client.parse(line)? {
            TallyLine::End(end) => tally = Some(end),
            TallyLine::Flow(row) => write(&row, output, out)?,
        }
        Ok(())
    })?;
    out.flush()?;
    tally
        .ok_or_else(|| CliError::Unreachable("the answer has no end; what was printed is not all".to_owned()))
}

/// Says what was not done.
fn remained(tally: Tally, what: &str) -> Result<(), CliError> {
    let Tally { count, remained, unlabelled } = tally;
    if remained == 0 && unlabelled == 0 {
        return Ok(());
    }
    if remained == 0 {
        return Err(CliError::Wrong(format!(
            "{unlabelled} flow entries can have no labels: they began while no rule had `-m connlabel`"
        )));
    }
    Err(CliError::Wrong(format!(
        "{remained} flow entries were not {what}, {count} were: a worker does not answer; fwd's log may say why"
    )))
}
