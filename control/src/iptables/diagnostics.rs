//! What is wrong with a rules file, and how it is shown: severity, place, message, hint. Control thread and tools only.
//!
//! Invariant: a diagnostic's span lies within one line of the file it was made for, so it can always be drawn.

use std::fmt::Write as _;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};
use serde::Serialize;

/// Lines longer than this many bytes are named by place only, not drawn.
const DRAWN_LINE_MAX: usize = 1024;

/// A place in a rules file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Span {
    /// Line, from one; zero when the diagnostic is about the file as a whole.
    pub line: u32,
    /// First byte, from the start of the file.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

/// How bad it is. Ordered: the worst is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Accepted, but hardly what was meant.
    Warning,
    /// iptables takes it, we do not (yet).
    Unsupported,
    /// iptables refuses it too.
    Error,
}

/// One finding about a rules file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Where.
    pub span: Span,
    /// What, in one line.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// A finding without a hint.
    pub fn new(severity: Severity, span: Span, message: impl Into<String>) -> Self {
        Self { severity, span, message: message.into(), hint: None }
    }

    /// Something iptables would refuse too.
    pub fn error(span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, span, message)
    }

    /// Something iptables takes and we do not.
    pub fn unsupported(span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Unsupported, span, message)
    }

    /// Something accepted that deserves a second look.
    pub fn warning(span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, span, message)
    }

    /// Something worth knowing.
    pub fn note(span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Note, span, message)
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Column of the span's start in characters, from one.
    #[must_use]
    pub fn column(&self, text: &[u8]) -> usize {
        let (line, start) = line_around(text, self.span);
        let before = self.span.start.saturating_sub(start).min(line.len());
        String::from_utf8_lossy(line.get(..before).unwrap_or_default()).chars().count() + 1
    }

    /// The diagnostic as the operator reads it: message, `file:line:column`, the line with a caret, the hint.
    #[must_use]
    pub fn render(&self, text: &[u8], file_name: &str, colours: bool) -> String {
        let renderer = if colours { Renderer::styled() } else { Renderer::plain() };
        let renderer = renderer.decor_style(DecorStyle::Ascii);
        let hint = self.hint.as_deref().map(|hint| Level::HELP.message(printable(hint)));
        let title = self.level().primary_title(printable(&self.message));
        let (line, start) = line_around(text, self.span);
        let line_number = usize::try_from(self.span.line).unwrap_or(usize::MAX);
        let group = if self.span.line == 0 {
            title.element(Origin::path(file_name))
        } else if line.len() > DRAWN_LINE_MAX {
            let column = self.column(text);
            title.element(Origin::path(file_name).line(line_number).char_column(column))
        } else {
            let (drawn, range) = drawn_line(line, self.span.start - start, self.span.end - start);
            title.element(
                Snippet::source(drawn)
                    .path(file_name)
                    .line_start(line_number)
                    .annotation(AnnotationKind::Primary.span(range)),
            )
        };
        let report = &[group.elements(hint)];
        let mut out = renderer.render(report);
        out.push('\n');
        out
    }

    /// The diagnostic as a JSON object: severity, file, line, column, message, hint.
    #[must_use]
    pub fn to_json(&self, text: &[u8], file_name: &str) -> serde_json::Value {
        serde_json::json!({
            "severity": self.severity,
            "file": file_name,
            "line": self.span.line,
            "column": self.column(text),
            "start": self.span.start,
            "end": self.span.end,
            "message": self.message,
            "hint": self.hint,
        })
    }

    fn level(&self) -> Level<'static> {
        match self.severity {
            Severity::Note => Level::NOTE,
            Severity::Warning => Level::WARNING,
            Severity::Unsupported => Level::ERROR.with_name("unsupported"),
            Severity::Error => Level::ERROR,
        }
    }
}

/// All diagnostics of a file, one after the other, as the operator reads them.
#[must_use]
pub fn render_all(diagnostics: &[Diagnostic], text: &[u8], file_name: &str, colours: bool) -> String {
    let mut out = String::new();
    for diagnostic in diagnostics {
        let _ = writeln!(out, "{}", diagnostic.render(text, file_name, colours));
    }
    out
}

/// The line the span starts in, without its newline, and where it begins in the file.
fn line_around(text: &[u8], span: Span) -> (&[u8], usize) {
    let at = span.start.min(text.len());
    let (before, after) = text.split_at(at);
    let start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
    let end = after.iter().position(|&byte| byte == b'\n').map_or(text.len(), |newline| at + newline);
    (text.get(start..end).unwrap_or_default(), start)
}

/// A line fit for a terminal and the byte range of its marked part: what is not printable becomes one character each.
fn drawn_line(line: &[u8], start: usize, end: usize) -> (String, std::ops::Range<usize>) {
    let end = end.min(line.len());
    let start = start.min(end);
    let part = |range: std::ops::Range<usize>| {
        printable(&String::from_utf8_lossy(line.get(range).unwrap_or_default()))
    };
    let mut drawn = part(0..start);
    let from = drawn.len();
    drawn.push_str(&part(start..end));
    let to = drawn.len();
    drawn.push_str(&part(end..line.len()));
    (drawn, from..to)
}

/// Control characters never reach a terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            c if c.is_control() => char::REPLACEMENT_CHARACTER,
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnostic_shows_place_caret_and_hint() {
        let text = b"*filter\n-A FORWARD -p tpc\nCOMMIT\n";
        let span = Span { line: 2, start: 22, end: 25 };
        let shown = Diagnostic::error(span, "unknown protocol `tpc`")
            .hint("did you mean `tcp`?")
            .render(text, "rules.v4", false);
        assert_eq!(
            shown,
            "error: unknown protocol `tpc`\n --> rules.v4:2:15\n  |\n2 | -A FORWARD -p tpc\n  |               ^^^\n  |\n  = help: did you mean `tcp`?\n"
        );
    }

    #[test]
    fn control_characters_and_foreign_bytes_are_not_drawn() {
        let text = b"\x1b[31m\xff x";
        let span = Span { line: 1, start: 5, end: 6 };
        let shown = Diagnostic::unsupported(span, "odd\x07").render(text, "f", false);
        assert!(!shown.contains('\x1b') && !shown.contains('\x07'), "{shown}");
        assert!(shown.starts_with("unsupported: odd"), "{shown}");
    }

    #[test]
    fn a_very_long_line_is_named_but_not_drawn() {
        let text = vec![b'x'; 5000];
        let span = Span { line: 1, start: 4000, end: 4001 };
        let shown = Diagnostic::error(span, "too long").render(&text, "f", false);
        assert!(shown.contains("f:1:4001") && shown.len() < 200, "{shown}");
    }
}
