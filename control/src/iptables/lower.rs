//! Syntax to `rules::model`: what an assembled file means, its rules named. Control thread and tools only.
//!
//! Invariant: the `Ruleset` made from a `File` has its chains and rules at the same positions.

use std::collections::HashMap;
use std::sync::Arc;

use dataplane::rules::model::{self, Around, ChainId, Match, RuleId, Ruleset};

use super::assemble::RULES_MAX;
use super::diagnostics::{Diagnostic, Span};
use super::options::Lowered;
use super::printer;
use super::syntax::{Chain, File, Rule, Target};
use super::walks::check_walks;

/// Checks a file that was edited after it was assembled: where rules were added to a chain.
pub(super) fn check_edited(file: &File, at: usize, added: &[Rule], diagnostics: &mut Vec<Diagnostic>) {
    let kind = file.chains[at].table;
    let mut tables = file.chains.chunk_by(|one, other| one.table == other.table);
    let Some(table) = tables.find(|chains| chains.iter().any(|chain| chain.table == kind)) else { return };
    let calls = added.iter().any(|rule| matches!(rule.target, Target::Chain { .. }));
    if calls {
        check_walks(table, diagnostics);
    }
    let is_picky = |rule: &Rule| rule.matches.iter().any(|instance| !instance.not_in().is_empty());
    if diagnostics.is_empty() && (calls || added.iter().any(is_picky)) {
        super::hooks::check(table, diagnostics);
    }
    let rules: usize = table.iter().map(|chain| chain.rules.len()).sum();
    if rules > RULES_MAX {
        let message = format!("more than {RULES_MAX} rules, address lists counted out");
        diagnostics.push(Diagnostic::unsupported(Span::default(), message));
    }
}

/// The model of a rule in a chain of an assembled file; its name is that of the first that says so.
pub(super) fn lower_one(file: &File, chain: usize, rule: &Rule) -> Option<model::Rule> {
    let chain = &file.chains[chain];
    let find = |name: &str| {
        let is_it = |other: &Chain| other.table == chain.table && other.name == name;
        Some(ChainId(u32::try_from(file.chains.iter().position(is_it)?).ok()?))
    };
    lower_rule(chain, rule, &find)
}

/// The model of an assembled file. `None` if it holds more chains than an id can count, or a target that was not checked.
#[must_use]
pub fn lower(file: &File) -> Option<Ruleset> {
    let mut index: Index<'_> = HashMap::new();
    for (position, chain) in file.chains.iter().enumerate() {
        index.insert((chain.table, chain.name.as_str()), ChainId(u32::try_from(position).ok()?));
    }
    let mut seen: HashMap<RuleId, u32> = HashMap::new();
    let mut chains = Vec::with_capacity(file.chains.len());
    for chain in &file.chains {
        let mut rules = Vec::with_capacity(chain.rules.len());
        let find = |name: &str| index.get(&(chain.table, name)).copied();
        for rule in &chain.rules {
            let mut lowered = lower_rule(chain, rule, &find)?;
            let occurrence: &mut u32 = seen.entry(lowered.id).or_default();
            *occurrence += 1;
            lowered.id = twin(lowered.id, *occurrence);
            rules.push(Arc::new(lowered));
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

fn lower_rule(chain: &Chain, rule: &Rule, find: &impl Fn(&str) -> Option<ChainId>) -> Option<model::Rule> {
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
    let is_bare = lowered.is_empty() && matches.is_empty();
    let target = match target {
        Target::None => model::Target::Continue,
        Target::Accept => model::Target::Accept,
        Target::Drop => model::Target::Drop,
        Target::Return => model::Target::Return,
        Target::Chain { name, goto, .. } => {
            let id = find(name)?;
            if *goto { model::Target::Goto(id) } else { model::Target::Jump(id) }
        }
        Target::Extension(instance) => match instance.lower() {
            Lowered::Target(target) => target,
            Lowered::Matches(_) => return None,
        },
    };
    let management = matches.iter().any(|instance| instance.marks_management());
    Some(model::Rule { id: first_id(chain, rule), matches: lowered, target, management, is_bare })
}

/// A rule's stable name, if none before it in its chain says the same: a hash of its canonical text.
pub(super) fn first_id(chain: &Chain, rule: &Rule) -> RuleId {
    let line = printer::rule_line(&chain.name, rule);
    let text = match chain.table {
        model::Table::Filter => line,
        table => format!("*{} {line}", table.name()),
    };
    RuleId(fnv1a(text.bytes(), 0xcbf2_9ce4_8422_2325))
}

/// The name of a rule that says the same as others before it, by which of them it is, from one. The first keeps the plain
/// hash.
pub(super) fn twin(first: RuleId, occurrence: u32) -> RuleId {
    if occurrence == 1 { first } else { RuleId(fnv1a(occurrence.to_be_bytes().into_iter(), first.0)) }
}

/// FNV-1a, 64 bits (RFC 9923): fixed for ever, unlike the standard library's hashers.
fn fnv1a(bytes: impl Iterator<Item = u8>, start: u64) -> u64 {
    bytes.fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
