//! `-m physdev`: the ports of a bridge, which a wire's two NICs are.

use std::fmt::Write as _;

use dataplane::rules::header::{Device, HeaderMatch};
use dataplane::rules::model::{IfacePattern, Match};

use super::basic::iface;
use super::tos::missing;
use super::values::bang;
use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec, first};
use crate::iptables::diagnostics::{Diagnostic, Span};

const IN: u8 = 1;
const OUT: u8 = 2;
const IS_IN: u8 = 3;
const IS_OUT: u8 = 4;
const IS_BRIDGED: u8 = 5;

const fn option(name: &'static str, id: u8, args: u8) -> OptionSpec {
    OptionSpec { name, id, slot: id, args, invertible: true }
}

/// `-m physdev`.
pub static PHYSDEV: Extension = Extension {
    kind: Kind::Match,
    names: &["physdev"],
    family: None,
    protocol: None,
    repeatable: true,
    options: &[
        option("physdev-in", IN, 1),
        option("physdev-out", OUT, 1),
        option("physdev-is-in", IS_IN, 0),
        option("physdev-is-out", IS_OUT, 0),
        option("physdev-is-bridged", IS_BRIDGED, 0),
    ],
    new: |_| Box::new(Physdev { device: Device::default() }),
};

#[derive(Debug)]
struct Physdev {
    device: Device,
}

fn name(given: &Given<'_>) -> Result<(IfacePattern, bool), Diagnostic> {
    let word = first(given)?;
    if word.text.contains(['"', '\\', ' ', '\t']) || word.text.chars().any(char::is_control) {
        return Err(Diagnostic::unsupported(word.span, "blanks or quotes in an interface name")
            .hint("no interface can be called so"));
    }
    if word.text.is_empty() {
        return Err(Diagnostic::unsupported(word.span, "no interface has an empty name"));
    }
    let anything = IfacePattern { name: String::new(), prefix: true };
    Ok((iface(word, given.invert)?.unwrap_or(anything), given.invert))
}

impl Physdev {
    /// The options in the order and form of iptables-save.
    fn text(&self) -> String {
        let Device { ingress, egress, is_in, is_out, is_bridged } = &self.device;
        let mut out = String::new();
        let flag = |asked: &Option<bool>, name: &str, out: &mut String| {
            if let Some(is) = asked {
                let _ = write!(out, "{} --physdev-{name}", bang(!is));
            }
        };
        let nic = |asked: &Option<(IfacePattern, bool)>, name: &str, out: &mut String| {
            if let Some((pattern, invert)) = asked {
                let plus = if pattern.prefix { "+" } else { "" };
                let _ = write!(out, "{} --physdev-{name} {}{plus}", bang(*invert), pattern.name);
            }
        };
        flag(is_in, "is-in", &mut out);
        nic(ingress, "in", &mut out);
        flag(is_out, "is-out", &mut out);
        nic(egress, "out", &mut out);
        flag(is_bridged, "is-bridged", &mut out);
        out
    }
}

impl Instance for Physdev {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        let device = &mut self.device;
        match given.id {
            IN => device.ingress = Some(name(given)?),
            OUT => device.egress = Some(name(given)?),
            IS_IN => device.is_in = Some(!given.invert),
            IS_OUT => device.is_out = Some(!given.invert),
            _ => device.is_bridged = Some(!given.invert),
        }
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        missing(
            self.device != Device::default(),
            span,
            "physdev",
            "`--physdev-in NIC` or another of its options",
        )
    }

    fn print(&self, out: &mut String) {
        let _ = write!(out, " -m physdev{}", self.text());
    }

    fn list(&self, out: &mut String) {
        let _ = write!(out, " PHYSDEV match{}", self.text());
    }

    fn lower(&self) -> Lowered {
        Lowered::Matches(vec![Match::Header(HeaderMatch::Device(self.device.clone()))])
    }

    /// Of what the host sends itself no port is known, unless only bridged packets are meant.
    fn not_in(&self) -> &'static [&'static str] {
        let Device { egress, is_out, is_bridged, .. } = &self.device;
        let asks_out = egress.is_some() || is_out.is_some();
        if asks_out && *is_bridged != Some(true) { &["OUTPUT"] } else { &[] }
    }
}
