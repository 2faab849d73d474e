//! `-j TOS` and `-j DSCP`: the TOS byte, or IPv6's traffic class.

use std::fmt::Write as _;

use dataplane::rules::alter::Alter;
use dataplane::rules::conn::Effect;
use dataplane::rules::model::{Table, Target};

use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec, first, number};
use crate::iptables::diagnostics::{Diagnostic, Span};
use crate::iptables::names::nearest;

/// `-j TOS`.
pub static TOS: Extension = Extension {
    kind: Kind::Target,
    names: &["TOS"],
    family: None,
    protocol: None,
    repeatable: false,
    options: TOS_OPTIONS,
    new: |_| Box::new(SetTos { change: None }),
};

/// `-j DSCP`.
pub static DSCP: Extension = Extension {
    kind: Kind::Target,
    names: &["DSCP"],
    family: None,
    protocol: None,
    repeatable: false,
    options: DSCP_OPTIONS,
    new: |_| Box::new(SetDscp { dscp: None }),
};

const SET: u8 = 1;
const AND: u8 = 2;
const OR: u8 = 3;
const XOR: u8 = 4;
const CLASS: u8 = 5;

const fn option(name: &'static str, id: u8) -> OptionSpec {
    OptionSpec { name, id, slot: 1, args: 1, invertible: false }
}

const TOS_OPTIONS: &[OptionSpec] =
    &[option("set-tos", SET), option("and-tos", AND), option("or-tos", OR), option("xor-tos", XOR)];
const DSCP_OPTIONS: &[OptionSpec] = &[option("set-dscp", SET), option("set-dscp-class", CLASS)];

/// Names of TOS values (RFC 1349), which leave ECN's bits alone.
const TOS_NAMES: [(&str, u8); 5] = [
    ("Minimize-Delay", 0x10),
    ("Maximize-Throughput", 0x08),
    ("Maximize-Reliability", 0x04),
    ("Minimize-Cost", 0x02),
    ("Normal-Service", 0x00),
];
const TOS_NAMES_MASK: u8 = 0x3f;

/// Names of DSCP values (RFC 2474, RFC 2597, RFC 3246).
const CLASSES: [(&str, u8); 22] = [
    ("CS0", 0),
    ("CS1", 8),
    ("CS2", 16),
    ("CS3", 24),
    ("CS4", 32),
    ("CS5", 40),
    ("CS6", 48),
    ("CS7", 56),
    ("BE", 0),
    ("AF11", 10),
    ("AF12", 12),
    ("AF13", 14),
    ("AF21", 18),
    ("AF22", 20),
    ("AF23", 22),
    ("AF31", 26),
    ("AF32", 28),
    ("AF33", 30),
    ("AF41", 34),
    ("AF42", 36),
    ("AF43", 38),
    ("EF", 46),
];

fn named(names: &'static [(&'static str, u8)], text: &str) -> Option<u8> {
    names.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, value)| *value)
}

fn byte(text: &str) -> Option<u8> {
    number(text, u64::from(u8::MAX)).and_then(|value| u8::try_from(value).ok())
}

/// Bits cleared, and those flipped then.
#[derive(Clone, Copy, Debug)]
struct Change {
    flip: u8,
    clear: u8,
}

#[derive(Debug)]
struct SetTos {
    change: Option<Change>,
}

impl SetTos {
    fn change(&self) -> Change {
        self.change.unwrap_or(Change { flip: 0, clear: 0 })
    }
}

/// Reads `VALUE[/MASK]` or a name.
fn value_and_mask(text: &str) -> Option<Change> {
    let Some((value, mask)) = text.split_once('/') else {
        let named = named(&TOS_NAMES, text).map(|flip| Change { flip, clear: TOS_NAMES_MASK });
        return named.or_else(|| byte(text).map(|flip| Change { flip, clear: 0xff }));
    };
    Some(Change { flip: byte(value)?, clear: byte(mask)? })
}

