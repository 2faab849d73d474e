//! `-m mark` and `-j MARK`: the packet's mark. Also how a mark with its mask is read and printed, for connmark.

use std::fmt::Write as _;

use dataplane::rules::conn::{ConnMatch, Effect};
use dataplane::rules::model::{Match, Target};

use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec, first, number};
use crate::iptables::diagnostics::{Diagnostic, Span};

/// `-m mark`.
pub static MARK: Extension = Extension {
    kind: Kind::Match,
    names: &["mark"],
    family: None,
    protocol: None,
    repeatable: true,
    options: MATCH_OPTIONS,
    new: |_| Box::new(MarkMatch { of: MarkOf::Packet, mark: None, invert: false }),
};

/// `-j MARK`.
pub static SET_MARK: Extension = Extension {
    kind: Kind::Target,
    names: &["MARK"],
    family: None,
    protocol: None,
    repeatable: false,
    options: SET_OPTIONS,
    new: |_| Box::new(SetMark::default()),
};

/// Options of `-m mark` and `-m connmark`.
pub(super) const MATCH_OPTIONS: &[OptionSpec] =
    &[OptionSpec { name: "mark", id: 1, slot: 1, args: 1, invertible: true }];

const SET_OPTIONS: &[OptionSpec] = &[
    set_option("set-xmark", SET_XMARK),
    set_option("set-mark", SET_MARK_ID),
    set_option("and-mark", AND_MARK),
    set_option("or-mark", OR_MARK),
    set_option("xor-mark", XOR_MARK),
];

const fn set_option(name: &'static str, id: u8) -> OptionSpec {
    OptionSpec { name, id, slot: 1, args: 1, invertible: false }
}

pub(super) const SET_XMARK: u8 = 1;
pub(super) const SET_MARK_ID: u8 = 2;
pub(super) const AND_MARK: u8 = 3;
pub(super) const OR_MARK: u8 = 4;
pub(super) const XOR_MARK: u8 = 5;

/// `VALUE[/MASK]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Masked {
    pub(super) value: u32,
    pub(super) mask: u32,
}

impl std::fmt::Display for Masked {
    /// As a match is printed: without the mask if it is full.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { value, mask } = self;
        if *mask == u32::MAX { write!(f, "{value:#x}") } else { write!(f, "{value:#x}/{mask:#x}") }
    }
}

/// Reads a 32-bit number as C's `strtoul` does.
pub(super) fn word32(given: &Given<'_>) -> Result<u32, Diagnostic> {
    let word = first(given)?;
    number(&word.text, u64::from(u32::MAX))
        .and_then(|value| u32::try_from(value).ok())
        .ok_or_else(|| bad(given, &word.text))
}

/// Reads `VALUE[/MASK]`.
pub(super) fn masked(given: &Given<'_>) -> Result<Masked, Diagnostic> {
    let word = first(given)?;
    let (value, mask) = match word.text.split_once('/') {
        Some((value, mask)) => (value, Some(mask)),
        None => (word.text.as_str(), None),
    };
    let read = |text: &str| number(text, u64::from(u32::MAX)).and_then(|value| u32::try_from(value).ok());
    let (value, mask) = (read(value), mask.map_or(Some(u32::MAX), read));
    let (Some(value), Some(mask)) = (value, mask) else { return Err(bad(given, &word.text)) };
    Ok(Masked { value, mask })
}

fn bad(given: &Given<'_>, text: &str) -> Diagnostic {
    let span = given.args.first().map_or(given.span, |word| word.span);
    Diagnostic::error(span, format!("`{text}` is no mark"))
        .hint("a mark is a 32-bit number, where it may be `VALUE/MASK` so is its mask")
}

