//! `-j LOG` and `-j NFLOG`: packets written down.

use std::fmt::Write as _;

use dataplane::rules::conn::Effect;
use dataplane::rules::log::{LineStyle, Log, LogSpec, LogTo};
use dataplane::rules::model::Target;

use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec, first, number};
use crate::iptables::diagnostics::{Diagnostic, Span};
use crate::iptables::names::nearest;
use crate::iptables::printer::quote;

/// `-j LOG`.
pub static LOG: Extension = Extension {
    kind: Kind::Target,
    names: &["LOG"],
    family: None,
    protocol: None,
    repeatable: false,
    options: &[
        option("log-prefix", PREFIX, 1),
        option("log-level", LEVEL, 1),
        option("log-tcp-sequence", SEQUENCE, 0),
        option("log-tcp-options", TCP_OPTIONS, 0),
        option("log-ip-options", IP_OPTIONS, 0),
        option("log-uid", UID, 0),
        option("log-macdecode", MAC_DECODE, 0),
    ],
    new: |_| Box::new(LogLine::default()),
};

/// `-j NFLOG`.
pub static NFLOG: Extension = Extension {
    kind: Kind::Target,
    names: &["NFLOG"],
    family: None,
    protocol: None,
    repeatable: false,
    options: &[
        option("nflog-prefix", PREFIX, 1),
        option("nflog-group", GROUP, 1),
        option("nflog-range", RANGE, 1),
        option("nflog-size", SIZE, 1),
        option("nflog-threshold", THRESHOLD, 1),
    ],
    new: |_| Box::new(NfLog::default()),
};

const PREFIX: u8 = 1;
const LEVEL: u8 = 2;
const SEQUENCE: u8 = 3;
const TCP_OPTIONS: u8 = 4;
const IP_OPTIONS: u8 = 5;
const UID: u8 = 6;
const MAC_DECODE: u8 = 7;
const GROUP: u8 = 8;
const RANGE: u8 = 9;
const SIZE: u8 = 10;
const THRESHOLD: u8 = 11;

/// Each is given once at most.
const fn option(name: &'static str, id: u8, args: u8) -> OptionSpec {
    OptionSpec { name, id, slot: id, args, invertible: false }
}

/// Names of syslog's levels as iptables has them.
const LEVELS: [(&str, u8); 9] = [
    ("alert", 1),
    ("crit", 2),
    ("debug", 7),
    ("emerg", 0),
    ("error", 3),
    ("info", 6),
    ("notice", 5),
    ("panic", 0),
    ("warning", 4),
];
/// The level if none is given: a warning.
const LEVEL_DEFAULT: u8 = 4;
/// Longest prefixes, in bytes. Of a longer one of LOG's iptables drops what is too much if that is one byte.
const LOG_PREFIX_MAX: usize = 29;
const NFLOG_PREFIX_MAX: usize = 64;

fn prefix(given: &Given<'_>, max: usize) -> Result<String, Diagnostic> {
    let word = first(given)?;
    if word.text.is_empty() {
        return Err(Diagnostic::error(word.span, "an empty prefix").hint("leave the option out"));
    }
    if word.text.len() > max {
        let message = format!("this prefix has {} bytes, {max} are kept", word.text.len());
        return Err(Diagnostic::unsupported(word.span, message).hint("shorten it"));
    }
    Ok(word.text.clone())
}

#[derive(Debug)]
struct LogLine {
    prefix: Option<String>,
    style: LineStyle,
    /// `--log-uid`: kept and printed, of no consequence. A packet that passes belongs to no socket, and netfilter adds
    /// nothing to its line either.
    uid: bool,
}

impl Default for LogLine {
    fn default() -> Self {
        Self { prefix: None, style: LineStyle { level: LEVEL_DEFAULT, ..LineStyle::default() }, uid: false }
    }
}

impl LogLine {
    /// The switches, with the bits that `iptables -L` adds up.
    fn switches(&self) -> [(&'static str, u8, bool); 5] {
        let Self { style, uid, .. } = self;
        [
            ("log-tcp-sequence", 1, style.tcp_sequence),
            ("log-tcp-options", 2, style.tcp_options),
            ("log-ip-options", 4, style.ip_options),
            ("log-uid", 8, *uid),
            ("log-macdecode", 32, style.mac_decode),
        ]
    }
}

fn level(given: &Given<'_>) -> Result<u8, Diagnostic> {
    let word = first(given)?;
    let named = LEVELS.iter().find(|(name, _)| *name == word.text).map(|(_, level)| *level);
    named.or_else(|| number(&word.text, 7).and_then(|level| u8::try_from(level).ok())).ok_or_else(|| {
        let hint = nearest(&word.text, LEVELS.iter().map(|(name, _)| *name)).map_or_else(
            || {
                "a level is a number from 0 to 7, or emerg, alert, crit, error, warning, notice, info, debug"
                    .to_owned()
            },
            |near| format!("did you mean `{near}`?"),
        );
        Diagnostic::error(word.span, format!("`{}` is no log level", word.text)).hint(hint)
    })
}

impl Instance for LogLine {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        match given.id {
            PREFIX => self.prefix = Some(prefix(given, LOG_PREFIX_MAX)?),
            LEVEL => self.style.level = level(given)?,
            SEQUENCE => self.style.tcp_sequence = true,
            TCP_OPTIONS => self.style.tcp_options = true,
            IP_OPTIONS => self.style.ip_options = true,
            UID => self.uid = true,
            _ => self.style.mac_decode = true,
        }
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, _span: Span) -> Result<(), Diagnostic> {
        Ok(())
    }

