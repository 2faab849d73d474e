//! `-m connlimit`: how many connections an address, or a network, has.

use std::fmt::Write as _;
use std::sync::Arc;

use dataplane::packet::Family;
use dataplane::rules::ConnCount;
use dataplane::rules::conn::{ConnLimit, ConnMatch};
use dataplane::rules::model::Match;

use super::basic::full_mask;
use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec, first, number};
use crate::iptables::diagnostics::{Diagnostic, Span};

const ABOVE: u8 = 1;
const UPTO: u8 = 2;
const MASK: u8 = 3;
const SADDR: u8 = 4;

/// `-m connlimit`.
pub static CONNLIMIT: Extension = Extension {
    kind: Kind::Match,
    names: &["connlimit"],
    family: None,
    protocol: None,
    repeatable: true,
    options: &[
        OptionSpec { name: "connlimit-upto", id: UPTO, slot: 1, args: 1, invertible: true },
        OptionSpec { name: "connlimit-above", id: ABOVE, slot: 1, args: 1, invertible: true },
        OptionSpec { name: "connlimit-mask", id: MASK, slot: 2, args: 1, invertible: false },
        OptionSpec { name: "connlimit-saddr", id: SADDR, slot: 3, args: 0, invertible: false },
        OptionSpec { name: "connlimit-daddr", id: 5, slot: 3, args: 0, invertible: false },
    ],
    new: |family| {
        Box::new(Asked {
            limit: None,
            prefix: width(family),
            by_dst: false,
            family,
            count: Arc::new(ConnCount::default()),
        })
    },
};

const fn width(family: Family) -> u32 {
    match family {
        Family::V4 => 32,
        Family::V6 => 128,
    }
}

#[derive(Debug)]
struct Asked {
    /// The number, and whether up to it rather than above it.
    limit: Option<(u32, bool)>,
    prefix: u32,
    by_dst: bool,
    family: Family,
    /// One for all rules a list of addresses becomes.
    count: Arc<ConnCount>,
}

impl Asked {
    fn number(given: &Given<'_>, max: u32) -> Result<u32, Diagnostic> {
        let word = first(given)?;
        let value = number(&word.text, u64::from(max)).and_then(|value| u32::try_from(value).ok());
        value.ok_or_else(|| {
            Diagnostic::error(word.span, format!("`{}` is not a number from 0 to {max}", word.text))
        })
    }
}

impl Instance for Asked {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        match given.id {
            ABOVE | UPTO => {
                let upto = (given.id == UPTO) != given.invert;
                self.limit = Some((Self::number(given, u32::MAX)?, upto));
            }
            MASK => {
                let prefix = Self::number(given, width(Family::V6))?;
                if prefix > width(self.family) {
                    let message = format!("a prefix of {prefix} bits is longer than an address");
                    return Err(Diagnostic::unsupported(given.span, message));
                }
                self.prefix = prefix;
            }
            SADDR => self.by_dst = false,
            _ => self.by_dst = true,
        }
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        self.limit.map(|_| ()).ok_or_else(|| {
            Diagnostic::error(span, "`-m connlimit` without a limit")
                .hint("add `--connlimit-above NUMBER` or `--connlimit-upto NUMBER`")
        })
    }

    fn print(&self, out: &mut String) {
        let (limit, upto) = self.limit.unwrap_or_default();
        let _ = write!(
            out,
            " -m connlimit --connlimit-{} {limit} --connlimit-mask {} --connlimit-{}addr",
            if upto { "upto" } else { "above" },
            self.prefix,
            if self.by_dst { 'd' } else { 's' }
        );
    }

    fn list(&self, out: &mut String) {
        let (limit, upto) = self.limit.unwrap_or_default();
        let side = if self.by_dst { "dst" } else { "src" };
        let _ = write!(out, " #conn {side}/{} {} {limit}", self.prefix, if upto { "<=" } else { ">" });
    }

    fn lower(&self) -> Lowered {
        let (limit, upto) = self.limit.unwrap_or_default();
        let full = full_mask(self.family);
        let host_bits = full.checked_shr(self.prefix).unwrap_or(0) & (full >> self.prefix.min(127));
        let mask = if self.prefix == width(self.family) { full } else { full & !host_bits };
        Lowered::Matches(vec![Match::Conn(ConnMatch::ConnLimit(ConnLimit {
            limit,
            upto,
            mask,
            by_dst: self.by_dst,
            count: Arc::clone(&self.count),
        }))])
    }
}
