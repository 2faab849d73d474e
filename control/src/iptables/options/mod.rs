//! Matches and targets, one file per family of them. Adding one is a new file and a line in [`EXTENSIONS`]; what
//! iptables has and we do not is listed in [`known`]. Control thread and tools only.
//!
//! Invariant: an [`Instance`] that passed `finish` can be printed and lowered without failing.

use std::fmt::Debug;

use dataplane::packet::Family;
use dataplane::rules::model;

use super::diagnostics::{Diagnostic, Span};
use super::lexer::Word;
use super::names::Services;
use super::syntax::Proto;

pub mod addresses;
pub mod basic;
pub mod comment;
pub mod connbytes;
pub mod connlabel;
pub mod connlimit;
pub mod connmark;
pub mod conntrack;
pub mod ct;
pub mod dccp;
pub mod ecn;
pub mod extension6;
pub mod hashlimit;
pub mod helper;
pub mod hops;
pub mod icmp;
pub mod ipv6header;
pub mod known;
pub mod limit;
pub mod link;
pub mod log;
pub mod mark;
pub mod multiport;
pub mod physdev;
pub mod ports;
pub mod quota;
pub mod recent;
pub mod reject;
pub mod rt;
pub mod sctp;
pub mod set;
pub mod set_ecn;
pub mod set_hops;
pub mod set_tcp;
pub mod set_tos;
pub mod spans;
pub mod statistic;
pub mod string;
pub mod tcp;
pub mod time;
pub mod tos;
pub mod trace;
pub mod u32;
mod values;

/// Whether an extension is used with `-m` or `-j`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `-m`.
    Match,
    /// `-j`.
    Target,
}

/// A match or target extension: what `-m NAME` or `-j NAME` loads.
pub struct Extension {
    /// `-m` or `-j`.
    pub kind: Kind,
    /// Names it is loaded by; the first is the one iptables-save prints.
    pub names: &'static [&'static str],
    /// Family it exists for; `None` is both.
    pub family: Option<Family>,
    /// Protocol whose `-p` loads it when one of its options is met.
    pub protocol: Option<u8>,
    /// Whether one rule may load it several times.
    pub repeatable: bool,
    /// All its options, also those we refuse: abbreviations depend on them.
    pub options: &'static [OptionSpec],
    /// A fresh, empty one.
    pub new: fn(Family) -> Box<dyn Instance>,
}

/// One option of an extension.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// Long name without dashes.
    pub name: &'static str,
    /// What `Instance::option` is told; aliases share it, and getopt does not call aliases ambiguous.
    pub id: u8,
    /// Options of the same non-zero slot exclude each other and themselves. Zero: valid iptables, not supported.
    pub slot: u8,
    /// Words it takes.
    pub args: u8,
    /// Whether `!` may stand before it.
    pub invertible: bool,
}

/// An option as found on the line.
pub struct Given<'a> {
    /// [`OptionSpec::id`].
    pub id: u8,
    /// Whether `!` stood before it.
    pub invert: bool,
    /// Its arguments, as many as [`OptionSpec::args`] says.
    pub args: &'a [Word],
    /// Place of the option itself.
    pub span: Span,
    /// The rule so far.
    pub facts: Facts<'a>,
}

/// What an extension may want to know about its rule.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// Family of the file.
    pub family: Family,
    /// `-p`.
    pub proto: Option<Proto>,
    /// Service names.
    pub services: &'a dyn Services,
}

/// What a finished extension means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lowered {
    /// Conditions; may be none.
    Matches(Vec<model::Match>),
    /// What the rule does.
    Target(model::Target),
}

/// A loaded match or target of one rule.
pub trait Instance: Debug + Send + Sync {
    /// Takes an option.
    ///
    /// # Errors
    /// What is wrong with its value.
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic>;

    /// Checks the whole once the line is read; `span` is the place it was loaded at.
    ///
    /// # Errors
    /// What is missing or does not go together.
    fn finish(&mut self, facts: Facts<'_>, span: Span) -> Result<(), Diagnostic>;

    /// Appends it as iptables-save prints it, starting with a space: ` -m tcp --dport 22`, ` -j REJECT ...`.
    fn print(&self, out: &mut String);

    /// Appends its words of `iptables -L -n`, each led by a space: ` tcp dpt:22`.
    fn list(&self, out: &mut String);

    /// Its meaning.
    fn lower(&self) -> Lowered;

    /// Its name in the target column, for targets.
    fn target_name(&self) -> &'static str {
        ""
    }

    /// The text of a comment.
    fn comment(&self) -> Option<&str> {
        None
    }

    /// Whether it marks its rule as management: flows the rule accepts may use the table's reserve.
    fn marks_management(&self) -> bool {
        false
    }

