//! What scenarios measured: by point and peer, every repetition kept, written as JSON, as Markdown ([`markdown`]) and as
//! plots ([`plot`]).
//!
//! Peers take turns, so the samples of one repetition are neighbours in time and only those are compared with each
//! other. A sample that could not be measured is missing; it is never made up.

pub mod markdown;
pub mod plot;

use crate::Error;
use crate::conditions::Conditions;
use crate::report::{median, range};
use serde::Serialize;
use std::fs;
use std::ops::Range;
use std::path::Path;

/// All of a run.
#[derive(Debug, Serialize)]
pub struct Results {
    /// The machine, and what it was doing.
    pub conditions: Conditions,
    /// Repetitions of each measurement.
    pub repetitions: u32,
    /// Seconds of each measurement.
    pub seconds: f64,
    /// What was measured, in order.
    pub tables: Vec<Table>,
}

/// What one scenario measured.
#[derive(Debug, Clone, Serialize)]
pub struct Table {
    /// Word that asks for it on the command line, with what tells it from others of the same scenario; names the plot's file.
    pub name: String,
    /// What it shows, in a line.
    pub title: String,
    /// Unit of all samples.
    pub unit: &'static str,
    /// Which end is the good one.
    pub better: Better,
    /// What was varied: one label for each column.
    pub points: Vec<String>,
    /// One for each peer.
    pub series: Vec<Series>,
    /// What a reader has to know.
    pub notes: Vec<String>,
}

/// What one peer reached.
#[derive(Debug, Clone, Serialize)]
pub struct Series {
    /// Its name.
    pub peer: String,
    /// For each point its samples by repetition; `null` where there is none.
    pub samples: Vec<Vec<Option<f64>>>,
    /// Why samples are missing.
    pub missing: Option<String>,
}

/// Which values are good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Rates.
    Higher,
    /// Times and losses.
    Lower,
}

/// Median and range of some samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The middle.
    pub median: f64,
    /// The smallest.
    pub low: f64,
    /// The largest.
    pub high: f64,
}

