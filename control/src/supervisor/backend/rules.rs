//! Rules in and out: read from a request, shown with their counters.

use crate::api::backend::ApplyError;
use crate::api::types::{
    ChainCounters, ChainView, Diagnostic, ErrorKind, Family, KeptView, PolicyView, RuleCounters, RuleView,
    RulesText, RulesView,
};
use crate::iptables::diagnostics::Severity;
use crate::iptables::edit::Refused;
use crate::iptables::printer::{self, policy_name};
use crate::iptables::syntax::Counters;
use crate::publish::Counts;
use crate::rules_file::{self, Named, Rules};
use dataplane::ids::Generation;
use dataplane::packet::Family as Fam;
use dataplane::rules::model::{RuleId, RuleRef};
use std::collections::HashMap;

/// Most warnings sent along with an answer.
const WARNINGS_MAX: usize = 20;

/// Reads rules that came with a request.
pub(super) fn load(
    text: &RulesText,
    family: Fam,
    named: Named<'_>,
    warnings: &mut Vec<String>,
) -> Result<Rules, ApplyError> {
    let bytes = text.text.as_bytes();
    let loaded = rules_file::understand_with(bytes, &text.file, family, named);
    let wrong = loaded.worst() == Some(Severity::Error);
    if loaded.ruleset.is_some() {
        let notes = loaded.diagnostics.iter().take(WARNINGS_MAX);
        warnings.extend(notes.map(|note| format!("{}:{}: {}", text.file, note.span.line, note.message)));
        if let Some(more) = loaded.diagnostics.len().checked_sub(WARNINGS_MAX).filter(|more| *more > 0) {
            warnings.push(format!("{}: {more} more; `fwctl check` tells them all", text.file));
        }
    }
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let diagnostics: Vec<Diagnostic> = loaded
        .diagnostics
        .iter()
        .map(|found| Diagnostic {
            file: text.file.clone(),
            line: found.span.line,
            column: number(found.column(bytes)),
            message: found.message.clone(),
            hint: found.hint.clone(),
            rendered: found.render(bytes, &text.file, false),
        })
        .collect();
    Rules::from_loaded(loaded).ok_or_else(|| ApplyError {
        kind: if wrong { ErrorKind::BadRules } else { ErrorKind::Unsupported },
        message: format!("{} was not loaded; the old rules stay in force", text.file),
        diagnostics,
    })
}

/// What is wrong with an edit, as an answer.
pub(super) fn refused_edit(refused: &Refused) -> ApplyError {
    let Refused { line, diagnostics } = refused;
    let is_wrong = diagnostics.iter().any(|found| found.severity == Severity::Error);
    let text = line.as_bytes();
    let diagnostics = diagnostics.iter().map(|found| Diagnostic {
        file: "rule".to_owned(),
        line: found.span.line,
        column: u32::try_from(found.column(text)).unwrap_or(u32::MAX),
        message: found.message.clone(),
        hint: found.hint.clone(),
        rendered: found.render(text, "rule", false),
    });
    ApplyError {
        kind: if is_wrong { ErrorKind::BadRules } else { ErrorKind::Unsupported },
        message: "the rules are as they were".to_owned(),
        diagnostics: diagnostics.collect(),
    }
}

/// One family's rules in force.
pub(super) fn rules_view(
    family: Family,
    generation: Generation,
    rules: &Rules,
    counts: &HashMap<RuleRef, Counts>,
) -> RulesView {
    let count = |by: RuleRef| {
        let (packets, bytes) = counts.get(&by).copied().unwrap_or_default();
        Counters { packets, bytes }
    };
    let ordered = printer::tables(&rules.file).into_iter().flat_map(|table| {
        let references = printer::references(&rules.file, table);
        printer::print_order(&rules.file, table)
            .into_iter()
            .map(move |(id, chain)| (id, chain, references.get(chain.name.as_str()).copied().unwrap_or(0)))
    });
    let chains = ordered.map(|(id, chain, references)| ChainView {
        table: chain.table.name().to_owned(),
        name: chain.name.clone(),
        policy: chain.policy.map(|_| {
            let Counters { packets, bytes } = count(RuleRef { chain: id, rule: None });
            PolicyView { verdict: policy_name(chain.policy).to_owned(), packets, bytes }
        }),
        references: u32::try_from(references).unwrap_or(u32::MAX),
        rules: (0_u32..)
            .zip(&chain.rules)
            .map(|(number, rule)| {
                let by = RuleRef { chain: id, rule: Some(number) };
                let id = rules.ruleset.chain(id).rules[number as usize].id;
                rule_view(number + 1, id, printer::row(rule, rules.ruleset.family), count(by))
            })
            .collect(),
    });
    RulesView {
        family,
        generation: generation.0,
        chains: chains.collect(),
        text: rules.save(&count),
        kept: KeptView::default(),
    }
}

/// What one family's rules have counted, in the order of [`rules_view`].
pub(super) fn rule_counters(
    family: Family,
    generation: Generation,
    rules: &Rules,
    counts: &HashMap<RuleRef, Counts>,
) -> RuleCounters {
    let count = |chain, rule| {
        let (packets, bytes) = counts.get(&RuleRef { chain, rule }).copied().unwrap_or_default();
        (packets, bytes)
    };
    let tables = printer::tables(&rules.file).into_iter();
    let chains =
        tables.flat_map(|table| printer::print_order(&rules.file, table)).map(|(id, chain)| ChainCounters {
            policy: chain.policy.map(|_| count(id, None)),
            rules: (0_u32..).zip(&chain.rules).map(|(number, _)| count(id, Some(number))).collect(),
        });
    RuleCounters { family, generation: generation.0, chains: chains.collect(), kept: KeptView::default() }
}

fn rule_view(num: u32, id: RuleId, row: printer::Row, counters: Counters) -> RuleView {
    let not = |invert: bool| if invert { "!" } else { "" };
    RuleView {
        num,
        id: format!("{:016x}", id.0),
        packets: counters.packets,
        bytes: counters.bytes,
        target: row.target,
        goto: row.goto,
        prot: format!("{}{}", not(row.proto.1), row.proto.0),
        opt: row.opt.to_owned(),
        in_iface: row.in_iface,
        out_iface: row.out_iface,
        source: format!("{}{}", not(row.src.1), row.src.0),
        destination: format!("{}{}", not(row.dst.1), row.dst.0),
        extra: row.extra.trim().to_owned(),
    }
}
