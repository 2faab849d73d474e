//! Problems in the configuration, all at once, each with its place, a caret and a hint.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use std::fmt;
use std::ops::Range;

/// A text settings were read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// File name, or what stands for it.
    pub(super) name: String,
    /// The whole text.
    pub(super) text: String,
}

/// Where in the sources something stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Position in the list of sources.
    pub(super) source: usize,
    /// Bytes of its text.
    pub(super) span: Range<usize>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong, one line, without a full stop.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Whether it can be lived with: only `fwctl config check` tells of such.
    pub is_warning: bool,
    /// Where it stands; `None` when it is about something missing.
    pub(super) place: Option<Place>,
    /// A second place that has to do with it, and how.
    pub(super) related: Option<Box<(Place, String)>>,
}

/// Everything that is wrong with the configuration. Prints each problem with its line and a caret.
#[derive(Clone, Debug)]
pub struct ConfigErrors {
    pub(super) sources: Vec<Source>,
    pub(super) problems: Vec<Problem>,
}

impl Problem {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, is_warning: false, place: None, related: None }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn warning(mut self) -> Self {
        self.is_warning = true;
        self
    }

    pub(super) fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    pub(super) fn related(mut self, place: Place, label: impl Into<String>) -> Self {
        self.related = Some(Box::new((place, label.into())));
        self
    }
}

impl ConfigErrors {
    /// What is wrong, in the order in which it stands in the sources.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// File, line and column (from 1, in characters) of a problem, if it has a place.
    #[must_use]
    pub fn place(&self, problem: &Problem) -> Option<(&str, usize, usize)> {
        let place = problem.place.as_ref()?;
        let source = self.sources.get(place.source)?;
        let before = source.text.get(..place.span.start)?;
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Some((&source.name, before.matches('\n').count() + 1, before[line_start..].chars().count() + 1))
    }

    /// The report, one block per problem; with colours for a terminal if `colour` is set.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let blocks: Vec<String> = self.problems.iter().map(|p| self.render_one(p, colour)).collect();
        blocks.join("\n\n")
    }

    /// One problem's block of the report.
    #[must_use]
    pub fn render_one(&self, problem: &Problem, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&[self.group(problem)])
    }

    fn group<'a>(&'a self, problem: &'a Problem) -> Group<'a> {
        let Problem { message, hint, is_warning, place, related } = problem;
        let level = if *is_warning { Level::WARNING } else { Level::ERROR };
        let mut group = match place {
            None => Group::with_title(level.primary_title(message)),
            Some(place) => {
                let mut snippet =
                    self.snippet(place).annotation(AnnotationKind::Primary.span(place.span.clone()));
                if let Some((other, label)) =
                    related.as_deref().filter(|(other, _)| other.source == place.source)
                {
                    snippet =
                        snippet.annotation(AnnotationKind::Context.span(other.span.clone()).label(label));
                }
                level.primary_title(message).element(snippet)
            }
        };
        if let (Some(place), Some((other, label))) = (place, related.as_deref())
            && other.source != place.source
        {
            group = group.element(
                self.snippet(other).annotation(AnnotationKind::Context.span(other.span.clone()).label(label)),
            );
        }
        if let Some(hint) = hint {
            group = group.element(Level::HELP.message(hint));
        }
        group
    }

    fn snippet<'a, T: Clone>(&'a self, place: &Place) -> Snippet<'a, T> {
        // A place always names a source it was read from; an empty text keeps the report whole should that ever fail.
        let (name, text) = self
            .sources
            .get(place.source)
            .map_or(("", ""), |source| (source.name.as_str(), source.text.as_str()));
        Snippet::source(text).path(name)
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for ConfigErrors {}
