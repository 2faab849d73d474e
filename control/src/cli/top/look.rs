//! How things are written: numbers in five characters, text cut with a mark, bars, and what a terminal can show.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use std::env;

/// What the terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// Colours. Without, words and bold say the same.
    pub(super) colour: bool,
    /// More than ASCII.
    pub(super) unicode: bool,
}

/// What a piece of text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// A heading.
    Head,
    /// Where one is.
    Chosen,
    /// Less important.
    Dim,
    /// To be looked at.
    Warn,
    /// To be looked at now.
    Alarm,
    /// Traffic.
    Good,
}

impl Look {
    /// What environment and switches allow.
    pub(super) fn of_environment(no_color: bool) -> Self {
        let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| set(name)).unwrap_or_default();
        let locale = locale.to_ascii_lowercase();
        Self {
            colour: !no_color && set("NO_COLOR").is_none() && !is_dumb(),
            unicode: locale.contains("utf-8") || locale.contains("utf8"),
        }
    }

    /// A span in that tone.
    pub(super) fn span(self, text: impl Into<String>, tone: Tone) -> Span<'static> {
        Span::styled(text.into(), self.style(tone))
    }

    /// How that tone looks.
    pub(super) fn style(self, tone: Tone) -> Style {
        let style = Style::new();
        let coloured = |colour: Color| if self.colour { style.fg(colour) } else { style };
        match tone {
            Tone::Head => coloured(Color::Cyan).add_modifier(Modifier::BOLD),
            Tone::Chosen => style.add_modifier(Modifier::REVERSED),
            Tone::Dim => style.add_modifier(Modifier::DIM),
            Tone::Warn => coloured(Color::Yellow).add_modifier(Modifier::BOLD),
            Tone::Alarm => coloured(Color::Red).add_modifier(Modifier::BOLD),
            Tone::Good => coloured(Color::Green),
        }
    }

    /// The mark that something was cut.
    pub(super) const fn cut(self) -> &'static str {
        if self.unicode { "…" } else { "~" }
    }

    /// Text in no more than so many columns; cut with a mark if it has more.
    pub(super) fn fit(self, text: &str, columns: usize) -> String {
        if width(text) <= columns {
            return text.to_owned();
        }
        let mut out = String::new();
        let mut left = columns.saturating_sub(1);
        for character in text.chars() {
            let wide = width(character.encode_utf8(&mut [0; 4]));
            if wide > left {
                break;
            }
            left -= wide;
            out.push(character);
        }
        if columns > 0 {
            out.push_str(self.cut());
        }
        out
    }

    /// A line in no more than so many columns; cut with a mark if it has more.
    pub(super) fn fit_line(self, line: Line<'static>, columns: usize) -> Line<'static> {
        if line.width() <= columns {
            return line;
        }
        let mut left = columns;
        let mut spans = Vec::new();
        for span in line.spans {
            let wide = span.width();
            if wide < left {
                left -= wide;
                spans.push(span);
                continue;
            }
            // Something follows, or this is too long by itself: the mark takes the last column.
            spans.push(Span::styled(self.fit(&format!("{}  ", span.content), left), span.style));
            break;
        }
        Line::from(spans)
    }

    /// The last values as a row of bars, the newest on the right, the highest one full.
    pub(super) fn spark(self, values: impl DoubleEndedIterator<Item = u64>, columns: usize) -> String {
        let mut values: Vec<u64> = values.rev().take(columns).collect();
        values.reverse();
        let most = values.iter().copied().max().unwrap_or(0).max(1);
        let levels: &[char] = if self.unicode {
            &[' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']
        } else {
            &[' ', '_', '.', ':', '-', '=', '+', '*', '#']
        };
        let level = |value: u64| {
            // What is not nothing shows.
            let step = (u128::from(value) * 8).div_ceil(u128::from(most));
            levels[usize::try_from(step).unwrap_or(8).min(8)]
        };
        let bars: String = values.into_iter().map(level).collect();
        format!("{bars:>columns$}")
    }
}

/// Columns that a text takes.
pub(super) fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// Whether the terminal can only print line after line.
pub(super) fn is_dumb() -> bool {
    env::var("TERM").map_or(true, |term| term.is_empty() || term == "dumb")
}

/// A number in five characters at most: `0`, `999`, `1.23k`, `12.3M`, `456G`.
pub(super) fn short(number: u64) -> String {
    let mut unit = 1_u128;
    for name in ["", "k", "M", "G", "T", "P", "E"] {
        if u128::from(number) < unit * 1000 {
            let hundredths = u128::from(number) * 100 / unit;
            let (whole, part) = (hundredths / 100, hundredths % 100);
            return match (name, whole) {
                ("", _) => format!("{whole}"),
                (_, 0..=9) => format!("{whole}.{part:02}{name}"),
                (_, 10..=99) => format!("{whole}.{}{name}", part / 10),
                _ => format!("{whole}{name}"),
            };
        }
        unit *= 1000;
    }
    "lots".to_owned()
}

/// A count with its thousands set apart.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    groups.map(String::from_utf8_lossy).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: Look = Look { colour: true, unicode: true };
    const PLAIN: Look = Look { colour: false, unicode: false };

    #[test]
    fn numbers_take_five_characters() {
        let cases = [
            (0, "0"),
            (999, "999"),
            (1000, "1.00k"),
            (1_239, "1.23k"),
            (99_999, "99.9k"),
            (999_999, "999k"),
            (1_000_000, "1.00M"),
            (123_456_789_012, "123G"),
            (u64::MAX, "18.4E"),
        ];
        for (number, text) in cases {
            assert_eq!(short(number), text);
            assert!(text.len() <= 5);
        }
        assert_eq!([0, 999, 1_234_567].map(count), ["0", "999", "1,234,567"]);
    }

    #[test]
    fn what_is_cut_has_a_mark_and_fits() {
        assert_eq!((FULL.fit("abcdef", 4).as_str(), PLAIN.fit("abcdef", 4).as_str()), ("abc…", "abc~"));
        assert_eq!((FULL.fit("abcd", 4).as_str(), FULL.fit("x", 0).as_str()), ("abcd", ""));
        // Wide characters are not split.
        assert_eq!(FULL.fit("日本語", 4), "日…");
        for columns in 0..8 {
            let line = Line::from(vec![Span::raw("abc"), Span::raw("def")]);
            let fitted = FULL.fit_line(line, columns);
            assert!(fitted.width() <= columns);
            let text: String = fitted.spans.iter().map(|span| span.content.as_ref()).collect();
            assert_eq!(text.ends_with('…'), (1..6).contains(&columns), "{columns}: {text}");
        }
    }

    #[test]
    fn bars_are_relative_to_the_highest_and_nothing_is_nothing() {
        assert_eq!(FULL.spark([0, 1, 400, 800].into_iter(), 6), "   ▁▄█");
        assert_eq!(PLAIN.spark([5, 9, 1, 8, 8].into_iter(), 3), "_##");
        assert_eq!(FULL.spark([0, 0].into_iter(), 2), "  ");
    }
}
