//! `-m helper`: connections that another one's helper announced.

use std::fmt::Write as _;

use dataplane::rules::conn::ConnMatch;
use dataplane::rules::model::Match;

use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec, first};
use crate::iptables::diagnostics::{Diagnostic, Span};
use crate::iptables::printer::quote;

/// Longest name the kernel's match keeps.
const NAME_BYTES_MAX: usize = 29;

/// `-m helper`.
pub static HELPER: Extension = Extension {
    kind: Kind::Match,
    names: &["helper"],
    family: None,
    protocol: None,
    repeatable: true,
    options: &[OptionSpec { name: "helper", id: 1, slot: 1, args: 1, invertible: true }],
    new: |_| Box::new(HelperMatch::default()),
};

#[derive(Debug, Default)]
struct HelperMatch {
    name: Option<String>,
    invert: bool,
}

impl HelperMatch {
    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }
}

impl Instance for HelperMatch {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        let word = first(given)?;
        if word.text.len() > NAME_BYTES_MAX {
            let message =
                format!("this name has {} bytes, the kernel keeps {NAME_BYTES_MAX}", word.text.len());
            return Err(Diagnostic::unsupported(word.span, message).hint("no helper has such a name"));
        }
        self.name = Some(word.text.clone());
        self.invert = given.invert;
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        self.name.as_ref().map(|_| ()).ok_or_else(|| {
            Diagnostic::error(span, "`-m helper` without a helper").hint("add `--helper NAME`")
        })
    }

    fn print(&self, out: &mut String) {
        let bang = if self.invert { " !" } else { "" };
        let _ = write!(out, " -m helper{bang} --helper ");
        quote(self.name(), out);
    }

    fn list(&self, out: &mut String) {
        let bang = if self.invert { "! " } else { "" };
        let _ = write!(out, " helper match {bang}\"{}\"", self.name());
    }

    fn lower(&self) -> Lowered {
        Lowered::Matches(vec![Match::Conn(ConnMatch::Helper {
            name: self.name().into(),
            invert: self.invert,
        })])
    }
}
