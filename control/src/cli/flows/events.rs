//! `fwctl flows -E`: what happens to flows, as it happens.

use super::super::client::Client;
use super::super::taps::until_stopped;
use super::action::{Output, query};
use super::args::{EventArg, FlowsArgs};
use super::print::write_event;
use super::xml::Document;
use super::{CliError, said};
use crate::api::types::{EventKind, EventRow, FlowFilter};
use serde::de::DeserializeOwned;
use std::io::{self, Write};
use std::sync::atomic::Ordering;

/// Events until somebody stops us.
pub(super) fn events(
    client: &Client,
    args: &FlowsArgs,
    filter: &FlowFilter,
    output: &Output,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, CliError> {
    if args.buffer_size.is_some() {
        writeln!(err, "fwctl: NOTICE: `-b` changes nothing: how many events wait for a listener is fixed")?;
    }
    let settings: Vec<(String, u32)> = client.get("/v1/sysctl")?;
    if settings.contains(&("events".to_owned(), 0)) {
        writeln!(err, "fwctl: NOTICE: nothing is told while the setting `events` is 0")?;
    }
    let target = format!("/v1/flows/events{}", query(filter));
    let document = Document::of("conntrack", output);
    let mut is_wanted = |row: &EventRow| {
        lost(row.lost, err)?;
        Ok(is_wanted(&args.event_mask, row.kind))
    };
    let shown =
        listen(client, &target, document, out, &mut is_wanted, |row, out| write_event(row, output, out))?;
    said(err, shown, "flow events have been shown", output)?;
    Ok(0)
}

/// Prints the events that are wanted, as they come, until somebody stops us, inside a document if there is one; gives how
/// many.
pub(super) fn listen<Row: DeserializeOwned>(
    client: &Client,
    target: &str,
    mut document: Option<Document>,
    out: &mut dyn Write,
    is_wanted: &mut dyn FnMut(&Row) -> io::Result<bool>,
    write: impl Fn(&Row, &mut dyn Write) -> io::Result<()>,
) -> Result<u64, CliError> {
    let mut shown = 0;
    let stop = until_stopped()?;
    let ended = client.get_lines(target, &mut |line| {
        // An empty line comes at least twice a second.
        if stop.load(Ordering::Relaxed) {
            return Err(CliError::Stopped);
        }
        if line.is_empty() {
            return Ok(out.flush()?);
        }
        let row = client.parse(line)?;
        if !is_wanted(&row)? {
            return Ok(());
        }
        if let Some(document) = &mut document {
            document.open(out)?;
        }
        shown += 1;
        Ok(write(&row, out)?)
    });
    match ended {
        Ok(()) | Err(CliError::Stopped) => {}
        Err(other) => return Err(other),
    }
    if let Some(document) = document {
        document.close(out)?;
    }
    out.flush()?;
    Ok(shown)
}

/// Says that events were lost.
pub(super) fn lost(lost: u64, err: &mut dyn Write) -> io::Result<()> {
    if lost == 0 {
        return Ok(());
    }
    writeln!(err, "fwctl: WARNING: {lost} events were lost: they came faster than they were read")
}

/// Whether `-e` lets an event through.
fn is_wanted(mask: &[EventArg], kind: EventKind) -> bool {
    let asked = match kind {
        EventKind::New => EventArg::New,
        EventKind::Update => EventArg::Updates,
        EventKind::Destroy => EventArg::Destroy,
    };
    mask.is_empty() || mask.contains(&EventArg::All) || mask.contains(&asked)
}
