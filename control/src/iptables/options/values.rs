//! How options that take numbers, ranges of them or lists read their values. Shared by the matches on header fields.

use super::{Given, first, number, part_of};
use crate::iptables::diagnostics::Diagnostic;

/// A range as it was given, perhaps inverted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) low: u64,
    pub(super) high: u64,
    pub(super) invert: bool,
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { low, high, .. } = self;
        if low == high { write!(f, "{low}") } else { write!(f, "{low}:{high}") }
    }
}

impl Span {
    /// Everything up to `max`.
    pub(super) const fn all(max: u64) -> Self {
        Self { low: 0, high: max, invert: false }
    }

    /// Reads `NUMBER`, `LOW:HIGH`, `LOW:`, `:HIGH`; what is left out is 0 or `max`.
    pub(super) fn read(given: &Given<'_>, max: u64) -> Result<Self, Diagnostic> {
        let word = first(given)?;
        let part = |from: usize, text: &str, open: u64| {
            if text.is_empty() {
                return Ok(open);
            }
            number(text, max).ok_or_else(|| {
                Diagnostic::error(
                    part_of(word, from, from + text.len()),
                    format!("`{text}` is no number up to {max}"),
                )
            })
        };
        let (low, high) = match word.text.split_once(':') {
            None => {
                let value = part(0, &word.text, 0)?;
                (value, value)
            }
            Some((low, high)) => (part(0, low, 0)?, part(low.len() + 1, high, max)?),
        };
        Ok(Self { low, high, invert: given.invert })
    }

    /// The same, but refused where it is everything, inverted: iptables prints that as if it were not there at all.
    pub(super) fn read_some(given: &Given<'_>, max: u64) -> Result<Self, Diagnostic> {
        let span = Self::read(given, max)?;
        if span.invert && span.is_all(max) {
            return Err(Diagnostic::unsupported(given.span, "this condition leaves nothing")
                .hint("iptables-save prints it as if it left everything; say what is meant"));
        }
        Ok(span)
    }

    pub(super) const fn is_all(self, max: u64) -> bool {
        self.low == 0 && self.high == max
    }

    /// With numbers of another width.
    pub(super) fn narrow<T: TryFrom<u64> + Copy>(self, max: T) -> dataplane::rules::header::Range<T> {
        let to = |value: u64| T::try_from(value).unwrap_or(max);
        dataplane::rules::header::Range { low: to(self.low), high: to(self.high), invert: self.invert }
    }
}

/// Reads one number from `min` to `max`.
pub(super) fn value(given: &Given<'_>, min: u64, max: u64) -> Result<u64, Diagnostic> {
    let word = first(given)?;
    number(&word.text, max).filter(|&value| value >= min).ok_or_else(|| {
        Diagnostic::error(word.span, format!("`{}` is no number from {min} to {max}", word.text))
    })
}

/// The same for a byte.
pub(super) fn byte(given: &Given<'_>) -> Result<u8, Diagnostic> {
    Ok(u8::try_from(value(given, 0, u64::from(u8::MAX))?).unwrap_or(u8::MAX))
}

/// The same for 32 bits.
pub(super) fn word32(given: &Given<'_>) -> Result<u32, Diagnostic> {
    Ok(u32::try_from(value(given, 0, u64::from(u32::MAX))?).unwrap_or(u32::MAX))
}

/// ` !` where something is inverted.
pub(super) const fn bang(invert: bool) -> &'static str {
    if invert { " !" } else { "" }
}

/// `!` where something is inverted.
pub(super) const fn mark(invert: bool) -> &'static str {
    if invert { "!" } else { "" }
}
