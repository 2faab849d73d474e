//! `fwctl flows -L`, `-G`, `-C` and `-S`: flows shown and counted.

use super::super::client::Client;
use super::action::{Output, query};
use super::print::write_flow;
use super::xml::Document;
use super::{CliError, said};
use crate::api::types::{FlowCount, FlowFilter, TrackRow};
use std::io::Write;

/// `-L`.
pub(super) fn list(
    client: &Client,
    filter: &FlowFilter,
    output: &Output,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, CliError> {
    let shown = show(client, filter, output, out)?;
    said(err, shown, "flow entries have been shown", output)?;
    Ok(0)
}

/// `-G`: one flow, which has to be there.
pub(super) fn get(
    client: &Client,
    filter: &FlowFilter,
    output: &Output,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, CliError> {
    let shown = show(client, filter, output, out)?;
    if shown == 0 {
        return Err(CliError::Wrong("Operation failed: such conntrack doesn't exist".to_owned()));
    }
    said(err, shown, "flow entries have been shown", output)?;
    Ok(0)
}

fn show(client: &Client, filter: &FlowFilter, output: &Output, out: &mut dyn Write) -> Result<u64, CliError> {
    let mut shown: u64 = 0;
    let mut document = Document::of("conntrack", output);
    client.get_lines(&format!("/v1/flows{}", query(filter)), &mut |line| {
        shown += 1;
        if let Some(document) = &mut document {
            document.open(out)?;
        }
        if output.is_json() {
            out.write_all(line)?;
            writeln!(out)?;
        } else {
            write_flow(&client.parse(line)?, output, out)?;
        }
        Ok(())
    })?;
    if let Some(document) = document {
        document.close(out)?;
    }
    out.flush()?;
    Ok(shown)
}

/// `-C`.
pub(super) fn count(
    client: &Client,
    filter: &FlowFilter,
    output: &Output,
    out: &mut dyn Write,
) -> Result<u8, CliError> {
    let answer = client.get_bytes(&format!("/v1/flows/count{}", query(filter)))?;
    if output.is_json() {
        out.write_all(&answer)?;
        writeln!(out)?;
        return Ok(0);
    }
    let FlowCount { count } = client.parse(&answer)?;
    writeln!(out, "{count}")?;
    Ok(0)
}

/// `-S`, in the words of `conntrack -S`. What our table cannot run into stands there as zero, for scripts that look.
pub(super) fn stats(client: &Client, out: &mut dyn Write) -> Result<u8, CliError> {
    for row in client.get::<Vec<TrackRow>>("/v1/flows/stats")? {
        let TrackRow { worker, found, invalid, insert, insert_failed, drop, early_drop } = row;
        writeln!(
            out,
            "cpu={worker:<4}\tfound={found} invalid={invalid} insert={insert} insert_failed={insert_failed} \
             drop={drop} early_drop={early_drop} error=0 search_restart=0 clash_resolve=0 chaintoolong=0 "
        )?;
    }
    Ok(0)
}
