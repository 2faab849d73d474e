//! A table as a picture: groups of bars, one group for each point, one bar for each peer, with its range as a whisker.

use super::{Better, Table, markdown::number};
use crate::Error;
use plotters::prelude::*;
use std::path::Path;

/// Size of a plot in pixels: the rows of the legend are added to the height.
const SIZE: (u32, u32) = (960, 420);

/// Height of a row of the legend.
const LEGEND_ROW: i32 = 18;

/// Peers in a row of the legend.
const LEGEND_COLUMNS: usize = 3;

/// Colours that people who see few colours can tell apart (Okabe and Ito), the first one for us.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x99, 0x99, 0x99),
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x00, 0x00, 0x00),
];

/// Largest value over smallest from which on the axis is logarithmic.
const LOG_FROM: f64 = 50.0;

/// Share of a group's width that its bars take.
const GROUP_WIDTH: f64 = 0.86;

/// Draws `table` into the SVG file `path`. A table without a value makes no file.
///
/// # Errors
/// If it cannot be written.
pub fn draw(table: &Table, path: &Path) -> Result<(), Error> {
    let Some(axis) = Axis::of(table) else { return Ok(()) };
    let rows = table.series.len().div_ceil(LEGEND_COLUMNS);
    let legend = LEGEND_ROW * i32::try_from(rows)? + 8;
    let root = SVGBackend::new(path, (SIZE.0, SIZE.1 + legend.unsigned_abs())).into_drawing_area();
    root.fill(&WHITE)?;
    let (chart_area, legend_area) = root.split_vertically(SIZE.1);
    let direction = match table.better {
        Better::Higher => "more is better",
        Better::Lower => "less is better",
    };
    let scale = if axis.is_log { ", logarithmic" } else { "" };
    let mut chart = ChartBuilder::on(&chart_area)
        .margin(12)
        .caption(&table.title, ("sans-serif", 18))
        .x_label_area_size(32)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..table.points.len() as f64, axis.low..axis.high)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .y_desc(format!("{} ({direction}{scale})", table.unit))
        .y_label_formatter(&|value| number(axis.value(*value)))
        .draw()?;
    for (at, series) in table.series.iter().enumerate() {
        let width = GROUP_WIDTH / table.series.len() as f64;
        let colour = COLOURS[at % COLOURS.len()];
        for point in 0..table.points.len() {
            let Some(spread) = series.spread(point) else { continue };
            let left = point as f64 + (1.0 - GROUP_WIDTH) / 2.0 + at as f64 * width;
            let corners = [(left, axis.low), (left + width * 0.92, axis.place(spread.median))];
            chart.draw_series([Rectangle::new(corners, colour.filled())])?;
            let middle = left + width * 0.46;
            let whisker = vec![(middle, axis.place(spread.low)), (middle, axis.place(spread.high))];
            chart.draw_series([PathElement::new(whisker, BLACK.stroke_width(1))])?;
        }
    }
    let style = ("sans-serif", 14).into_text_style(&chart_area);
    for (point, label) in table.points.iter().enumerate() {
        let (x, y) = chart.backend_coord(&(point as f64 + 0.5, axis.low));
        let half = i32::try_from(chart_area.estimate_text_size(label, &style)?.0)? / 2;
        root.draw_text(label, &style, (x - half, y + 8))?;
    }
    let column = i32::try_from(SIZE.0)? / i32::try_from(LEGEND_COLUMNS)?;
    for (at, series) in table.series.iter().enumerate() {
        let (row, place) = (i32::try_from(at / LEGEND_COLUMNS)?, i32::try_from(at % LEGEND_COLUMNS)?);
        let (x, y) = (16 + place * column, row * LEGEND_ROW);
        let swatch = Rectangle::new([(x, y), (x + 12, y + 12)], COLOURS[at % COLOURS.len()].filled());
        legend_area.draw(&swatch)?;
        let missing = if series.missing.is_some() { " (not all measured)" } else { "" };
        legend_area.draw_text(&format!("{}{missing}", series.peer), &style, (x + 18, y))?;
    }
    root.present()?;
    Ok(())
}

/// The axis of values: linear from nothing, or logarithmic where the values are too far apart for that.
#[derive(Debug, Clone, Copy)]
struct Axis {
    is_log: bool,
    low: f64,
    high: f64,
}

impl Axis {
    fn of(table: &Table) -> Option<Self> {
        let spreads = || {
            (0..table.points.len())
                .flat_map(|point| table.series.iter().filter_map(move |series| series.spread(point)))
        };
        let top = spreads().map(|spread| spread.high).fold(0.0, f64::max);
        let positive = spreads().map(|spread| spread.low).filter(|low| *low > 0.0);
        let bottom = positive.fold(f64::INFINITY, f64::min);
        spreads().next()?;
        if top > bottom * LOG_FROM {
            return Some(Self { is_log: true, low: (bottom / 2.0).log10(), high: (top * 1.2).log10() });
        }
        Some(Self { is_log: false, low: 0.0, high: if top > 0.0 { top * 1.08 } else { 1.0 } })
    }

    fn place(self, value: f64) -> f64 {
        if self.is_log { value.log10().max(self.low) } else { value }
    }

    fn value(self, place: f64) -> f64 {
        if self.is_log { 10_f64.powf(place) } else { place }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(values: &[f64]) -> Table {
        let points: Vec<String> = values.iter().map(f64::to_string).collect();
        let mut table = Table::new("x", "Rates & more", ("Mpps", Better::Higher), &points);
        for (point, value) in values.iter().enumerate() {
            table.series_mut("ours").push(point, Some(*value));
            table.series_mut("theirs").push(point, None);
        }
        table
    }

    #[test]
    fn every_measured_bar_is_drawn_and_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("x.svg");
        draw(&table(&[1.0, 2.0, 3.0]), &file).expect("drawn");
        let text = std::fs::read_to_string(file).expect("a file");
        let ours = text.matches("#D55E00").count();
        assert_eq!(ours, 3 + 1, "three bars and the legend");
        assert_eq!(text.matches("#999999").count(), 1, "the legend only");
        assert!(text.contains("Rates &amp; more"));
    }

    #[test]
    fn values_far_apart_make_a_logarithmic_axis() {
        assert!(Axis::of(&table(&[0.01, 2.0])).expect("values").is_log);
        assert!(!Axis::of(&table(&[0.0, 2.0])).expect("values").is_log);
        assert!(Axis::of(&table(&[])).is_none());
    }
}
