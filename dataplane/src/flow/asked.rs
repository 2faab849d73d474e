//! What rules see of a flow, and what they write to it: its mark and its labels. Owner thread; only when a rule asks.

use super::key;
use super::record::{FlowId, Slot, status};
use super::tracked::{Direction, FlowRef, Tracked};
use super::tracker::{Opening, Tracker};
use crate::clock::{Now, Tick};
use crate::packet::Packet;
use crate::rules::conn::{Conn, CtEvents, Flows, Known, Zone};
use std::sync::atomic::Ordering::Relaxed;

/// Ticks for which a newcomer of another worker may still be about to enter the table.
const NEWCOMER_TICKS: u32 = 2;

/// The tables of all workers at one moment, as one of them sees them.
#[derive(Debug)]
pub struct Tables<'a> {
    tracker: &'a Tracker,
    now: Tick,
}

impl Flows for Tables<'_> {
    fn is_open(&self, flow: FlowId) -> bool {
        let FlowId { worker, slot, seq } = flow;
        if let Some(since) = flow.newcomer_at() {
            return worker != self.tracker.id && self.now.0.wrapping_sub(since.0) < NEWCOMER_TICKS;
        }
        self.tracker.peers.get(worker.index()).is_some_and(|region| region.is_open(slot, seq, self.now))
    }

    fn of(&self, packet: &Packet, zone: Zone) -> Option<Known> {
        // Not by the packet's hash: an ICMP error's is that of the flow it is about.
        let hash = self.tracker.hash(&packet.tuple);
        let (slot, direction) = self.tracker.table.find(hash, &packet.tuple, zone)?;
        let life = self.tracker.table.record(slot).common.life();
        let flow = self.tracker.flow_id(slot)?;
        let known = Known { flow, direction, is_assured: life.has(status::ASSURED) };
        (!life.deadline.is_past(self.now)).then_some(known)
    }

    fn newcomer(&self) -> FlowId {
        FlowId::newcomer(self.tracker.id, self.now)
    }
}

