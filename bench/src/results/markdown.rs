//! Results as a Markdown document: the conditions, then a table for each scenario.

use super::{Results, Spread, Table};
use std::fmt::Write as _;

/// The whole run.
#[must_use]
pub fn document(results: &Results) -> String {
    let mut text = String::from("# Benchmark results\n\n");
    for (name, value) in results.conditions.lines() {
        let _ = writeln!(text, "* {name}: {value}");
    }
    let _ = writeln!(
        text,
        "* method: {} interleaved repetitions of {} s each; medians, ranges in brackets\n",
        results.repetitions, results.seconds
    );
    for table in &results.tables {
        let _ = writeln!(text, "{}\n![{}]({}.svg)\n", section(table), table.title, table.name);
    }
    text
}

/// One scenario: a row for each peer, a column for each point, then what is missing and why.
#[must_use]
pub fn section(table: &Table) -> String {
    let mut text = format!("## {}\n\n| {} |", table.title, table.unit);
    for point in &table.points {
        let _ = write!(text, " {point} |");
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(table.points.len()));
    text.push('\n');
    for series in &table.series {
        let _ = write!(text, "| {} |", series.peer);
        for point in 0..table.points.len() {
            let cell = series.spread(point).map_or_else(|| "not measured".to_owned(), cell);
            let _ = write!(text, " {cell} |");
        }
        text.push('\n');
    }
    let missing = table
        .series
        .iter()
        .filter_map(|series| Some(format!("{}: {}", series.peer, series.missing.as_ref()?)));
    let notes: Vec<String> = table.notes.iter().cloned().chain(missing).collect();
    if !notes.is_empty() {
        text.push('\n');
    }
    for note in notes {
        let _ = writeln!(text, "* {note}");
    }
    text
}

fn cell(Spread { median, low, high }: Spread) -> String {
    format!("{} [{}..{}]", number(median), number(low), number(high))
}

/// Three figures that count; large numbers whole.
#[must_use]
pub fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        size if size >= 0.001 => format!("{value:.3}"),
        _ => format!("{value:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Better;
    use super::*;

    #[test]
    fn what_was_not_measured_says_so() {
        let mut table =
            Table::new("x", "Title", ("us", Better::Lower), &["p50".to_owned(), "p99".to_owned()]);
        table.series_mut("ours").push(0, Some(1.0));
        table.series_mut("ours").push(1, Some(250.4));
        table.series_mut("theirs").push(0, None);
        table.series_mut("theirs").missing = Some("not installed".to_owned());
        let text = section(&table);
        assert!(text.contains("| ours | 1.00 [1.00..1.00] | 250 [250..250] |"), "{text}");
        assert!(text.contains("| theirs | not measured | not measured |"), "{text}");
        assert!(text.contains("* theirs: not installed"), "{text}");
    }
}
