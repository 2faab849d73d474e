//! `-m string`: bytes that occur in a packet.

use std::fmt::Write as _;

use dataplane::rules::header::{HeaderMatch, TEXT_PATTERN_MAX, Text};
use dataplane::rules::model::Match;

use super::tos::missing;
use super::values::{bang, value};
use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec, first};
use crate::iptables::diagnostics::{Diagnostic, Span};
use crate::iptables::lexer::Word;

const FROM: u8 = 1;
const TO: u8 = 2;
const ALGO: u8 = 3;
const ICASE: u8 = 4;
const STRING: u8 = 5;
const HEX_STRING: u8 = 6;

/// What `--to` is if not given.
const TO_DEFAULT: u16 = u16::MAX;

const fn option(name: &'static str, id: u8, slot: u8, args: u8) -> OptionSpec {
    OptionSpec { name, id, slot, args, invertible: matches!(id, STRING | HEX_STRING) }
}

/// `-m string`.
pub static STRING_MATCH: Extension = Extension {
    kind: Kind::Match,
    names: &["string"],
    family: None,
    protocol: None,
    repeatable: true,
    options: &[
        option("from", FROM, 1, 1),
        option("to", TO, 2, 1),
        option("algo", ALGO, 3, 1),
        option("icase", ICASE, 4, 0),
        option("string", STRING, 5, 1),
        option("hex-string", HEX_STRING, 5, 1),
    ],
    new: |_| Box::new(StringMatch { to: TO_DEFAULT, ..StringMatch::default() }),
};

#[derive(Debug, Default)]
struct StringMatch {
    pattern: Vec<u8>,
    invert: bool,
    algo: Option<&'static str>,
    from: u16,
    to: u16,
    icase: bool,
}

/// Reads text with bytes in hexadecimal between bars: `a|0d 0a|b`. A backslash takes the next character as it is, and so
/// does a closing bar, for which iptables looks at what follows it no more.
fn hex_string(word: &Word) -> Result<Vec<u8>, Diagnostic> {
    let error = |message: &str| {
        Err(Diagnostic::error(word.span, message)
            .hint("write bytes in hexadecimal between bars: `a|0d 0a|b`"))
    };
    let text = word.text.as_bytes();
    let mut pattern = Vec::new();
    let (mut at, mut in_hex) = (0, false);
    if text.is_empty() {
        return error("an empty string occurs everywhere");
    }
    while at < text.len() {
        let mut is_literal = false;
        match text[at] {
            b'\\' if in_hex => return error("no backslash between bars"),
            b'\\' => is_literal = true,
            b'|' => {
                in_hex = !in_hex;
                while in_hex && text.get(at + 1) == Some(&b' ') {
                    at += 1;
                }
                at += 1;
                if at >= text.len() {
                    break;
                }
            }
            _ => {}
        }
        if is_literal {
            let Some(&byte) = text.get(at + 1) else { return error("nothing follows this backslash") };
            pattern.push(byte);
            at += 2;
        } else if in_hex {
            let digits = text.get(at..at + 2).and_then(|digits| std::str::from_utf8(digits).ok());
            let byte = digits
                .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
                .and_then(|digits| u8::from_str_radix(digits, 16).ok());
            let (Some(byte), Some(&next)) = (byte, text.get(at + 2)) else {
                return error("pairs of hexadecimal digits must stand between two bars");
            };
            pattern.push(byte);
            at += if next == b' ' { 3 } else { 2 };
        } else {
            pattern.push(text[at]);
            at += 1;
        }
    }
    Ok(pattern)
}

impl StringMatch {
    /// The pattern in quotes, and whether it is in hexadecimal: what is not printable cannot be written otherwise.
    fn text(&self) -> (String, bool) {
        let is_hex = !self.pattern.iter().all(|byte| (0x20..0x7f).contains(byte))
            || self.pattern.last() == Some(&b'\\');
        let mut out = String::from("\"");
        if is_hex {
            out.push('|');
            self.pattern.iter().for_each(|byte| out.push_str(&format!("{byte:02x}")));
            out.push('|');
        } else {
            for &byte in &self.pattern {
                if matches!(byte, b'"' | b'\\') {
                    out.push('\\');
                }
                out.push(char::from(byte));
            }
        }
        out.push('"');
        (out, is_hex)
    }

    fn search(&self) -> Option<Text> {
        Text::new(&self.pattern, (self.from, self.to), self.icase, self.invert)
    }
}

impl Instance for StringMatch {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        let offset = || Ok(u16::try_from(value(given, 0, u64::from(u16::MAX))?).unwrap_or(u16::MAX));
        match given.id {
            FROM => self.from = offset()?,
            TO => self.to = offset()?,
            ICASE => self.icase = true,
            ALGO => {
                let word = first(given)?;
                let known = ["bm", "kmp"].into_iter().find(|algo| *algo == word.text);
                self.algo = Some(known.ok_or_else(|| {
                    match word.text.as_str() {
                        "fsm" => Diagnostic::unsupported(
                            word.span,
                            "algorithm `fsm`: patterns for it are not text",
                        )
                        .hint("use `bm` or `kmp`"),
                        other => Diagnostic::error(word.span, format!("no algorithm `{other}`"))
                            .hint("use `bm` or `kmp`"),
                    }
                })?);
            }
            id => {
                let word = first(given)?;
                self.pattern = if id == STRING { word.text.clone().into_bytes() } else { hex_string(word)? };
                self.invert = given.invert;
                if self.pattern.is_empty() || self.pattern.len() > TEXT_PATTERN_MAX {
                    let message = format!(
                        "a string has from 1 to {TEXT_PATTERN_MAX} bytes, not {}",
                        self.pattern.len()
                    );
                    return Err(Diagnostic::error(word.span, message));
                }
            }
        }
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        missing(!self.pattern.is_empty(), span, "string", "`--string TEXT` or `--hex-string TEXT`")?;
        if self.algo.is_none() {
            return Err(Diagnostic::error(span, "`-m string` without `--algo`").hint("add `--algo bm`"));
        }
        if self.from > self.to {
            return Err(Diagnostic::error(
                span,
                format!("`--from {}` is behind `--to {}`", self.from, self.to),
            ));
        }
        Ok(())
    }

    fn print(&self, out: &mut String) {
        let (text, is_hex) = self.text();
        let option = if is_hex { "hex-string" } else { "string" };
        let algo = self.algo.unwrap_or_default();
        let _ = write!(out, " -m string{} --{option} {text} --algo {algo}", bang(self.invert));
        if self.from != 0 {
            let _ = write!(out, " --from {}", self.from);
        }
        if self.to != TO_DEFAULT {
            let _ = write!(out, " --to {}", self.to);
        }
        if self.icase {
            out.push_str(" --icase");
        }
    }

    fn list(&self, out: &mut String) {
        let algo = self.algo.unwrap_or_default();
        let _ = write!(
            out,
            " STRING match {} {} ALGO name {algo}",
            if self.invert { "!" } else { "" },
            self.text().0
        );
        if self.from != 0 {
            let _ = write!(out, " FROM {}", self.from);
        }
        if self.to != TO_DEFAULT {
            let _ = write!(out, " TO {}", self.to);
        }
        if self.icase {
            out.push_str(" ICASE");
        }
    }

    fn lower(&self) -> Lowered {
        let search = self.search().map(|text| Match::Header(HeaderMatch::Text(Box::new(text))));
        Lowered::Matches(search.into_iter().collect())
    }
}
