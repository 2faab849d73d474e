//! `-m connmark` and `-j CONNMARK`: the connection's mark.

use std::fmt::Write as _;

use dataplane::rules::conn::{Effect, Shift};
use dataplane::rules::model::Target;

use super::mark::{
    AND_MARK, MATCH_OPTIONS, MarkMatch, MarkOf, Masked, OR_MARK, SET_MARK_ID, SET_XMARK, XOR_MARK, flips,
    list_flips, word32,
};
use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec, first, number};
use crate::iptables::diagnostics::{Diagnostic, Span};

/// `-m connmark`.
pub static CONNMARK: Extension = Extension {
    kind: Kind::Match,
    names: &["connmark"],
    family: None,
    protocol: None,
    repeatable: true,
    options: MATCH_OPTIONS,
    new: |_| Box::new(MarkMatch { of: MarkOf::Connection, mark: None, invert: false }),
};

/// `-j CONNMARK`.
pub static SET_CONNMARK: Extension = Extension {
    kind: Kind::Target,
    names: &["CONNMARK"],
    family: None,
    protocol: None,
    repeatable: false,
    options: OPTIONS,
    new: |_| Box::new(SetConnMark::default()),
};

const SAVE: u8 = 6;
const RESTORE: u8 = 7;
const MASK: u8 = 8;
const NFMASK: u8 = 9;
const CTMASK: u8 = 10;
const LEFT: u8 = 11;
const RIGHT: u8 = 12;

const fn option(name: &'static str, id: u8, slot: u8, args: u8) -> OptionSpec {
    OptionSpec { name, id, slot, args, invertible: false }
}

const OPTIONS: &[OptionSpec] = &[
    option("set-xmark", SET_XMARK, 1, 1),
    option("set-mark", SET_MARK_ID, 1, 1),
    option("and-mark", AND_MARK, 1, 1),
    option("or-mark", OR_MARK, 1, 1),
    option("xor-mark", XOR_MARK, 1, 1),
    option("save-mark", SAVE, 1, 0),
    option("restore-mark", RESTORE, 1, 0),
    option("left-shift-mark", LEFT, 2, 1),
    option("right-shift-mark", RIGHT, 6, 1),
    option("ctmask", CTMASK, 3, 1),
    option("nfmask", NFMASK, 4, 1),
    option("mask", MASK, 5, 1),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Set(Masked),
    Save,
    Restore,
}

#[derive(Debug, Default)]
struct SetConnMark {
    operation: Option<Operation>,
    nfmask: Option<u32>,
    ctmask: Option<u32>,
    mask: Option<(u32, Span)>,
    shift: Shift,
}

impl SetConnMark {
    /// Masks over the packet's and the connection's mark, for saving and restoring.
    fn masks(&self) -> (u32, u32) {
        (self.nfmask.unwrap_or(u32::MAX), self.ctmask.unwrap_or(u32::MAX))
    }

    fn set_shift(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        let word = first(given)?;
        // iptables takes 32, the kernel does not.
        let bits = number(&word.text, 31).and_then(|bits| Shift::try_from(bits).ok());
        let bits = bits.ok_or_else(|| {
            Diagnostic::error(word.span, format!("`{}` is no number of bits from 0 to 31", word.text))
        })?;
        if self.shift != 0 {
            return Err(Diagnostic::unsupported(given.span, "shifts to both sides in one rule"));
        }
        self.shift = if given.id == LEFT { bits } else { -bits };
        Ok(())
    }

    fn print_shift(&self, out: &mut String, dashes: &str) {
        let _ = match self.shift {
            0 => Ok(()),
            bits @ 1.. => write!(out, " {dashes}left-shift-mark {bits}"),
            bits => write!(out, " {dashes}right-shift-mark {}", -bits),
        };
    }
}

impl Instance for SetConnMark {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        match given.id {
            SAVE => self.operation = Some(Operation::Save),
            RESTORE => self.operation = Some(Operation::Restore),
            MASK => self.mask = Some((word32(given)?, given.span)),
            NFMASK => self.nfmask = Some(word32(given)?),
            CTMASK => self.ctmask = Some(word32(given)?),
            LEFT | RIGHT => self.set_shift(given)?,
            _ => self.operation = Some(Operation::Set(flips(given)?)),
        }
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        let has_masks = self.nfmask.is_some() || self.ctmask.is_some();
        match (&mut self.operation, self.mask) {
            (None, _) => {
                return Err(Diagnostic::error(span, "`-j CONNMARK` without an operation")
                    .hint("add `--set-mark`, `--save-mark` or `--restore-mark`"));
            }
            (Some(Operation::Set(_)), _) if has_masks => {
                return Err(Diagnostic::unsupported(
                    span,
                    "`--nfmask` and `--ctmask` mean nothing but with --save-mark and --restore-mark",
                ));
            }
            (Some(Operation::Save | Operation::Restore), Some((_, place))) if has_masks => {
                return Err(Diagnostic::error(place, "`--mask` does not go with `--nfmask` or `--ctmask`"));
            }
            (Some(Operation::Set(flips)), Some((mask, _))) => flips.mask = mask,
            (_, Some((mask, _))) => (self.nfmask, self.ctmask) = (Some(mask), Some(mask)),
            (_, None) => {}
        }
        Ok(())
    }

    fn print(&self, out: &mut String) {
        out.push_str(" -j CONNMARK");
        let (nfmask, ctmask) = self.masks();
        let _ = match self.operation {
            Some(Operation::Set(Masked { value, mask })) => write!(out, " --set-xmark {value:#x}/{mask:#x}"),
            Some(Operation::Save) => write!(out, " --save-mark --nfmask {nfmask:#x} --ctmask {ctmask:#x}"),
            Some(Operation::Restore) => {
                write!(out, " --restore-mark --nfmask {nfmask:#x} --ctmask {ctmask:#x}")
            }
            None => Ok(()),
        };
        self.print_shift(out, "--");
    }

    fn list(&self, out: &mut String) {
        out.push_str(" CONNMARK");
        let (nfmask, ctmask) = self.masks();
        let masks = |out: &mut String, word: &str, (from, first): (&str, u32), (to, second): (&str, u32)| {
            let _ = match (first == second, first) {
                (true, u32::MAX) => write!(out, " {word}"),
                (true, mask) => write!(out, " {word} mask {mask:#x}"),
                _ => write!(out, " {word} {from} {first:#x} {to} ~{second:#x}"),
            };
        };
        match self.operation {
            Some(Operation::Set(flips)) => list_flips(out, flips),
            Some(Operation::Save) => masks(out, "save", ("nfmask", nfmask), ("ctmask", ctmask)),
            Some(Operation::Restore) => masks(out, "restore", ("ctmask", ctmask), ("nfmask", nfmask)),
            None => {}
        }
        self.print_shift(out, "");
    }

    fn lower(&self) -> Lowered {
        let ((nfmask, ctmask), shift) = (self.masks(), self.shift);
        Lowered::Target(Target::Effect(match self.operation {
            Some(Operation::Save) => Effect::SaveMark { from: nfmask, to: ctmask, shift },
            Some(Operation::Restore) => Effect::RestoreMark { from: ctmask, to: nfmask, shift },
            Some(Operation::Set(Masked { value, mask })) => {
                Effect::SetConnMark { set: value, clear: mask, shift }
            }
            None => Effect::SetConnMark { set: 0, clear: 0, shift: 0 },
        }))
    }

    fn target_name(&self) -> &'static str {
        "CONNMARK"
    }
}
