//! `fwctl rules`: the rules in force, in the columns of `iptables -L` or as `iptables-save` prints them.

use super::CliError;
use super::args::RulesArgs;
use super::client::Client;
use crate::api::types::{ChainView, Family, KeptView, RuleView, RulesView};
use crate::iptables::printer::short_number;
use std::io::{self, Write};

/// Which columns a list has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Columns {
    /// Counters and interfaces.
    verbose: bool,
    /// Counters to the last digit.
    exact: bool,
    /// Numbers of rules.
    numbers: bool,
}

impl Columns {
    /// All of them.
    pub(super) const ALL: Self = Self { verbose: true, exact: true, numbers: true };

    const fn of(args: &RulesArgs) -> Self {
        let &RulesArgs { list, verbose, exact, line_numbers, .. } = args;
        if list { Self { verbose, exact, numbers: line_numbers } } else { Self::ALL }
    }
}

pub(super) fn run(
    client: &Client,
    args: &RulesArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), CliError> {
    let family = match args {
        RulesArgs { v4: true, .. } => Some(Family::V4),
        RulesArgs { v6: true, .. } => Some(Family::V6),
        RulesArgs { family, .. } => family.map(Family::from),
    };
    let target = match family {
        None => "/v1/rules".to_owned(),
        Some(family) => format!("/v1/rules?family={}", family.number()),
    };
    let answer = client.get_bytes(&target)?;
    if args.json {
        out.write_all(&answer)?;
        return Ok(writeln!(out)?);
    }
    let mut views: Vec<RulesView> = client.parse(&answer)?;
    let table = args.table.as_deref().or((!args.save).then_some("filter"));
    let were_any = !views.is_empty();
    for view in &mut views {
        let wanted = |known: &ChainView| args.chain.as_ref().is_none_or(|chain| known.name == *chain);
        view.chains.retain(|known| table.is_none_or(|table| known.table == table) && wanted(known));
    }
    views.retain(|view| !view.chains.is_empty());
    if were_any && views.is_empty() {
        let table = table.unwrap_or_default();
        return Err(CliError::Wrong(match &args.chain {
            Some(chain) => format!("there is no chain `{chain}` in table {table}"),
            None => format!("no table `{table}` is loaded"),
        }));
    }
    if views.is_empty() {
        writeln!(err, "fwctl: no rules are loaded for this family")?;
    }
    // One family prints exactly as iptables would; two need to be told apart, in a way that `apply` skips.
    let headed = family.is_none() && !views.is_empty();
    for (index, view) in views.iter().enumerate() {
        if headed {
            let blank = if index > 0 { "\n" } else { "" };
            writeln!(out, "{blank}# IPv{}", view.family.number())?;
        }
        if args.save {
            write_save(view, table, args.counters, out)?;
        } else {
            write_chains(view, Columns::of(args), out)?;
            if args.chain.is_none() {
                write_kept(view, Columns::of(args), out)?;
            }
        }
    }
    Ok(())
}

/// As iptables-save prints them: one table or all, with the counters of rules or without.
fn write_save(
    view: &RulesView,
    table: Option<&str>,
    with_counters: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    // Text and chains come in the same order.
    let mut rules = view.chains.iter().flat_map(|chain| &chain.rules);
    let mut is_wanted = true;
    for line in view.text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            is_wanted = table.is_none_or(|table| table == name);
        }
        if !is_wanted {
            continue;
        }
        if line.starts_with("-A ")
            && let Some(RuleView { packets, bytes, .. }) = rules.next()
            && with_counters
        {
            write!(out, "[{packets}:{bytes}] ")?;
        }
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// All chains, an empty line between them.
pub(super) fn write_chains(view: &RulesView, columns: Columns, out: &mut dyn Write) -> io::Result<()> {
    for (index, chain) in view.chains.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        write_chain(chain, columns, out)?;
    }
    Ok(())
}

/// What met no rules, if there was any.
fn write_kept(view: &RulesView, columns: Columns, out: &mut dyn Write) -> io::Result<()> {
    let KeptView { packets, bytes } = view.kept;
    if packets == 0 || !columns.verbose {
        return Ok(());
    }
    let (packets, bytes) = (columns.count(packets), columns.count(bytes));
    writeln!(out, "\nKept flows ({packets} packets, {bytes} bytes met no rules)")
}

fn write_chain(chain: &ChainView, columns: Columns, out: &mut dyn Write) -> io::Result<()> {
    let ChainView { table: _, name, policy, references, rules } = chain;
    match policy {
        Some(policy) if columns.verbose => writeln!(
            out,
            "Chain {name} (policy {} {} packets, {} bytes)",
            policy.verdict,
            columns.count(policy.packets),
            columns.count(policy.bytes)
        )?,
        Some(policy) => writeln!(out, "Chain {name} (policy {})", policy.verdict)?,
        None => writeln!(out, "Chain {name} ({references} references)")?,
    }
    if columns.numbers {
        write!(out, "{:<4} ", "num")?;
    }
    match columns {
        Columns { verbose: false, .. } => {}
        Columns { exact: true, .. } => write!(out, "{:>8} {:>10} ", "pkts", "bytes")?,
        Columns { exact: false, .. } => write!(out, "{:>5} {:>5} ", "pkts", "bytes")?,
    }
    write!(out, "{:<9}  prot opt", "target")?;
    if columns.verbose {
        write!(out, " {:<6} {:<6} ", "in", "out")?;
    }
    writeln!(out, " {:<19}  {:<19} ", "source", "destination")?;
    rules.iter().try_for_each(|rule| write_rule(rule, columns, out))
}

fn write_rule(rule: &RuleView, columns: Columns, out: &mut dyn Write) -> io::Result<()> {
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
    let (prot, source, destination) = (signed(prot), signed(source), signed(destination));
    if columns.numbers {
        write!(out, "{num:<4} ")?;
    }
    match columns {
        Columns { verbose: false, .. } => {}
        // Bytes stand two columns left of their heading: so they do in iptables, and scripts cut by column.
        Columns { exact: true, .. } => write!(out, "{packets:>8} {bytes:>8} ")?,
        Columns { exact: false, .. } => {
            write!(out, "{:>5} {:>5} ", columns.count(*packets), columns.count(*bytes))?;
        }
    }
    write!(out, "{target:<9} {prot:<5} {opt:<3}")?;
    if columns.verbose {
        write!(out, " {in_iface:<6} {out_iface:<6} ")?;
    }
    write!(out, "{source:<20} {destination:<20} ")?;
    if *goto {
        write!(out, "[goto] ")?;
    }
    if !extra.is_empty() {
        write!(out, " {extra}")?;
    }
    writeln!(out)
}

impl Columns {
    fn count(self, number: u64) -> String {
        if self.exact { number.to_string() } else { short_number(number) }
    }
}

/// A column whose first character is kept for the `!` of a negation.
fn signed(column: &str) -> String {
    if column.starts_with('!') { column.to_owned() } else { format!(" {column}") }
}
