//! `-m dccp`: ports, packet types and options.

use std::fmt::Write as _;

use dataplane::rules::header::{Dccp as Condition, HeaderMatch};
use dataplane::rules::model::Match;

use super::ports::{PORT_OPTIONS, Ports, require_protocol};
use super::values::{bang, mark, value};
use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec, first};
use crate::iptables::diagnostics::{Diagnostic, Span};
use crate::iptables::lexer::Word;

/// Protocol number of DCCP.
pub(super) const DCCP_PROTOCOL: u8 = 33;
/// Bytes of the generic header, which must be there.
const HEADER_LEN: u8 = 12;
const TYPES: u8 = 3;
const OPTION: u8 = 4;
/// Types that there are none of.
const INVALID: u16 = 0xfc00;

/// `-m dccp`.
pub static DCCP: Extension = Extension {
    kind: Kind::Match,
    names: &["dccp"],
    family: None,
    protocol: Some(DCCP_PROTOCOL),
    repeatable: false,
    options: &[
        PORT_OPTIONS[0],
        PORT_OPTIONS[1],
        PORT_OPTIONS[2],
        PORT_OPTIONS[3],
        OptionSpec { name: "dccp-types", id: TYPES, slot: 3, args: 1, invertible: true },
        OptionSpec { name: "dccp-option", id: OPTION, slot: 4, args: 1, invertible: true },
    ],
    new: |_| Box::new(Dccp::default()),
};

/// Packet types by number. RFC 4340 section 5.1.
const NAMES: [&str; 10] =
    ["REQUEST", "RESPONSE", "DATA", "ACK", "DATAACK", "CLOSEREQ", "CLOSE", "RESET", "SYNC", "SYNCACK"];

#[derive(Debug, Default)]
struct Dccp {
    ports: Ports,
    types: Option<(u16, bool)>,
    option: Option<(u8, bool)>,
}

fn types(word: &Word) -> Result<u16, Diagnostic> {
    let mut types = 0;
    for name in word.text.split(',').filter(|name| !name.is_empty()) {
        types |= match NAMES.iter().position(|known| known.eq_ignore_ascii_case(name)) {
            Some(at) => 1 << at,
            None if name.eq_ignore_ascii_case("INVALID") => INVALID,
            None => {
                return Err(Diagnostic::error(word.span, format!("unknown DCCP packet type `{name}`"))
                    .hint("types are REQUEST, RESPONSE, DATA, ACK, DATAACK, CLOSEREQ, CLOSE, RESET, SYNC, SYNCACK, INVALID"));
            }
        };
    }
    if types == 0 {
        return Err(Diagnostic::unsupported(word.span, "no type at all")
            .hint("iptables-save prints nothing for it, which cannot be read back"));
    }
    Ok(types)
}

fn names(types: u16) -> String {
    let known = (0..).zip(NAMES).filter(|(at, _)| types >> at & 1 != 0).map(|(_, name)| name);
    known.chain((types & INVALID != 0).then_some("INVALID")).collect::<Vec<_>>().join(",")
}

fn numbers(types: u16) -> String {
    (0..16).filter(|at| types >> at & 1 != 0).map(|at| at.to_string()).collect::<Vec<_>>().join(",")
}

impl Instance for Dccp {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        match given.id {
            TYPES => self.types = Some((types(first(given)?)?, given.invert)),
            OPTION => {
                let kind = u8::try_from(value(given, 1, u64::from(u8::MAX))?).unwrap_or(u8::MAX);
                self.option = Some((kind, given.invert));
            }
            _ => self.ports.option(given, "dccp", false)?,
        }
        Ok(())
    }

    fn finish(&mut self, facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        require_protocol("dccp", DCCP_PROTOCOL, facts, span)
    }

    fn print(&self, out: &mut String) {
        out.push_str(" -m dccp");
        self.ports.print(out);
        if let Some((types, invert)) = self.types {
            let _ = write!(out, "{} --dccp-types {}", bang(invert), names(types));
        }
        if let Some((option, invert)) = self.option {
            let _ = write!(out, "{} --dccp-option {option}", bang(invert));
        }
    }

    fn list(&self, out: &mut String) {
        out.push_str(" dccp");
        self.ports.list(out);
        if let Some((types, invert)) = self.types {
            let _ = write!(out, "{} {}", bang(invert), numbers(types));
        }
        if let Some((option, invert)) = self.option {
            let _ = write!(out, " option={}{option}", mark(invert));
        }
    }

    fn lower(&self) -> Lowered {
        let header = |condition| Match::Header(condition);
        let mut matches = vec![header(HeaderMatch::Carries(HEADER_LEN))];
        matches.extend(self.ports.lower().into_iter().map(raw));
        matches.extend(
            self.types.map(|(types, invert)| header(HeaderMatch::Dccp(Condition::Types { types, invert }))),
        );
        matches.extend(
            self.option.map(|(kind, invert)| header(HeaderMatch::Dccp(Condition::Option { kind, invert }))),
        );
        Lowered::Matches(matches)
    }
}

/// A condition on ports as one on the header itself: the tracker knows no ports of DCCP.
pub(super) fn raw(condition: Match) -> Match {
    match condition {
        Match::Ports { which, ranges, invert } => {
            Match::Header(HeaderMatch::RawPorts { which, ranges: ranges.into(), invert })
        }
        other => other,
    }
}
