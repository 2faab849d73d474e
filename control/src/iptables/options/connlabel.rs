//! `-m connlabel`: labels of the connection.

use std::fmt::Write as _;

use dataplane::rules::conn::{ConnMatch, LABELS};
use dataplane::rules::model::Match;

use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec, first, number};
use crate::iptables::diagnostics::{Diagnostic, Span};
use crate::iptables::names::nearest;
use crate::labels::LabelNames;

const LABEL: u8 = 1;
const SET: u8 = 2;

/// `-m connlabel`.
pub static CONNLABEL: Extension = Extension {
    kind: Kind::Match,
    names: &["connlabel"],
    family: None,
    protocol: None,
    repeatable: true,
    options: &[
        OptionSpec { name: "label", id: LABEL, slot: 1, args: 1, invertible: true },
        OptionSpec { name: "set", id: SET, slot: 2, args: 0, invertible: false },
    ],
    new: |_| Box::new(ConnLabel::default()),
};

#[derive(Debug, Default)]
struct ConnLabel {
    /// Its number, and what it is called.
    label: Option<(u8, String)>,
    set: bool,
    invert: bool,
}

/// The label that an option names.
fn read(given: &Given<'_>, names: &LabelNames) -> Result<u8, Diagnostic> {
    let word = first(given)?;
    names.label(&word.text).ok_or_else(|| {
        if let Some(number) = number(&word.text, u64::MAX) {
            let (message, hint) = (
                format!("label {number} is out of range"),
                format!("labels are numbers from 0 to {}", LABELS - 1),
            );
            // Of larger ones iptables takes the low 16 bits.
            let refused =
                if number > u64::from(u16::MAX) { Diagnostic::unsupported } else { Diagnostic::error };
            return refused(word.span, message).hint(hint);
        }
        let hint = match nearest(&word.text, names.names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "labels are named in connlabel.conf (`rules.labels`); numbers do without".to_owned(),
        };
        Diagnostic::error(word.span, format!("there is no label `{}`", word.text)).hint(hint)
    })
}

impl Instance for ConnLabel {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        match given.id {
            LABEL => {
                let names = given.facts.services.labels();
                let label = read(given, names)?;
                self.label = Some((label, names.name(label)));
                self.invert = given.invert;
            }
            _ => self.set = true,
        }
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        self.label.as_ref().map(|_| ()).ok_or_else(|| {
            Diagnostic::error(span, "`-m connlabel` without a label").hint("add `--label NAME`")
        })
    }

    fn print(&self, out: &mut String) {
        let Some((_, name)) = &self.label else { return };
        let bang = if self.invert { " !" } else { "" };
        // Names need no escaping: see `LabelNames`.
        let _ = write!(out, " -m connlabel{bang} --label \"{name}\"");
        if self.set {
            out.push_str(" --set");
        }
    }

    fn list(&self, out: &mut String) {
        let Some((label, _)) = &self.label else { return };
        let bang = if self.invert { " !" } else { "" };
        let set = if self.set { " set" } else { "" };
        let _ = write!(out, " connlabel{bang} {label}{set}");
    }

    fn lower(&self) -> Lowered {
        let Self { label, set, invert } = self;
        Lowered::Matches(
            label
                .iter()
                .map(|&(label, _)| Match::Conn(ConnMatch::ConnLabel { label, set: *set, invert: *invert }))
                .collect(),
        )
    }
}
