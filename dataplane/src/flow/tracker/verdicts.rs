//! Verdicts remembered in a flow: the way through the rules that its packets of one direction take, where all of them take
//! the same, and else what was said of the last one. Written by the owner; other threads may look.
//!
//! ```text
//! bits 31..24  ingress NIC      bit 23  refused      bits 22..0  path; all ones: none that holds for the next packet
//! ```
//!
//! What rules see of a flow's state in one direction changes only once, when the first reply comes (NEW or RELATED becomes
//! ESTABLISHED): then paths are forgotten, but not what was said. So both the packets of a flow that is not answered yet
//! and those of one that is can be cached.
//!
//! Beside the words stands the generation of the rules that said so. When new rules leave flows to the old ones
//! ([`Tenure`]), that is what a flow is known by: nothing is marked, and no table is walked. Its first packet under the new
//! rules gets it the path [`PathId::KEPT`], which from then on costs what any cached path costs.
//!
//! Invariant: a word that is [`PathId::KEPT`] stays so for as long as the generation beside it.

use super::{Tracker, rules_state};
use crate::flow::record::{Common, Record, copy_word};
use crate::flow::tracked::{Direction, FlowRef, Tracked};
use crate::ids::{Generation, PortId};
use crate::rules::PathId;
use std::sync::atomic::Ordering::Relaxed;

/// The path's bits.
const PATH: u32 = (1 << 23) - 1;
const REFUSED: u32 = 1 << 23;
const INGRESS_SHIFT: u32 = 24;

/// Nothing was said yet.
const NOTHING: u32 = u32::MAX;

/// Which rules' word on flows holds: that of rules from one generation on, but for those before which only where it was
/// to let a flow's packets pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// Generation the rules in force came with.
    pub since: Generation,
    /// The oldest rules whose flows go on. The same as `since` if there are none.
    pub kept_from: Generation,
}

/// What rules said of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// The way that all packets like it take; `None` if each must be asked.
    pub path: Option<PathId>,
    /// The NIC it came in on.
    pub ingress: PortId,
    /// Whether it may pass.
    pub accepted: bool,
}

/// A copy of what is remembered in a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    generation: u32,
    words: [u32; 2],
}

impl Tenure {
    /// That of rules which every packet meets.
    #[must_use]
    pub const fn of(since: Generation) -> Self {
        Self { since, kept_from: since }
    }

    /// That of rules which leave the flows that those before let pass to them.
    #[must_use]
    pub const fn after(self, since: Generation) -> Self {
        Self { since, kept_from: self.kept_from }
    }

    /// Whether flows may be left to earlier rules.
    #[must_use]
    #[inline]
    pub const fn keeps(self) -> bool {
        self.since.0 != self.kept_from.0
    }

    /// Whether rules of that generation are earlier ones whose flows go on. Generations may wrap around.
    const fn reaches(self, generation: u32) -> bool {
        let age = self.since.0.wrapping_sub(generation);
        generation != 0 && age != 0 && age <= self.since.0.wrapping_sub(self.kept_from.0)
    }
}

impl Said {
    #[inline]
    fn word(self) -> u32 {
        let refused = if self.accepted { 0 } else { REFUSED };
        self.path.map_or(PATH, |path| path.0) | refused | u32::from(self.ingress.0) << INGRESS_SHIFT
    }
}

const fn is_accepted(word: u32) -> bool {
    word & REFUSED == 0
}

const fn is_kept(word: u32) -> bool {
    word & (REFUSED | PATH) == PathId::KEPT.0
}

#[inline]
const fn came_by(word: u32, ingress: PortId) -> bool {
    word >> INGRESS_SHIFT == ingress.0 as u32
}

impl Remembered {
    /// Whether packets of the flow pass, or will pass, whatever these rules say.
    #[must_use]
    pub fn is_kept(&self, tenure: Tenure) -> bool {
        let Self { generation, words } = *self;
        if generation == tenure.since.0 {
            tenure.keeps() && words.into_iter().any(is_kept)
        } else {
            tenure.reaches(generation) && words.into_iter().any(is_accepted)
        }
    }

    /// The way through the rules since that generation that packets of a direction from that NIC take without being asked,
    /// if one is remembered.
    #[must_use]
    pub fn path(&self, direction: Direction, since: Generation, ingress: PortId) -> Option<PathId> {
        let word = self.words[direction.index()];
        let holds = self.generation == since.0 && came_by(word, ingress) && word & PATH != PATH;
        holds.then_some(PathId(word & PATH))
    }

    /// The ingress NIC of the original direction, under whichever rules.
    pub(in crate::flow) fn ingress(&self) -> Option<PortId> {
        if self.generation == 0 {
            return None;
        }
        let port = |direction: Direction| {
            let word = self.words[direction.index()];
            (word != NOTHING).then(|| PortId((word >> INGRESS_SHIFT).to_le_bytes()[0]))
        };
        port(Direction::Orig).or_else(|| port(Direction::Reply).map(PortId::peer))
    }
}

