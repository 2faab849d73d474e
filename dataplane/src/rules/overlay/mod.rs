//! Rules edited since they were compiled. What was compiled stays as it is; lines of rules that are gone are dead, and
//! lines of rules that came are looked at one by one where they belong. So a small edit of very many rules reaches
//! packets at once, and the whole is compiled anew behind it.
//!
//! Built on control, immutable, walked by workers. Invariant: a walk meets the lines, and the rules by the numbers, that
//! it would meet if the edited rules were compiled as a whole.

mod build;
mod patch;
#[cfg(test)]
mod tests;

use super::classifier::{self, Cursor};
use super::compile::{Base, LineInfo};
use super::conn::Marks;
use super::line::{Action, Line};
use super::model::{ChainId, Match, Rule, RuleRef, Ruleset, Target};
use super::trace::Trail;
use super::validate::{self, CompileError};
use super::walk::{self, Matched, Place, Program, Way};
use super::{Decision, Facts, boxes};
use patch::Patch;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// A small edit; rules are named by where they stand once those before it are done.
#[derive(Clone, Debug)]
pub enum RuleEdit {
    /// A rule comes in.
    Add {
        /// Into which chain.
        chain: ChainId,
        /// In front of which rule, or their number.
        at: u32,
        /// The rule.
        rule: Arc<Rule>,
    },
    /// A rule goes.
    Remove {
        /// Out of which chain.
        chain: ChainId,
        /// Which.
        at: u32,
    },
}

/// What was edited since rules were compiled.
#[derive(Debug)]
pub(super) struct Edits {
    patches: BTreeMap<ChainId, Patch>,
    main: Overlay,
    raw: Overlay,
    /// Lines that were added, those of the main program first. Their numbers follow the compiled ones'.
    pub(super) infos: Vec<LineInfo>,
}

/// What changes about one program.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    /// Compiled lines that no packet meets any more, in order and apart.
    dead: Vec<Range<u32>>,
    /// Lines that came, in order.
    extras: Vec<Extra>,
    /// Number of the first of them among all lines.
    first: u32,
}

/// A line that came.
#[derive(Clone, Debug)]
struct Extra {
    line: Line,
    /// The compiled line in front of which it stands.
    at: u32,
    /// Depth of the chain that was edited. Of lines in front of the same one the deeper come first: theirs is the end
    /// of a chain that was called. Zero stands for a compiled line that is looked at here.
    depth: u8,
    /// Where a packet goes on that is to skip.
    to: Place,
}

impl Edits {
    /// Edits of compiled rules, over those that there were. `None` if they cannot be done in this way.
    pub(super) fn new(
        base: &Base,
        ruleset: &Ruleset,
        before: Option<&Self>,
        edits: &[RuleEdit],
        ports: &[String],
    ) -> Result<Option<(Ruleset, Self)>, CompileError> {
        let mut ruleset = ruleset.clone();
        let mut patches = before.map(|before| before.patches.clone()).unwrap_or_default();
        let mut calls = false;
        for edit in edits {
            let (RuleEdit::Add { chain, .. } | RuleEdit::Remove { chain, .. }) = edit;
            let rules = &mut ruleset.chains[chain.0 as usize].rules;
            let patch = patches.entry(*chain).or_insert_with(|| Patch::of(rules.len()));
            let rule = match edit {
                RuleEdit::Add { at, rule, .. } => {
                    rules.insert(*at as usize, Arc::clone(rule));
                    patch.add(*at);
                    calls |= matches!(rule.target, Target::Jump(_) | Target::Goto(_));
                    Arc::clone(rule)
                }
                RuleEdit::Remove { at, .. } => {
                    patch.remove(*at);
                    rules.remove(*at as usize)
                }
            };
            if keeps_state(&rule) {
                return Ok(None);
            }
        }
        if calls {
            validate::validate(&ruleset)?;
        }
        let work = build::Work { ruleset: &ruleset, patches: &patches, infos: &base.infos, ports };
        let way = ruleset.way();
        let main = build::overlay(&work, &base.main, &way, before.map(|before| &before.main))?;
        let raw_way = ruleset.raw_way();
        let raw = match &base.raw {
            Some(raw) => build::overlay(&work, raw, &raw_way, before.map(|before| &before.raw))?,
            None => Some(Overlay::default()),
        };
        let (Some(mut main), Some(mut raw)) = (main, raw) else { return Ok(None) };
        let count = |lines: usize| u32::try_from(lines).unwrap_or(u32::MAX);
        main.first = count(base.infos.len());
        raw.first = main.first + count(main.extras.len());
        let extras = main.extras.iter().chain(&raw.extras);
        let infos = extras.map(|extra| LineInfo::of(&extra.line, &ruleset)).collect();
        Ok(Some((ruleset, Self { patches, main, raw, infos })))
    }

    /// The rules that came, as they stand in the rules as they are now.
    pub(super) fn added<'a>(&'a self, ruleset: &'a Ruleset) -> impl Iterator<Item = &'a Rule> {
        self.patches.iter().flat_map(|(chain, patch)| {
            let rules = &ruleset.chain(*chain).rules;
            (0..patch.added.len()).map(|added| &*rules[patch.now_added(added) as usize])
        })
    }

    /// What a line stands for; `None` if its rule is gone.
    #[inline]
    pub(super) fn line(&self, base: &Base, number: u32) -> Option<LineInfo> {
        match base.infos.get(number as usize) {
            Some(info) => Some(LineInfo { by: now(&self.patches, info.by)?, ..*info }),
            None => self.infos.get(number as usize - base.infos.len()).copied(),
        }
    }

