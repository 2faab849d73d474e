//! `-m ttl` and `-m hl`: how many hops a packet has left.

use std::fmt::Write as _;

use dataplane::packet::Family;
use dataplane::rules::header::{HeaderMatch, Hops};
use dataplane::rules::model::Match;

use super::values::byte;
use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec};
use crate::iptables::diagnostics::{Diagnostic, Span};

const EQ: u8 = 1;
const LT: u8 = 2;
const GT: u8 = 3;

const fn option(name: &'static str, id: u8) -> OptionSpec {
    OptionSpec { name, id, slot: 1, args: 1, invertible: id == EQ }
}

/// `-m ttl`.
pub static TTL: Extension = Extension {
    kind: Kind::Match,
    names: &["ttl"],
    family: Some(Family::V4),
    protocol: None,
    repeatable: true,
    options: &[option("ttl-eq", EQ), option("ttl", EQ), option("ttl-lt", LT), option("ttl-gt", GT)],
    new: |family| Box::new(HopsMatch { family, hops: None }),
};

/// `-m hl`.
pub static HL: Extension = Extension {
    kind: Kind::Match,
    names: &["hl"],
    family: Some(Family::V6),
    protocol: None,
    repeatable: true,
    options: &[option("hl-eq", EQ), option("hl", EQ), option("hl-lt", LT), option("hl-gt", GT)],
    new: |family| Box::new(HopsMatch { family, hops: None }),
};

#[derive(Debug)]
struct HopsMatch {
    family: Family,
    hops: Option<Hops>,
}

impl HopsMatch {
    fn module(&self) -> &'static str {
        if self.family == Family::V4 { "ttl" } else { "hl" }
    }

    fn hops(&self) -> Hops {
        self.hops.unwrap_or(Hops::Gt(u8::MAX))
    }
}

impl Instance for HopsMatch {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        let value = byte(given)?;
        self.hops = Some(match (given.id, given.invert) {
            (LT, _) => Hops::Lt(value),
            (GT, _) => Hops::Gt(value),
            (_, true) => Hops::Ne(value),
            _ => Hops::Eq(value),
        });
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        let module = self.module();
        self.hops.map(|_| ()).ok_or_else(|| {
            Diagnostic::error(span, format!("`-m {module}` without a number"))
                .hint(format!("add `--{module}-eq`, `--{module}-lt` or `--{module}-gt`"))
        })
    }

    fn print(&self, out: &mut String) {
        let module = self.module();
        let _ = write!(out, " -m {module}");
        let _ = match self.hops() {
            Hops::Eq(value) => write!(out, " --{module}-eq {value}"),
            Hops::Ne(value) => write!(out, " ! --{module}-eq {value}"),
            Hops::Lt(value) => write!(out, " --{module}-lt {value}"),
            Hops::Gt(value) => write!(out, " --{module}-gt {value}"),
        };
    }

    fn list(&self, out: &mut String) {
        let name = if self.family == Family::V4 { "TTL" } else { "HL" };
        let (sign, value) = match self.hops() {
            Hops::Eq(value) => ("==", value),
            Hops::Ne(value) => ("!=", value),
            Hops::Lt(value) => ("<", value),
            Hops::Gt(value) => (">", value),
        };
        let _ = write!(out, " {name} match {name} {sign} {value}");
    }

    fn lower(&self) -> Lowered {
        Lowered::Matches(vec![Match::Header(HeaderMatch::Hops(self.hops()))])
    }
}
