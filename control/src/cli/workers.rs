//! `fwctl workers`: what each worker has to do, and moving it.

use super::CliError;
use super::client::Client;
use crate::api::types::{RebalanceReport, WorkersReport};
use clap::{Args, Subcommand};
use std::io::Write;

/// Arguments of `fwctl workers`.
#[derive(Clone, Debug, Args)]
pub struct WorkersArgs {
    /// What is to be done; without, loads are shown.
    #[command(subcommand)]
    pub command: Option<WorkersCommand>,

    /// Look for so many milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 1000, global = true, value_parser = clap::value_parser!(u64).range(10..=10_000))]
    pub interval_ms: u64,

    /// As JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

/// What is to be done about workers.
#[derive(Clone, Debug, Subcommand)]
pub enum WorkersCommand {
    /// Moves buckets of flows from busy workers to idle ones. No packet is lost or overtaken.
    Rebalance {
        /// Only say what would move.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Shows loads, or evens them out. Exit code 1 if a move got stuck.
pub(super) fn run(client: &Client, args: &WorkersArgs, out: &mut dyn Write) -> Result<u8, CliError> {
    let interval = args.interval_ms;
    if let Some(WorkersCommand::Rebalance { dry_run }) = args.command {
        let path = format!("/v1/workers/rebalance?interval_ms={interval}&dry_run={dry_run}");
        let report: RebalanceReport = client.parse(&client.post_bytes(&path, Vec::new())?)?;
        if args.json {
            writeln!(out, "{}", serde_json::to_string_pretty(&report).unwrap_or_default())?;
        } else {
            print_rebalance(&report, dry_run, out)?;
        }
        return Ok(u8::from(!dry_run && report.moves.iter().any(|one| !one.done)));
    }
    let report: WorkersReport = client.get(&format!("/v1/workers?interval_ms={interval}"))?;
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report).unwrap_or_default())?;
    } else {
        print_loads(&report, out)?;
    }
    Ok(0)
}

fn print_loads(report: &WorkersReport, out: &mut dyn Write) -> Result<(), CliError> {
    writeln!(out, "worker  core  packets/s      %  buckets      flows      %  handed off/s  taken over/s")?;
    for worker in &report.workers {
        writeln!(
            out,
            "{:>6} {:>5} {:>10} {:>6.1} {:>8} {:>10} {:>6.1} {:>13} {:>13}",
            worker.id,
            worker.core,
            worker.packets_per_sec,
            worker.packets_percent,
            worker.buckets,
            worker.flows,
            worker.flows_percent,
            worker.handed_off_per_sec,
            worker.taken_over_per_sec
        )?;
    }
    let how = match report.ownership.as_str() {
        "rss" => "as the NICs spread packets (RSS)",
        _ => "by a secret hash: no NIC spreads packets alike",
    };
    writeln!(out, "flows belong to workers {how}")?;
    for why in &report.nics_stay {
        writeln!(out, "moved packets would still come in at the old worker and be handed over: {why}")?;
    }
    if !report.elephants.is_empty() {
        writeln!(out, "\nlargest flows:\n packets/s  worker  % of it  bucket  proto")?;
    }
    for flow in &report.elephants {
        writeln!(
            out,
            "{:>10} {:>7} {:>8.1} {:>7} {:>6}  {} > {}",
            flow.packets_per_sec,
            flow.worker,
            flow.worker_percent,
            flow.bucket,
            flow.proto,
            flow.src,
            flow.dst
        )?;
    }
    Ok(())
}

fn print_rebalance(report: &RebalanceReport, dry_run: bool, out: &mut dyn Write) -> Result<(), CliError> {
    for one in &report.moves {
        let how = match (one.done, dry_run) {
            (true, _) => "moved",
            (false, true) => "would move",
            (false, false) => "STUCK",
        };
        writeln!(
            out,
            "bucket {:>3}: worker {} > worker {}, {} packets/s: {how}",
            one.bucket, one.from, one.to, one.packets_per_sec
        )?;
    }
    if report.moves.is_empty() {
        writeln!(out, "nothing to move")?;
    }
    let RebalanceReport { before_percent, after_percent, flows_lost, .. } = report;
    writeln!(out, "busiest worker: {before_percent} % of the mean before, {after_percent} % after")?;
    if *flows_lost > 0 {
        writeln!(out, "{flows_lost} flows found no room in the new worker's table and are gone")?;
    }
    for note in &report.notes {
        writeln!(out, "note: {note}")?;
    }
    Ok(())
}
