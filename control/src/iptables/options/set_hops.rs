//! `-j TTL` (IPv4) and `-j HL` (IPv6): how many hops a packet has left.

use std::fmt::Write as _;

use dataplane::packet::Family;
use dataplane::rules::alter::{Alter, Hops};
use dataplane::rules::conn::Effect;
use dataplane::rules::model::{Table, Target};

use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec, first, number};
use crate::iptables::diagnostics::{Diagnostic, Span};

/// `-j TTL`.
pub static TTL: Extension = Extension {
    kind: Kind::Target,
    names: &["TTL"],
    family: Some(Family::V4),
    protocol: None,
    repeatable: false,
    options: &[option("ttl-set", SET), option("ttl-dec", DEC), option("ttl-inc", INC)],
    new: |_| Box::new(SetHops { name: "TTL", option: "ttl", hops: None }),
};

/// `-j HL`.
pub static HL: Extension = Extension {
    kind: Kind::Target,
    names: &["HL"],
    family: Some(Family::V6),
    protocol: None,
    repeatable: false,
    options: &[option("hl-set", SET), option("hl-dec", DEC), option("hl-inc", INC)],
    new: |_| Box::new(SetHops { name: "HL", option: "hl", hops: None }),
};

const SET: u8 = 1;
const DEC: u8 = 2;
const INC: u8 = 3;

const fn option(name: &'static str, id: u8) -> OptionSpec {
    OptionSpec { name, id, slot: 1, args: 1, invertible: false }
}

#[derive(Debug)]
struct SetHops {
    name: &'static str,
    option: &'static str,
    hops: Option<Hops>,
}

impl SetHops {
    fn hops(&self) -> Hops {
        self.hops.unwrap_or(Hops::Inc(0))
    }
}

impl Instance for SetHops {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        let word = first(given)?;
        let least = u8::from(given.id != SET);
        let value = number(&word.text, u64::from(u8::MAX)).and_then(|value| u8::try_from(value).ok());
        let value = value.filter(|value| *value >= least).ok_or_else(|| {
            let message = format!("`{}` is no number from {least} to 255", word.text);
            Diagnostic::error(word.span, message)
        })?;
        self.hops = Some(match given.id {
            SET => Hops::Set(value),
            DEC => Hops::Dec(value),
            _ => Hops::Inc(value),
        });
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        let Self { name, option, hops } = self;
        hops.map(|_| ()).ok_or_else(|| {
            Diagnostic::error(span, format!("`-j {name}` without a value"))
                .hint(format!("add `--{option}-set`, `--{option}-dec` or `--{option}-inc`"))
        })
    }

    fn print(&self, out: &mut String) {
        let Self { name, option, .. } = self;
        let _ = match self.hops() {
            Hops::Set(hops) => write!(out, " -j {name} --{option}-set {hops}"),
            Hops::Dec(hops) => write!(out, " -j {name} --{option}-dec {hops}"),
            Hops::Inc(hops) => write!(out, " -j {name} --{option}-inc {hops}"),
        };
    }

    fn list(&self, out: &mut String) {
        let name = self.name;
        let _ = match self.hops() {
            Hops::Set(hops) => write!(out, " {name} set to {hops}"),
            Hops::Dec(hops) => write!(out, " {name} decrement by {hops}"),
            Hops::Inc(hops) => write!(out, " {name} increment by {hops}"),
        };
    }

    fn lower(&self) -> Lowered {
        Lowered::Target(Target::Effect(Effect::Alter(Alter::Hops(self.hops()))))
    }

    fn target_name(&self) -> &'static str {
        self.name
    }

    fn tables(&self) -> &'static [Table] {
        &[Table::Mangle]
    }
}
