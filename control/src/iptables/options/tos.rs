//! `-m tos` and `-m dscp`: bits of the TOS or traffic class byte.

use std::fmt::Write as _;

use dataplane::rules::header::HeaderMatch;
use dataplane::rules::model::Match;

use super::values::{bang, mark, value};
use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec, first, number};
use crate::iptables::diagnostics::{Diagnostic, Span};
use crate::iptables::lexer::Word;
use crate::iptables::names::nearest;

/// `-m tos`.
pub static TOS: Extension = Extension {
    kind: Kind::Match,
    names: &["tos"],
    family: None,
    protocol: None,
    repeatable: true,
    options: &[OptionSpec { name: "tos", id: 1, slot: 1, args: 1, invertible: true }],
    new: |_| Box::new(Tos { given: None }),
};

/// `-m dscp`.
pub static DSCP: Extension = Extension {
    kind: Kind::Match,
    names: &["dscp"],
    family: None,
    protocol: None,
    repeatable: true,
    options: &[
        OptionSpec { name: "dscp", id: DSCP_VALUE, slot: 1, args: 1, invertible: true },
        OptionSpec { name: "dscp-class", id: DSCP_CLASS, slot: 1, args: 1, invertible: true },
    ],
    new: |_| Box::new(Dscp { given: None }),
};

const DSCP_VALUE: u8 = 1;
const DSCP_CLASS: u8 = 2;

/// Names for TOS values, RFC 1349 section 4.
const SYMBOLS: [(&str, u8); 5] = [
    ("Minimize-Delay", 0x10),
    ("Maximize-Throughput", 0x08),
    ("Maximize-Reliability", 0x04),
    ("Minimize-Cost", 0x02),
    ("Normal-Service", 0x00),
];

/// Mask that goes with a name.
const SYMBOL_MASK: u8 = 0x3f;

/// Reads `VALUE[/MASK]` or a name.
///
/// # Errors
/// Neither of them.
pub(super) fn masked(word: &Word) -> Result<(u8, u8), Diagnostic> {
    let text = word.text.as_str();
    let symbol = SYMBOLS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    if let Some(&(_, value)) = symbol {
        return Ok((value, SYMBOL_MASK));
    }
    let (value, mask) = text.split_once('/').map_or((text, None), |(value, mask)| (value, Some(mask)));
    let byte = |text: &str| number(text, 0xff).and_then(|value| u8::try_from(value).ok());
    match (byte(value), mask.map_or(Some(0xff), byte)) {
        (Some(value), Some(mask)) => Ok((value, mask)),
        _ => {
            let error = Diagnostic::error(word.span, format!("`{text}` is no TOS value"));
            Err(match nearest(text, SYMBOLS.iter().map(|(name, _)| *name)) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint("write `VALUE` or `VALUE/MASK`, both up to 255, or a name"),
            })
        }
    }
}

/// The code point of a class: `BE`, `EF`, `CS0` to `CS7`, `AF11` to `AF43`. RFC 2474, 2597, 3246.
pub(super) fn class(name: &str) -> Option<u8> {
    let digit = |byte: u8, max: u8| (b'0'..=b'0' + max).contains(&byte).then(|| byte - b'0');
    match name.to_ascii_uppercase().as_bytes() {
        b"BE" => Some(0),
        b"EF" => Some(0x2e),
        [b'C', b'S', class] => Some(digit(*class, 7)? << 3),
        [b'A', b'F', class @ b'1'..=b'4', drop @ b'1'..=b'3'] => {
            Some(digit(*class, 4)? << 3 | digit(*drop, 3)? << 1)
        }
        _ => None,
    }
}

/// Reads what `--dscp` or `--dscp-class` says.
///
/// # Errors
/// A code point above 63 or an unknown class.
pub(super) fn code_point(given: &Given<'_>, is_class: bool) -> Result<u8, Diagnostic> {
    if !is_class {
        return Ok(u8::try_from(value(given, 0, 0x3f)?).unwrap_or(0));
    }
    let word = first(given)?;
    class(&word.text).ok_or_else(|| {
        Diagnostic::error(word.span, format!("unknown DSCP class `{}`", word.text))
            .hint("classes are BE, EF, CS0 to CS7 and AF11 to AF43")
    })
}

#[derive(Debug)]
struct Tos {
    given: Option<(u8, u8, bool)>,
}

impl Instance for Tos {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        let (value, mask) = masked(first(given)?)?;
        self.given = Some((value, mask, given.invert));
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        missing(self.given.is_some(), span, "tos", "`--tos VALUE[/MASK]`")
    }

    fn print(&self, out: &mut String) {
        let (value, mask, invert) = self.given.unwrap_or_default();
        let _ = write!(out, " -m tos{} --tos 0x{value:02x}/0x{mask:02x}", bang(invert));
    }

    fn list(&self, out: &mut String) {
        let (value, mask, invert) = self.given.unwrap_or_default();
        let _ = write!(out, " tos match{}0x{value:02x}/0x{mask:02x}", mark(invert));
    }

    fn lower(&self) -> Lowered {
        let (value, mask, invert) = self.given.unwrap_or_default();
        Lowered::Matches(vec![Match::Header(HeaderMatch::Tos { value, mask, invert })])
    }
}

#[derive(Debug)]
struct Dscp {
    given: Option<(u8, bool)>,
}

impl Instance for Dscp {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        self.given = Some((code_point(given, given.id == DSCP_CLASS)?, given.invert));
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        missing(self.given.is_some(), span, "dscp", "`--dscp VALUE` or `--dscp-class CLASS`")
    }

    fn print(&self, out: &mut String) {
        let (value, invert) = self.given.unwrap_or_default();
        let _ = write!(out, " -m dscp{} --dscp 0x{value:02x}", bang(invert));
    }

    fn list(&self, out: &mut String) {
        let (value, invert) = self.given.unwrap_or_default();
        let _ = write!(out, " DSCP match {}0x{value:02x}", mark(invert));
    }

    fn lower(&self) -> Lowered {
        let (value, invert) = self.given.unwrap_or_default();
        Lowered::Matches(vec![Match::Header(HeaderMatch::Tos { value: value << 2, mask: 0xfc, invert })])
    }
}

/// An error if a match lacks what it is about.
pub(super) fn missing(is_there: bool, span: Span, module: &str, what: &str) -> Result<(), Diagnostic> {
    if is_there {
        return Ok(());
    }
    Err(Diagnostic::error(span, format!("`-m {module}` without an option")).hint(format!("add {what}")))
}
