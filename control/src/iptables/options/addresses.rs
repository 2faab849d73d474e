//! `-m iprange` and `-m addrtype`: addresses beyond what masks can say.

use std::fmt::Write as _;

use dataplane::packet::Family;
use dataplane::rules::header::{AddressTypes, HeaderMatch, Range};
use dataplane::rules::model::Match;

use super::basic::lone_address;
use super::tos::missing;
use super::values::{bang, mark};
use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec, first, part_of};
use crate::iptables::diagnostics::{Diagnostic, Span};
use crate::iptables::printer::address_text;

const SRC: u8 = 1;
const DST: u8 = 2;
const LIMIT_IN: u8 = 3;
const LIMIT_OUT: u8 = 4;

/// `-m iprange`.
pub static IPRANGE: Extension = Extension {
    kind: Kind::Match,
    names: &["iprange"],
    family: None,
    protocol: None,
    repeatable: true,
    options: &[
        OptionSpec { name: "src-range", id: SRC, slot: 1, args: 1, invertible: true },
        OptionSpec { name: "dst-range", id: DST, slot: 2, args: 1, invertible: true },
    ],
    new: |family| Box::new(IpRange { family, src: None, dst: None }),
};

/// `-m addrtype`.
pub static ADDRTYPE: Extension = Extension {
    kind: Kind::Match,
    names: &["addrtype"],
    family: None,
    protocol: None,
    repeatable: true,
    options: &[
        OptionSpec { name: "src-type", id: SRC, slot: 1, args: 1, invertible: true },
        OptionSpec { name: "dst-type", id: DST, slot: 2, args: 1, invertible: true },
        OptionSpec { name: "limit-iface-in", id: LIMIT_IN, slot: 3, args: 0, invertible: false },
        OptionSpec { name: "limit-iface-out", id: LIMIT_OUT, slot: 3, args: 0, invertible: false },
    ],
    new: |_| Box::new(AddressType { src: None, dst: None }),
};

#[derive(Debug)]
struct IpRange {
    family: Family,
    src: Option<Range<u128>>,
    dst: Option<Range<u128>>,
}

impl IpRange {
    fn text(&self, range: Range<u128>) -> String {
        let text = |address| address_text(address, self.family == Family::V6);
        format!("{}-{}", text(range.low), text(range.high))
    }
}

impl Instance for IpRange {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        let word = first(given)?;
        let (low, high) = word.text.split_once('-').unwrap_or((&word.text, &word.text));
        let range = Range {
            low: lone_address(word, low, self.family)?,
            high: lone_address(word, high, self.family)?,
            invert: given.invert,
        };
        *if given.id == SRC { &mut self.src } else { &mut self.dst } = Some(range);
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        missing(
            self.src.or(self.dst).is_some(),
            span,
            "iprange",
            "`--src-range LOW-HIGH` or `--dst-range LOW-HIGH`",
        )
    }

    fn print(&self, out: &mut String) {
        out.push_str(" -m iprange");
        for (range, side) in [(self.src, "src"), (self.dst, "dst")] {
            if let Some(range) = range {
                let _ = write!(out, "{} --{side}-range {}", bang(range.invert), self.text(range));
            }
        }
    }

    fn list(&self, out: &mut String) {
        for (range, side) in [(self.src, "source"), (self.dst, "destination")] {
            if let Some(range) = range {
                let _ = write!(out, " {side} IP range{} {}", bang(range.invert), self.text(range));
            }
        }
    }

    fn lower(&self) -> Lowered {
        let one = |of_dst, range| Match::Header(HeaderMatch::Address { of_dst, range });
        let src = self.src.map(|range| one(false, range));
        Lowered::Matches(src.into_iter().chain(self.dst.map(|range| one(true, range))).collect())
    }
}

/// Types of addresses in the kernel's order, which abbreviations and printing follow.
const TYPES: [&str; 12] = [
    "UNSPEC",
    "UNICAST",
    "LOCAL",
    "BROADCAST",
    "ANYCAST",
    "MULTICAST",
    "BLACKHOLE",
    "UNREACHABLE",
    "PROHIBIT",
    "THROW",
    "NAT",
    "XRESOLVE",
];

