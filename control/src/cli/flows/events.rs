//! `fwctl flows -E`: what happens to flows, as it happens.

use super::super::client::Client;
use super::action::{Output, query};
use super::args::{EventArg, FlowsArgs};
use super::print::write_event;
use super::xml::Document;
use super::{CliError, said};
use crate::api::types::{EventKind, EventRow, FlowFilter};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
    let mut shown: u64 = 0;
    let mut document = Document::of("conntrack", output);
    let stop = until_stopped()?;
    let ended = client.get_lines(&format!("/v1/flows/events{}", query(filter)), &mut |line| {
        // An empty line comes at least twice a second.
        if stop.load(Ordering::Relaxed) {
            return Err(CliError::Stopped);
        }
        if line.is_empty() {
            return Ok(out.flush()?);
        }
        let row: EventRow = client.parse(line)?;
        lost(row.lost, err)?;
        if !is_wanted(&args.event_mask, row.kind) {
            return Ok(());
        }
        shown += 1;
        if let Some(document) = &mut document {
            document.open(out)?;
        }
        Ok(write_event(&row, output, out)?)
    });
    match ended {
        Ok(()) | Err(CliError::Stopped) => {}
        Err(other) => return Err(other),
    }
    if let Some(document) = document {
        document.close(out)?;
    }
    out.flush()?;
    said(err, shown, "flow events have been shown", output)?;
    Ok(0)
}

/// A flag that is set when somebody stops us. The second time ends the process at once.
pub(super) fn until_stopped() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
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
