//! Flows that change their worker. The one that gives them away names them; the one that takes them copies the records out
//! of the other's region, which nobody writes to meanwhile, and says what they are called now. Owner threads, each its
//! own; what the region does not hold goes along in [`Passage`].
//!
//! Whoever listens hears nothing: the flow has not changed. Between copy and removal it is in both tables.

use super::helper::ftp::Lines;
use super::key::flow_hash;
use super::record::{FlowId, Record};
use super::tracker::Tracker;
use super::view::Cursor;
use crate::packet::Tuple;
use crate::rules::conn::CtEvents;
use std::sync::Arc;

/// A flow on its way, and what is known of it outside of its record.
#[derive(Debug)]
pub struct Passage {
    id: FlowId,
    lines: Option<Lines>,
    /// Events that wait for a packet that passes.
    waiting: Option<CtEvents>,
}

impl Passage {
    /// What it is called where it comes from.
    #[must_use]
    pub const fn id(&self) -> FlowId {
        self.id
    }
}

impl Tracker {
    /// Notes the flows in `words` words of 64 slots from `from` on for which `is_wanted` holds, given tuple and hash.
    /// Returns where to go on.
    pub fn flows_for_which(
        &self,
        from: Cursor,
        words: usize,
        is_wanted: impl Fn(&Tuple, u64) -> bool,
        out: &mut Vec<FlowId>,
    ) -> Cursor {
        let mut at = from;
        for _ in 0..words {
            let (mut slots, next) = self.table.region().slots_at(at);
            while let Some(slot) = slots.next_slot() {
                let tuple = self.table.orig(slot);
                if is_wanted(&tuple, flow_hash(self.table.seed(), &tuple)) {
                    out.extend(self.flow_id(slot));
                }
            }
            at = next;
            if at.is_start() {
                break;
            }
        }
        at
    }

    /// Makes a flow ready to be taken by another worker; `None` if it has ended. It must not be tracked from now on.
    pub fn give(&mut self, id: FlowId) -> Option<Passage> {
        if self.flow_id(id.slot) != Some(id) {
            return None;
        }
        let lines = self.helped.take_lines(id.slot);
        let waiting = self.events.as_mut().and_then(|events| events.take_waiting(id.slot));
        Some(Passage { id, lines, waiting })
    }

    /// Takes a flow of another worker in. Says what it is called here; `None` if the table has no room.
    pub fn take_in(&mut self, passage: &Passage) -> Option<FlowId> {
        let Passage { id, lines, waiting } = *passage;
        let region = Arc::clone(self.peers.get(id.worker.index())?);
        let theirs = region.record(id.slot)?;
        let orig = region.orig(id.slot)?;
        let zone = theirs.zone();
        let hash = self.hash(&orig);
        let (life, extra) = (theirs.common.life(), theirs.tail.extra());
        let labels = region.labels_of(id.slot, life.status);
        let fill = |slot, ours: Record<'_>| {
            ours.copy_from(theirs);
            if let (Some(words), Some(labels)) = (self.table.region().labels(slot), labels) {
                words.set(labels);
            }
        };
        let slot = self.table.insert(hash, &orig, zone, fill).ok()?;
        self.note_taken(life, zone);
        self.helped.gained(extra);
        if let Some(lines) = lines {
            self.helped.put_lines(slot, lines);
        }
        if let (Some(events), Some(news)) = (&mut self.events, waiting) {
            events.put_waiting(slot, news);
        }
        let taken = self.flow_id(slot)?;
        if extra.helper.is_some() {
            self.expectations.rename(id, taken);
        }
        Some(taken)
    }

    /// Removes a flow that another worker has taken.
    pub fn let_go(&mut self, id: FlowId) {
        if self.flow_id(id.slot) != Some(id) {
            return;
        }
        let record = self.table.record(id.slot);
        let (life, extra) = (record.common.life(), record.tail.extra());
        self.note_left(life);
        self.helped.lost(extra);
        self.table.remove(id.slot);
    }
}

impl Record<'_> {
    /// Copies all but what names the flow: its tuple and which of the slot's flows it is.
    pub(super) fn copy_from(&self, from: Self) {
        self.common.set_life(from.common.life());
        self.common.copy_verdicts(from.common);
        self.counters.copy_from(from.counters);
        self.tail.copy_from(from.tail);
    }
}
