//! `-m limit`: so many packets per time. Also how a rate is read and printed, for hashlimit.

use std::fmt::Write as _;
use std::sync::Arc;

use dataplane::rules::model::Match;
use dataplane::rules::rate::{Limit, RateMatch};

use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec, first, number};
use crate::iptables::diagnostics::{Diagnostic, Span};
use crate::iptables::lexer::Word;

const LIMIT: u8 = 1;
const BURST: u8 = 2;

/// Units of a period per second (`XT_LIMIT_SCALE`).
const SCALE: u64 = 10_000;
/// Packets at once if nothing is said.
const BURST_DEFAULT: u32 = 5;

/// `-m limit`.
pub static LIMITED: Extension = Extension {
    kind: Kind::Match,
    names: &["limit"],
    family: None,
    protocol: None,
    repeatable: true,
    options: &[
        OptionSpec { name: "limit", id: LIMIT, slot: 1, args: 1, invertible: false },
        OptionSpec { name: "limit-burst", id: BURST, slot: 2, args: 1, invertible: false },
    ],
    new: |_| Box::new(Asked { period: SCALE * 3600 / 3, burst: BURST_DEFAULT }),
};

/// Seconds of the units a rate may be in, longest first, as they are printed.
const UNITS: [(&str, u64); 4] = [("day", 86_400), ("hour", 3600), ("min", 60), ("sec", 1)];

/// A rate as read: the seconds it is per, and the period of one packet in units of `scale` per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) seconds: u64,
    pub(super) period: u64,
}

/// A leading number as C's `atoll` reads it: what follows is not looked at.
pub(super) fn leading_number(text: &str) -> i64 {
    let text = text.trim_start();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let value = if end == 0 { 0 } else { digits[..end].parse().unwrap_or(i64::MAX) };
    value * sign
}

/// Reads `NUMBER[/UNIT]`; `packets` is what the number means.
pub(super) fn rate(word: &Word, scale: u64, packets: impl Fn(i64) -> u64) -> Result<Rate, Diagnostic> {
    let bad = || {
        Diagnostic::error(word.span, format!("bad rate `{}`", word.text))
            .hint("write a number and /second, /minute, /hour or /day")
    };
    let seconds = match word.text.split_once('/') {
        None => 1,
        Some((_, unit)) => {
            let unit = unit.to_ascii_lowercase();
            let names = [("second", 1), ("minute", 60), ("hour", 3600), ("day", 86_400)];
            let known = names.iter().find(|(name, _)| !unit.is_empty() && name.starts_with(&unit));
            known.ok_or_else(bad)?.1
        }
    };
    let period = (scale * seconds).checked_div(packets(leading_number(&word.text))).ok_or_else(bad)?;
    if period == 0 {
        return Err(Diagnostic::error(word.span, format!("rate `{}` is too fast", word.text)));
    }
    Ok(Rate { seconds, period })
}

/// The unit a period is printed in: the shortest in which little is lost.
pub(super) fn unit(period: u64, scale: u64) -> (&'static str, u64) {
    let fits = |(_, seconds): &&(&str, u64)| {
        let whole = seconds * scale;
        period <= whole && whole / period >= whole % period
    };
    let (name, seconds) = *UNITS[1..].iter().take_while(fits).last().unwrap_or(&UNITS[0]);
    (name, seconds)
}

#[derive(Debug)]
struct Asked {
    /// Of one packet, in 10,000ths of a second.
    period: u64,
    burst: u32,
}

impl Asked {
    /// Packets and seconds, as they are given to the kernel.
    fn per(&self) -> (u64, u64) {
        let (_, seconds) = unit(self.period, SCALE);
        (seconds * SCALE / self.period, seconds)
    }

    /// As it is read back from there.
    fn text(&self) -> String {
        let (packets, seconds) = self.per();
        let period = SCALE * seconds / packets.max(1);
        let (name, seconds) = unit(period.max(1), SCALE);
        format!("{}/{name}", seconds * SCALE / period.max(1))
    }
}

impl Instance for Asked {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        let word = first(given)?;
        if given.id == LIMIT {
            // C's `atoi`: 32 bits.
            let packets = |number: i64| u64::from(u32::try_from(number & 0xffff_ffff).unwrap_or(0));
            self.period = rate(word, SCALE, packets)?.period;
            return Ok(());
        }
        let burst = number(&word.text, 10_000).and_then(|burst| u32::try_from(burst).ok());
        let burst = burst.ok_or_else(|| {
            Diagnostic::error(word.span, format!("`{}` is not a number from 0 to 10000", word.text))
        })?;
        // The kernel's default for none.
        self.burst = if burst == 0 { BURST_DEFAULT } else { burst };
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, _span: Span) -> Result<(), Diagnostic> {
        Ok(())
    }

    fn print(&self, out: &mut String) {
        let _ = write!(out, " -m limit --limit {}", self.text());
        if self.burst != BURST_DEFAULT {
            let _ = write!(out, " --limit-burst {}", self.burst);
        }
    }

    fn list(&self, out: &mut String) {
        let _ = write!(out, " limit: avg {} burst {}", self.text(), self.burst);
    }

    fn lower(&self) -> Lowered {
        let (packets, seconds) = self.per();
        let limit = Limit::new(packets, seconds, self.burst);
        Lowered::Matches(vec![Match::Rate(RateMatch::Limit(Arc::new(limit)))])
    }
}
