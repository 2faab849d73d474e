//! What is to be said about a rules file, each with its place.

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use std::ops::Range;

/// How bad it is; worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// iptables would refuse it too.
    Error,
    /// iptables takes it, we do not.
    Unsupported,
    /// Worth knowing; changes nothing.
    Note,
}

/// One thing to be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// File name as the operator gave it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1, in characters.
    pub column: usize,
    /// Bytes of the text it is about.
    pub span: Range<usize>,
    /// What it is.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// A line longer than this is shown only around the place.
const SHOWN_MAX: usize = 400;

impl Diagnostic {
    /// As text with the line and a caret. `text` is what the diagnostic is about.
    #[must_use]
    pub fn render(&self, text: &str, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Unsupported => Level::ERROR.with_name("unsupported"),
            Severity::Note => Level::NOTE,
        };
        let (excerpt, span) = self.excerpt(text);
        let snippet = Snippet::source(excerpt)
            .path(&self.file)
            .line_start(self.line)
            .annotation(AnnotationKind::Primary.span(span));
        let mut group = level.primary_title(&self.message).element(snippet);
        if let Some(hint) = &self.hint {
            group = group.element(Level::HELP.message(hint));
        }
        renderer.render(&[group])
    }

    /// The line it stands on, cut to a readable length, and the place within.
    fn excerpt<'a>(&self, text: &'a str) -> (&'a str, Range<usize>) {
        let boundary = |mut at: usize| {
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        let start = text[..boundary(self.span.start.min(text.len()))].rfind('\n').map_or(0, |at| at + 1);
        let end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let place = self.span.start.clamp(start, end)..self.span.end.clamp(self.span.start.min(end), end);
        if end - start <= SHOWN_MAX {
            return (&text[start..end], place.start - start..place.end - start);
        }
        // The columns shown are those of the excerpt; `column` has the true one.
        let from = boundary(place.start.saturating_sub(SHOWN_MAX / 4).max(start));
        let to = boundary((from + SHOWN_MAX).min(end));
        (&text[from..to], place.start.min(to) - from..place.end.min(to) - from)
    }
}

/// Collects what is to be said about one text.
#[derive(Debug)]
pub(super) struct Reporter<'a> {
    text: &'a str,
    file: &'a str,
    /// Where each line starts, for finding lines by binary search.
    line_starts: Vec<usize>,
    pub(super) found: Vec<Diagnostic>,
}

/// More than this many are not worth reading; the rest is counted.
const FOUND_MAX: usize = 1000;

impl<'a> Reporter<'a> {
    pub(super) fn new(text: &'a str, file: &'a str) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, file, line_starts, found: Vec::new() }
    }

    pub(super) fn error(&mut self, span: &Range<usize>, message: impl Into<String>, hint: Option<String>) {
        self.add(Severity::Error, span, message.into(), hint);
    }

    pub(super) fn unsupported(&mut self, span: &Range<usize>, message: impl Into<String>, hint: Option<String>) {
        self.add(Severity::Unsupported, span, message.into(), hint);
    }

    pub(super) fn note(&mut self, span: &Range<usize>, message: impl Into<String>, hint: Option<String>) {
        self.add(Severity::Note, span, message.into(), hint);
    }

    fn add(&mut self, severity: Severity, span: &Range<usize>, message: String, hint: Option<String>) {
        if self.found.len() >= FOUND_MAX {
            return;
        }
        let line = self.line_starts.partition_point(|start| *start <= span.start).max(1);
        let start = self.line_starts[line - 1];
        let before = self.text.get(start..span.start).unwrap_or_default();
        self.found.push(Diagnostic {
            severity,
            file: self.file.to_owned(),
            line,
            column: before.chars().count() + 1,
            span: span.clone(),
            message,
            hint,
        });
    }

    /// Whether nothing found so far keeps the rules from running.
    pub(super) fn is_clean(&self) -> bool {
        self.found.iter().all(|diagnostic| diagnostic.severity == Severity::Note)
    }

    /// How many things that keep rules from running have been found.
    pub(super) fn faults(&self) -> usize {
        self.found.iter().filter(|diagnostic| diagnostic.severity != Severity::Note).count()
    }
}