    /// Walks one packet through a program of these, from the start or from where its walk stopped.
    #[inline(never)]
    pub(super) fn run(
        &self,
        program: &Program,
        facts: &Facts<'_>,
        marks: &mut Marks,
        matched: &mut Matched,
        trail: &mut impl Trail,
    ) -> Decision {
        let overlay = if program.base == 0 { &self.main } else { &self.raw };
        let way = Edited {
            program,
            overlay,
            patches: &self.patches,
            cursor: program.classifier.find(&boxes::header(facts)),
            place: matched.stop.map(|stop| stop.next()).unwrap_or_default(),
            last: Last::Extra(0),
        };
        walk::walk(way, facts, marks, matched, trail)
    }
}

/// Whether a rule has a state of its own, or one that it shares by name: those are bound when rules are loaded.
fn keeps_state(rule: &Rule) -> bool {
    rule.matches.iter().any(|condition| matches!(condition, Match::Rate(rate) if rate.counts()))
}

/// A compiled rule as rules are numbered now, `None` if it is gone.
#[inline]
fn now(patches: &BTreeMap<ChainId, Patch>, by: RuleRef) -> Option<RuleRef> {
    let (Some(rule), Some(patch)) = (by.rule, patches.get(&by.chain)) else { return Some(by) };
    Some(RuleRef { rule: Some(patch.now(rule)?), ..by })
}

impl Overlay {
    /// The end of the dead lines that this one is among.
    fn dead_to(&self, line: u32) -> Option<u32> {
        let next = self.dead.partition_point(|dead| dead.end <= line);
        self.dead.get(next).filter(|dead| dead.start <= line).map(|dead| dead.end)
    }

    /// In front of a compiled line, but behind what was added to chains of at least this depth: they have ended there.
    fn before(&self, line: u32, depth: u8) -> Place {
        let mut extra = self.extras.partition_point(|extra| extra.at < line);
        let ended = |extra: &Extra| extra.at == line && extra.depth >= depth;
        while self.extras.get(extra).is_some_and(ended) {
            extra += 1;
        }
        Place { line, extra: u32::try_from(extra).unwrap_or(u32::MAX) }
    }
}

/// Where a compiled line sends a packet ahead to: in front of which line, past what was added to chains of which depth and
/// deeper.
fn leads_to(line: &Line) -> Option<(u32, u8)> {
    match line.action {
        // Out of the chain it is in.
        Action::Skip(to) | Action::SkipSilently(to) => Some((to, line.depth)),
        // Past the chain it would have called.
        Action::Gate(to) => Some((to, line.depth + 1)),
        // To the next table.
        Action::Pass(to) => Some((to, u8::MAX)),
        Action::Count | Action::Do(_) | Action::Decide(_) => None,
    }
}

/// The lines of a program that was edited.
struct Edited<'a> {
    program: &'a Program,
    overlay: &'a Overlay,
    patches: &'a BTreeMap<ChainId, Patch>,
    cursor: Cursor,
    place: Place,
    last: Last<'a>,
}

/// The line given last.
#[derive(Clone, Copy)]
enum Last<'a> {
    Compiled(&'a Line),
    Extra(usize),
}

impl<'a> Edited<'a> {
    /// The next compiled line that is alive and whose fields match.
    fn compiled(&mut self, facts: &Facts<'_>) -> Option<(u32, &'a Line)> {
        loop {
            let index = self.program.classifier.next(&mut self.cursor, self.place.line);
            if index == classifier::NONE {
                return None;
            }
            let line = &self.program.lines[index as usize];
            self.place.line = match self.overlay.dead_to(index) {
                Some(end) => end,
                None if self.program.is_exact || line.fields_match(facts) => return Some((index, line)),
                None => index + 1,
            };
        }
    }
}

impl<'a> Way<'a> for Edited<'a> {
    fn next(&mut self, facts: &Facts<'_>) -> (&'a Line, u32) {
        let compiled = self.compiled(facts);
        let end = compiled.map_or(u32::MAX, |(index, _)| index);
        let overlay = self.overlay;
        while let Some(extra) = overlay.extras.get(self.place.extra as usize).filter(|extra| extra.at <= end)
        {
            let number = overlay.first + self.place.extra;
            self.last = Last::Extra(self.place.extra as usize);
            self.place.extra += 1;
            if extra.line.fields_match(facts) {
                self.place.line = self.place.line.max(extra.at);
                return (&extra.line, number);
            }
        }
        let (index, line) =
            compiled.expect("the last policy decides about all packets, compiled or looked at");
        self.last = Last::Compiled(line);
        self.place.line = index + 1;
        (line, self.program.base + index)
    }

    fn skip(&mut self, _: u32) {
        match self.last {
            Last::Compiled(line) => {
                if let Some((to, depth)) = leads_to(line) {
                    self.place = self.overlay.before(to, depth);
                }
            }
            Last::Extra(extra) => self.place = self.overlay.extras[extra].to,
        }
    }

    fn place(&self) -> Place {
        self.place
    }

    fn by(&self, line: &Line) -> RuleRef {
        match self.last {
            Last::Compiled(_) => now(self.patches, line.by).unwrap_or(line.by),
            Last::Extra(_) => line.by,
        }
    }
}
