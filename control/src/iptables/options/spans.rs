//! Matches that are one range of numbers: `-m length`, `-m tcpmss`, `-m esp`, and IPv4's `-m ah`.

use std::fmt::Write as _;

use dataplane::packet::{Family, proto};
use dataplane::rules::header::HeaderMatch;
use dataplane::rules::model::Match;

use super::values::{Span as Numbers, bang, mark};
use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec};
use crate::iptables::diagnostics::{Diagnostic, Span};
use crate::iptables::names::protocol_name;

const fn extension(
    names: &'static [&'static str],
    (family, protocol): (Option<Family>, Option<u8>),
    options: &'static [OptionSpec],
    new: fn(Family) -> Box<dyn Instance>,
) -> Extension {
    Extension { kind: Kind::Match, names, family, protocol, repeatable: true, options, new }
}

const fn option(name: &'static str) -> OptionSpec {
    OptionSpec { name, id: 1, slot: 1, args: 1, invertible: true }
}

/// `-m length`.
pub static LENGTH: Extension =
    extension(&["length"], (None, None), &[option("length")], |_| of(What::Length));
/// `-m tcpmss`.
pub static TCPMSS: Extension = extension(&["tcpmss"], (None, None), &[option("mss")], |_| of(What::Mss));
/// `-m esp`.
pub static ESP: Extension =
    extension(&["esp"], (None, Some(proto::ESP)), &[option("espspi")], |_| of(What::Esp));
/// `-m ah` of IPv4.
pub static AH4: Extension =
    extension(&["ah"], (Some(Family::V4), Some(proto::AH)), &[option("ahspi")], |_| of(What::Auth));

fn of(what: What) -> Box<dyn Instance> {
    Box::new(SpanMatch { what, span: None })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Length,
    Mss,
    Esp,
    Auth,
}

#[derive(Debug)]
struct SpanMatch {
    what: What,
    span: Option<Numbers>,
}

impl What {
    const fn module(self) -> &'static str {
        match self {
            Self::Length => "length",
            Self::Mss => "tcpmss",
            Self::Esp => "esp",
            Self::Auth => "ah",
        }
    }

    const fn option(self) -> &'static str {
        match self {
            Self::Length => "length",
            Self::Mss => "mss",
            Self::Esp => "espspi",
            Self::Auth => "ahspi",
        }
    }

    const fn protocol(self) -> Option<u8> {
        match self {
            Self::Length => None,
            Self::Mss => Some(proto::TCP),
            Self::Esp => Some(proto::ESP),
            Self::Auth => Some(proto::AH),
        }
    }

    const fn is_spi(self) -> bool {
        matches!(self, Self::Esp | Self::Auth)
    }

    const fn max(self) -> u64 {
        if self.is_spi() { u32::MAX as u64 } else { u16::MAX as u64 }
    }
}

impl SpanMatch {
    fn span(&self) -> Numbers {
        self.span.unwrap_or(Numbers::all(self.what.max()))
    }
}

impl Instance for SpanMatch {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        let max = self.what.max();
        self.span = Some(if self.what.is_spi() {
            Numbers::read_some(given, max)?
        } else {
            Numbers::read(given, max)?
        });
        Ok(())
    }

    fn finish(&mut self, facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        let (what, module, option) = (self.what, self.what.module(), self.what.option());
        if let Some(protocol) = what.protocol() {
            require(module, protocol, facts, span)?;
        }
        if self.span.is_none() && !what.is_spi() {
            let message = format!("`-m {module}` without `--{option}`");
            return Err(Diagnostic::error(span, message).hint(format!("add `--{option} NUMBER[:NUMBER]`")));
        }
        Ok(())
    }

    fn print(&self, out: &mut String) {
        let (what, span) = (self.what, self.span());
        let _ = write!(out, " -m {}", what.module());
        if !what.is_spi() || !span.is_all(what.max()) {
            let _ = write!(out, "{} --{} {span}", bang(span.invert), what.option());
        }
    }

    fn list(&self, out: &mut String) {
        let (span, inverted) = (self.span(), mark(self.span().invert));
        let _ = match self.what {
            What::Length => write!(out, " length {inverted}{span}"),
            What::Mss => write!(out, " tcpmss match {inverted}{span}"),
            What::Esp | What::Auth => {
                let _ = write!(out, " {}", self.what.module());
                list_spi(out, span)
            }
        };
    }

    fn lower(&self) -> Lowered {
        let span = self.span();
        Lowered::Matches(vec![Match::Header(match self.what {
            What::Length => HeaderMatch::Length(span.narrow(u16::MAX)),
            What::Mss => HeaderMatch::Mss(span.narrow(u16::MAX)),
            What::Esp | What::Auth => HeaderMatch::Spi(span.narrow(u32::MAX)),
        })])
    }
}

/// ` spi:5`, ` spis:!5:7`, nothing for all.
fn list_spi(out: &mut String, span: Numbers) -> std::fmt::Result {
    if span.is_all(u64::from(u32::MAX)) {
        return Ok(());
    }
    let plural = if span.low == span.high { "" } else { "s" };
    write!(out, " spi{plural}:{}{span}", mark(span.invert))
}

/// Checks that the rule says `-p` with this protocol.
///
/// # Errors
/// If it says another one, none, or the same with `!`.
pub(super) fn require(module: &str, protocol: u8, facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
    match facts.proto {
        Some(proto) if proto.number == protocol && !proto.invert => Ok(()),
        _ => {
            let name = protocol_name(protocol).unwrap_or(module);
            let message = format!("`-m {module}` needs `-p {name}` in the same rule");
            Err(Diagnostic::error(span, message).hint(format!("add `-p {name}`")))
        }
    }
}