impl Instance for SetTos {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        let word = first(given)?;
        let change = match given.id {
            SET => value_and_mask(&word.text),
            AND => byte(&word.text).map(|bits| Change { flip: 0, clear: !bits }),
            OR => byte(&word.text).map(|bits| Change { flip: bits, clear: bits }),
            _ => byte(&word.text).map(|bits| Change { flip: bits, clear: 0 }),
        };
        self.change = Some(change.ok_or_else(|| {
            let names = TOS_NAMES.iter().map(|(name, _)| *name);
            let hint = match nearest(&word.text, names) {
                Some(near) if given.id == SET => format!("did you mean `{near}`?"),
                _ => "a TOS value is a number from 0 to 255, behind `--set-tos` also `VALUE/MASK` or a name"
                    .into(),
            };
            Diagnostic::error(word.span, format!("`{}` is no TOS value", word.text)).hint(hint)
        })?);
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        self.change.map(|_| ()).ok_or_else(|| {
            Diagnostic::error(span, "`-j TOS` without a value")
                .hint("add `--set-tos`, `--and-tos`, `--or-tos` or `--xor-tos`")
        })
    }

    fn print(&self, out: &mut String) {
        let Change { flip, clear } = self.change();
        let _ = write!(out, " -j TOS --set-tos {flip:#04x}/{clear:#04x}");
    }

    fn list(&self, out: &mut String) {
        let Change { flip, clear } = self.change();
        let _ = write!(out, " TOS set {flip:#04x}/{clear:#04x}");
    }

    fn lower(&self) -> Lowered {
        let Change { flip, clear } = self.change();
        Lowered::Target(Target::Effect(Effect::Alter(Alter::Tos { clear, flip })))
    }

    fn target_name(&self) -> &'static str {
        "TOS"
    }

    fn tables(&self) -> &'static [Table] {
        &[Table::Mangle]
    }
}

#[derive(Debug)]
struct SetDscp {
    dscp: Option<u8>,
}

impl Instance for SetDscp {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        const DSCP_MAX: u64 = 63;
        let word = first(given)?;
        let bad = |hint: String| {
            Diagnostic::error(word.span, format!("`{}` is no DSCP value", word.text)).hint(hint)
        };
        self.dscp = Some(if given.id == CLASS {
            let names = CLASSES.iter().map(|(name, _)| *name);
            named(&CLASSES, &word.text).ok_or_else(|| {
                bad(nearest(&word.text.to_ascii_uppercase(), names).map_or_else(
                    || "classes are BE, EF, AF11 to AF43 and CS0 to CS7".to_owned(),
                    |near| format!("did you mean `{near}`?"),
                ))
            })?
        } else {
            number(&word.text, DSCP_MAX)
                .and_then(|value| u8::try_from(value).ok())
                .ok_or_else(|| bad("it is a number from 0 to 63; names go with `--set-dscp-class`".into()))?
        });
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        self.dscp.map(|_| ()).ok_or_else(|| {
            Diagnostic::error(span, "`-j DSCP` without a value")
                .hint("add `--set-dscp` or `--set-dscp-class`")
        })
    }

    fn print(&self, out: &mut String) {
        let _ = write!(out, " -j DSCP --set-dscp {:#04x}", self.dscp.unwrap_or(0));
    }

    fn list(&self, out: &mut String) {
        let _ = write!(out, " DSCP set {:#04x}", self.dscp.unwrap_or(0));
    }

    fn lower(&self) -> Lowered {
        // All bits but ECN's.
        let alter = Alter::Tos { clear: 0xfc, flip: self.dscp.unwrap_or(0) << 2 };
        Lowered::Target(Target::Effect(Effect::Alter(alter)))
    }

    fn target_name(&self) -> &'static str {
        "DSCP"
    }

    fn tables(&self) -> &'static [Table] {
        &[Table::Mangle]
    }
}
