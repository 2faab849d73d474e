//! `-j REJECT`, both families.

use dataplane::packet::Family;
use dataplane::rules::model::{self, RejectWith, Target};

use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec, first};
use crate::iptables::diagnostics::{Diagnostic, Span};
use crate::iptables::names::nearest;

const OPTIONS: &[OptionSpec] =
    &[OptionSpec { name: "reject-with", id: 1, slot: 1, args: 1, invertible: false }];

/// `-j REJECT` for IPv4.
pub static REJECT4: Extension = Extension {
    kind: Kind::Target,
    names: &["REJECT"],
    family: Some(Family::V4),
    protocol: None,
    repeatable: false,
    options: OPTIONS,
    new: |_| Box::new(Reject { kinds: &KINDS4, with: RejectWith::IcmpPortUnreachable, span: None }),
};

/// `-j REJECT` for IPv6.
pub static REJECT6: Extension = Extension {
    kind: Kind::Target,
    names: &["REJECT"],
    family: Some(Family::V6),
    protocol: None,
    repeatable: false,
    options: OPTIONS,
    new: |_| Box::new(Reject { kinds: &KINDS6, with: RejectWith::Icmp6PortUnreachable, span: None }),
};

/// Name, alias and kind, in iptables' order: an abbreviation takes the first that fits.
type Kinds = [(&'static str, &'static str, RejectWith)];

static KINDS4: [(&str, &str, RejectWith); 8] = [
    ("icmp-net-unreachable", "net-unreach", RejectWith::IcmpNetUnreachable),
    ("icmp-host-unreachable", "host-unreach", RejectWith::IcmpHostUnreachable),
    ("icmp-proto-unreachable", "proto-unreach", RejectWith::IcmpProtoUnreachable),
    ("icmp-port-unreachable", "port-unreach", RejectWith::IcmpPortUnreachable),
    ("icmp-net-prohibited", "net-prohib", RejectWith::IcmpNetProhibited),
    ("icmp-host-prohibited", "host-prohib", RejectWith::IcmpHostProhibited),
    ("tcp-reset", "tcp-rst", RejectWith::TcpReset),
    ("icmp-admin-prohibited", "admin-prohib", RejectWith::IcmpAdminProhibited),
];

static KINDS6: [(&str, &str, RejectWith); 7] = [
    ("icmp6-no-route", "no-route", RejectWith::Icmp6NoRoute),
    ("icmp6-adm-prohibited", "adm-prohibited", RejectWith::Icmp6AdminProhibited),
    ("icmp6-addr-unreachable", "addr-unreach", RejectWith::Icmp6AddrUnreachable),
    ("icmp6-port-unreachable", "port-unreach", RejectWith::Icmp6PortUnreachable),
    ("tcp-reset", "tcp-reset", RejectWith::TcpReset),
    ("icmp6-policy-fail", "policy-fail", RejectWith::Icmp6PolicyFail),
    ("icmp6-reject-route", "reject-route", RejectWith::Icmp6RejectRoute),
];

#[derive(Debug)]
struct Reject {
    kinds: &'static Kinds,
    with: RejectWith,
    span: Option<Span>,
}

impl Reject {
    fn kind_name(&self) -> &'static str {
        self.kinds.iter().find(|&&(_, _, with)| with == self.with).map_or("", |&(name, _, _)| name)
    }
}

impl Instance for Reject {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        let word = first(given)?;
        let lower = word.text.to_ascii_lowercase();
        let fits = |&&(name, alias, _): &&(&'static str, &'static str, RejectWith)| {
            name.starts_with(&lower) || alias.starts_with(&lower)
        };
        let Some(&(_, _, with)) = self.kinds.iter().find(fits) else {
            let names = self.kinds.iter().map(|&(name, _, _)| name);
            let hint = match nearest(&lower, names.clone()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("kinds are {}", names.collect::<Vec<_>>().join(", ")),
            };
            return Err(
                Diagnostic::error(word.span, format!("unknown reject type `{}`", word.text)).hint(hint)
            );
        };
        self.with = with;
        self.span = Some(word.span);
        Ok(())
    }

    fn finish(&mut self, facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        let is_tcp = facts.proto.is_some_and(|proto| proto.number == 6 && !proto.invert);
        if self.with == RejectWith::TcpReset && !is_tcp {
            return Err(Diagnostic::error(
                self.span.unwrap_or(span),
                "`tcp-reset` needs `-p tcp` in the same rule",
            )
            .hint("add `-p tcp`, or reject with an ICMP error"));
        }
        Ok(())
    }

    fn print(&self, out: &mut String) {
        out.push_str(" -j REJECT --reject-with ");
        out.push_str(self.kind_name());
    }

    fn list(&self, out: &mut String) {
        out.push_str(" reject-with ");
        out.push_str(self.kind_name());
    }

    fn lower(&self) -> Lowered {
        Lowered::Target(Target::Reject(self.with))
    }

    fn target_name(&self) -> &'static str {
        "REJECT"
    }

    fn tables(&self) -> &'static [model::Table] {
        &[model::Table::Filter]
    }
}
