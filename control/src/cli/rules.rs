//! `fwctl rules`: the rules in force, in the columns of `iptables -L -v -n -x --line-numbers`.

use super::CliError;
use super::args::RulesArgs;
use super::client::Client;
use crate::api::types::{ChainView, Family, RuleView, RulesView};
use std::io::{self, Write};

pub(super) fn run(
    client: &Client,
    args: &RulesArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), CliError> {
    let target = match args.family {
        None => "/v1/rules".to_owned(),
        Some(family) => format!("/v1/rules?family={}", Family::from(family).number()),
    };
    let answer = client.get_bytes(&target)?;
    if args.json {
        out.write_all(&answer)?;
        return Ok(writeln!(out)?);
    }
    let mut views: Vec<RulesView> = client.parse(&answer)?;
    for view in &mut views {
        let wanted = |known: &ChainView| args.chain.as_ref().is_none_or(|chain| known.name == *chain);
        view.chains.retain(|known| known.table == args.table && wanted(known));
    }
    let were_any = !views.is_empty();
    if !args.save {
        views.retain(|view| !view.chains.is_empty());
    }
    if were_any && views.is_empty() {
        return Err(CliError::Wrong(match &args.chain {
            Some(chain) => format!("there is no chain `{chain}` in table {}", args.table),
            None => format!("no table `{}` is loaded", args.table),
        }));
    }
    if views.is_empty() {
        writeln!(err, "fwctl: no rules are loaded for this family")?;
    }
    // One family prints exactly as iptables would; two need to be told apart, in a way that `apply` skips.
    let headed = args.family.is_none() && !views.is_empty();
    for (index, view) in views.iter().enumerate() {
        if headed {
            let blank = if index > 0 { "\n" } else { "" };
            writeln!(out, "{blank}# IPv{}", view.family.number())?;
        }
        if args.save {
            write!(out, "{}", view.text)?;
        } else {
            write_chains(view, out)?;
        }
    }
    Ok(())
}

/// All chains, an empty line between them.
pub(super) fn write_chains(view: &RulesView, out: &mut dyn Write) -> io::Result<()> {
    for (index, chain) in view.chains.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        write_chain(chain, out)?;
    }
    Ok(())
}

fn write_chain(chain: &ChainView, out: &mut dyn Write) -> io::Result<()> {
    let ChainView { table: _, name, policy, references, rules } = chain;
    match policy {
        Some(policy) => writeln!(
            out,
            "Chain {name} (policy {} {} packets, {} bytes)",
            policy.verdict, policy.packets, policy.bytes
        )?,
        None => writeln!(out, "Chain {name} ({references} references)")?,
    }
    writeln!(
        out,
        "{:<4} {:>8} {:>10} {:<9}  prot opt {:<6} {:<6}  {:<19}  {:<19} ",
        "num", "pkts", "bytes", "target", "in", "out", "source", "destination"
    )?;
    rules.iter().try_for_each(|rule| write_rule(rule, out))
}

fn write_rule(rule: &RuleView, out: &mut dyn Write) -> io::Result<()> {
    let RuleView {
        num,
        id: _,
        packets,
        bytes,
        target,
        goto,
        prot,
        opt,
        in_iface,
        out_iface,
        source,
        destination,
        extra,
    } = rule;
    // Bytes stand two columns left of their heading: so they do in iptables, and scripts cut by column.
    let (prot, source, destination) = (signed(prot), signed(source), signed(destination));
    write!(out, "{num:<4} {packets:>8} {bytes:>8} {target:<9} {prot:<5} {opt:<3}")?;
    write!(out, " {in_iface:<6} {out_iface:<6} {source:<20} {destination:<20} ")?;
    if *goto {
        write!(out, "[goto] ")?;
    }
    if !extra.is_empty() {
        write!(out, " {extra}")?;
    }
    writeln!(out)
}

/// A column whose first character is kept for the `!` of a negation.
fn signed(column: &str) -> String {
    if column.starts_with('!') { column.to_owned() } else { format!(" {column}") }
}
