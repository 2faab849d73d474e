//! `-m quota`: so many bytes and no more.

use std::fmt::Write as _;
use std::sync::Arc;

use dataplane::rules::model::Match;
use dataplane::rules::rate::{Quota, RateMatch};

use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec, first, number};
use crate::iptables::diagnostics::{Diagnostic, Span};

/// `-m quota`.
pub static QUOTA: Extension = Extension {
    kind: Kind::Match,
    names: &["quota"],
    family: None,
    protocol: None,
    repeatable: true,
    options: &[OptionSpec { name: "quota", id: 1, slot: 1, args: 1, invertible: true }],
    new: |_| Box::new(Asked { bytes: None, invert: false }),
};

#[derive(Debug)]
struct Asked {
    bytes: Option<u64>,
    invert: bool,
}

impl Instance for Asked {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        let word = first(given)?;
        let bytes = number(&word.text, u64::MAX);
        let bad = || Diagnostic::error(word.span, format!("`{}` is not a number of bytes", word.text));
        self.bytes = Some(bytes.ok_or_else(bad)?);
        self.invert = given.invert;
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        let missing = || Diagnostic::error(span, "`-m quota` without `--quota`").hint("add `--quota BYTES`");
        self.bytes.map(|_| ()).ok_or_else(missing)
    }

    fn print(&self, out: &mut String) {
        let bang = if self.invert { " !" } else { "" };
        let _ = write!(out, " -m quota{bang} --quota {}", self.bytes.unwrap_or_default());
    }

    fn list(&self, out: &mut String) {
        let _ = write!(out, " quota: {} bytes", self.bytes.unwrap_or_default());
    }

    fn lower(&self) -> Lowered {
        let quota = Quota::new(self.bytes.unwrap_or_default(), self.invert);
        Lowered::Matches(vec![Match::Rate(RateMatch::Quota(Arc::new(quota)))])
    }
}