const UNSPEC: usize = 0;
const UNICAST: usize = 1;
const BROADCAST: usize = 3;
const MULTICAST: usize = 5;
const BLACKHOLE: usize = 6;
const UNREACHABLE: usize = 7;

/// Types asked for, a bit each, and whether inverted.
type Asked = Option<(u16, bool)>;

#[derive(Debug)]
struct AddressType {
    src: Asked,
    dst: Asked,
}

/// Reads a comma list of types, any of which may be abbreviated.
fn types(given: &Given<'_>) -> Result<u16, Diagnostic> {
    let word = first(given)?;
    let (mut bits, mut from) = (0, 0);
    for name in word.text.split(',') {
        let span = part_of(word, from, from + name.len());
        let is_it = |known: &&str| {
            !name.is_empty() && known.get(..name.len()).is_some_and(|head| head.eq_ignore_ascii_case(name))
        };
        let at = TYPES.iter().position(is_it).ok_or_else(|| {
            Diagnostic::error(span, format!("unknown address type `{name}`"))
                .hint("a wire can tell UNICAST, MULTICAST, BROADCAST and UNSPEC")
        })?;
        let is_six = given.facts.family == Family::V6;
        match at {
            BROADCAST | BLACKHOLE if is_six => {
                return Err(Diagnostic::error(span, format!("IPv6 has no address type {}", TYPES[at])));
            }
            at if is_six && at > UNREACHABLE => {
                return Err(Diagnostic::error(span, format!("IPv6 has no address type {}", TYPES[at])));
            }
            UNSPEC | UNICAST | BROADCAST | MULTICAST => bits |= 1 << at,
            _ => {
                return Err(Diagnostic::unsupported(
                    span,
                    format!("address type {}: it hangs on addresses and routes of the host", TYPES[at]),
                )
                .hint("a wire has neither; write the addresses themselves with `-s`, `-d` or `-m iprange`"));
            }
        }
        from += name.len() + 1;
    }
    Ok(bits)
}

fn names(bits: u16) -> String {
    let set: Vec<&str> =
        (0..).zip(TYPES).filter(|(at, _)| bits >> at & 1 != 0).map(|(_, name)| name).collect();
    set.join(",")
}

impl Instance for AddressType {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        match given.id {
            SRC => self.src = Some((types(given)?, given.invert)),
            DST => self.dst = Some((types(given)?, given.invert)),
            _ => {
                return Err(Diagnostic::unsupported(
                    given.span,
                    "this asks for addresses of the host's own interfaces",
                )
                .hint("the NICs of a wire have none; leave it out"));
            }
        }
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        missing(self.src.or(self.dst).is_some(), span, "addrtype", "`--src-type TYPES` or `--dst-type TYPES`")
    }

    fn print(&self, out: &mut String) {
        out.push_str(" -m addrtype");
        for (asked, side) in [(self.src, "src"), (self.dst, "dst")] {
            if let Some((types, invert)) = asked {
                let _ = write!(out, "{} --{side}-type {}", bang(invert), names(types));
            }
        }
    }

    fn list(&self, out: &mut String) {
        out.push_str(" ADDRTYPE match");
        for (asked, side) in [(self.src, "src"), (self.dst, "dst")] {
            if let Some((types, invert)) = asked {
                let _ = write!(out, " {side}-type {}{}", mark(invert), names(types));
            }
        }
    }

    fn lower(&self) -> Lowered {
        let one = |of_dst, (bits, invert): (u16, bool)| {
            let has = |at: usize| bits >> at & 1 != 0;
            let types = AddressTypes {
                unspecified: has(UNSPEC),
                unicast: has(UNICAST),
                broadcast: has(BROADCAST),
                multicast: has(MULTICAST),
            };
            Match::Header(HeaderMatch::AddressType { of_dst, types, invert })
        };
        let src = self.src.map(|asked| one(false, asked));
        Lowered::Matches(src.into_iter().chain(self.dst.map(|asked| one(true, asked))).collect())
    }
}