impl Table {
    /// One without samples.
    #[must_use]
    pub fn new(name: &str, title: &str, (unit, better): (&'static str, Better), points: &[String]) -> Self {
        let (name, title, points) = (name.to_owned(), title.to_owned(), points.to_vec());
        Self { name, title, unit, better, points, series: Vec::new(), notes: Vec::new() }
    }

    /// Some of its columns, in this order, as a table of its own with another name, title and unit; without notes. For
    /// who measures values of several units at once.
    #[must_use]
    pub fn extract(
        &self,
        name: &str,
        title: &str,
        unit: (&'static str, Better),
        columns: &[(usize, String)],
    ) -> Self {
        let points: Vec<String> = columns.iter().map(|(_, point)| point.clone()).collect();
        let mut table = Self::new(name, title, unit, &points);
        table.series = self
            .series
            .iter()
            .map(|series| Series {
                peer: series.peer.clone(),
                samples: columns.iter().map(|(column, _)| series.samples[*column].clone()).collect(),
                missing: series.missing.clone(),
            })
            .collect();
        table
    }

    /// What `peer` did, made when asked for the first time.
    pub fn series_mut(&mut self, peer: &str) -> &mut Series {
        let at = self.series.iter().position(|series| series.peer == peer).unwrap_or_else(|| {
            let samples = vec![Vec::new(); self.points.len()];
            self.series.push(Series { peer: peer.to_owned(), samples, missing: None });
            self.series.len() - 1
        });
        &mut self.series[at]
    }

    /// Median and range of a peer at a point, if anything was measured there.
    #[must_use]
    pub fn spread(&self, peer: &str, point: usize) -> Option<Spread> {
        self.find(peer)?.spread(point)
    }

    /// Median of what `peer` reached as a share of what `other` did in the same repetition.
    #[must_use]
    pub fn ratio(&self, peer: &str, other: &str, point: usize) -> Option<f64> {
        let (ours, theirs) = (self.find(peer)?.samples.get(point)?, self.find(other)?.samples.get(point)?);
        let ratios: Vec<f64> =
            ours.iter().zip(theirs).filter_map(|(ours, theirs)| Some((*ours)? / (*theirs)?)).collect();
        (!ratios.is_empty()).then(|| median(&ratios))
    }

    /// Whether a peer has already failed at one of these points.
    #[must_use]
    pub fn is_out(&self, peer: &str, columns: &Range<usize>) -> bool {
        let failed =
            |series: &Series| columns.clone().any(|point| series.samples[point].last() == Some(&None));
        self.find(peer).is_some_and(failed)
    }

    /// Enters what a peer did in one repetition at some of the points, or why it did nothing. An empty reason adds
    /// nothing to the one there is.
    pub fn enter(&mut self, peer: &str, columns: &Range<usize>, outcome: Result<&[f64], &str>) {
        let series = self.series_mut(peer);
        for (at, point) in columns.clone().enumerate() {
            series.push(point, outcome.ok().and_then(|values| values.get(at)).copied());
        }
        if let Err(reason) = outcome
            && !reason.is_empty()
        {
            series.missing = Some(reason.to_owned());
        }
    }

    fn find(&self, peer: &str) -> Option<&Series> {
        self.series.iter().find(|series| series.peer == peer)
    }
}

impl Series {
    /// Adds a repetition of one point.
    pub fn push(&mut self, point: usize, value: Option<f64>) {
        if let Some(samples) = self.samples.get_mut(point) {
            samples.push(value);
        }
    }

    /// Median and range at a point, if anything was measured there.
    #[must_use]
    pub fn spread(&self, point: usize) -> Option<Spread> {
        let values: Vec<f64> = self.samples.get(point)?.iter().flatten().copied().collect();
        let (low, high) = range(&values);
        (!values.is_empty()).then(|| Spread { median: median(&values), low, high })
    }
}

impl Results {
    /// Writes `results.json`, `results.md` and a plot for each table into `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// If the folder cannot be written to.
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        let explain = |error| format!("{}: {error}", folder.display());
        fs::create_dir_all(folder).map_err(explain)?;
        fs::write(folder.join("results.json"), serde_json::to_string_pretty(self)? + "\n")
            .map_err(explain)?;
        fs::write(folder.join("results.md"), markdown::document(self)).map_err(explain)?;
        for table in &self.tables {
            plot::draw(table, &folder.join(format!("{}.svg", table.name)))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_neighbours_are_compared() {
        let mut table = Table::new("sizes", "rates", ("Mpps", Better::Higher), &["64".to_owned()]);
        for (ours, theirs) in [(Some(2.0), 1.0), (None, 5.0), (Some(9.0), 3.0)] {
            table.series_mut("a").push(0, ours);
            table.series_mut("b").push(0, Some(theirs));
        }
        assert_eq!(
            table.ratio("a", "b", 0),
            Some(2.0),
            "of 2 and 3 the lower middle; the second has no neighbour"
        );
        assert_eq!(table.spread("a", 0), Some(Spread { median: 2.0, low: 2.0, high: 9.0 }));
        assert_eq!(table.ratio("a", "nobody", 0), None);
    }

    #[test]
    fn an_extract_has_its_columns_of_every_peer() {
        let points = ["gap", "lost", "time"].map(str::to_owned);
        let mut all = Table::new("swap", "all", ("", Better::Lower), &points);
        all.enter("a", &(0..3), Ok(&[1.0, 2.0, 3.0]));
        all.enter("b", &(0..3), Err("gone"));
        let columns = [(2, "time".to_owned()), (0, "gap".to_owned())];
        let part = all.extract("swap-time", "times", ("ms", Better::Lower), &columns);
        assert_eq!(
            (part.name.as_str(), part.unit, part.points),
            ("swap-time", "ms", vec!["time".to_owned(), "gap".to_owned()])
        );
        assert_eq!(part.series[0].samples, [vec![Some(3.0)], vec![Some(1.0)]]);
        assert_eq!(part.series[1].samples, [vec![None], vec![None]]);
        assert_eq!(part.series[1].missing.as_deref(), Some("gone"));
    }
}
