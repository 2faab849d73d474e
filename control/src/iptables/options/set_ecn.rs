//! `-j ECN`, IPv4 only: explicit congestion notification, in the IP header or in TCP's.

use std::fmt::Write as _;

use dataplane::packet::{Family, proto};
use dataplane::rules::alter::Alter;
use dataplane::rules::conn::Effect;
use dataplane::rules::model::{Table, Target};

use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec, first, number};
use crate::iptables::diagnostics::{Diagnostic, Span};

/// `-j ECN`.
pub static ECN: Extension = Extension {
    kind: Kind::Target,
    names: &["ECN"],
    family: Some(Family::V4),
    protocol: None,
    repeatable: false,
    options: OPTIONS,
    new: |_| Box::new(SetEcn::default()),
};

const REMOVE: u8 = 1;
const CWR: u8 = 2;
const ECE: u8 = 3;
const ECT: u8 = 4;

const OPTIONS: &[OptionSpec] = &[
    OptionSpec { name: "ecn-tcp-remove", id: REMOVE, slot: 1, args: 0, invertible: false },
    OptionSpec { name: "ecn-tcp-cwr", id: CWR, slot: 2, args: 1, invertible: false },
    OptionSpec { name: "ecn-tcp-ece", id: ECE, slot: 3, args: 1, invertible: false },
    OptionSpec { name: "ecn-ip-ect", id: ECT, slot: 4, args: 1, invertible: false },
];

#[derive(Debug, Default)]
struct SetEcn {
    remove: Option<Span>,
    cwr: Option<bool>,
    ece: Option<bool>,
    ect: Option<u8>,
}

impl SetEcn {
    /// Whether it is what `--ecn-tcp-remove` alone comes to.
    fn is_removal(&self) -> bool {
        (self.ece, self.cwr, self.ect) == (Some(false), Some(false), None)
    }
}

impl Instance for SetEcn {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        if given.id == REMOVE {
            self.remove = Some(given.span);
            return Ok(());
        }
        let word = first(given)?;
        let max = if given.id == ECT { 3 } else { 1 };
        let value = number(&word.text, max).and_then(|value| u8::try_from(value).ok()).ok_or_else(|| {
            Diagnostic::error(word.span, format!("`{}` is no number from 0 to {max}", word.text))
        })?;
        match given.id {
            CWR => self.cwr = Some(value == 1),
            ECE => self.ece = Some(value == 1),
            _ => self.ect = Some(value),
        }
        Ok(())
    }

    fn finish(&mut self, facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        if let Some(place) = self.remove {
            if self.cwr.is_some() || self.ece.is_some() {
                let message = "`--ecn-tcp-remove` does not go with `--ecn-tcp-cwr` or `--ecn-tcp-ece`";
                return Err(Diagnostic::error(place, message));
            }
            (self.cwr, self.ece) = (Some(false), Some(false));
        }
        let is_tcp = facts.proto.is_some_and(|asked| asked.number == proto::TCP && !asked.invert);
        match (self.cwr.or(self.ece), self.ect) {
            (None, None) => {
                Err(Diagnostic::error(span, "`-j ECN` without an operation").hint("add `--ecn-tcp-remove`"))
            }
            (Some(_), _) if !is_tcp => {
                Err(Diagnostic::error(span, "TCP's ECN flags can be changed in TCP only")
                    .hint("add `-p tcp`"))
            }
            _ => Ok(()),
        }
    }

    fn print(&self, out: &mut String) {
        out.push_str(" -j ECN");
        if self.is_removal() {
            out.push_str(" --ecn-tcp-remove");
        } else {
            for (name, flag) in [("ece", self.ece), ("cwr", self.cwr)] {
                let _ = flag.map_or(Ok(()), |flag| write!(out, " --ecn-tcp-{name} {}", u8::from(flag)));
            }
        }
        let _ = self.ect.map_or(Ok(()), |ect| write!(out, " --ecn-ip-ect {ect}"));
    }

    fn list(&self, out: &mut String) {
        out.push_str(" ECN");
        if self.is_removal() {
            out.push_str(" TCP remove");
        } else {
            for (name, flag) in [("ECE", self.ece), ("CWR", self.cwr)] {
                let _ = flag.map_or(Ok(()), |flag| write!(out, " {name}={}", u8::from(flag)));
            }
        }
        let _ = self.ect.map_or(Ok(()), |ect| write!(out, " ECT codepoint={ect}"));
    }

    fn lower(&self) -> Lowered {
        let Self { ect, ece, cwr, .. } = *self;
        Lowered::Target(Target::Effect(Effect::Alter(Alter::Ecn { ect, ece, cwr })))
    }

    fn target_name(&self) -> &'static str {
        "ECN"
    }

    fn tables(&self) -> &'static [Table] {
        &[Table::Mangle]
    }
}
