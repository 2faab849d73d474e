//! `fwctl diff`, and `fwctl apply --dry-run`: what new rules would change, rule by rule.

use super::CliError;
use super::apply::{body, request};
use super::args::DiffArgs;
use super::client::Client;
use crate::api::types::{
    ApplyRequest, ChainChange, ChainDiff, DiffReport, FamilyDiff, FlowFates, RuleDiff, SetDiff,
};
use std::io::{self, Write};

pub(super) fn run(
    client: &Client,
    args: &DiffArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), CliError> {
    ask(client, &request(&args.rules)?, args.json, out, err)
}

/// Asks what a request would do.
pub(super) fn ask(
    client: &Client,
    request: &ApplyRequest,
    json: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), CliError> {
    let answer = client.post_bytes("/v1/diff", body(request)?)?;
    if json {
        out.write_all(&answer)?;
        return Ok(writeln!(out)?);
    }
    let DiffReport { families, sets, flows, warnings } = client.parse(&answer)?;
    for warning in warnings {
        writeln!(err, "warning: {warning}")?;
    }
    families.iter().try_for_each(|family| write_family(family, out))?;
    for SetDiff { name, before, after } in sets {
        match before {
            Some(before) => writeln!(out, "set {name}: {before} entries become {after}")?,
            None => writeln!(out, "set {name}: new, {after} entries")?,
        }
    }
    write_flows(flows, out)?;
    Ok(())
}

fn write_family(diff: &FamilyDiff, out: &mut dyn Write) -> io::Result<()> {
    let FamilyDiff { family, chains, kept } = diff;
    let number = family.number();
    if chains.is_empty() {
        return writeln!(out, "IPv{number}: nothing changes, {kept} rules stay");
    }
    let rules = || chains.iter().flat_map(|chain| &chain.rules);
    let added = rules().filter(|rule| rule.from.is_none()).count();
    let removed = rules().filter(|rule| rule.to.is_none()).count();
    let moved = rules().count() - added - removed;
    writeln!(
        out,
        "IPv{number}: {added} rules added, {removed} removed, {moved} moved, {} as they are",
        kept.saturating_sub(moved as u64)
    )?;
    chains.iter().try_for_each(|chain| write_chain(chain, out))
}

fn write_chain(diff: &ChainDiff, out: &mut dyn Write) -> io::Result<()> {
    let ChainDiff { table, name, change, policy, rules } = diff;
    let change = match change {
        ChainChange::Stays => "",
        ChainChange::Added => " (new)",
        ChainChange::Removed => " (goes)",
    };
    write!(out, "\n*{table} {name}{change}")?;
    match policy {
        Some((before, after)) => writeln!(out, ": policy {before} becomes {after}")?,
        None => writeln!(out)?,
    }
    rules.iter().try_for_each(|rule| write_rule(rule, out))
}

/// A sign, the rule's number before or after, the rule; of one that goes or moves also what it has counted.
fn write_rule(diff: &RuleDiff, out: &mut dyn Write) -> io::Result<()> {
    let RuleDiff { from, to, rule, packets, bytes } = diff;
    match (from, to) {
        (Some(from), None) => writeln!(out, "- {from:<5} {rule}  [{packets}:{bytes}]"),
        (None, Some(to)) => writeln!(out, "+ {to:<5} {rule}"),
        (from, to) => {
            let (from, to) = (from.unwrap_or_default(), to.unwrap_or_default());
            writeln!(out, "> {to:<5} {rule}  (was {from}) [{packets}:{bytes}]")
        }
    }
}

fn write_flows(flows: FlowFates, out: &mut dyn Write) -> io::Result<()> {
    let FlowFates { allowed, refused, unsure, kept } = flows;
    writeln!(
        out,
        "\nflows: {allowed} allowed, {refused} that could not begin under these rules (`--flows kill` removes them)"
    )?;
    if unsure > 0 {
        writeln!(out, "       {unsure} hang on more than is known of them and stay in any case")?;
    }
    if kept > 0 {
        writeln!(out, "       {kept} go on with `--flows keep`, whatever these rules say")?;
    }
    Ok(())
}
