//! `-m multiport`: up to fifteen ports, a range counting as two.

use std::fmt::Write as _;

use dataplane::rules::model::{Match, PortSide};

use super::dccp::{DCCP_PROTOCOL, raw};
use super::ports::port;
use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec, first, part_of};
use crate::iptables::diagnostics::{Diagnostic, Span};
use crate::iptables::names::protocol_name;

/// XT_MULTI_PORTS of the kernel's xt_multiport.
const PORTS_MAX: usize = 15;

/// Protocols multiport works with: tcp, udp, dccp, sctp, udplite.
const PROTOCOLS: [u8; 5] = [6, 17, 33, 132, 136];

/// `-m multiport`.
pub static MULTIPORT: Extension = Extension {
    kind: Kind::Match,
    names: &["multiport"],
    family: None,
    protocol: None,
    repeatable: true,
    options: &[
        OptionSpec { name: "source-ports", id: 1, slot: 1, args: 1, invertible: true },
        OptionSpec { name: "sports", id: 1, slot: 1, args: 1, invertible: true },
        OptionSpec { name: "destination-ports", id: 2, slot: 1, args: 1, invertible: true },
        OptionSpec { name: "dports", id: 2, slot: 1, args: 1, invertible: true },
        OptionSpec { name: "ports", id: 3, slot: 1, args: 1, invertible: true },
    ],
    new: |_| {
        Box::new(Multiport { which: PortSide::Either, ranges: Vec::new(), invert: false, is_dccp: false })
    },
};

#[derive(Debug)]
struct Multiport {
    which: PortSide,
    ranges: Vec<(u16, u16)>,
    invert: bool,
    is_dccp: bool,
}

impl Multiport {
    fn option_name(&self) -> &'static str {
        match self.which {
            PortSide::Src => "sports",
            PortSide::Dst => "dports",
            PortSide::Either => "ports",
        }
    }

    fn ranges(&self) -> String {
        let one = |&(low, high): &(u16, u16)| {
            if low == high { low.to_string() } else { format!("{low}:{high}") }
        };
        self.ranges.iter().map(one).collect::<Vec<_>>().join(",")
    }
}

impl Instance for Multiport {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        let word = first(given)?;
        let facts = given.facts;
        check_protocol(facts, given.span)?;
        let proto = facts.proto.and_then(|proto| protocol_name(proto.number));
        let mut from = 0;
        let mut slots = 0;
        for item in word.text.split(',') {
            let range = match item.split_once(':') {
                None => {
                    let port = port(word, from, item, proto, facts.services)?;
                    (port, port)
                }
                Some((low, high)) => {
                    let low_port = port(word, from, low, proto, facts.services)?;
                    let high_port = port(word, from + low.len() + 1, high, proto, facts.services)?;
                    if low_port >= high_port {
                        let span = part_of(word, from, from + item.len());
                        return Err(Diagnostic::error(span, format!("invalid port range `{item}`"))
                            .hint("the first port of a range must be lower than the second"));
                    }
                    (low_port, high_port)
                }
            };
            slots += if item.contains(':') { 2 } else { 1 };
            if slots > PORTS_MAX {
                let span = part_of(word, from, from + item.len());
                return Err(Diagnostic::error(span, "too many ports")
                    .hint(format!("multiport takes {PORTS_MAX}, a range counts as two; split the rule")));
            }
            self.ranges.push(range);
            from += item.len() + 1;
        }
        self.invert = given.invert;
        self.which = match given.id {
            1 => PortSide::Src,
            2 => PortSide::Dst,
            _ => PortSide::Either,
        };
        Ok(())
    }

    fn finish(&mut self, facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        if self.ranges.is_empty() {
            return Err(Diagnostic::error(span, "`-m multiport` without ports")
                .hint("add `--sports`, `--dports` or `--ports`"));
        }
        self.is_dccp = facts.proto.is_some_and(|proto| proto.number == DCCP_PROTOCOL);
        check_protocol(facts, span)
    }

    fn print(&self, out: &mut String) {
        let bang = if self.invert { " !" } else { "" };
        let _ = write!(out, " -m multiport{bang} --{} {}", self.option_name(), self.ranges());
    }

    fn list(&self, out: &mut String) {
        let bang = if self.invert { " !" } else { "" };
        let _ = write!(out, " multiport {} {bang}{}", self.option_name(), self.ranges());
    }

    fn lower(&self) -> Lowered {
        let Self { which, ranges, invert, is_dccp } = self;
        let ports = Match::Ports { which: *which, ranges: ranges.clone(), invert: *invert };
        Lowered::Matches(vec![if *is_dccp { raw(ports) } else { ports }])
    }
}

fn check_protocol(facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
    match facts.proto {
        Some(proto) if !proto.invert && PROTOCOLS.contains(&proto.number) => Ok(()),
        Some(_) => Err(Diagnostic::error(span, "multiport works with tcp, udp, udplite, sctp and dccp only")),
        None => Err(Diagnostic::error(span, "multiport needs a protocol")
            .hint("put `-p tcp`, `-p udp`, `-p udplite`, `-p sctp` or `-p dccp` before it")),
    }
}
