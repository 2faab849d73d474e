//! What is asked of an Ethernet header: `-m mac`, `-m pkttype`, `-m eui64`.

use std::fmt::Write as _;

use dataplane::packet::Family;
use dataplane::rules::header::{HeaderMatch, PacketType};
use dataplane::rules::model::Match;

use super::tos::missing;
use super::values::{bang, mark};
use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec, first};
use crate::iptables::diagnostics::{Diagnostic, Span};

/// Chains that know no source MAC address.
const AFTER_ROUTING: &[&str] = &["OUTPUT", "POSTROUTING"];

/// `-m mac`.
pub static MAC: Extension = Extension {
    kind: Kind::Match,
    names: &["mac"],
    family: None,
    protocol: None,
    repeatable: true,
    options: &[OptionSpec { name: "mac-source", id: 1, slot: 1, args: 1, invertible: true }],
    new: |_| Box::new(Mac { given: None }),
};

/// `-m pkttype`.
pub static PKTTYPE: Extension = Extension {
    kind: Kind::Match,
    names: &["pkttype"],
    family: None,
    protocol: None,
    repeatable: true,
    options: &[OptionSpec { name: "pkt-type", id: 1, slot: 1, args: 1, invertible: true }],
    new: |_| Box::new(PacketTypeMatch { given: None }),
};

/// `-m eui64`.
pub static EUI64: Extension = Extension {
    kind: Kind::Match,
    names: &["eui64"],
    family: Some(Family::V6),
    protocol: None,
    repeatable: true,
    options: &[],
    new: |_| Box::new(Eui64),
};

#[derive(Debug)]
struct Mac {
    given: Option<([u8; 6], bool)>,
}

/// Six numbers of one or two hexadecimal digits.
fn mac(text: &str) -> Option<[u8; 6]> {
    let mut address = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut address {
        let part = parts.next()?;
        let is_short = (1..=2).contains(&part.len()) && part.bytes().all(|digit| digit.is_ascii_hexdigit());
        *byte = u8::from_str_radix(part, 16).ok().filter(|_| is_short)?;
    }
    parts.next().is_none().then_some(address)
}

impl Mac {
    fn text(&self) -> (String, bool) {
        let (address, invert) = self.given.unwrap_or_default();
        (address.map(|byte| format!("{byte:02x}")).join(":"), invert)
    }
}

impl Instance for Mac {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        let word = first(given)?;
        let address = mac(&word.text).ok_or_else(|| {
            Diagnostic::error(word.span, format!("`{}` is no MAC address", word.text))
                .hint("write six bytes in hexadecimal: `02:00:5e:10:00:01`")
        })?;
        self.given = Some((address, given.invert));
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        missing(self.given.is_some(), span, "mac", "`--mac-source ADDRESS`")
    }

    fn print(&self, out: &mut String) {
        let (address, invert) = self.text();
        let _ = write!(out, " -m mac{} --mac-source {address}", bang(invert));
    }

    fn list(&self, out: &mut String) {
        let (address, invert) = self.text();
        let _ = write!(out, " MAC{} {address}", bang(invert));
    }

    fn lower(&self) -> Lowered {
        let (address, invert) = self.given.unwrap_or_default();
        Lowered::Matches(vec![Match::Header(HeaderMatch::Mac { address, invert })])
    }

    fn not_in(&self) -> &'static [&'static str] {
        AFTER_ROUTING
    }
}

#[derive(Debug)]
struct Eui64;

impl Instance for Eui64 {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        Err(Diagnostic::error(given.span, "`-m eui64` takes no option"))
    }

    fn finish(&mut self, _facts: Facts<'_>, _span: Span) -> Result<(), Diagnostic> {
        Ok(())
    }

    fn print(&self, out: &mut String) {
        out.push_str(" -m eui64");
    }

    fn list(&self, _out: &mut String) {}

    fn lower(&self) -> Lowered {
        Lowered::Matches(vec![Match::Header(HeaderMatch::Eui64)])
    }

    fn not_in(&self) -> &'static [&'static str] {
        AFTER_ROUTING
    }
}

/// Names of types; the first of each is the one printed.
const TYPES: [(&str, PacketType); 7] = [
    ("unicast", PacketType::Unicast),
    ("broadcast", PacketType::Broadcast),
    ("multicast", PacketType::Multicast),
    ("otherhost", PacketType::OtherHost),
    ("bcast", PacketType::Broadcast),
    ("mcast", PacketType::Multicast),
    ("host", PacketType::Unicast),
];

#[derive(Debug)]
struct PacketTypeMatch {
    given: Option<(PacketType, bool)>,
}

impl PacketTypeMatch {
    fn given(&self) -> (PacketType, bool) {
        self.given.unwrap_or((PacketType::OtherHost, false))
    }

    fn name(&self) -> &'static str {
        TYPES.iter().find(|(_, is)| *is == self.given().0).map_or("", |(name, _)| name)
    }
}

impl Instance for PacketTypeMatch {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        let word = first(given)?;
        let found = TYPES.iter().find(|(name, _)| name.eq_ignore_ascii_case(&word.text));
        let &(_, is) = found.ok_or_else(|| {
            Diagnostic::error(word.span, format!("unknown packet type `{}`", word.text))
                .hint("types are unicast, broadcast, multicast and otherhost")
        })?;
        self.given = Some((is, given.invert));
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        missing(self.given.is_some(), span, "pkttype", "`--pkt-type TYPE`")
    }

    fn print(&self, out: &mut String) {
        let _ = write!(out, " -m pkttype{} --pkt-type {}", bang(self.given().1), self.name());
    }

    fn list(&self, out: &mut String) {
        let _ = write!(out, " PKTTYPE {}= {}", mark(self.given().1), self.name());
    }

    fn lower(&self) -> Lowered {
        let (is, invert) = self.given();
        Lowered::Matches(vec![Match::Header(HeaderMatch::PacketType { is, invert })])
    }
}
