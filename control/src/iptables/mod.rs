//! iptables-save text: the rule language. Text goes through [`lexer`] and [`parser`] to [`syntax`], through [`assemble`]
//! and [`lower`] to the dataplane's `rules::model`, and back to text through [`printer`]. The judge of every rule here is
//! iptables 1.8.9 (nft): what it refuses is an error, what it accepts and we do not support yet is "unsupported", never
//! ignored.
//!
//! Runs on the control thread and in tools. Pure: no file is read here. Invariant: a [`Loaded`] with a ruleset has no
//! diagnostic worse than a warning.

use dataplane::packet::Family;
use dataplane::rules::model::{Ruleset, Table};

pub mod assemble;
pub mod diagnostics;
pub mod edit;
mod hooks;
pub mod lexer;
pub mod lower;
pub mod names;
pub mod options;
pub mod parser;
pub mod printer;
pub mod syntax;
mod walks;

#[cfg(test)]
mod tests;

use diagnostics::{Diagnostic, Severity, Span};
use names::{BuiltinServices, Services};
use syntax::File;

/// What became of a rules file.
#[derive(Debug)]
pub struct Loaded {
    /// The rules, if nothing is wrong and everything is supported.
    pub ruleset: Option<Ruleset>,
    /// The tables as far as they could be read; positions are those of `ruleset`.
    pub syntax: Option<File>,
    /// Everything found, in file order.
    pub diagnostics: Vec<Diagnostic>,
}

impl Loaded {
    /// The worst severity found.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.diagnostics.iter().map(|diagnostic| diagnostic.severity).max()
    }
}

/// Reads the rules of one family, with the built-in service names. `file_name` is what they are called by.
#[must_use]
pub fn load(text: impl AsRef<[u8]>, file_name: &str, family: Family) -> Loaded {
    load_with(text.as_ref(), file_name, family, &BuiltinServices)
}

/// Reads the rules of one family; service names come from `services`.
#[must_use]
pub fn load_with(text: &[u8], file_name: &str, family: Family, services: &dyn Services) -> Loaded {
    let parser::Parsed { tables, mut diagnostics } = parser::parse(text, family, services);
    let tables = last_of_each(tables, &mut diagnostics);
    if tables.first().is_none_or(|table| table.kind != Table::Filter)
        && !diagnostics.iter().any(|diagnostic| diagnostic.severity >= Severity::Unsupported)
    {
        let message = format!("{file_name} has no *filter table");
        diagnostics.push(
            Diagnostic::unsupported(Span::default(), message)
                .hint("iptables-restore would leave the rules as they are; to accept everything say so: `*filter`, `COMMIT`"),
        );
    }
    let mut syntax = (!tables.is_empty()).then(|| assemble::assemble(tables, family, &mut diagnostics));
    if let Some(file) = &mut syntax {
        file.name = file_name.into();
    }
    diagnostics
        .sort_by_key(|diagnostic| (diagnostic.span.line == 0, diagnostic.span.line, diagnostic.span.start));
    let mut loaded = Loaded { ruleset: None, syntax, diagnostics };
    if loaded.worst().is_none_or(|worst| worst < Severity::Unsupported) {
        loaded.ruleset = loaded.syntax.as_ref().and_then(lower::lower);
    }
    loaded
}

/// Of several tables of one name the last, `filter` first.
fn last_of_each(tables: Vec<syntax::Table>, diagnostics: &mut Vec<Diagnostic>) -> Vec<syntax::Table> {
    let mut last: Vec<syntax::Table> = Vec::new();
    for table in tables {
        if let Some(before) = last.iter_mut().find(|before| before.kind == table.kind) {
            let message = format!("another *{} table; it replaces the one before", table.kind.name());
            let warning = Diagnostic::warning(table.span, message);
            diagnostics.push(warning.hint("as in iptables-restore, only the last one counts"));
            *before = table;
        } else {
            last.push(table);
        }
    }
    last.sort_by_key(|table| table.kind != Table::Filter);
    last
}
