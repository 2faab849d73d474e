//! `fwctl audit`: who changed what, from the daemon's audit log.

use super::CliError;
use super::args::AuditArgs;
use super::client::Client;
use crate::audit::{AuditReport, Outcome, Record};
use chrono::{DateTime, Local};
use serde_json::Value;
use std::io::{self, Write};

pub(super) fn run(
    client: &Client,
    args: &AuditArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), CliError> {
    let AuditReport { records, file, lost, trouble } =
        client.get(&format!("/v1/audit?count={}", args.count.unwrap_or(20)))?;
    for record in &records {
        if args.json {
            serde_json::to_writer(&mut *out, record).map_err(io::Error::from)?;
            writeln!(out)?;
        } else {
            write_record(record, out)?;
        }
    }
    out.flush()?;
    if let Some(trouble) = trouble {
        writeln!(err, "warning: {trouble}")?;
    }
    if lost > 0 {
        writeln!(err, "warning: {lost} records could not be written; they are in the daemon's own log")?;
    }
    if file.is_none() {
        writeln!(err, "these are the last that the daemon remembers; its own log has them all (log.audit)")?;
    }
    Ok(())
}

fn write_record(record: &Record, out: &mut dyn Write) -> io::Result<()> {
    let Record { time, who, action, what, before, after, result, error } = record;
    let local = DateTime::parse_from_rfc3339(time).map(|time| time.with_timezone(&Local));
    let time = local.map_or_else(|_| time.clone(), |time| time.format("%Y-%m-%d %H:%M:%S").to_string());
    let one_line = |text: &str| text.replace(char::is_control, " ");
    write!(out, "{time}  {who}: {action}")?;
    if !what.is_empty() {
        write!(out, " {}", one_line(what))?;
    }
    match (before, after) {
        (Value::Null, Value::Null) => {}
        (Value::Null, after) => write!(out, "  [{after}]")?,
        (before, after) => write!(out, "  [{before} -> {after}]")?,
    }
    match result {
        Outcome::Done => {}
        Outcome::Looked => write!(out, "  (looked)")?,
        Outcome::Refused => write!(out, "  REFUSED")?,
        Outcome::Failed => write!(out, "  FAILED")?,
    }
    match error {
        Some(error) => writeln!(out, ": {}", one_line(error)),
        None => writeln!(out),
    }
}
