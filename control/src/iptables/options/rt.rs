//! `-m rt`: IPv6's routing header.

use std::fmt::Write as _;
use std::net::Ipv6Addr;

use dataplane::packet::Family;
use dataplane::rules::header::{HeaderMatch, Routing};
use dataplane::rules::model::Match;

use super::values::{Span as Numbers, bang, mark, word32};
use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec, first, part_of};
use crate::iptables::diagnostics::{Diagnostic, Span};
use crate::iptables::lexer::Word;
use crate::iptables::printer::address_text;

const TYPE: u8 = 1;
const SEGSLEFT: u8 = 2;
const LEN: u8 = 3;
const RES: u8 = 4;
const ADDRS: u8 = 5;
const NOT_STRICT: u8 = 6;

const MAX: u64 = u32::MAX as u64;
/// Addresses that one rule may ask for: `IP6T_RT_HOPS`.
const ADDRESSES_MAX: usize = 16;

const fn option(name: &'static str, id: u8, args: u8) -> OptionSpec {
    OptionSpec { name, id, slot: id, args, invertible: id <= LEN }
}

/// `-m rt`.
pub static RT: Extension = Extension {
    kind: Kind::Match,
    names: &["rt"],
    family: Some(Family::V6),
    protocol: None,
    repeatable: true,
    options: &[
        option("rt-type", TYPE, 1),
        option("rt-segsleft", SEGSLEFT, 1),
        option("rt-len", LEN, 1),
        option("rt-0-res", RES, 0),
        option("rt-0-addrs", ADDRS, 1),
        option("rt-0-not-strict", NOT_STRICT, 0),
    ],
    new: |_| {
        let segments_left = Numbers::all(MAX).narrow(u32::MAX);
        let routing = Routing {
            kind: None,
            segments_left,
            len: None,
            reserved: false,
            addresses: None,
            not_strict: false,
        };
        Box::new(Rt { routing, segments_left: Numbers::all(MAX) })
    },
};

#[derive(Debug)]
struct Rt {
    routing: Routing,
    segments_left: Numbers,
}

fn addresses(word: &Word) -> Result<Box<[u128]>, Diagnostic> {
    let (mut addresses, mut from) = (Vec::new(), 0);
    for text in word.text.split(',') {
        let span = part_of(word, from, from + text.len());
        from += text.len() + 1;
        let address = text.parse::<Ipv6Addr>();
        addresses.push(
            address.map_err(|_| Diagnostic::error(span, format!("invalid address `{text}`")))?.to_bits(),
        );
        if addresses.len() > ADDRESSES_MAX {
            return Err(Diagnostic::error(span, format!("more than {ADDRESSES_MAX} addresses")));
        }
    }
    Ok(addresses.into())
}

impl Rt {
    fn addresses(&self) -> Option<String> {
        let text = |addresses: &[u128]| {
            addresses.iter().map(|address| address_text(*address, true)).collect::<Vec<_>>().join(",")
        };
        self.routing.addresses.as_deref().map(text)
    }
}

impl Instance for Rt {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        let routing = &mut self.routing;
        if matches!(given.id, RES | ADDRS) && routing.kind != Some((0, false)) {
            return Err(Diagnostic::error(given.span, "this is asked of routing headers of type 0")
                .hint("put `--rt-type 0` before it"));
        }
        match given.id {
            TYPE => routing.kind = Some((word32(given)?, given.invert)),
            SEGSLEFT => {
                self.segments_left = Numbers::read_some(given, MAX)?;
                routing.segments_left = self.segments_left.narrow(u32::MAX);
            }
            LEN => routing.len = Some((word32(given)?, given.invert)),
            RES => routing.reserved = true,
            ADDRS => routing.addresses = Some(addresses(first(given)?)?),
            _ if routing.addresses.is_none() => {
                return Err(Diagnostic::error(given.span, "this says how addresses compare")
                    .hint("put `--rt-0-addrs ADDRESSES` before it"));
            }
            _ => routing.not_strict = true,
        }
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, _span: Span) -> Result<(), Diagnostic> {
        Ok(())
    }

    fn print(&self, out: &mut String) {
        let Routing { kind, len, reserved, not_strict, .. } = &self.routing;
        out.push_str(" -m rt");
        if let Some((kind, invert)) = kind {
            let _ = write!(out, "{} --rt-type {kind}", bang(*invert));
        }
        if !self.segments_left.is_all(MAX) {
            let _ = write!(out, "{} --rt-segsleft {}", bang(self.segments_left.invert), self.segments_left);
        }
        if let Some((len, invert)) = len {
            let _ = write!(out, "{} --rt-len {len}", bang(*invert));
        }
        out.push_str(if *reserved { " --rt-0-res" } else { "" });
        if let Some(addresses) = self.addresses() {
            let _ = write!(out, " --rt-0-addrs {addresses}");
        }
        out.push_str(if *not_strict { " --rt-0-not-strict" } else { "" });
    }

    fn list(&self, out: &mut String) {
        let Routing { kind, len, reserved, not_strict, .. } = &self.routing;
        out.push_str(" rt");
        if let Some((kind, invert)) = kind {
            // iptables prints it as a signed number.
            let _ = write!(out, " type:{}{}", mark(*invert), kind.cast_signed());
        }
        let span = self.segments_left;
        if !span.is_all(MAX) {
            let plural = if span.low == span.high { "" } else { "s" };
            let _ = write!(out, " segsleft{plural}:{}{span}", mark(span.invert));
        }
        if let Some((len, invert)) = len {
            let _ = write!(out, " length:{}{len}", mark(*invert));
        }
        out.push_str(if *reserved { " reserved" } else { "" });
        if let Some(addresses) = self.addresses() {
            let _ = write!(out, " 0-addrs {addresses}");
        }
        out.push_str(if *not_strict { " 0-not-strict" } else { "" });
    }

    fn lower(&self) -> Lowered {
        Lowered::Matches(vec![Match::Header(HeaderMatch::Routing(Box::new(self.routing.clone())))])
    }
}
