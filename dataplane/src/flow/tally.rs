//! The other threads' cheap way over all flows: what each has counted, without the rest of it. A walk reads one cache line of
//! an IPv4 record and two of an IPv6 one, in the order they stand in memory; who a flow is can be asked for those that matter.

use super::record::Slot;
use super::region::Region;
use super::tracked::Direction;
use super::view::Cursor;
use crate::clock::Tick;
use crate::packet::{Family, Tuple};
use std::sync::atomic::{Ordering, Ordering::Relaxed, fence};

/// What one flow has counted. `slot` and `seq` name the flow for as long as its worker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowTally {
    /// Where it is.
    pub slot: Slot,
    /// Which of the flows that were ever in that slot it is.
    pub seq: u32,
    /// Packets of each direction, by [`Direction::index`].
    pub packets: [u64; 2],
    /// IP bytes of each direction.
    pub bytes: [u64; 2],
}

impl Region {
    /// Calls `visit` for every live flow, in slot order, IPv4 first. Flows that come or go meanwhile may or may not be
    /// among them; one whose slot is given to another flow under the reader's eyes is left out.
    pub fn tally(&self, mut visit: impl FnMut(FlowTally)) {
        let mut at = Cursor::default();
        loop {
            let (mut slots, next) = self.slots_at(at);
            while let Some(slot) = slots.next_slot() {
                if let Some(tally) = self.tally_of(slot) {
                    visit(tally);
                }
            }
            at = next;
            if at.is_start() {
                return;
            }
        }
    }

    /// Records of a family that were ever in use: all slots of its flows are below.
    #[must_use]
    pub fn slots_used(&self, family: Family) -> usize {
        self.words_used(family) * 64
    }

    /// The tuple of a flow's first packet, if it is still there.
    #[must_use]
    pub fn orig_of(&self, slot: Slot, seq: u32) -> Option<Tuple> {
        let common = self.record(slot)?.common;
        let orig = self.orig(slot)?;
        fence(Ordering::Acquire);
        (common.seq.load(Relaxed) == seq).then_some(orig)
    }

    /// When a flow's first packet came, if it is still there. A flow that changed its worker keeps its age.
    #[must_use]
    pub fn created_of(&self, slot: Slot, seq: u32) -> Option<Tick> {
        let record = self.record(slot)?;
        let created = Tick(record.tail.created.load(Relaxed));
        fence(Ordering::Acquire);
        (record.common.seq.load(Relaxed) == seq).then_some(created)
    }

    fn tally_of(&self, slot: Slot) -> Option<FlowTally> {
        let record = self.record(slot)?;
        let seq = record.common.seq.load(Ordering::Acquire);
        if seq & 1 == 0 {
            return None;
        }
        let [(orig_packets, orig_bytes), (reply_packets, reply_bytes)] =
            [Direction::Orig, Direction::Reply].map(|direction| record.counters.read(direction));
        fence(Ordering::Acquire);
        (record.common.seq.load(Relaxed) == seq).then_some(FlowTally {
            slot,
            seq,
            packets: [orig_packets, reply_packets],
            bytes: [orig_bytes, reply_bytes],
        })
    }
}
