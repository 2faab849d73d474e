//! `-m ipv6header`: which extension headers there are.

use std::fmt::Write as _;

use dataplane::packet::{Family, proto};
use dataplane::rules::header::{Extensions, HeaderMatch};
use dataplane::rules::model::Match;

use super::tos::missing;
use super::values::{bang, mark};
use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec, first};
use crate::iptables::diagnostics::{Diagnostic, Span};
use crate::iptables::lexer::Word;
use crate::iptables::names::protocol_number;

const HEADER: u8 = 1;
const SOFT: u8 = 2;

/// `-m ipv6header`.
pub static IPV6HEADER: Extension = Extension {
    kind: Kind::Match,
    names: &["ipv6header"],
    family: Some(Family::V6),
    protocol: None,
    repeatable: true,
    options: &[
        OptionSpec { name: "header", id: HEADER, slot: 1, args: 1, invertible: true },
        OptionSpec { name: "soft", id: SOFT, slot: 2, args: 0, invertible: false },
    ],
    new: |_| Box::new(HeaderKinds { asked: Extensions { kinds: 0, soft: false, invert: false } }),
};

/// Kinds in the order they are printed in, with the name they are printed by and a short one.
const KINDS: [(u8, &str, &str); 8] = [
    (Extensions::bit(proto::HOP_BY_HOP), "hop-by-hop", "hop"),
    (Extensions::bit(proto::DST_OPTS), "ipv6-opts", "dst"),
    (Extensions::bit(proto::ROUTING), "ipv6-route", "route"),
    (Extensions::bit(proto::FRAGMENT), "ipv6-frag", "frag"),
    (Extensions::bit(proto::AH), "ah", "auth"),
    (Extensions::bit(proto::ESP), "esp", "esp"),
    (Extensions::bit(proto::NONE), "ipv6-nonxt", "none"),
    (Extensions::UPPER_LAYER, "protocol", "prot"),
];

/// Number that stands for any upper-layer protocol.
const ANY_UPPER_LAYER: &str = "255";

#[derive(Debug)]
struct HeaderKinds {
    asked: Extensions,
}

fn kinds(word: &Word) -> Result<u8, Diagnostic> {
    let mut kinds = 0;
    for name in word.text.split(',').filter(|name| !name.is_empty()) {
        let named =
            KINDS.iter().find(|(_, long, short)| [*long, *short].contains(&name)).map(|(bit, ..)| *bit);
        let numbered = if name == ANY_UPPER_LAYER {
            Some(Extensions::UPPER_LAYER)
        } else {
            protocol_number(name).map(Extensions::bit).filter(|bit| *bit != 0)
        };
        kinds |= named.or(numbered).ok_or_else(|| {
            Diagnostic::error(word.span, format!("unknown extension header `{name}`"))
                .hint("headers are hop, dst, route, frag, auth, esp, none and prot")
        })?;
    }
    if kinds == 0 {
        return Err(Diagnostic::error(word.span, "no header is named"));
    }
    Ok(kinds)
}

impl Instance for HeaderKinds {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        if given.id == SOFT {
            self.asked.soft = true;
        } else {
            (self.asked.kinds, self.asked.invert) = (kinds(first(given)?)?, given.invert);
        }
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        missing(self.asked.kinds != 0, span, "ipv6header", "`--header HEADERS`")
    }

    fn print(&self, out: &mut String) {
        let Extensions { kinds, soft, invert } = self.asked;
        let named = KINDS.iter().filter(|(bit, ..)| kinds & bit != 0).map(|(_, name, _)| *name);
        let names: Vec<&str> = named.collect();
        let _ = write!(out, " -m ipv6header{} --header {}", bang(invert), names.join(","));
        out.push_str(if soft { " --soft" } else { "" });
    }

    fn list(&self, out: &mut String) {
        let Extensions { kinds, soft, invert } = self.asked;
        let _ = write!(out, " ipv6header flags:{}0x{kinds:02X}", mark(invert));
        out.push_str(if soft { " soft" } else { "" });
    }

    fn lower(&self) -> Lowered {
        Lowered::Matches(vec![Match::Header(HeaderMatch::Extensions(self.asked))])
    }
}
