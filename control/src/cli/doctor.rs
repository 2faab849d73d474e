//! `fwctl doctor`: what the checks found, for people or as JSON, and what was mended.

use super::CliError;
use super::args::DoctorArgs;
use super::client::Client;
use crate::api::types::{Stats, Version, WebView};
use crate::config::{Config, FwdArgs, WireConfig};
use crate::doctor::{Daemon, Finding, RunsAs, Severity, examine, gather, runs_as};
use serde::Serialize;
use std::io::Write;

/// Exit codes by the worst finding that is left.
const WARNINGS: u8 = 5;
const FAULTS: u8 = 6;

/// A finding and what became of it.
#[derive(Debug, Serialize)]
struct Told {
    #[serde(flatten)]
    finding: Finding,
    /// Whether `--fix` can do something about it.
    can_be_fixed: bool,
    /// Whether it did.
    fixed: bool,
    /// Why it did not, where it tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix_failed: Option<String>,
}

/// The whole answer.
#[derive(Debug, Serialize)]
struct Report {
    /// Whether a daemon answers.
    daemon_runs: bool,
    /// The rights it has.
    runs_as: Option<RunsAs>,
    /// The NICs looked at.
    nics: Vec<String>,
    findings: Vec<Told>,
}

pub(super) fn run(client: &Client, args: &DoctorArgs, out: &mut dyn Write) -> Result<u8, CliError> {
    let config = configuration(args)?;
    let daemon = running(client)?;
    let wires = wires(&config, daemon.as_ref());
    let look = |daemon| gather(config.clone(), daemon, &wires);
    let machine = look(daemon);
    let mut told: Vec<Told> = examine(&machine).into_iter().map(Told::from).collect();
    if args.fix && told.iter().any(|told| told.can_be_fixed) {
        for told in &mut told {
            let Some(fix) = &told.finding.fix else { continue };
            told.fix_failed = fix.apply(&config.net.journal_dir).err();
        }
        // Believed is what another look says.
        let left = examine(&look(machine.daemon.clone()));
        for told in &mut told {
            let same = |finding: &Finding| {
                (finding.check, &finding.subject) == (told.finding.check, &told.finding.subject)
            };
            told.fixed = told.can_be_fixed && !left.iter().any(same);
        }
    }
    let nics = machine.wires.iter().flat_map(|wire| &wire.nics).map(|nic| nic.name.clone()).collect();
    let report = Report {
        daemon_runs: machine.daemon.is_some(),
        runs_as: machine.daemon.and_then(|daemon| daemon.runs_as),
        nics,
        findings: told,
    };
    if args.json {
        serde_json::to_writer(&mut *out, &report).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        out.write_all(render(&report).as_bytes())?;
    }
    Ok(code(&report.findings))
}

/// What the gateway is to be started with, as far as the operator says.
fn configuration(args: &DoctorArgs) -> Result<Config, CliError> {
    let loaded = match &args.config {
        Some(path) => Config::load(&FwdArgs { config: Some(path.clone()), ..FwdArgs::default() }),
        None => Config::from_settings(&args.set),
    };
    let mut config = loaded.map_err(|errors| CliError::Usage(errors.to_string()))?;
    if let (Some(left), Some(right)) = (&args.left, &args.right) {
        config.wires = vec![WireConfig {
            name: "wire0".to_owned(),
            left: left.clone(),
            right: right.clone(),
            ..WireConfig::default()
        }];
    }
    Ok(config)
}

/// The daemon, if there is one.
fn running(client: &Client) -> Result<Option<Daemon>, CliError> {
    let version = match client.get::<Version>("/v1/version") {
        Ok(version) => version,
        Err(CliError::Unreachable(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let stats: Stats = client.get("/v1/stats")?;
    // One of another version may not know.
    let page = client.get::<WebView>("/v1/web").ok().and_then(|web| web.listen);
    Ok(Some(Daemon { pid: version.pid, stats, page, runs_as: runs_as(version.pid) }))
}

/// Pairs of NICs: those named, or those of the daemon.
fn wires(config: &Config, daemon: Option<&Daemon>) -> Vec<(String, [String; 2])> {
    let named = config.wires.iter().map(|wire| (wire.name.clone(), [wire.left.clone(), wire.right.clone()]));
    let named: Vec<_> = named.collect();
    if !named.is_empty() {
        return named;
    }
    let running = daemon.iter().flat_map(|daemon| &daemon.stats.wires);
    running.map(|wire| (wire.name.clone(), [wire.left.clone(), wire.right.clone()])).collect()
}

impl From<Finding> for Told {
    fn from(finding: Finding) -> Self {
        Self { can_be_fixed: finding.fix.is_some(), finding, fixed: false, fix_failed: None }
    }
}

fn code(told: &[Told]) -> u8 {
    let left = told.iter().filter(|told| !told.fixed).map(|told| told.finding.severity);
    match left.max() {
        None | Some(Severity::Note) => 0,
        Some(Severity::Warning) => WARNINGS,
        Some(Severity::Fault) => FAULTS,
    }
}

fn render(report: &Report) -> String {
    let Report { daemon_runs, runs_as, nics, findings } = report;
    let runs = match (daemon_runs, runs_as) {
        (true, Some(runs_as)) => format!("the daemon runs as {runs_as}"),
        (true, None) => "the daemon runs".to_owned(),
        (false, _) => "no daemon runs".to_owned(),
    };
    let looked_at = if nics.is_empty() { String::new() } else { format!("; NICs {}", nics.join(", ")) };
    let mut text = format!("{runs}{looked_at}\n");
    for Told { finding, can_be_fixed, fixed, fix_failed } in findings {
        let Finding { check, subject, severity, what, consequence, mend, fix: _ } = finding;
        let word = match (fixed, severity) {
            (true, _) => "mended ",
            (_, Severity::Fault) => "FAULT  ",
            (_, Severity::Warning) => "warning",
            (_, Severity::Note) => "note   ",
        };
        text.push_str(&format!("\n{word} {subject} ({check}): {what}\n        so: {consequence}\n"));
        if let Some(why) = fix_failed {
            text.push_str(&format!("        could not be mended: {why}\n"));
        }
        if !mend.is_empty() && !fixed {
            let by_itself = if *can_be_fixed { " (or fwctl doctor --fix)" } else { "" };
            text.push_str(&format!("        do: {mend}{by_itself}\n"));
        }
    }
    if findings.is_empty() {
        text.push_str("nothing to complain of\n");
    }
    text
}
