//! One packet's walk through the lines that match it. Worker thread; the one place where lines are acted on, whether they
//! come from a program alone or from one that was edited since ([`Way`]).

use super::alter::Alter;
use super::classifier::{self, Classifier, Cursor};
use super::conn::{Effect, Marks};
use super::counters::MATCHED_MAX;
use super::line::{Action, Line};
use super::model::{RuleRef, Verdict};
use super::program::Instance;
use super::trace::{Position, Trail};
use super::{Decision, Facts, boxes};

/// One way through the rules.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) lines: Vec<Line>,
    /// Where chains are unfolded.
    pub(super) instances: Vec<Instance>,
    /// Finds the lines whose fields match.
    pub(super) classifier: Classifier,
    /// Whether it tells all NICs apart; if not, a line's fields must be asked themselves.
    pub(super) is_exact: bool,
    /// Number of its first line among those of all programs.
    pub(super) base: u32,
}

/// The lines one packet matched, in order. Reused from packet to packet.
#[derive(Clone, Debug)]
pub struct Matched {
    pub(super) lines: Vec<u32>,
    /// The line that decided.
    pub(super) decider: u32,
    /// Where the walk has stopped, if a line changes the packet.
    pub(super) stop: Option<Stop>,
    /// Where it is, if it is followed.
    pub(super) position: Position,
}

/// A line that changes the packet, and what is known by then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stop {
    alter: Alter,
    /// Behind that line.
    next: Place,
    accepted_by: Option<(u32, RuleRef)>,
}

impl Stop {
    /// Where the walk goes on.
    pub(super) const fn next(&self) -> Place {
        self.next
    }
}

/// How far a walk has come: the next line of the program, and of what was inserted since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: u32,
    pub(super) extra: u32,
}

impl Default for Matched {
    fn default() -> Self {
        Self { lines: Vec::with_capacity(MATCHED_MAX), decider: 0, stop: None, position: Position::new() }
    }
}

impl Matched {
    /// The lines, for [`super::RuleCounters`].
    #[inline]
    #[must_use]
    pub fn lines(&self) -> &[u32] {
        &self.lines
    }

    /// The change to the packet that the walk waits for: make it, and go on with [`super::Compiled::resume`].
    #[inline]
    #[must_use]
    pub fn alter(&self) -> Option<Alter> {
        self.stop.map(|stop| stop.alter)
    }

    /// Takes away the lines so far, which were counted with the packet's length before a change.
    pub fn forget_lines(&mut self) {
        self.lines.clear();
    }

    /// The one among them that decided.
    #[inline]
    #[must_use]
    pub fn decider(&self) -> u32 {
        self.decider
    }
}

/// Lines whose fields match a packet, in order.
pub(super) trait Way<'a> {
    /// The next one and its number among all lines. There is one as long as none has decided: the last policy.
    fn next(&mut self, facts: &Facts<'_>) -> (&'a Line, u32);
    /// Goes on where the line that [`Self::next`] gave last says, not behind it.
    fn skip(&mut self, to: u32);
    /// Where the walk is.
    fn place(&self) -> Place;
    /// The rule of a line as rules are numbered now.
    fn by(&self, line: &Line) -> RuleRef;
}

/// The lines of a program that nobody has edited.
struct Plain<'a> {
    program: &'a Program,
    cursor: Cursor,
    from: u32,
}

impl<'a> Way<'a> for Plain<'a> {
    #[inline]
    fn next(&mut self, facts: &Facts<'_>) -> (&'a Line, u32) {
        loop {
            let index = self.program.classifier.next(&mut self.cursor, self.from);
            assert!(
                index != classifier::NONE,
                "every path ends with a line that decides about all packets: the last policy at the latest"
            );
            self.from = index + 1;
            let line = &self.program.lines[index as usize];
            let fits = self.program.is_exact || line.fields_match(facts);
            debug_assert!(!fits || line.fields_match(facts), "the classifier is exact");
            if fits {
                return (line, self.program.base + index);
            }
        }
    }

    #[inline]
    fn skip(&mut self, to: u32) {
        self.from = to;
    }

    fn place(&self) -> Place {
        Place { line: self.from, extra: 0 }
    }

    #[inline]
    fn by(&self, line: &Line) -> RuleRef {
        line.by
    }
}

