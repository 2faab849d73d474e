//! The ratchet: instructions per packet that were once counted, what is counted now, and what is to be said of the two.
//! Pure functions over values; the program `instructions` counts and prints.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How much a stage may grow, or shrink without being noted, as a share of what it was.
pub const TOLERANCE: f64 = 0.03;

/// What was counted once, and with what. Instructions of another compiler, or of other vector instructions, say nothing
/// about the code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// Version of the compiler.
    pub rustc: String,
    /// The vector instructions that the classifier found under callgrind.
    pub simd: String,
    /// Instructions per packet by stage.
    pub stages: BTreeMap<String, f64>,
}

/// What became of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Within the tolerance.
    Same,
    /// More instructions than the tolerance allows.
    Grown,
    /// Fewer: the baseline should follow.
    Shrunk,
    /// Not in the baseline.
    Unknown,
    /// In the baseline, but there is no such stage any more.
    Gone,
}

/// A stage beside its baseline.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Which stage.
    pub name: String,
    /// Instructions per packet in the baseline.
    pub before: Option<f64>,
    /// Now.
    pub now: Option<f64>,
    /// What that means.
    pub change: Change,
}

impl Change {
    /// Whether this ends the check.
    #[must_use]
    pub const fn fails(self) -> bool {
        matches!(self, Self::Grown | Self::Unknown | Self::Gone)
    }

    /// What to do about it, if anything.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Same => "",
            Self::Grown => "grown: save the instructions, or say in the commit what they buy and run update",
            Self::Shrunk => "shrunk: run update, so that it stays so",
            Self::Unknown => "not in the baseline: run update",
            Self::Gone => "no such stage any more: run update",
        }
    }
}

impl Baseline {
    /// Why what is counted with `rustc` and `simd` cannot be held against this, if it cannot.
    #[must_use]
    pub fn differs_from(&self, rustc: &str, simd: &str) -> Option<String> {
        let differs = |what: &str, own: &str, other: &str| {
            (own != other)
                .then(|| format!("the baseline was counted with {what} {own}, this was with {other}"))
        };
        differs("rustc", &self.rustc, rustc).or_else(|| differs("SIMD level", &self.simd, simd))
    }

    /// Every stage that was counted, in order, and then those of the baseline that were not though `all` were to be.
    #[must_use]
    pub fn judge(&self, counted: &[(String, f64)], all: bool) -> Vec<Line> {
        let mut lines: Vec<_> = counted
            .iter()
            .map(|(name, now)| {
                let before = self.stages.get(name).copied();
                let change = before.map_or(Change::Unknown, |before| change(before, *now));
                Line { name: name.clone(), before, now: Some(*now), change }
            })
            .collect();
        let is_counted = |name: &String| counted.iter().any(|(counted, _)| counted == name);
        let gone = self.stages.iter().filter(|(name, _)| all && !is_counted(name));
        lines.extend(gone.map(|(name, before)| Line {
            name: name.clone(),
            before: Some(*before),
            now: None,
            change: Change::Gone,
        }));
        lines
    }
}

fn change(before: f64, now: f64) -> Change {
    if now > before * (1.0 + TOLERANCE) {
        Change::Grown
    } else if now < before * (1.0 - TOLERANCE) {
        Change::Shrunk
    } else {
        Change::Same
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline() -> Baseline {
        let stages = [("parse".to_owned(), 100.0), ("track".to_owned(), 40.0)].into();
        Baseline { rustc: "1.95.0".to_owned(), simd: "Avx2".to_owned(), stages }
    }

    fn changes(counted: &[(&str, f64)], all: bool) -> Vec<(String, Change)> {
        let counted: Vec<_> = counted.iter().map(|(name, now)| ((*name).to_owned(), *now)).collect();
        baseline().judge(&counted, all).into_iter().map(|line| (line.name, line.change)).collect()
    }

    #[test]
    fn three_per_cent_either_way_are_let_pass_and_no_more() {
        for (now, change) in [
            (100.0, Change::Same),
            (102.9, Change::Same),
            (103.1, Change::Grown),
            (97.1, Change::Same),
            (96.9, Change::Shrunk),
        ] {
            assert_eq!(changes(&[("parse", now)], false), [("parse".to_owned(), change)], "{now}");
        }
    }

    #[test]
    fn only_growth_and_what_is_on_one_side_alone_fail() {
        let failing: Vec<_> = [Change::Same, Change::Grown, Change::Shrunk, Change::Unknown, Change::Gone]
            .map(Change::fails)
            .into();
        assert_eq!(failing, [false, true, false, true, true]);
    }

    #[test]
    fn a_new_stage_and_one_that_is_gone_are_told() {
        let told = changes(&[("parse", 100.0), ("new", 1.0)], true);
        let told: Vec<_> = told.iter().map(|(name, change)| (&**name, *change)).collect();
        assert_eq!(told, [("parse", Change::Same), ("new", Change::Unknown), ("track", Change::Gone)]);
        assert_eq!(changes(&[("parse", 100.0)], false).len(), 1, "what was not asked for is not gone");
    }

    #[test]
    fn other_compilers_and_vector_instructions_cannot_be_compared() {
        let baseline = baseline();
        assert_eq!(baseline.differs_from("1.95.0", "Avx2"), None);
        assert!(baseline.differs_from("1.96.0", "Avx2").unwrap().contains("1.96.0"));
        assert!(baseline.differs_from("1.95.0", "Portable").unwrap().contains("Portable"));
    }

    #[test]
    fn a_baseline_survives_being_written_down() {
        let text = toml::to_string(&baseline()).unwrap();
        assert_eq!(toml::from_str::<Baseline>(&text).unwrap(), baseline());
    }
}
