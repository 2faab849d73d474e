//! `-m tcp`: ports, flags and options.

use std::fmt::Write as _;

use dataplane::rules::header::HeaderMatch;
use dataplane::rules::model::Match;

use super::ports::{DPORT, Ports, SPORT, require_protocol};
use super::values::{bang, mark, value};
use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec};
use crate::iptables::diagnostics::{Diagnostic, Span};
use crate::iptables::lexer::Word;

const FLAGS: u8 = 3;
const SYN: u8 = 4;
const OPTION: u8 = 5;
/// Bytes of the fixed header.
const HEADER_LEN: u8 = 20;

/// Flag bits in the order iptables prints them.
const FLAG_NAMES: [(&str, u8); 6] =
    [("FIN", 0x01), ("SYN", 0x02), ("RST", 0x04), ("PSH", 0x08), ("ACK", 0x10), ("URG", 0x20)];

/// `-m tcp`.
pub static TCP: Extension = Extension {
    kind: Kind::Match,
    names: &["tcp"],
    family: None,
    protocol: Some(6),
    repeatable: false,
    options: &[
        OptionSpec { name: "source-port", id: SPORT, slot: 1, args: 1, invertible: true },
        OptionSpec { name: "sport", id: SPORT, slot: 1, args: 1, invertible: true },
        OptionSpec { name: "destination-port", id: DPORT, slot: 2, args: 1, invertible: true },
        OptionSpec { name: "dport", id: DPORT, slot: 2, args: 1, invertible: true },
        OptionSpec { name: "syn", id: SYN, slot: 3, args: 0, invertible: true },
        OptionSpec { name: "tcp-flags", id: FLAGS, slot: 3, args: 2, invertible: true },
        OptionSpec { name: "tcp-option", id: OPTION, slot: 4, args: 1, invertible: true },
    ],
    new: |_| Box::new(Tcp::default()),
};

#[derive(Debug, Default)]
struct Tcp {
    ports: Ports,
    flags: Option<Flags>,
    /// `--tcp-option`, and whether inverted.
    option: Option<(u8, bool)>,
}

#[derive(Clone, Copy, Debug)]
struct Flags {
    mask: u8,
    comp: u8,
    invert: bool,
}

impl Instance for Tcp {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        match (given.id, given.args) {
            (SYN, _) => self.flags = Some(Flags { mask: 0x17, comp: 0x02, invert: given.invert }),
            (FLAGS, [mask, comp]) => {
                let flags = Flags { mask: flags(mask)?, comp: flags(comp)?, invert: given.invert };
                if flags.mask == 0 {
                    return Err(Diagnostic::unsupported(mask.span, "this looks at no flag at all")
                        .hint("leave `--tcp-flags` out"));
                }
                self.flags = Some(flags);
            }
            (OPTION, _) => {
                let kind = u8::try_from(value(given, 1, u64::from(u8::MAX))?).unwrap_or(u8::MAX);
                self.option = Some((kind, given.invert));
            }
            _ => self.ports.option(given, "tcp", true)?,
        }
        Ok(())
    }

    fn finish(&mut self, facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        require_protocol("tcp", 6, facts, span)
    }

    fn print(&self, out: &mut String) {
        let Self { ports, flags, option } = self;
        out.push_str(" -m tcp");
        ports.print(out);
        if let Some((kind, invert)) = *option {
            let _ = write!(out, "{} --tcp-option {kind}", bang(invert));
        }
        if let Some(Flags { mask, comp, invert }) = *flags {
            let _ = write!(out, "{} --tcp-flags {} {}", bang(invert), names(mask), names(comp));
        }
    }

    fn list(&self, out: &mut String) {
        let Self { ports, flags, option } = self;
        out.push_str(" tcp");
        ports.list(out);
        if let Some((kind, invert)) = *option {
            let _ = write!(out, " option={}{kind}", mark(invert));
        }
        if let Some(Flags { mask, comp, invert }) = *flags {
            let _ = write!(out, " flags:{}0x{mask:02X}/0x{comp:02X}", mark(invert));
        }
    }

    fn lower(&self) -> Lowered {
        let Self { ports, flags, option } = self;
        // What the kernel's own match is for, ports and flags alone being compared without it.
        let asks_header = option.is_some() || *ports == Ports::default() && flags.is_none();
        let mut matches = Vec::new();
        matches.extend(asks_header.then_some(Match::Header(HeaderMatch::Carries(HEADER_LEN))));
        matches.extend(ports.lower());
        matches.extend(flags.map(|Flags { mask, comp, invert }| Match::TcpFlags { mask, comp, invert }));
        matches.extend(option.map(|(kind, invert)| Match::Header(HeaderMatch::TcpOption { kind, invert })));
        Lowered::Matches(matches)
    }
}

/// Reads a comma list of flag names in any case; empty items are skipped, as strtok skips them.
fn flags(word: &Word) -> Result<u8, Diagnostic> {
    let mut bits = 0;
    for name in word.text.split(',').filter(|name| !name.is_empty()) {
        bits |= match name.to_ascii_uppercase().as_str() {
            "ALL" => 0x3f,
            "NONE" => 0,
            upper => FLAG_NAMES.iter().find(|(known, _)| *known == upper).map(|&(_, bit)| bit).ok_or_else(
                || {
                    Diagnostic::error(word.span, format!("unknown TCP flag `{name}`"))
                        .hint("flags are SYN ACK FIN RST URG PSH ALL NONE, separated by commas")
                },
            )?,
        };
    }
    Ok(bits)
}

fn names(bits: u8) -> String {
    let set: Vec<&str> =
        FLAG_NAMES.iter().filter(|(_, bit)| bits & bit != 0).map(|&(name, _)| name).collect();
    if set.is_empty() { "NONE".to_owned() } else { set.join(",") }
}
