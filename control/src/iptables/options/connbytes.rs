//! `-m connbytes`: what a connection has carried so far.

use std::fmt::Write as _;

use dataplane::rules::conn::{ConnBytes, ConnMatch, CountedDirection, CountedWhat};
use dataplane::rules::model::Match;

use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec, first, number};
use crate::iptables::diagnostics::{Diagnostic, Span};

const RANGE: u8 = 1;
const DIRECTION: u8 = 2;
const MODE: u8 = 3;

/// `-m connbytes`.
pub static CONNBYTES: Extension = Extension {
    kind: Kind::Match,
    names: &["connbytes"],
    family: None,
    protocol: None,
    repeatable: true,
    options: &[
        OptionSpec { name: "connbytes", id: RANGE, slot: 1, args: 1, invertible: true },
        OptionSpec { name: "connbytes-dir", id: DIRECTION, slot: 2, args: 1, invertible: false },
        OptionSpec { name: "connbytes-mode", id: MODE, slot: 3, args: 1, invertible: false },
    ],
    new: |_| Box::new(Asked::default()),
};

const DIRECTIONS: [(&str, CountedDirection); 3] = [
    ("original", CountedDirection::Orig),
    ("reply", CountedDirection::Reply),
    ("both", CountedDirection::Both),
];

const MODES: [(&str, CountedWhat); 3] =
    [("packets", CountedWhat::Packets), ("bytes", CountedWhat::Bytes), ("avgpkt", CountedWhat::Average)];

#[derive(Debug, Default)]
struct Asked {
    range: Option<(u64, u64, bool)>,
    direction: Option<CountedDirection>,
    what: Option<CountedWhat>,
}

fn name<T: PartialEq>(names: &[(&'static str, T)], value: Option<&T>) -> &'static str {
    names.iter().find(|(_, known)| Some(known) == value).map_or("", |(name, _)| name)
}

fn pick<T: Copy>(names: &[(&'static str, T)], given: &Given<'_>) -> Result<Option<T>, Diagnostic> {
    let word = first(given)?;
    let found = names.iter().find(|(name, _)| *name == word.text);
    found.map(|&(_, value)| Some(value)).ok_or_else(|| {
        let all: Vec<_> = names.iter().map(|(name, _)| *name).collect();
        Diagnostic::error(word.span, format!("bad value `{}`", word.text))
            .hint(format!("one of {}", all.join(", ")))
    })
}

fn range(given: &Given<'_>) -> Result<(u64, u64), Diagnostic> {
    let word = first(given)?;
    let bad = || {
        Diagnostic::error(word.span, format!("`{}` is no range of counts", word.text))
            .hint("write FROM, FROM:TO or :TO")
    };
    let end = |text: &str, open: u64| {
        if text.is_empty() { Ok(open) } else { number(text, u64::MAX).ok_or_else(bad) }
    };
    let (from, to) = word.text.split_once(':').unwrap_or((&word.text, ""));
    if word.text.is_empty() {
        return Err(bad());
    }
    let (from, to) = (end(from, 0)?, end(to, u64::MAX)?);
    if from > to {
        return Err(Diagnostic::error(word.span, format!("{from} is greater than {to}"))
            .hint("write the lower count first"));
    }
    Ok((from, to))
}

impl Asked {
    /// As iptables prints it: a range to 0 as if it were open.
    fn range_text(&self) -> String {
        match self.range {
            Some((from, u64::MAX | 0, _)) => from.to_string(),
            Some((from, to, _)) => format!("{from}:{to}"),
            None => String::new(),
        }
    }

    const fn bang(&self) -> &'static str {
        match self.range {
            Some((_, _, true)) => " !",
            _ => "",
        }
    }

    fn words(&self) -> (&'static str, &'static str) {
        (name(&MODES, self.what.as_ref()), name(&DIRECTIONS, self.direction.as_ref()))
    }
}

impl Instance for Asked {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        match given.id {
            RANGE => {
                let (from, to) = range(given)?;
                // iptables inverts by exchanging the ends: a range of one value stays what it is.
                self.range = Some((from, to, given.invert && from != to));
            }
            DIRECTION => self.direction = pick(&DIRECTIONS, given)?,
            _ => self.what = pick(&MODES, given)?,
        }
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        if self.range.is_some() && self.direction.is_some() && self.what.is_some() {
            return Ok(());
        }
        Err(Diagnostic::error(span, "`-m connbytes` is not complete")
            .hint("it needs `--connbytes`, `--connbytes-dir` and `--connbytes-mode`"))
    }

    fn print(&self, out: &mut String) {
        let (mode, direction) = self.words();
        let _ = write!(
            out,
            " -m connbytes{} --connbytes {} --connbytes-mode {mode} --connbytes-dir {direction}",
            self.bang(),
            self.range_text()
        );
    }

    fn list(&self, out: &mut String) {
        let (mode, direction) = self.words();
        let _ = write!(
            out,
            "{} connbytes {} connbytes mode {mode} connbytes direction {direction}",
            self.bang(),
            self.range_text()
        );
    }

    fn lower(&self) -> Lowered {
        let (from, to, invert) = self.range.unwrap_or_default();
        Lowered::Matches(vec![Match::Conn(ConnMatch::ConnBytes(ConnBytes {
            direction: self.direction.unwrap_or(CountedDirection::Both),
            what: self.what.unwrap_or(CountedWhat::Packets),
            from,
            to,
            invert,
        }))])
    }
}
