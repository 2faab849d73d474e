//! What a few edits make of a compiled program: which lines die, which come. Control only.
//!
//! A compiled line may be missing from leaves of the classifier that a line before it covers (`boxes::of`). Where such a
//! line dies, or may now be skipped, those behind it that it could hide are looked at one by one instead.

use super::patch::Patch;
use super::{Extra, Overlay, leads_to, now};
use crate::rules::line::{ANY_PROTO, Action, Line};
use crate::rules::model::{ChainId, Hook, RuleRef, Ruleset};
use crate::rules::program::{Flatten, Instance};
use crate::rules::walk::{Place, Program};
use crate::rules::{CompileError, LineInfo, boxes};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Most lines looked at one by one.
const EXTRAS_MAX: usize = 512;
/// Most lines compared with others for one edit.
const WORK_MAX: usize = 1 << 18;

/// What is to be made.
pub(super) struct Work<'a> {
    /// The rules as they are now.
    pub(super) ruleset: &'a Ruleset,
    pub(super) patches: &'a BTreeMap<ChainId, Patch>,
    /// The compiled lines in short.
    pub(super) infos: &'a [LineInfo],
    pub(super) ports: &'a [String],
}

/// Where a line sends a packet that is to skip.
#[derive(Clone, Copy, Debug)]
enum To {
    Nowhere,
    /// To a line that came with it.
    Within(u32),
    /// In front of a compiled line, past what was added to chains of at least this depth.
    Out(u32, u8),
}

/// Lines that came with one rule in one place.
struct Group {
    at: u32,
    depth: u8,
    lines: Vec<(Line, To)>,
}

/// What changes about a program; `None` if it is too much.
pub(super) fn overlay(
    work: &Work<'_>,
    program: &Program,
    way: &[(Hook, ChainId)],
    before: Option<&Overlay>,
) -> Result<Option<Overlay>, CompileError> {
    let mut dead: Vec<Range<u32>> = Vec::new();
    let mut groups = Vec::new();
    let mut extras = 0;
    let is_within = |dead: &[Range<u32>], line: u32| dead.iter().any(|dead| dead.contains(&line));
    for instance in &program.instances {
        let Some(patch) = work.patches.get(&instance.chain) else { continue };
        if instance.entry.is_some_and(|entry| is_within(&dead, entry)) {
            continue;
        }
        let starts = Starts::of(work, program, instance, patch);
        let gone = patch.removed.iter().map(|rule| starts.at(*rule)..starts.at(rule + 1));
        dead.extend(gone.filter(|lines| !lines.is_empty()));
        for (added, at) in patch.added.iter().enumerate() {
            let by = RuleRef { chain: instance.chain, rule: Some(patch.now_added(added)) };
            let lines = come(work, program, way, instance, by)?;
            extras += lines.len();
            if extras > EXTRAS_MAX {
                return Ok(None);
            }
            groups.push(Group { at: starts.at(*at), depth: instance.depth, lines });
        }
    }
    dead.sort_by_key(|dead| dead.start);
    let Some(bared) = bared(program, &dead, &groups, before, EXTRAS_MAX - extras) else {
        return Ok(None);
    };
    Ok(Some(assemble(work, program, dead, groups, &bared)))
}

/// Where the lines of a chain's rules begin, in one unfolding.
struct Starts(BTreeMap<u32, u32>);

impl Starts {
    fn of(work: &Work<'_>, program: &Program, instance: &Instance, patch: &Patch) -> Self {
        let asked =
            patch.removed.iter().flat_map(|rule| [*rule, rule + 1]).chain(patch.added.iter().copied());
        let mut starts: BTreeMap<u32, u32> = asked.map(|rule| (rule, instance.lines.end)).collect();
        let mut open: Vec<u32> = starts.keys().rev().copied().collect();
        for at in instance.lines.clone() {
            let by = work.infos[(program.base + at) as usize].by;
            let Some(rule) = by.rule.filter(|_| by.chain == instance.chain) else { continue };
            // A rule that no packet can match has no line: the next one's is where it would be.
            while let Some(asked) = open.pop_if(|asked| *asked <= rule) {
                starts.insert(asked, at);
            }
            if open.is_empty() {
                break;
            }
        }
        Self(starts)
    }

    fn at(&self, rule: u32) -> u32 {
        self.0[&rule]
    }
}