impl Record<'_> {
    /// What is remembered. Any thread.
    pub(in crate::flow) fn remembered(&self) -> Remembered {
        let Common { verdict_generation, verdicts, .. } = self.common;
        let words = verdicts.each_ref().map(|word| word.load(Relaxed));
        Remembered { generation: verdict_generation.load(Relaxed), words }
    }
}

impl Common {
    fn change_words(&self, change: impl Fn(u32) -> u32) {
        for word in &self.verdicts {
            word.store(change(word.load(Relaxed)), Relaxed);
        }
    }

    /// The flow has been answered: paths of before hold no longer.
    #[cold]
    pub(super) fn forget_paths(&self) {
        self.change_words(|word| if is_kept(word) { word } else { word | PATH });
    }

    /// Takes over what another worker remembers of a flow, but for paths, which are numbers of its own.
    pub(in crate::flow) fn copy_verdicts(&self, from: &Self) {
        copy_word(&self.verdict_generation, &from.verdict_generation);
        self.verdicts.iter().zip(&from.verdicts).for_each(|(to, from)| copy_word(to, from));
        self.forget_paths();
    }

    /// A flow of earlier rules that goes on comes under new ones.
    #[cold]
    fn come_under(&self, since: Generation) {
        self.change_words(|word| if is_accepted(word) { word & !PATH } else { word | PATH });
        self.verdict_generation.store(since.0, Relaxed);
    }

    /// Whether packets of this direction pass for what was said before. A direction of which nothing was said yet goes
    /// with the other one. What was said of packets from one NIC is not said of those from another.
    fn is_kept(&self, direction: Direction, ingress: PortId) -> bool {
        let word = |direction: Direction| self.verdicts[direction.index()].load(Relaxed);
        match (word(direction), word(direction.opposite())) {
            (NOTHING, other) => is_kept(other) && came_by(other, ingress.peer()),
            (own, _) => is_kept(own) && came_by(own, ingress),
        }
    }
}

/// The path cached for packets of this direction and ingress NIC under these rules, if it ends in their passing.
#[inline]
pub(super) fn accepted_path(
    common: &Common,
    direction: Direction,
    since: Generation,
    ingress: PortId,
) -> Option<PathId> {
    let word = common.verdicts[direction.index()].load(Relaxed);
    let holds = common.verdict_generation.load(Relaxed) == since.0;
    let path = word & PATH;
    (holds && word & !PATH == u32::from(ingress.0) << INGRESS_SHIFT && path != PATH).then_some(PathId(path))
}

impl Tracker {
    /// The path cached for packets like this one (same flow, direction, ingress NIC and ct state) under these rules.
    #[must_use]
    #[inline]
    pub fn cached_path(&self, tracked: &Tracked, since: Generation, ingress: PortId) -> Option<PathId> {
        let FlowRef::Existing(slot) = tracked.flow else { return None };
        let common = self.table.live_record(slot)?.common;
        let word = common.verdicts[tracked.direction.index()].load(Relaxed);
        (common.verdict_generation.load(Relaxed) == since.0
            && came_by(word, ingress)
            && word & PATH != PATH
            && rules_state(common.life(), tracked.direction) == tracked.state)
            .then_some(PathId(word & PATH))
    }

    /// Whether the packet's flow is one that earlier rules let pass and that goes on so. For packets without a cached path.
    #[must_use]
    pub fn is_kept(&mut self, tracked: &Tracked, tenure: Tenure, ingress: PortId) -> bool {
        let (FlowRef::Existing(slot) | FlowRef::Ending(slot)) = tracked.flow else { return false };
        let Some(Record { common, .. }) = self.table.live_record(slot) else { return false };
        let generation = common.verdict_generation.load(Relaxed);
        if tenure.reaches(generation) {
            common.come_under(tenure.since);
        } else if generation != tenure.since.0 {
            return false;
        }
        let is_kept = common.is_kept(tracked.direction, ingress);
        if is_kept {
            let word = Said { path: Some(PathId::KEPT), ingress, accepted: true }.word();
            common.verdicts[tracked.direction.index()].store(word, Relaxed);
        }
        is_kept
    }

    /// Remembers what rules said of the packet. Does nothing for one without a flow, or one that saw its flow in an
    /// earlier state.
    #[inline]
    pub fn remember(&mut self, tracked: &Tracked, since: Generation, said: Said) {
        let FlowRef::Existing(slot) = tracked.flow else { return };
        let Some(Record { common, .. }) = self.table.live_record(slot) else { return };
        if rules_state(common.life(), tracked.direction) != tracked.state {
            return;
        }
        let word = &common.verdicts[tracked.direction.index()];
        if common.verdict_generation.load(Relaxed) != since.0 {
            common.verdict_generation.store(since.0, Relaxed);
            common.verdicts[tracked.direction.opposite().index()].store(NOTHING, Relaxed);
        } else if is_kept(word.load(Relaxed)) {
            // The packet came by another NIC.
            return;
        }
        word.store(said.word(), Relaxed);
    }
}