impl Tracker {
    /// The tables of all workers, for [`Facts::flows`](crate::rules::Facts::flows).
    #[must_use]
    pub const fn tables(&self, now: Now) -> Tables<'_> {
        Tables { tracker: self, now: now.tick() }
    }

    /// The connection of the packet just tracked, as rules see it; `None` for INVALID and UNTRACKED packets. The packet
    /// must have been counted if its flow exists.
    #[must_use]
    pub fn conn(&self, packet: &Packet, tracked: &Tracked, now: Now) -> Option<Conn> {
        let direction = tracked.direction;
        if let FlowRef::Tentative(_) = tracked.flow {
            let Opening { status, extra, zone, .. } = self.opening();
            return Some(Conn {
                orig: packet.tuple,
                reply: key::inverse(&packet.tuple),
                direction,
                status: status & !status::OURS,
                packets: [1, 0],
                bytes: [u64::from(packet.l3_len), 0],
                secs_left: 0,
                master_helper: extra.master_helper,
                zone: zone.id,
                id: None,
                is_template: false,
            });
        }
        let slot = tracked.flow.slot()?;
        let record = self.table.live_record(slot)?;
        let orig = self.table.orig(slot);
        let life = record.common.life();
        let [(orig_packets, orig_bytes), (reply_packets, reply_bytes)] =
            [Direction::Orig, Direction::Reply].map(|direction| record.counters.read(direction));
        Some(Conn {
            orig,
            reply: key::inverse(&orig),
            direction,
            status: life.status & !status::OURS | status::CONFIRMED,
            packets: [orig_packets, reply_packets],
            bytes: [orig_bytes, reply_bytes],
            secs_left: life.deadline.secs_from(now.tick()),
            master_helper: record.tail.extra().master_helper,
            zone: record.zone().id,
            id: self.flow_id(slot),
            is_template: false,
        })
    }

    /// Mark of the connection of the packet just tracked; 0 without one.
    #[must_use]
    pub fn mark(&self, tracked: &Tracked) -> u32 {
        match tracked.flow {
            FlowRef::Tentative(_) => self.opening().mark,
            FlowRef::Existing(slot) | FlowRef::Ending(slot) | FlowRef::About(slot) => {
                self.table.live_record(slot).map_or(0, |record| record.tail.mark.load(Relaxed))
            }
            FlowRef::None => 0,
        }
    }

    /// Sets the mark of the connection of the packet just tracked. One that does not exist yet will start with it. For
    /// listeners the mark has changed, even if it is what it was: a rule may have set it and another put it back.
    pub fn set_mark(&mut self, tracked: &Tracked, mark: u32) {
        match tracked.flow {
            FlowRef::Tentative(_) => self.set_opening_mark(mark),
            FlowRef::Existing(slot) | FlowRef::About(slot) => {
                if let Some(record) = self.table.live_record(slot) {
                    record.tail.mark.store(mark, Relaxed);
                    self.note(CtEvents::MARK, slot);
                }
            }
            // Nobody will see it.
            FlowRef::Ending(_) | FlowRef::None => {}
        }
    }

    /// Labels of the connection of the packet just tracked, one bit each; `None` without one, and if it can have none.
    #[must_use]
    pub fn labels(&self, tracked: &Tracked) -> Option<u128> {
        match tracked.flow {
            FlowRef::Tentative(_) => {
                let Opening { status, labels, .. } = self.opening();
                (status & status::LABELLED != 0).then_some(*labels)
            }
            FlowRef::Existing(slot) | FlowRef::Ending(slot) | FlowRef::About(slot) => self.labels_in(slot),
            FlowRef::None => None,
        }
    }

    /// Labels of a flow; `None` if it can have none.
    pub(super) fn labels_in(&self, slot: Slot) -> Option<u128> {
        let status = self.table.live_record(slot)?.common.life().status;
        self.table.region().labels_of(slot, status)
    }

    /// Sets the labels of the connection of the packet just tracked, which has said by [`Self::labels`] that it can have
    /// some. One that does not exist yet will start with them.
    pub fn set_labels(&mut self, tracked: &Tracked, labels: u128) {
        match tracked.flow {
            FlowRef::Tentative(_) => self.set_opening_labels(labels),
            FlowRef::Existing(slot) | FlowRef::About(slot) => self.label(slot, labels),
            // Nobody will see them.
            FlowRef::Ending(_) | FlowRef::None => {}
        }
    }

    /// Sets the labels of a flow that can have some.
    pub(super) fn label(&mut self, slot: Slot, labels: u128) {
        if let Some(words) = self.table.region().labels(slot) {
            words.set(labels);
            self.note(CtEvents::LABEL, slot);
        }
    }

    /// Number of the zone that a flow's packets of the original direction are in.
    #[must_use]
    pub fn zone_of_orig(&self, slot: Slot) -> u16 {
        self.table.live_record(slot).map_or(0, |record| record.zone().of(Direction::Orig))
    }

    /// Name of a flow.
    #[must_use]
    pub fn flow_id(&self, slot: Slot) -> Option<FlowId> {
        let record = self.table.live_record(slot)?;
        Some(FlowId { worker: self.id, slot, seq: record.common.seq.load(Relaxed) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Seed, TrackerConfig};
    use crate::ids::WorkerId;

    /// So two workers that ask at the same time do not both find the last place free.
    #[test]
    fn what_another_worker_may_be_about_to_insert_counts_for_a_moment() {
        let mut trackers = [0, 1].map(|worker| {
            let config = TrackerConfig {
                max_flows: 64,
                max_flows_v6: 64,
                worker: WorkerId(worker),
                seed: Seed([1, 2, 3, 4]),
                hugepages: false,
                prefault: false,
            };
            Tracker::new(&config).unwrap()
        });
        Tracker::join(&mut trackers);
        let [own, other] = &trackers;
        let now = Now::from_secs(5);
        let newcomer = own.tables(now).newcomer();
        assert!(!own.tables(now).is_open(newcomer), "refused: the next packet is judged after it");
        for (millis, is_open) in [(0, true), (10, true), (20, false), (1000, false)] {
            let later = now.plus_nanos(millis * 1_000_000);
            assert_eq!(other.tables(later).is_open(newcomer), is_open, "{millis} ms later");
        }
    }
}
