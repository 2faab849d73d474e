//! Syntax to `rules::model`: what an assembled file means, its rules named. Control thread and tools only.
//!
//! Invariant: the `Ruleset` made from a `File` has its chains and rules at the same positions.

use std::collections::HashMap;

use dataplane::rules::model::{self, Around, ChainId, Match, RuleId, Ruleset};

use super::assemble::RULES_MAX;
use super::diagnostics::{Diagnostic, Span};
use super::options::Lowered;
use super::printer;
use super::syntax::{Chain, File, Rule, Target};
use super::walks::check_walks;

/// The model of a file that was edited after it was assembled, with the same checks; `None` if they fail.
pub(super) fn relower(file: &File, diagnostics: &mut Vec<Diagnostic>) -> Option<Ruleset> {
    for table in file.chains.chunk_by(|one, other| one.table == other.table) {
        check_walks(table, diagnostics);
        let rules: usize = table.iter().map(|chain| chain.rules.len()).sum();
        if rules > RULES_MAX {
            let message = format!("more than {RULES_MAX} rules, address lists counted out");
            diagnostics.push(Diagnostic::unsupported(Span::default(), message));
        }
    }
    if diagnostics.is_empty() { lower(file) } else { None }
}

/// The model of an assembled file. `None` if it holds more chains than an id can count, or a target that was not checked.
#[must_use]
pub fn lower(file: &File) -> Option<Ruleset> {
    let mut index: Index<'_> = HashMap::new();
    for (position, chain) in file.chains.iter().enumerate() {
        index.insert((chain.table, chain.name.as_str()), ChainId(u32::try_from(position).ok()?));
    }
    let mut seen = HashMap::new();
    let mut chains = Vec::with_capacity(file.chains.len());
    for chain in &file.chains {
        let mut rules = Vec::with_capacity(chain.rules.len());
        for rule in &chain.rules {
            rules.push(lower_rule(chain, rule, &index, &mut seen)?);
        }
        chains.push(model::Chain {
            table: chain.table,
            name: chain.name.clone(),
            policy: chain.policy,
            rules,
        });
    }
    let find = |table, name| index.get(&(table, name)).copied();
    let around = Around {
        raw_prerouting: find(model::Table::Raw, "PREROUTING"),
        mangle_prerouting: find(model::Table::Mangle, "PREROUTING"),
        mangle_forward: find(model::Table::Mangle, "FORWARD"),
        mangle_postrouting: find(model::Table::Mangle, "POSTROUTING"),
    };
    Some(Ruleset { family: file.family, chains, forward: find(model::Table::Filter, "FORWARD")?, around })
}

/// Chains by table and name.
type Index<'a> = HashMap<(model::Table, &'a str), ChainId>;

fn lower_rule(
    chain: &Chain,
    rule: &Rule,
    index: &Index<'_>,
    seen: &mut HashMap<u64, u32>,
) -> Option<model::Rule> {
    let Rule { span: _, counters: _, src, dst, in_iface, out_iface, proto, fragment, matches, target } = rule;
    let mut lowered = Vec::new();
    if let Some((net, invert)) = src.as_ref().and_then(|list| Some((list.nets.first()?, list.invert))) {
        lowered.push(Match::Src { addr: net.addr, mask: net.mask, invert });
    }
    if let Some((net, invert)) = dst.as_ref().and_then(|list| Some((list.nets.first()?, list.invert))) {
        lowered.push(Match::Dst { addr: net.addr, mask: net.mask, invert });
    }
    if let Some(iface) = in_iface {
        lowered.push(Match::InIface { pattern: iface.pattern.clone(), invert: iface.invert });
    }
    if let Some(iface) = out_iface {
        lowered.push(Match::OutIface { pattern: iface.pattern.clone(), invert: iface.invert });
    }
    if let Some(proto) = proto {
        lowered.push(Match::Proto { proto: proto.number, invert: proto.invert });
    }
    if let &Some(invert) = fragment {
        lowered.push(Match::LaterFragment { invert });
    }
    for instance in matches {
        if let Lowered::Matches(more) = instance.lower() {
            lowered.extend(more);
        }
    }
    let target = match target {
        Target::None => model::Target::Continue,
        Target::Accept => model::Target::Accept,
        Target::Drop => model::Target::Drop,
        Target::Return => model::Target::Return,
        Target::Chain { name, goto, .. } => {
            let id = *index.get(&(chain.table, name.as_str()))?;
            if *goto { model::Target::Goto(id) } else { model::Target::Jump(id) }
        }
        Target::Extension(instance) => match instance.lower() {
            Lowered::Target(target) => target,
            Lowered::Matches(_) => return None,
        },
    };
    let line = printer::rule_line(&chain.name, rule);
    let text = match chain.table {
        model::Table::Filter => line,
        table => format!("*{} {line}", table.name()),
    };
    let management = matches.iter().any(|instance| instance.marks_management());
    Some(model::Rule { id: rule_id(&text, seen), matches: lowered, target, management })
}

/// A rule's stable name: a hash of its canonical text, and of how many like it came before.
fn rule_id(text: &str, seen: &mut HashMap<u64, u32>) -> RuleId {
    let hash = fnv1a(text.bytes(), 0xcbf2_9ce4_8422_2325);
    let occurrence = seen.entry(hash).or_insert(0);
    *occurrence += 1;
    // The first of its kind keeps the plain hash.
    RuleId(if *occurrence == 1 { hash } else { fnv1a(occurrence.to_be_bytes().into_iter(), hash) })
}

/// FNV-1a, 64 bits (RFC 9923): fixed for ever, unlike the standard library's hashers.
fn fnv1a(bytes: impl Iterator<Item = u8>, start: u64) -> u64 {
    bytes.fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