impl Program {
    /// Walks one packet through, from the start or from where its walk stopped.
    #[inline]
    pub(super) fn run(
        &self,
        facts: &Facts<'_>,
        marks: &mut Marks,
        matched: &mut Matched,
        trail: &mut impl Trail,
    ) -> Decision {
        let from = matched.stop.map_or(0, |stop| stop.next.line);
        let cursor = self.classifier.find(&boxes::header(facts));
        walk(Plain { program: self, cursor, from }, facts, marks, matched, trail)
    }
}

/// Walks one packet along a way.
#[inline]
pub(super) fn walk<'a>(
    mut way: impl Way<'a>,
    facts: &Facts<'_>,
    marks: &mut Marks,
    matched: &mut Matched,
    trail: &mut impl Trail,
) -> Decision {
    let mut invariant = true;
    let mut accepted_by = matched.stop.take().and_then(|stop| stop.accepted_by);
    loop {
        let (line, number) = way.next(facts);
        if !line.more.is_empty() && !more_match(line, facts, marks, &mut invariant) {
            if marks.hotdrop {
                trail.comes_to(way.by(line), facts, marks);
                matched.decider = number;
                return dropped(way.by(line));
            }
            if let Action::Gate(to) = line.action {
                way.skip(to);
            }
            continue;
        }
        if !matches!(line.action, Action::SkipSilently(_)) {
            trail.meets(way.by(line), facts, marks);
        }
        match line.action {
            Action::SkipSilently(to) => {
                way.skip(to);
                continue;
            }
            Action::Skip(to) | Action::Pass(to) => way.skip(to),
            Action::Do(effect) => {
                // What is done must be done for each packet.
                invariant = false;
                match effect {
                    Effect::Alter(alter) => {
                        // What becomes of it if it cannot be changed.
                        matched.lines.push(number);
                        matched.decider = number;
                        matched.stop = Some(Stop { alter, next: way.place(), accepted_by });
                        return dropped(way.by(line));
                    }
                    Effect::Log(log) => facts.notes.note(facts, log, way.by(line), marks.packet),
                    _ => effect.apply(marks, facts),
                }
            }
            Action::Count | Action::Gate(_) | Action::Decide(_) => {}
        }
        matched.lines.push(number);
        if line.accepts {
            accepted_by = Some((number, way.by(line)));
        }
        if let Action::Decide(verdict) = line.action {
            let accepted_by = accepted_by.filter(|_| verdict == Verdict::Accept);
            let (decider, by) = accepted_by.unwrap_or((number, way.by(line)));
            matched.decider = decider;
            return Decision { verdict, by, invariant, management: false };
        }
    }
}

/// The end of a packet that is dropped for a reason of its own.
#[cold]
fn dropped(by: RuleRef) -> Decision {
    Decision { verdict: Verdict::Drop, by, invariant: false, management: false }
}

/// Whether the conditions beyond a line's fields hold. A volatile one that is asked, which is after all others held,
/// makes the decision depend on this very packet.
fn more_match(line: &Line, facts: &Facts<'_>, marks: &mut Marks, invariant: &mut bool) -> bool {
    let (tests, ordered) = line.more.split_at(line.more.len().min(line.ordered_from as usize));
    if !tests.iter().filter(|test| !test.is_volatile()).all(|test| test.holds(facts, marks)) {
        return false;
    }
    tests.iter().filter(|test| test.is_volatile()).chain(ordered).all(|test| {
        *invariant &= !test.is_volatile();
        test.holds(facts, marks)
    })
}
