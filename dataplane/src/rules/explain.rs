//! A packet's walk through the rules, told: which rules it matched, and which it did not match that would have decided about
//! it. Walks as [`super::linear`] does, which is what rules mean, with nothing changed but copies. Any thread but a worker.
//!
//! Bounded: of rules that matched so many are told of, and of the others those that it missed most closely.

use super::alter::Copied;
use super::conn::{Asked, ConnMatch, Marks};
use super::linear::{self, Scene, Witness};
use super::model::{ChainId, CtState, Hook, Match, RuleRef, Ruleset, Target, Verdict};
use super::rate::RateMatch;
use super::{Decision, Facts, matching};
use crate::packet::Packet;
use std::collections::BinaryHeap;

/// Most matched rules told of.
const MATCHED_MAX: usize = 4096;

/// Most rules of one kind that were missed and are remembered on the way.
const MISSED_MAX: usize = 32;

/// Most of them told of.
const MISSED_TOLD: usize = 12;

/// What a rule sees beside the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Where on the packet's way.
    pub hook: Hook,
    /// The packet's connection state at this point.
    pub state: CtState,
    /// The packet's mark.
    pub mark: u32,
    /// Its connection's mark.
    pub conn_mark: u32,
}

/// What a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The rule's conditions hold.
    Matched {
        /// Marks after it has done what it does.
        after: Option<Seen>,
        /// Whether the packet could not be changed as the rule says, and is dropped for that.
        unfit: bool,
    },
    /// One does not.
    Missed {
        /// Position of the first one that does not, among [`super::model::Rule::matches`].
        condition: usize,
        /// Whether the packet could not be asked, and is dropped for that.
        hotdrop: bool,
    },
    /// The chain has ended: by its policy, or back to the one that called it.
    End,
}

/// A step of the walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The rule; without number the chain's end.
    pub by: RuleRef,
    /// How many chains deep.
    pub depth: u32,
    /// What the rule sees.
    pub seen: Seen,
    /// What comes of it.
    pub told: Told,
    /// When, among all steps.
    order: u64,
}

/// All that is told of a walk.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// Steps in order.
    pub steps: Vec<Step>,
    /// Rules asked.
    pub tried: u64,
    /// Rules that would have decided, were missed and are not among the steps.
    pub omitted: u64,
    /// Rules that matched and are not among the steps.
    pub untold: u64,
}

/// What a rule that was missed would have done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Would {
    Pass,
    Refuse,
    Go,
}

/// A rule that was missed: nearer ones, and then earlier ones, are less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Miss {
    /// Conditions that do not hold, as far as can be asked without counting.
    failing: usize,
    step: Step,
}

impl PartialOrd for Miss {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Miss {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.failing, self.step.order).cmp(&(other.failing, other.step.order))
    }
}

/// Takes down a walk.
#[derive(Debug)]
struct Watch<'a> {
    ruleset: &'a Ruleset,
    depth: u32,
    order: u64,
    matched: Vec<Step>,
    untold: u64,
    missed: [BinaryHeap<Miss>; 3],
    misses: u64,
    tried: u64,
}

/// Walks one packet through `raw` and then through the other tables.
#[derive(Debug)]
pub struct Walker<'a> {
    ruleset: &'a Ruleset,
    ports: &'a [String],
    copied: Copied,
    /// The packet's marks; those of its connection are the caller's to set, as for [`super::Compiled::classify`].
    pub marks: Marks,
    watch: Watch<'a>,
    matched: Vec<RuleRef>,
}

impl<'a> Walker<'a> {
    /// For these rules and NICs of these names.
    #[must_use]
    pub fn new(ruleset: &'a Ruleset, ports: &'a [String]) -> Self {
        let watch = Watch {
            ruleset,
            depth: 0,
            order: 0,
            matched: Vec::new(),
            untold: 0,
            missed: Default::default(),
            misses: 0,
            tried: 0,
        };
        let mut marks = Marks::default();
        marks.begin();
        Self { ruleset, ports, copied: Copied::default(), marks, watch, matched: Vec::new() }
    }

    /// Before the packet is tracked. [`Facts::is_raw`] is seen to.
    pub fn raw(&mut self, facts: &Facts<'_>) -> Decision {
        let Self { ruleset, ports, copied, marks, watch, matched } = self;
        linear::tell_raw(ruleset, ports, facts, marks, matched, copied, watch)
    }

    /// Once it is tracked.
    pub fn main(&mut self, facts: &Facts<'_>) -> Decision {
        let Self { ruleset, ports, copied, marks, watch, matched } = self;
        linear::tell(ruleset, ports, facts, marks, matched, copied, watch)
    }

