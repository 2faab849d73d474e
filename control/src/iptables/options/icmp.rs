//! `-m icmp --icmp-type` and `-m icmp6 --icmpv6-type`.

use std::fmt::Write as _;

use dataplane::packet::Family;
use dataplane::rules::model::Match;

use super::ports::require_protocol;
use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec, first, number};
use crate::iptables::diagnostics::{Diagnostic, Span};
use crate::iptables::lexer::Word;
use crate::iptables::names::nearest;

/// `-m icmp`.
pub static ICMP: Extension = Extension {
    kind: Kind::Match,
    names: &["icmp"],
    family: Some(Family::V4),
    protocol: Some(1),
    repeatable: false,
    options: &[OptionSpec { name: "icmp-type", id: 1, slot: 1, args: 1, invertible: true }],
    new: |_| Box::new(Icmp { words: &WORDS4, kind: None, invert: false }),
};

/// `-m icmp6`.
pub static ICMP6: Extension = Extension {
    kind: Kind::Match,
    names: &["icmp6", "icmpv6", "ipv6-icmp"],
    family: Some(Family::V6),
    protocol: Some(58),
    repeatable: false,
    options: &[OptionSpec { name: "icmpv6-type", id: 1, slot: 1, args: 1, invertible: true }],
    new: |_| Box::new(Icmp { words: &WORDS6, kind: None, invert: false }),
};

