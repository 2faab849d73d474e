//! `-j CT` and `-j NOTRACK`: orders to the tracker, in table raw.

use std::fmt::Write as _;

use dataplane::rules::conn::{Effect, Helper, Orders, Zone};
use dataplane::rules::model::{self, Target};

use super::ports::REFUSED;
use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec, first, number};
use crate::iptables::diagnostics::{Diagnostic, Span};
use crate::iptables::names::protocol_name;

const NOTRACK_ID: u8 = 1;
const HELPER: u8 = 2;
const ZONE: u8 = 3;
const ZONE_ORIG: u8 = 4;
const ZONE_REPLY: u8 = 5;

const fn option(name: &'static str, id: u8, slot: u8, args: u8) -> OptionSpec {
    OptionSpec { name, id, slot, args, invertible: false }
}

/// `-j CT`.
pub static CT: Extension = Extension {
    kind: Kind::Target,
    names: &["CT"],
    family: None,
    protocol: None,
    repeatable: false,
    options: &[
        option("notrack", NOTRACK_ID, 1, 0),
        option("helper", HELPER, 2, 1),
        option("timeout", REFUSED, 0, 1),
        option("ctevents", REFUSED, 0, 1),
        option("expevents", REFUSED, 0, 1),
        option("zone-orig", ZONE_ORIG, 3, 1),
        option("zone-reply", ZONE_REPLY, 4, 1),
        option("zone", ZONE, 5, 1),
    ],
    new: |_| Box::new(Ct { name: "CT", ..Ct::default() }),
};

/// `-j NOTRACK`.
pub static NOTRACK: Extension = Extension {
    kind: Kind::Target,
    names: &["NOTRACK"],
    family: None,
    protocol: None,
    repeatable: false,
    options: &[],
    new: |_| Box::new(Ct { name: "NOTRACK", notrack: true, ..Ct::default() }),
};

/// Helpers the kernel has and we do not.
const OTHER_HELPERS: &[&str] =
    &["RAS", "Q.931", "H.245", "amanda", "irc", "netbios-ns", "pptp", "sane", "sip", "snmp", "snmp_trap"];

#[derive(Debug, Default)]
struct Ct {
    name: &'static str,
    notrack: bool,
    helper: Option<(Helper, Span)>,
    zone: u16,
    /// Directions named, original and reply; none is both.
    sides: (bool, bool),
}

impl Ct {
    fn set_helper(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        let word = first(given)?;
        let Some(helper) = Helper::ALL.into_iter().find(|helper| helper.name() == word.text) else {
            let names = Helper::ALL.map(Helper::name).join(", ");
            let hint = format!("helpers are {names}");
            return Err(if OTHER_HELPERS.contains(&word.text.as_str()) {
                Diagnostic::unsupported(word.span, format!("helper `{}` is not supported", word.text))
                    .hint(hint)
            } else {
                Diagnostic::error(word.span, format!("there is no helper `{}`", word.text)).hint(hint)
            });
        };
        self.helper = Some((helper, word.span));
        Ok(())
    }

    fn set_zone(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        let word = first(given)?;
        if word.text == "mark" {
            return Err(Diagnostic::unsupported(word.span, "a zone from the packet's mark is not supported")
                .hint("write the zone's number"));
        }
        let id = number(&word.text, u64::from(u16::MAX)).and_then(|id| u16::try_from(id).ok());
        self.zone = id.ok_or_else(|| {
            Diagnostic::error(word.span, format!("`{}` is no zone", word.text))
                .hint("a zone is a number from 0 to 65535")
        })?;
        self.sides.0 |= given.id == ZONE_ORIG;
        self.sides.1 |= given.id == ZONE_REPLY;
        Ok(())
    }

    /// Options as both printers have them, `--` before each for iptables-save.
    fn words(&self, out: &mut String, dashes: &str) {
        if self.notrack {
            let _ = write!(out, " {dashes}notrack");
        }
        if let Some((helper, _)) = self.helper {
            let _ = write!(out, " {dashes}helper {}", helper.name());
        }
        if self.zone != 0 {
            let option = match self.sides {
                (true, false) => "zone-orig",
                (false, true) => "zone-reply",
                _ => "zone",
            };
            let _ = write!(out, " {dashes}{option} {}", self.zone);
        }
    }
}

impl Instance for Ct {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        match given.id {
            NOTRACK_ID => self.notrack = true,
            HELPER => self.set_helper(given)?,
            _ => self.set_zone(given)?,
        }
        Ok(())
    }

    fn finish(&mut self, facts: Facts<'_>, _span: Span) -> Result<(), Diagnostic> {
        let Some((helper, span)) = self.helper else { return Ok(()) };
        let fits = facts.proto.is_some_and(|proto| proto.number == helper.proto() && !proto.invert);
        if !fits && !self.notrack {
            let proto = protocol_name(helper.proto()).unwrap_or_default();
            let message = format!("helper `{}` needs `-p {proto}` in the same rule", helper.name());
            return Err(Diagnostic::error(span, message));
        }
        Ok(())
    }

    fn print(&self, out: &mut String) {
        let _ = write!(out, " -j {}", self.name);
        if self.name == "CT" {
            self.words(out, "--");
        }
    }

    fn list(&self, out: &mut String) {
        let _ = write!(out, " {}", self.name);
        if self.name == "CT" {
            self.words(out, "");
        }
    }

    fn lower(&self) -> Lowered {
        let Self { name: _, notrack, helper, zone, sides } = *self;
        let (orig, reply) = if sides == (false, false) { (true, true) } else { sides };
        let helper = helper.map(|(helper, _)| helper).filter(|_| !notrack);
        let zone = Zone { id: zone, orig, reply };
        Lowered::Target(Target::Effect(Effect::Order(Orders { notrack, zone, helper })))
    }

    fn target_name(&self) -> &'static str {
        // In the target column iptables shows the real name of both.
        "CT"
    }

    fn tables(&self) -> &'static [model::Table] {
        &[model::Table::Raw]
    }
}