    /// The packet as rules have made it; `None` if none has changed it.
    #[must_use]
    pub fn changed(&self) -> Option<(&Packet, &[u8])> {
        self.copied.changed()
    }

    /// What there is to tell, now that it is known what became of the packet.
    #[must_use]
    pub fn story(self, verdict: Verdict) -> Story {
        let Watch { matched, untold, missed, misses, tried, .. } = self.watch;
        let same = if verdict == Verdict::Accept { Would::Pass } else { Would::Refuse };
        let [pass, refuse, go] = missed;
        let of = |would: Would, heap: BinaryHeap<Miss>| heap.into_iter().map(move |miss| (would, miss));
        let mut all: Vec<(Would, Miss)> =
            of(Would::Pass, pass).chain(of(Would::Refuse, refuse)).chain(of(Would::Go, go)).collect();
        // Nearest first, and of those the ones that would have changed the outcome.
        all.sort_by_key(|(would, miss)| (miss.failing, *would == same, miss.step.order));
        all.truncate(MISSED_TOLD);
        let omitted = misses - all.len() as u64;
        let mut steps = matched;
        steps.extend(all.into_iter().map(|(_, miss)| miss.step));
        steps.sort_by_key(|step| step.order);
        Story { steps, tried, omitted, untold }
    }
}

impl Watch<'_> {
    fn step(&mut self, by: RuleRef, scene: &Scene<'_>, told: Told) -> Step {
        self.order += 1;
        Step { by, depth: self.depth.saturating_sub(1), seen: seen(scene), told, order: self.order }
    }

    fn keep(&mut self, step: Step) {
        if self.matched.len() < MATCHED_MAX {
            self.matched.push(step);
        } else {
            self.untold += u64::from(step.by.rule.is_some());
        }
    }
}

fn seen(scene: &Scene<'_>) -> Seen {
    Seen {
        hook: scene.hook,
        state: Asked::about(scene.facts, scene.marks).state(),
        mark: scene.marks.packet,
        conn_mark: scene.marks.conn,
    }
}

/// Whether a condition may be asked out of turn: the question leaves nothing behind.
fn is_harmless(condition: &Match) -> bool {
    match condition {
        Match::Rate(rate) => matches!(rate, RateMatch::Time(_)),
        Match::Conn(ConnMatch::ConnLimit(_) | ConnMatch::ConnLabel { set: true, .. }) | Match::Set(_) => {
            false
        }
        _ => true,
    }
}

impl Witness for Watch<'_> {
    fn enters(&mut self, _chain: ChainId) {
        self.depth += 1;
    }

    fn leaves(&mut self) {
        self.depth -= 1;
    }

    fn misses(&mut self, by: RuleRef, condition: usize, scene: &Scene<'_>) {
        self.tried += 1;
        if scene.marks.hotdrop {
            let step = self.step(by, scene, Told::Missed { condition, hotdrop: true });
            return self.keep(step);
        }
        let Some(rule) = by.rule.map(|rule| &self.ruleset.chain(by.chain).rules[rule as usize]) else {
            return;
        };
        let would = match rule.target {
            Target::Accept => Would::Pass,
            Target::Drop | Target::Reject(_) => Would::Refuse,
            Target::Jump(_) | Target::Goto(_) | Target::Return => Would::Go,
            Target::Continue | Target::Effect(_) => return,
        };
        self.misses += 1;
        let rest = &rule.matches[condition + 1..];
        let mut marks = if rest.is_empty() { Marks::default() } else { scene.marks.clone() };
        let mut failing = 1;
        for condition in rest.iter().filter(|condition| is_harmless(condition)) {
            let holds = matching::holds(condition, scene.facts, scene.ports, scene.hook, &mut marks);
            failing += usize::from(!holds);
        }
        let step = self.step(by, scene, Told::Missed { condition, hotdrop: false });
        let heap = &mut self.missed[would as usize];
        heap.push(Miss { failing, step });
        if heap.len() > MISSED_MAX {
            heap.pop();
        }
    }

    fn meets(&mut self, by: RuleRef, scene: &Scene<'_>) {
        self.tried += 1;
        let step = self.step(by, scene, Told::Matched { after: None, unfit: false });
        self.keep(step);
    }

    fn has_done(&mut self, by: RuleRef, unfit: bool, scene: &Scene<'_>) {
        let after = seen(scene);
        if let Some(step) = self.matched.last_mut().filter(|step| step.by == by) {
            step.told = Told::Matched { after: Some(after), unfit };
        }
    }

    fn ends(&mut self, by: RuleRef, scene: &Scene<'_>) {
        let step = self.step(by, scene, Told::End);
        self.keep(step);
    }
}