    fn print(&self, out: &mut String) {
        out.push_str(" -j LOG");
        if let Some(prefix) = &self.prefix {
            out.push_str(" --log-prefix ");
            quote(prefix, out);
        }
        if self.style.level != LEVEL_DEFAULT {
            let _ = write!(out, " --log-level {}", self.style.level);
        }
        for (name, _, _) in self.switches().iter().filter(|(_, _, on)| *on) {
            let _ = write!(out, " --{name}");
        }
    }

    fn list(&self, out: &mut String) {
        let flags: u8 = self.switches().iter().filter(|(_, _, on)| *on).map(|(_, bit, _)| bit).sum();
        let _ = write!(out, " LOG flags {flags} level {}", self.style.level);
        if let Some(prefix) = &self.prefix {
            let _ = write!(out, " prefix \"{prefix}\"");
        }
    }

    fn lower(&self) -> Lowered {
        let prefix = self.prefix.as_deref().unwrap_or_default().into();
        let spec = LogSpec { prefix, to: LogTo::Line(self.style) };
        Lowered::Target(Target::Effect(Effect::Log(Log::new(spec))))
    }

    fn target_name(&self) -> &'static str {
        "LOG"
    }
}

#[derive(Debug, Default)]
struct NfLog {
    prefix: Option<String>,
    group: u16,
    size: Option<u32>,
    /// How many packets the kernel holds back before it tells a listener of them; here all are written at once.
    threshold: u16,
    range: Option<Span>,
}

impl NfLog {
    fn print_words(&self, out: &mut String, dashes: &str) {
        if let Some(prefix) = &self.prefix {
            let _ = write!(out, " {dashes}nflog-prefix ");
            quote(prefix, out);
        }
        if self.group != 0 {
            let _ = write!(out, " {dashes}nflog-group {}", self.group);
        }
        if let Some(size) = self.size {
            let _ = write!(out, " {dashes}nflog-size {size}");
        }
        if self.threshold != 0 {
            let _ = write!(out, " {dashes}nflog-threshold {}", self.threshold);
        }
    }
}

/// A number up to `max`.
fn bounded<T: TryFrom<u64>>(given: &Given<'_>, max: u64) -> Result<T, Diagnostic> {
    let word = first(given)?;
    let value = number(&word.text, max).and_then(|value| T::try_from(value).ok());
    value.ok_or_else(|| Diagnostic::error(word.span, format!("`{}` is no number from 0 to {max}", word.text)))
}

impl Instance for NfLog {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        match given.id {
            PREFIX => self.prefix = Some(prefix(given, NFLOG_PREFIX_MAX)?),
            GROUP => self.group = bounded(given, u64::from(u16::MAX))?,
            SIZE => self.size = Some(bounded(given, u64::from(u32::MAX))?),
            THRESHOLD => self.threshold = bounded(given, u64::from(u16::MAX))?,
            _ => {
                // Read and forgotten, as iptables does since it found that it never worked.
                let _: u32 = bounded(given, u64::from(u32::MAX))?;
                self.range = Some(given.span);
            }
        }
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, _span: Span) -> Result<(), Diagnostic> {
        match self.range {
            Some(place) if self.size.is_some() => {
                Err(Diagnostic::error(place, "`--nflog-range` does not go with `--nflog-size`")
                    .hint("leave it out: it never had an effect"))
            }
            _ => Ok(()),
        }
    }

    fn print(&self, out: &mut String) {
        out.push_str(" -j NFLOG");
        self.print_words(out, "--");
    }

    fn list(&self, out: &mut String) {
        self.print_words(out, "");
    }

    fn lower(&self) -> Lowered {
        let prefix = self.prefix.as_deref().unwrap_or_default().into();
        let spec = LogSpec { prefix, to: LogTo::Capture { group: self.group, size: self.size } };
        Lowered::Target(Target::Effect(Effect::Log(Log::new(spec))))
    }

    fn target_name(&self) -> &'static str {
        "NFLOG"
    }
}