    /// Built-in chains that cannot ask it, nor chains they call, for matches.
    fn not_in(&self) -> &'static [&'static str] {
        &[]
    }

    /// Built-in chains it may stand in, for targets; `None` is all of them.
    fn built_in_chains(&self) -> Option<&'static [&'static str]> {
        None
    }

    /// Tables it may stand in, for targets.
    fn tables(&self) -> &'static [model::Table] {
        &[model::Table::Filter, model::Table::Mangle, model::Table::Raw]
    }
}

/// Every extension we support.
pub const EXTENSIONS: &[&Extension] = &[
    &comment::COMMENT,
    &connbytes::CONNBYTES,
    &connlabel::CONNLABEL,
    &connlimit::CONNLIMIT,
    &connmark::CONNMARK,
    &connmark::SET_CONNMARK,
    &conntrack::CONNTRACK,
    &conntrack::STATE,
    &ct::CT,
    &ct::NOTRACK,
    &hashlimit::HASHLIMIT,
    &helper::HELPER,
    &icmp::ICMP,
    &icmp::ICMP6,
    &limit::LIMITED,
    &log::LOG,
    &log::NFLOG,
    &mark::MARK,
    &mark::SET_MARK,
    &multiport::MULTIPORT,
    &ports::UDP,
    &quota::QUOTA,
    &recent::RECENT,
    &reject::REJECT4,
    &reject::REJECT6,
    &statistic::STATISTIC,
    &set::SET,
    &set::SET_TARGET,
    &set_ecn::ECN,
    &set_hops::HL,
    &set_hops::TTL,
    &set_tcp::TCPMSS,
    &set_tcp::TCPOPTSTRIP,
    &set_tos::DSCP,
    &set_tos::TOS,
    &tcp::TCP,
    &addresses::ADDRTYPE,
    &addresses::IPRANGE,
    &dccp::DCCP,
    &ecn::ECN,
    &extension6::AH6,
    &extension6::DST,
    &extension6::FRAG,
    &extension6::HBH,
    &hops::HL,
    &hops::TTL,
    &ipv6header::IPV6HEADER,
    &link::EUI64,
    &link::MAC,
    &link::PKTTYPE,
    &physdev::PHYSDEV,
    &rt::RT,
    &sctp::SCTP,
    &spans::AH4,
    &spans::ESP,
    &spans::LENGTH,
    &spans::TCPMSS,
    &string::STRING_MATCH,
    &tos::DSCP,
    &tos::TOS,
    &u32::U32_MATCH,
    &time::TIME,
    &trace::TRACE,
];

impl Extension {
    fn is_for(&self, family: Family) -> bool {
        self.family.is_none_or(|own| own == family)
    }
}

/// The extension `-m NAME` or `-j NAME` loads.
#[must_use]
pub fn find(kind: Kind, name: &str, family: Family) -> Option<&'static Extension> {
    EXTENSIONS.iter().copied().find(|extension| {
        extension.kind == kind && extension.is_for(family) && extension.names.contains(&name)
    })
}

/// The match whose options `-p` brings along.
#[must_use]
pub fn find_by_protocol(protocol: u8, family: Family) -> Option<&'static Extension> {
    EXTENSIONS
        .iter()
        .copied()
        .find(|extension| extension.protocol == Some(protocol) && extension.is_for(family))
}

/// A number as C's `strtoul` with base 0 reads it, at most `max`: decimal, `0x` or a leading zero for octal.
#[must_use]
pub fn number(text: &str, max: u64) -> Option<u64> {
    let text = text.trim_start_matches([' ', '\t']);
    let text = text.strip_prefix('+').unwrap_or(text);
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => (hex, 16),
        None if text.len() > 1 && text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok().filter(|&value| value <= max)
}

/// The place of part of a word; the whole word when quoting makes its bytes uncertain.
#[must_use]
pub fn part_of(word: &Word, from: usize, to: usize) -> Span {
    let span = word.span;
    if span.end - span.start != word.text.len() || from >= to {
        return span;
    }
    Span { line: span.line, start: span.start + from, end: span.start + to }
}

/// The first argument; an empty word if the table promised one that is not there.
pub(super) fn first<'a>(given: &'a Given<'_>) -> Result<&'a Word, Diagnostic> {
    given.args.first().ok_or_else(|| Diagnostic::error(given.span, "this option requires an argument"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_strtoul_reads_them() {
        assert_eq!(number("80", 65535), Some(80));
        assert_eq!(number("0x50", 65535), Some(80));
        assert_eq!(number("0120", 65535), Some(80));
        assert_eq!(number(" +8", 65535), Some(8));
        assert_eq!(number("0", 65535), Some(0));
        for bad in ["", "08", "-5", "65536", "1,2", "0x", "+", "++1", "1 ", "99999999999999999999999"] {
            assert_eq!(number(bad, 65535), None, "{bad}");
        }
    }
}
