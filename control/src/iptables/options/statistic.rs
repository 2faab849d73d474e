//! `-m statistic`: some of the packets, by chance or by turns.

use std::collections::hash_map::RandomState;
use std::fmt::Write as _;
use std::hash::BuildHasher;
use std::sync::Arc;

use dataplane::rules::model::Match;
use dataplane::rules::rate::{Nth, Random, RateMatch, Statistic};

use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec, first, number};
use crate::iptables::diagnostics::{Diagnostic, Span};

const MODE: u8 = 1;
const PROBABILITY: u8 = 2;
const EVERY: u8 = 3;
const PACKET: u8 = 4;

/// Certainty.
const ONE: f64 = 2_147_483_648.0;

/// `-m statistic`.
pub static STATISTIC: Extension = Extension {
    kind: Kind::Match,
    names: &["statistic"],
    family: None,
    protocol: None,
    repeatable: true,
    options: &[
        OptionSpec { name: "mode", id: MODE, slot: 1, args: 1, invertible: false },
        OptionSpec { name: "probability", id: PROBABILITY, slot: 2, args: 1, invertible: true },
        OptionSpec { name: "every", id: EVERY, slot: 3, args: 1, invertible: true },
        OptionSpec { name: "packet", id: PACKET, slot: 4, args: 1, invertible: false },
    ],
    new: |_| Box::new(Asked::default()),
};

#[derive(Debug, Default)]
struct Asked {
    is_random: Option<bool>,
    /// In 2^31sts.
    probability: Option<u32>,
    every: Option<u32>,
    packet: Option<u32>,
    invert: bool,
}

impl Asked {
    fn words(&self, prefix: &str) -> String {
        let bang = if self.invert { " !" } else { "" };
        if self.is_random == Some(true) {
            let chance = f64::from(self.probability.unwrap_or_default()) / ONE;
            return format!(" {prefix}mode random{bang} {prefix}probability {chance:.11}");
        }
        let (every, packet) = (self.every.unwrap_or(1), self.packet.unwrap_or_default());
        let mut words = format!(" {prefix}mode nth{bang} {prefix}every {every}");
        if packet != 0 || !prefix.is_empty() {
            let _ = write!(words, " {prefix}packet {packet}");
        }
        words
    }
}

impl Instance for Asked {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        let word = first(given)?;
        let bad = |what: &str| Diagnostic::error(word.span, format!("`{}` is not {what}", word.text));
        let count = |min: u64| {
            let value = number(&word.text, u64::from(u32::MAX)).filter(|value| *value >= min);
            value.and_then(|value| u32::try_from(value).ok()).ok_or_else(|| bad("a number of packets"))
        };
        self.invert |= given.invert;
        match given.id {
            MODE => {
                self.is_random = Some(match word.text.as_str() {
                    "random" => true,
                    "nth" => false,
                    _ => return Err(bad("a mode").hint("it is `random` or `nth`")),
                });
            }
            PROBABILITY => {
                let chance =
                    word.text.trim_start().parse().ok().filter(|chance| (0.0..=1.0).contains(chance));
                if word.text.to_ascii_lowercase().contains("nan") {
                    return Err(Diagnostic::unsupported(word.span, "a probability that is no number"));
                }
                let chance: f64 = chance.ok_or_else(|| bad("a probability from 0 to 1"))?;
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 2^31")]
                let parts = (chance * ONE).round() as u32;
                self.probability = Some(parts);
            }
            EVERY => self.every = Some(count(1)?),
            _ => self.packet = Some(count(0)?),
        }
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        let error = |message: &str, hint: &str| Err(Diagnostic::error(span, message).hint(hint));
        if self.probability.is_some() && (self.every.is_some() || self.packet.is_some()) {
            return error("`--probability` does not go with `--every` and `--packet`", "choose one mode");
        }
        match (self.is_random, self.every, self.packet) {
            (None, ..) => error("`-m statistic` without a mode", "add `--mode random` or `--mode nth`"),
            (Some(true), ..) if self.probability.is_none() => {
                error("mode random without a probability", "add `--probability P`")
            }
            (Some(true), ..) => Ok(()),
            (_, Some(every), Some(packet)) if packet < every => Ok(()),
            (_, Some(_), Some(_)) => error("`--packet` must be less than `--every`", "the first one is 0"),
            _ => error("mode nth is not complete", "it needs `--every N` and `--packet P`"),
        }
    }

    fn print(&self, out: &mut String) {
        let _ = write!(out, " -m statistic{}", self.words("--"));
    }

    fn list(&self, out: &mut String) {
        let _ = write!(out, " statistic{}", self.words(""));
    }

    fn lower(&self) -> Lowered {
        let statistic = if self.is_random == Some(true) {
            let chance = Random(self.probability.unwrap_or_default());
            Statistic::random(chance, self.invert, RandomState::new().hash_one(0))
        } else {
            let (every, packet) = (self.every.unwrap_or(1), self.packet.unwrap_or_default());
            Statistic::nth(Nth { every, packet }, self.invert)
        };
        Lowered::Matches(vec![Match::Rate(RateMatch::Statistic(Arc::new(statistic)))])
    }
}
