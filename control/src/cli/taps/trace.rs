//! `fwctl trace`: packets that pass by, each with its way.

use super::args::TraceArgs;
use super::{tap_filter, until_stopped};
use crate::api::types::TraceRow;
use crate::cli::CliError;
use crate::cli::client::Client;
use crate::cli::explain::write_explanation;
use chrono::{DateTime, Local, Utc};
use std::io::Write;
use std::sync::atomic::Ordering;

pub(in crate::cli) fn run(
    client: &Client,
    args: &TraceArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), CliError> {
    let filter = tap_filter(client, &args.tap)?;
    let body = serde_json::to_vec(&filter).map_err(|error| CliError::Usage(error.to_string()))?;
    let stop = until_stopped()?;
    let (mut shown, mut skipped) = (0_u64, 0_u64);
    let ended = client.post_lines("/v1/trace", body, &mut |line| {
        if stop.load(Ordering::Relaxed) {
            return Err(CliError::Stopped);
        }
        if line.is_empty() {
            return Ok(out.flush()?);
        }
        let row: TraceRow = client.parse(line)?;
        if row.lost > 0 {
            writeln!(
                err,
                "fwctl: WARNING: {} packets were lost: they came faster than they were read",
                row.lost
            )?;
        }
        shown += 1;
        skipped += row.skipped;
        if args.json {
            out.write_all(line)?;
            return Ok(out.write_all(b"\n")?);
        }
        writeln!(out, "{}", time(row.at_micros))?;
        write_explanation(&row.explanation, out)?;
        Ok(writeln!(out)?)
    });
    out.flush()?;
    match ended {
        Ok(()) | Err(CliError::Stopped) => {}
        Err(other) => return Err(other),
    }
    writeln!(err, "fwctl: {shown} packets have been shown{}", left_out(skipped))?;
    Ok(())
}

fn left_out(skipped: u64) -> String {
    match skipped {
        0 => String::new(),
        _ => format!(
            ", {skipped} before the last of them were left out: --rate and --sample say how many are taken"
        ),
    }
}

/// A time of today, or of whenever it was.
pub(super) fn time(micros: u64) -> String {
    let time = i64::try_from(micros).ok().and_then(DateTime::<Utc>::from_timestamp_micros);
    let time = time.map(|time| time.with_timezone(&Local));
    time.map_or_else(|| micros.to_string(), |time| time.format("%Y-%m-%d %H:%M:%S%.6f").to_string())
}
