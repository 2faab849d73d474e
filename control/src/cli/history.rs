//! `fwctl history`, `fwctl confirm` and `fwctl rollback`: the rulesets that ran, and the way back to them.

use super::CliError;
use super::apply::{body, report};
use super::args::{ConfirmArgs, HistoryArgs, RollbackArgs};
use super::client::Client;
use crate::api::types::{Family, HistoryEntry, HistoryReport, Outcome, PendingView, RollbackRequest};
use chrono::{DateTime, Local};
use std::io::{self, Write};

pub(super) fn show(
    client: &Client,
    args: &HistoryArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), CliError> {
    if let Some(number) = args.number {
        let family = args.family.map_or(Family::V4, Family::from).number();
        let text: String = client.get(&format!("/v1/history/rules?number={number}&family={family}"))?;
        return Ok(out.write_all(text.as_bytes())?);
    }
    let answer = client.get_bytes("/v1/history")?;
    if args.json {
        out.write_all(&answer)?;
        return Ok(writeln!(out)?);
    }
    let HistoryReport { entries, running, pending, dir, trouble } = client.parse(&answer)?;
    for entry in &entries {
        write_entry(entry, entry.number == running, out)?;
    }
    if let Some(PendingView { number, secs_left, back_to }) = pending {
        writeln!(out, "{number} waits for `fwctl confirm`; in {secs_left} s {back_to} comes back")?;
    }
    if let Some(trouble) = trouble {
        writeln!(err, "warning: {trouble}")?;
    }
    if dir.is_none() {
        writeln!(err, "warning: the history is in memory only and ends with the daemon")?;
    }
    Ok(())
}

fn write_entry(entry: &HistoryEntry, is_running: bool, out: &mut dyn Write) -> io::Result<()> {
    let HistoryEntry { number, at_us, who, what, comment, outcome, replaces: _, restores: _, rules } = entry;
    let micros = i64::try_from(*at_us).unwrap_or(i64::MAX);
    let time = DateTime::from_timestamp_micros(micros).map(|time| time.with_timezone(&Local));
    let time = time.map_or_else(|| "-".to_owned(), |time| time.format("%Y-%m-%d %H:%M:%S").to_string());
    let outcome = match outcome {
        Outcome::Applied => "",
        Outcome::Unconfirmed => ", not confirmed yet",
        Outcome::Confirmed => ", confirmed",
        Outcome::RolledBack => ", rolled back",
    };
    let mark = if is_running { '*' } else { ' ' };
    write!(out, "{mark}{number:>4}  {time}  {rules:>6} rules  {who}: {what}{outcome}")?;
    match comment {
        Some(comment) => writeln!(out, "  # {}", comment.replace(char::is_control, " ")),
        None => writeln!(out),
    }
}

pub(super) fn confirm(client: &Client, args: &ConfirmArgs, out: &mut dyn Write) -> Result<(), CliError> {
    let answer = client.post_bytes("/v1/confirm", Vec::new())?;
    if args.json {
        out.write_all(&answer)?;
        return Ok(writeln!(out)?);
    }
    let HistoryEntry { number, .. } = client.parse(&answer)?;
    Ok(writeln!(out, "ruleset {number} is confirmed and stays")?)
}

pub(super) fn roll_back(
    client: &Client,
    args: &RollbackArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), CliError> {
    let RollbackArgs { number, confirm, flows, comment, json } = args;
    let request = RollbackRequest {
        number: *number,
        flows: (*flows).into(),
        confirm_secs: *confirm,
        comment: comment.clone(),
    };
    let answer = client.post_bytes("/v1/rollback", body(&request)?)?;
    report(client, &answer, *json, out, err)
}
