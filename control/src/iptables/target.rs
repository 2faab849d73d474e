//! Targets: what a rule does.

use super::diagnostics::Reporter;
use super::lexer::Word;
use super::matches::{Given, Opt, OptionSpec};
use super::names;
use dataplane::packet::{Family, proto};
use dataplane::rules::model::{RejectWith, Target};
use std::ops::Range;

/// What `-j` or `-g` was given.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) goto: bool,
    /// Where the name stands.
    pub(super) span: Range<usize>,
    pub(super) given: Vec<Given>,
}

/// A target understood, but for which chain a name stands for.
#[derive(Clone, Debug)]
pub(super) enum Understood {
    /// One of the targets every table has, or REJECT.
    Final(Target),
    /// A user chain.
    Chain,
}

const REJECT: [OptionSpec; 1] = [OptionSpec { name: "reject-with", id: Opt::RejectWith, values: 1 }];

/// Options of a target.
pub(super) fn options(name: &str) -> &'static [OptionSpec] {
    if name == "REJECT" { &REJECT } else { &[] }
}

/// Every kind of answer: its name in iptables-save, other names, family.
const REJECT_WITH: &[(RejectWith, &str, &[&str], Family)] = &[
    (RejectWith::IcmpNetUnreachable, "icmp-net-unreachable", &["net-unreach"], Family::V4),
    (RejectWith::IcmpHostUnreachable, "icmp-host-unreachable", &["host-unreach"], Family::V4),
    (RejectWith::IcmpProtoUnreachable, "icmp-proto-unreachable", &["proto-unreach"], Family::V4),
    (RejectWith::IcmpPortUnreachable, "icmp-port-unreachable", &["port-unreach"], Family::V4),
    (RejectWith::IcmpNetProhibited, "icmp-net-prohibited", &["net-prohib"], Family::V4),
    (RejectWith::IcmpHostProhibited, "icmp-host-prohibited", &["host-prohib"], Family::V4),
    (RejectWith::TcpReset, "tcp-reset", &["tcp-rst"], Family::V4),
    (RejectWith::IcmpAdminProhibited, "icmp-admin-prohibited", &["admin-prohib"], Family::V4),
    (RejectWith::Icmp6NoRoute, "icmp6-no-route", &["no-route"], Family::V6),
    (RejectWith::Icmp6AdminProhibited, "icmp6-adm-prohibited", &["adm-prohibited"], Family::V6),
    (RejectWith::Icmp6AddrUnreachable, "icmp6-addr-unreachable", &["addr-unreach"], Family::V6),
    (RejectWith::Icmp6PortUnreachable, "icmp6-port-unreachable", &["port-unreach"], Family::V6),
    (RejectWith::TcpReset, "tcp-reset", &[], Family::V6),
    (RejectWith::Icmp6PolicyFail, "icmp6-policy-fail", &["policy-fail"], Family::V6),
    (RejectWith::Icmp6RejectRoute, "icmp6-reject-route", &["reject-route"], Family::V6),
];

/// How a kind of answer is written.
pub(super) fn reject_name(with: RejectWith) -> &'static str {
    REJECT_WITH.iter().find(|(kind, ..)| *kind == with).map_or("", |(_, name, ..)| name)
}

impl Wanted {
    /// What it means. `None` after reporting what is wrong. `protocol` is `-p`, unless negated.
    pub(super) fn understand(
        &self,
        family: Family,
        protocol: Option<u8>,
        report: &mut Reporter<'_>,
    ) -> Option<Understood> {
        if self.goto {
            return Some(Understood::Chain);
        }
        Some(Understood::Final(match self.name.as_str() {
            "ACCEPT" => Target::Accept,
            "DROP" => Target::Drop,
            "RETURN" => Target::Return,
            "REJECT" => Target::Reject(self.reject(family, protocol, report)?),
            name if names::is_known_target(name) => {
                report.unsupported(&self.span, format!("target `{name}` is not supported yet"), None);
                return None;
            }
            _ => return Some(Understood::Chain),
        }))
    }

    fn reject(&self, family: Family, protocol: Option<u8>, report: &mut Reporter<'_>) -> Option<RejectWith> {
        let default = match family {
            Family::V4 => RejectWith::IcmpPortUnreachable,
            Family::V6 => RejectWith::Icmp6PortUnreachable,
        };
        let Some(word) = self.given.first().and_then(|given| given.values.first()) else { return Some(default) };
        let with = find_reject(word, family, report)?;
        if with == RejectWith::TcpReset && protocol != Some(proto::TCP) {
            report.error(&word.span, "`tcp-reset` needs `-p tcp`", Some("add `-p tcp` to the rule".to_owned()));
            return None;
        }
        Some(with)
    }
}

/// An answer by its name or any beginning of it, as iptables compares them.
fn find_reject(word: &Word, family: Family, report: &mut Reporter<'_>) -> Option<RejectWith> {
    let of_family = || REJECT_WITH.iter().filter(|(.., of)| *of == family);
    let named = |exact: bool| {
        of_family().find(|(_, name, others, _)| {
            std::iter::once(name).chain(others.iter()).any(|name| {
                if exact { *name == word.text } else { !word.text.is_empty() && name.starts_with(&word.text) }
            })
        })
    };
    let found = named(true).or_else(|| named(false));
    if found.is_none() {
        let names: Vec<&str> = of_family().map(|(_, name, ..)| *name).collect();
        let message = format!("`{}` is nothing REJECT can answer with", word.text);
        report.error(&word.span, message, Some(format!("one of {}", names.join(", "))));
    }
    found.map(|(with, ..)| *with)
}