/// The lines of a rule in one unfolding of its chain.
fn come(
    work: &Work<'_>,
    program: &Program,
    way: &[(Hook, ChainId)],
    instance: &Instance,
    by: RuleRef,
) -> Result<Vec<(Line, To)>, CompileError> {
    let entry = match instance.entry {
        None => Line::any(Action::Count, by),
        Some(at) => {
            let mut entry = program.lines[at as usize].clone();
            entry.forget_asked();
            entry
        }
    };
    let mut flatten = Flatten::new(work.ruleset, way, usize::from(instance.table), work.ports);
    let mut leaves = Vec::new();
    flatten.rule_within(instance, by, &entry, &mut leaves)?;
    let table_end = || {
        let is_table = |other: &&Instance| other.table == instance.table && other.entry.is_none();
        program.instances.iter().find(is_table).map_or(u32::MAX, |table| table.lines.end + 1)
    };
    let mut to: Vec<To> = flatten
        .flat
        .lines
        .iter()
        .map(|line| match line.action {
            Action::Skip(to) | Action::SkipSilently(to) | Action::Gate(to) => To::Within(to),
            Action::Pass(_) => To::Out(table_end(), u8::MAX),
            Action::Count | Action::Do(_) | Action::Decide(_) => To::Nowhere,
        })
        .collect();
    for leaf in leaves {
        to[leaf] = To::Out(instance.lines.end, instance.depth);
    }
    Ok(flatten.flat.lines.into_iter().zip(to).collect())
}

/// Compiled lines that may be missing where a packet could meet them now. `None` if they are more than `most`.
fn bared(
    program: &Program,
    dead: &[Range<u32>],
    groups: &[Group],
    before: Option<&Overlay>,
    most: usize,
) -> Option<BTreeSet<u32>> {
    let is_dead = |line: u32| dead.iter().any(|dead| dead.contains(&line));
    // Those of earlier edits are known.
    let known = before.into_iter().flat_map(|before| &before.extras).filter(|extra| extra.depth == 0);
    let mut bared: BTreeSet<u32> = known.map(|extra| extra.at).filter(|line| !is_dead(*line)).collect();
    let mut left = WORK_MAX;
    let mut bare = |coverer: &Line, from: u32, to: u32| {
        let hidden = program.classifier.hidden();
        let hidden = &hidden[hidden.partition_point(|line| *line < from)..];
        let hidden = &hidden[..hidden.partition_point(|line| *line < to)];
        left = left.checked_sub(hidden.len())?;
        let met = hidden.iter().filter(|line| overlap(&program.lines[**line as usize], coverer));
        bared.extend(met.filter(|line| !is_dead(**line)));
        (bared.len() <= most).then_some(())
    };
    let was_dead = |line: u32| before.is_some_and(|before| before.dead_to(line).is_some());
    for at in dead.iter().flat_map(Clone::clone).filter(|line| !was_dead(*line)) {
        let line = &program.lines[at as usize];
        // Only one that asks nothing beyond its fields hides another.
        if line.more.is_empty() {
            bare(line, at + 1, boxes::hides_to(line))?;
        }
    }
    // Behind what may be skipped now, all that it could have hidden.
    for (line, to) in groups.iter().flat_map(|group| &group.lines) {
        if let To::Out(to, _) = to {
            bare(line, *to, u32::MAX)?;
        }
    }
    Some(bared)
}

/// Whether the fields of two lines leave room for a packet that matches both.
fn overlap(one: &Line, other: &Line) -> bool {
    let ports = |one: (u16, u16), other: (u16, u16)| one.0 <= other.1 && other.0 <= one.1;
    (one.src ^ other.src) & one.src_mask & other.src_mask == 0
        && (one.dst ^ other.dst) & one.dst_mask & other.dst_mask == 0
        && (one.proto == other.proto || one.proto == ANY_PROTO || other.proto == ANY_PROTO)
        && ports(one.src_ports, other.src_ports)
        && ports(one.dst_ports, other.dst_ports)
        && one.states & other.states != 0
        && one.ingress & other.ingress != 0
        && one.egress & other.egress != 0
}

/// Puts everything in order and finds out where lines lead.
fn assemble(
    work: &Work<'_>,
    program: &Program,
    mut dead: Vec<Range<u32>>,
    mut groups: Vec<Group>,
    bared: &BTreeSet<u32>,
) -> Overlay {
    for &at in bared {
        let mut line = program.lines[at as usize].clone();
        line.by = now(work.patches, line.by).unwrap_or(line.by);
        let to = leads_to(&line).map_or(To::Nowhere, |(to, depth)| To::Out(to, depth));
        groups.push(Group { at, depth: 0, lines: vec![(line, to)] });
        dead.push(at..at + 1);
    }
    dead.sort_by_key(|dead| dead.start);
    // A stable sort: rules that came into one place keep their order.
    groups.sort_by_key(|group| (group.at, Reverse(group.depth)));
    let (mut extras, mut to) = (Vec::new(), Vec::new());
    for Group { at, depth, lines } in groups {
        let first = u32::try_from(extras.len()).unwrap_or(u32::MAX);
        for (line, leads) in lines {
            extras.push(Extra { line, at, depth, to: Place::default() });
            to.push((leads, Place { line: at, extra: first }));
        }
    }
    let mut overlay = Overlay { dead, extras, first: 0 };
    for (index, (leads, group)) in to.into_iter().enumerate() {
        overlay.extras[index].to = match leads {
            To::Nowhere => continue,
            To::Within(line) => Place { extra: group.extra + line, ..group },
            To::Out(line, depth) => overlay.before(line, depth),
        };
    }
    overlay
}
