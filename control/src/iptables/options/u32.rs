//! `-m u32`: numbers from anywhere in the packet. Its language is read as iptables reads it, blanks and all, and printed in
//! the one form that iptables-save has for it.

use std::fmt::Write as _;

use dataplane::rules::header::{HeaderMatch, Operation, U32, U32_LIST_MAX, U32Test};
use dataplane::rules::model::Match;

use super::tos::missing;
use super::values::bang;
use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec, first, part_of};
use crate::iptables::diagnostics::{Diagnostic, Span};
use crate::iptables::lexer::Word;

/// What an operator makes of the number behind it.
type Make = fn(u32) -> Operation;

/// Operators as they are written.
const OPERATORS: [(&str, Make); 4] =
    [("&", Operation::And), ("<<", Operation::Left), (">>", Operation::Right), ("@", Operation::At)];

/// Greatest shift the kernel takes.
const SHIFT_MAX: u32 = 31;

/// `-m u32`.
pub static U32_MATCH: Extension = Extension {
    kind: Kind::Match,
    names: &["u32"],
    family: None,
    protocol: None,
    repeatable: true,
    options: &[OptionSpec { name: "u32", id: 1, slot: 1, args: 1, invertible: true }],
    new: |_| Box::new(U32Match { program: U32::default() }),
};

#[derive(Debug)]
struct U32Match {
    program: U32,
}

/// Reads a program from left to right.
struct Reader<'a> {
    word: &'a Word,
    at: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        self.word.text.get(self.at..).unwrap_or_default()
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.at +=
            rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b').len();
    }

    /// Passes over `text` if it comes next.
    fn take(&mut self, text: &str) -> bool {
        let is_next = self.rest().starts_with(text);
        if is_next {
            self.at += text.len();
        }
        is_next
    }

    fn error(&self, message: &str) -> Diagnostic {
        let end = self.word.text.len();
        let span = part_of(self.word, self.at.min(end.saturating_sub(1)), end);
        Diagnostic::error(span, message)
            .hint("write `OFFSET[&MASK|<<BITS|>>BITS|@OFFSET]...=VALUE[:VALUE],...`")
    }

    /// The longest number in front: decimal, `0x` or with a leading zero octal.
    fn number(&mut self) -> Result<u32, Diagnostic> {
        self.skip_blanks();
        let start = self.at;
        self.take("+");
        let is_hex = |c: char| c.is_ascii_hexdigit();
        let rest = self.rest();
        let radix = match rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
            Some(digits) if digits.starts_with(is_hex) => {
                self.at += 2;
                16
            }
            _ if rest.starts_with('0') => 8,
            _ => 10,
        };
        let digits: String = self.rest().chars().take_while(|c| c.is_digit(radix)).collect();
        self.at += digits.len();
        u32::from_str_radix(&digits, radix).map_err(|_| {
            self.at = start;
            self.error("here a number up to 32 bits is expected")
        })
    }

    /// `OFFSET[OPERATION]...=`.
    fn location(&mut self) -> Result<(u32, Vec<Operation>), Diagnostic> {
        self.skip_blanks();
        if self.rest().starts_with('=') {
            return Err(self.error("a location is missing before this `=`"));
        }
        let start = self.number()?;
        let mut operations = Vec::new();
        loop {
            self.skip_blanks();
            if self.take("=") {
                return Ok((start, operations));
            }
            operations.push(self.operation()?);
            if operations.len() >= U32_LIST_MAX {
                return Err(self.error("too many operators in one location"));
            }
        }
    }

    fn operation(&mut self) -> Result<Operation, Diagnostic> {
        let found = OPERATORS.iter().find(|(sign, _)| self.take(sign));
        let Some(&(sign, make)) = found else {
            return Err(self.error("here one of `&`, `<<`, `>>`, `@` or `=` is expected"));
        };
        let at = self.at;
        let number = self.number()?;
        if ["<<", ">>"].contains(&sign) && number > SHIFT_MAX {
            self.at = at;
            return Err(self.error("a shift is at most 31 bits"));
        }
        Ok(make(number))
    }

    /// `VALUE[:VALUE][,...]` up to the end or `&&`; whether another test follows.
    fn values(&mut self) -> Result<(Vec<(u32, u32)>, bool), Diagnostic> {
        let mut values = Vec::new();
        loop {
            self.skip_blanks();
            let is_end = self.rest().is_empty();
            if is_end || self.take("&&") {
                if values.is_empty() {
                    return Err(self.error("a value is missing here"));
                }
                return Ok((values, !is_end));
            }
            if !values.is_empty() && !self.take(",") {
                return Err(self.error("here `,` or `&&` is expected"));
            }
            let low = self.number()?;
            self.skip_blanks();
            let high = if self.take(":") { self.number()? } else { low };
            values.push((low, high));
            if values.len() > U32_LIST_MAX {
                return Err(self.error("too many values"));
            }
        }
    }
}

/// Reads a program.
fn tests(word: &Word) -> Result<Vec<U32Test>, Diagnostic> {
    let mut reader = Reader { word, at: 0 };
    let mut tests = Vec::new();
    loop {
        let (start, operations) = reader.location()?;
        let (values, goes_on) = reader.values()?;
        tests.push(U32Test { start, operations, values });
        if !goes_on {
            return Ok(tests);
        }
        if tests.len() >= U32_LIST_MAX {
            return Err(reader.error("too many `&&`"));
        }
    }
}

impl U32Match {
    fn text(&self) -> String {
        let mut out = String::new();
        for (at, U32Test { start, operations, values }) in self.program.tests.iter().enumerate() {
            let _ = write!(out, "{}{start:#x}", if at > 0 { "&&" } else { "" });
            for operation in operations {
                let _ = match operation {
                    Operation::And(mask) => write!(out, "&{mask:#x}"),
                    Operation::Left(bits) => write!(out, "<<{bits:#x}"),
                    Operation::Right(bits) => write!(out, ">>{bits:#x}"),
                    Operation::At(offset) => write!(out, "@{offset:#x}"),
                };
            }
            for (at, (low, high)) in values.iter().enumerate() {
                let _ = write!(out, "{}{low:#x}", if at > 0 { "," } else { "=" });
                if low != high {
                    let _ = write!(out, ":{high:#x}");
                }
            }
        }
        out
    }
}

impl Instance for U32Match {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        self.program = U32 { tests: tests(first(given)?)?, invert: given.invert };
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        missing(!self.program.tests.is_empty(), span, "u32", "`--u32 TESTS`")
    }

    fn print(&self, out: &mut String) {
        let _ = write!(out, " -m u32{} --u32 \"{}\"", bang(self.program.invert), self.text());
    }

    fn list(&self, out: &mut String) {
        let _ = write!(out, " u32{} \"{}\"", bang(self.program.invert), self.text());
    }

    fn lower(&self) -> Lowered {
        Lowered::Matches(vec![Match::Header(HeaderMatch::U32(Box::new(self.program.clone())))])
    }
}