/// What `--set-xmark` and its kin come to: bits flipped, bits cleared before.
pub(super) fn flips(given: &Given<'_>) -> Result<Masked, Diagnostic> {
    Ok(match given.id {
        SET_XMARK => masked(given)?,
        SET_MARK_ID => {
            let Masked { value, mask } = masked(given)?;
            Masked { value, mask: value | mask }
        }
        AND_MARK => Masked { value: 0, mask: !word32(given)? },
        OR_MARK => {
            let bits = word32(given)?;
            Masked { value: bits, mask: bits }
        }
        _ => Masked { value: word32(given)?, mask: 0 },
    })
}

/// The words of `iptables -L` for such a change.
pub(super) fn list_flips(out: &mut String, Masked { value, mask }: Masked) {
    let _ = match (value, mask) {
        (0, _) => write!(out, " and {:#x}", !mask),
        _ if value == mask => write!(out, " or {value:#x}"),
        (_, 0) => write!(out, " xor {value:#x}"),
        (_, u32::MAX) => write!(out, " set {value:#x}"),
        _ => write!(out, " xset {value:#x}/{mask:#x}"),
    };
}

/// Whose mark a match looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MarkOf {
    Packet,
    Connection,
}

impl MarkOf {
    const fn module(self) -> &'static str {
        match self {
            Self::Packet => "mark",
            Self::Connection => "connmark",
        }
    }
}

/// `-m mark`, `-m connmark`.
#[derive(Debug)]
pub(super) struct MarkMatch {
    pub(super) of: MarkOf,
    pub(super) mark: Option<Masked>,
    pub(super) invert: bool,
}

impl MarkMatch {
    fn mark(&self) -> Masked {
        self.mark.unwrap_or(Masked { value: 0, mask: u32::MAX })
    }
}

impl Instance for MarkMatch {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        self.mark = Some(masked(given)?);
        self.invert = given.invert;
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        let module = self.of.module();
        self.mark.map(|_| ()).ok_or_else(|| {
            Diagnostic::error(span, format!("`-m {module}` without a mark")).hint("add `--mark VALUE[/MASK]`")
        })
    }

    fn print(&self, out: &mut String) {
        let bang = if self.invert { " !" } else { "" };
        let _ = write!(out, " -m {}{bang} --mark {}", self.of.module(), self.mark());
    }

    fn list(&self, out: &mut String) {
        let (bang, mark) = (if self.invert { "!" } else { "" }, self.mark());
        let _ = match self.of {
            MarkOf::Packet if self.invert => write!(out, " mark match ! {mark}"),
            MarkOf::Packet => write!(out, " mark match {mark}"),
            MarkOf::Connection => write!(out, " connmark match {bang} {mark}"),
        };
    }

    fn lower(&self) -> Lowered {
        let (Masked { value, mask }, invert) = (self.mark(), self.invert);
        Lowered::Matches(vec![Match::Conn(match self.of {
            MarkOf::Packet => ConnMatch::Mark { value, mask, invert },
            MarkOf::Connection => ConnMatch::ConnMark { value, mask, invert },
        })])
    }
}

#[derive(Debug, Default)]
struct SetMark {
    flips: Option<Masked>,
}

impl SetMark {
    fn flips(&self) -> Masked {
        self.flips.unwrap_or(Masked { value: 0, mask: 0 })
    }
}

impl Instance for SetMark {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        self.flips = Some(flips(given)?);
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        self.flips.map(|_| ()).ok_or_else(|| {
            Diagnostic::error(span, "`-j MARK` without a mark")
                .hint("add `--set-mark`, `--set-xmark`, `--and-mark`, `--or-mark` or `--xor-mark`")
        })
    }

    fn print(&self, out: &mut String) {
        let Masked { value, mask } = self.flips();
        let _ = write!(out, " -j MARK --set-xmark {value:#x}/{mask:#x}");
    }

    fn list(&self, out: &mut String) {
        out.push_str(" MARK");
        list_flips(out, self.flips());
    }

    fn lower(&self) -> Lowered {
        let Masked { value: set, mask: clear } = self.flips();
        Lowered::Target(Target::Effect(Effect::SetMark { set, clear }))
    }

    fn target_name(&self) -> &'static str {
        "MARK"
    }
}
