//! `fwctl drops`: the last packets that were dropped, and why.

use super::args::DropsArgs;
use super::capture::open;
use super::trace::time;
use crate::api::types::{DropRow, Stats};
use crate::cli::CliError;
use crate::cli::client::Client;
use crate::explain::build::hex;
use crate::pcapng::{Packet, Section};
use dataplane::reason::DropReason;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

pub(in crate::cli) fn run(
    client: &Client,
    args: &DropsArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), CliError> {
    if let Some(wrong) =
        args.reasons.iter().find(|name| DropReason::ALL.iter().all(|reason| reason.name() != *name))
    {
        return Err(CliError::Usage(format!("`{wrong}` is no drop reason; `fwctl stats --all` lists them")));
    }
    let stats: Stats = client.get("/v1/stats")?;
    let nics: Vec<&str> = stats.ports.iter().map(|port| port.name.as_str()).collect();
    if let Some(wrong) = args.interfaces.iter().find(|name| !nics.contains(&name.as_str())) {
        return Err(CliError::Usage(format!("`{wrong}` is none of the gateway's NICs: {}", nics.join(", "))));
    }
    let mut rows: Vec<DropRow> = client.get("/v1/drops")?;
    rows.retain(|row| {
        (args.reasons.is_empty() || args.reasons.contains(&row.reason.name))
            && (args.interfaces.is_empty() || args.interfaces.contains(&row.ingress))
    });
    if let Some(last) = args.last {
        rows.drain(..rows.len().saturating_sub(last));
    }
    if let Some(path) = &args.pcap {
        return write_capture(&rows, &nics, path, out, err);
    }
    for row in &rows {
        if args.json {
            serde_json::to_writer(&mut *out, row).map_err(std::io::Error::from)?;
            writeln!(out)?;
        } else {
            print(row, out)?;
        }
    }
    if rows.is_empty() && !args.json {
        writeln!(err, "fwctl: no packet was dropped, as far as is remembered: 512 per worker")?;
    }
    Ok(())
}

fn print(row: &DropRow, out: &mut dyn Write) -> Result<(), CliError> {
    let DropRow { at_micros, ingress, summary, reason, ct, rule, rule_text, .. } = row;
    writeln!(out, "{} in {ingress}: {summary}", time(*at_micros))?;
    let state = ct.as_ref().map(|state| format!(", {state}")).unwrap_or_default();
    match (rule, rule_text) {
        (Some(rule), Some(text)) => writeln!(out, "    {}{state}, by {rule}: {text}", reason.name)?,
        (Some(rule), None) => writeln!(out, "    {}{state}, by {rule}", reason.name)?,
        (None, _) => writeln!(out, "    {}{state}: {}", reason.name, reason.text)?,
    }
    Ok(())
}

fn write_capture(
    rows: &[DropRow],
    nics: &[&str],
    path: &Path,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), CliError> {
    let mut file = open(path, out)?;
    let mut write = || -> std::io::Result<()> {
        let (mut section, _) = Section::begin(&mut file, nics.iter().copied())?;
        for row in rows {
            let port = nics.iter().position(|nic| *nic == row.ingress).unwrap_or(0);
            section.packet(&Packet {
                port: u8::try_from(port).unwrap_or(0),
                at: Duration::from_micros(row.at_micros),
                frame_len: row.frame_len,
                bytes: &hex(&row.frame).unwrap_or_default(),
                is_outbound: Some(false),
                comment: &row.comment,
            })?;
        }
        section.out().flush()
    };
    write().map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => CliError::Output(error),
        _ => CliError::Wrong(format!("{}: {error}", path.display())),
    })?;
    Ok(writeln!(err, "fwctl: {} packets written", rows.len())?)
}
