//! Verdicts cached in a flow. Owner thread only.
//!
//! What rules see of a flow's state in one direction changes only once, when the first reply comes (NEW or RELATED becomes
//! ESTABLISHED), and that is when the cache is cleared. So both the packets of a flow that is not answered yet and those
//! of one that is can be cached.

use super::{Tracker, rules_state};
use crate::flow::record::Record;
use crate::flow::tracked::{Direction, FlowRef, Tracked};
use crate::ids::{Generation, PortId};
use std::sync::atomic::Ordering::Relaxed;

/// No verdict cached. Not a path that can be cached.
const NO_VERDICT: u32 = u32::MAX;

/// Bit from which on a cached verdict names the ingress NIC that it holds for.
pub const INGRESS_SHIFT: u32 = 24;

impl Record<'_> {
    /// The ingress NIC of the original direction, by what is cached under whichever rules. Any thread.
    pub(in crate::flow) fn ingress(&self) -> Option<PortId> {
        if self.common.verdict_generation.load(Relaxed) == 0 {
            return None;
        }
        let port = |direction: Direction| {
            let word = self.common.verdicts[direction.index()].load(Relaxed);
            (word != NO_VERDICT).then(|| PortId((word >> INGRESS_SHIFT).to_le_bytes()[0]))
        };
        port(Direction::Orig).or_else(|| port(Direction::Reply).map(PortId::peer))
    }
}

impl Tracker {
    /// The verdict cached for packets like this one (same flow, direction and ct state) under these rules.
    #[must_use]
    #[inline]
    pub fn cached_verdict(&self, tracked: &Tracked, generation: Generation) -> Option<u32> {
        let FlowRef::Existing(slot) = tracked.flow else { return None };
        let common = self.table.live_record(slot)?.common;
        let verdict = common.verdicts[tracked.direction.index()].load(Relaxed);
        (common.verdict_generation.load(Relaxed) == generation.0
            && verdict != NO_VERDICT
            && rules_state(common.life(), tracked.direction) == tracked.state)
            .then_some(verdict)
    }

    /// Caches a verdict for packets like this one: `path` is the caller's own number for it, anything but
    /// `u32::MAX`. Does nothing for a packet without a flow, or one that saw its flow in an earlier state.
    pub fn cache_verdict(&mut self, tracked: &Tracked, generation: Generation, path: u32) {
        let FlowRef::Existing(slot) = tracked.flow else { return };
        let Some(Record { common, .. }) = self.table.live_record(slot) else { return };
        if rules_state(common.life(), tracked.direction) != tracked.state {
            return;
        }
        if common.verdict_generation.load(Relaxed) != generation.0 {
            common.verdict_generation.store(generation.0, Relaxed);
            common.verdicts[tracked.direction.opposite().index()].store(NO_VERDICT, Relaxed);
        }
        common.verdicts[tracked.direction.index()].store(path, Relaxed);
    }
}