/// How the two families differ.
#[derive(Debug)]
struct Words {
    module: &'static str,
    option: &'static str,
    proto: (&'static str, u8),
    listed: (&'static str, &'static str),
    any: Option<u8>,
    names: &'static [Name],
}

/// A name: type and lowest and highest code.
type Name = (&'static str, u8, u8, u8);

static WORDS4: Words = Words {
    module: "icmp",
    option: "icmp-type",
    proto: ("icmp", 1),
    listed: ("icmptype", "icmp !type"),
    any: Some(255),
    names: NAMES4,
};

static WORDS6: Words = Words {
    module: "icmp6",
    option: "icmpv6-type",
    proto: ("icmpv6", 58),
    listed: ("ipv6-icmptype", "ipv6-icmp !type"),
    any: None,
    names: NAMES6,
};

/// The names of iptables 1.8 (`iptables -p icmp -h`).
const NAMES4: &[Name] = &[
    ("any", 255, 0, 255),
    ("echo-reply", 0, 0, 255),
    ("pong", 0, 0, 255),
    ("destination-unreachable", 3, 0, 255),
    ("network-unreachable", 3, 0, 0),
    ("host-unreachable", 3, 1, 1),
    ("protocol-unreachable", 3, 2, 2),
    ("port-unreachable", 3, 3, 3),
    ("fragmentation-needed", 3, 4, 4),
    ("source-route-failed", 3, 5, 5),
    ("network-unknown", 3, 6, 6),
    ("host-unknown", 3, 7, 7),
    ("network-prohibited", 3, 9, 9),
    ("host-prohibited", 3, 10, 10),
    ("TOS-network-unreachable", 3, 11, 11),
    ("TOS-host-unreachable", 3, 12, 12),
    ("communication-prohibited", 3, 13, 13),
    ("host-precedence-violation", 3, 14, 14),
    ("precedence-cutoff", 3, 15, 15),
    ("source-quench", 4, 0, 255),
    ("redirect", 5, 0, 255),
    ("network-redirect", 5, 0, 0),
    ("host-redirect", 5, 1, 1),
    ("TOS-network-redirect", 5, 2, 2),
    ("TOS-host-redirect", 5, 3, 3),
    ("echo-request", 8, 0, 255),
    ("ping", 8, 0, 255),
    ("router-advertisement", 9, 0, 255),
    ("router-solicitation", 10, 0, 255),
    ("time-exceeded", 11, 0, 255),
    ("ttl-exceeded", 11, 0, 255),
    ("ttl-zero-during-transit", 11, 0, 0),
    ("ttl-zero-during-reassembly", 11, 1, 1),
    ("parameter-problem", 12, 0, 255),
    ("ip-header-bad", 12, 0, 0),
    ("required-option-missing", 12, 1, 1),
    ("timestamp-request", 13, 0, 255),
    ("timestamp-reply", 14, 0, 255),
    ("address-mask-request", 17, 0, 255),
    ("address-mask-reply", 18, 0, 255),
];

/// The names of ip6tables 1.8 (`ip6tables -p icmpv6 -h`).
const NAMES6: &[Name] = &[
    ("destination-unreachable", 1, 0, 255),
    ("no-route", 1, 0, 0),
    ("communication-prohibited", 1, 1, 1),
    ("beyond-scope", 1, 2, 2),
    ("address-unreachable", 1, 3, 3),
    ("port-unreachable", 1, 4, 4),
    ("failed-policy", 1, 5, 5),
    ("reject-route", 1, 6, 6),
    ("packet-too-big", 2, 0, 255),
    ("time-exceeded", 3, 0, 255),
    ("ttl-exceeded", 3, 0, 255),
    ("ttl-zero-during-transit", 3, 0, 0),
    ("ttl-zero-during-reassembly", 3, 1, 1),
    ("parameter-problem", 4, 0, 255),
    ("bad-header", 4, 0, 0),
    ("unknown-header-type", 4, 1, 1),
    ("unknown-option", 4, 2, 2),
    ("echo-request", 128, 0, 255),
    ("ping", 128, 0, 255),
    ("echo-reply", 129, 0, 255),
    ("pong", 129, 0, 255),
    ("router-solicitation", 133, 0, 255),
    ("router-advertisement", 134, 0, 255),
    ("neighbour-solicitation", 135, 0, 255),
    ("neighbor-solicitation", 135, 0, 255),
    ("neighbour-advertisement", 136, 0, 255),
    ("neighbor-advertisement", 136, 0, 255),
    ("redirect", 137, 0, 255),
];

#[derive(Debug)]
struct Icmp {
    words: &'static Words,
    /// Type and codes.
    kind: Option<(u8, (u8, u8))>,
    invert: bool,
}

impl Icmp {
    fn is_any(&self, ty: u8) -> bool {
        self.words.any == Some(ty)
    }
}

impl Instance for Icmp {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        let (ty, codes) = kind(first(given)?, self.words)?;
        self.kind = Some(if self.is_any(ty) { (ty, (0, 255)) } else { (ty, codes) });
        self.invert = given.invert;
        Ok(())
    }

    fn finish(&mut self, facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        let Words { module, option, proto: (proto, number), .. } = *self.words;
        if self.kind.is_none() {
            return Err(Diagnostic::error(span, format!("`-m {module}` without a type"))
                .hint(format!("add `--{option} TYPE`")));
        }
        require_protocol(proto, number, facts, span)
    }

    fn print(&self, out: &mut String) {
        let Words { module, option, .. } = self.words;
        let bang = if self.invert { " !" } else { "" };
        let _ = write!(out, " -m {module}{bang} --{option} ");
        let Some((ty, (low, high))) = self.kind else { return };
        if self.is_any(ty) {
            out.push_str("any");
        } else if (low, high) == (0, 255) {
            let _ = write!(out, "{ty}");
        } else {
            let _ = write!(out, "{ty}/{low}");
        }
    }

    fn list(&self, out: &mut String) {
        let (plain, inverted) = self.words.listed;
        let Some((ty, (low, high))) = self.kind else { return };
        let _ = write!(out, " {} {ty}", if self.invert { inverted } else { plain });
        if low == high {
            let _ = write!(out, " code {low}");
        }
    }

    fn lower(&self) -> Lowered {
        let matches = self.kind.map(|(ty, codes)| Match::Icmp {
            ty: Some(ty).filter(|&ty| !self.is_any(ty)),
            codes,
            invert: self.invert,
        });
        Lowered::Matches(matches.into_iter().collect())
    }
}

/// Type and code by name or number, for those who want one packet of it: of a name for all codes the first.
///
/// # Errors
/// Says why it is none, and what it may have been meant to be.
pub(crate) fn type_and_code(text: &str, family: Family) -> Result<(u8, u8), String> {
    let words = if family == Family::V4 { &WORDS4 } else { &WORDS6 };
    let word = Word { text: text.to_owned(), span: Span::default() };
    match kind(&word, words) {
        Ok((ty, _)) if words.any == Some(ty) => Err("`any` is no type that a packet can have".to_owned()),
        Ok((ty, (code, _))) => Ok((ty, code)),
        Err(Diagnostic { message, hint, .. }) => {
            Err(hint.map_or_else(|| message.clone(), |hint| format!("{message}: {hint}")))
        }
    }
}

/// Reads a type: a number, `number/code`, a name or an unambiguous beginning of one.
fn kind(word: &Word, words: &Words) -> Result<(u8, (u8, u8)), Diagnostic> {
    let text = word.text.as_str();
    let lower = text.to_ascii_lowercase();
    let begins = |name: &Name| name.0.to_ascii_lowercase().starts_with(&lower);
    let found: Vec<&Name> = words.names.iter().filter(|name| begins(name)).collect();
    let exact = found.iter().find(|name| name.0.eq_ignore_ascii_case(text)).copied();
    let only = match found.as_slice() {
        [one] => Some(*one),
        _ => None,
    };
    if let Some(&(_, ty, low, high)) = exact.or(only).filter(|_| !text.is_empty()) {
        return Ok((ty, (low, high)));
    }
    if let ([first, second, ..], false) = (found.as_slice(), text.is_empty()) {
        let message = format!("ambiguous ICMP type `{text}`: `{}` or `{}`?", first.0, second.0);
        return Err(Diagnostic::error(word.span, message));
    }
    let unknown = || {
        let hint = nearest(text, words.names.iter().map(|name| name.0)).map_or_else(
            || "a type is a number, a number with a code (`3/4`) or a name".to_owned(),
            |near| format!("did you mean `{near}`?"),
        );
        Diagnostic::error(word.span, format!("unknown ICMP type `{text}`")).hint(hint)
    };
    let byte = |text: &str| number(text, 255).and_then(|value| u8::try_from(value).ok());
    match text.split_once('/') {
        None => byte(text).map(|ty| (ty, (0, 255))).ok_or_else(unknown),
        Some((ty, codes))
            if codes.split_once(':').is_some_and(|(low, _)| byte(ty).and(byte(low)).is_some()) =>
        {
            Err(Diagnostic::unsupported(word.span, "a range of ICMP codes")
                .hint("iptables reads the first code only"))
        }
        Some((ty, code)) => byte(ty).zip(byte(code)).map(|(ty, code)| (ty, (code, code))).ok_or_else(unknown),
    }
}
