//! What a worker does between two bursts: kicks rings, takes up new settings, removes flows, publishes. Worker thread only;
//! everything here is done in bounded slices.

use super::{NO_LANE, Path};
use crate::clock::Now;
use crate::device::{BURST_MAX, Device};
use crate::ids::PortId;
use crate::worker::{Observer, PUBLISH_NANOS};
use std::sync::Arc;

/// Most expired flows removed between two bursts.
const EXPIRE_MAX: usize = 64;

/// Most requests of control's served between two bursts.
const REQUESTS_MAX: usize = 64;

impl<D: Device, O: Observer> Path<D, O> {
    /// Whether a burst from this lane would fit the egress ring. Leaving packets on the rx ring costs nothing and
    /// keeps them; taking them only to drop them costs a whole pass.
    pub(in crate::worker) fn has_tx_room(&mut self, lane: usize) -> bool {
        self.has_tx_room_for(self.lanes[lane].port.peer())
    }

    /// Whether a burst for this NIC would fit its ring.
    pub(super) fn has_tx_room_for(&mut self, egress: PortId) -> bool {
        let lane = self.lane_of[egress.index()];
        // If another worker sends, it drops what does not fit, and counts it.
        lane == NO_LANE || self.lane_has_tx_room(usize::from(lane))
    }

    /// Whether a burst would fit every ring we send by.
    pub(in crate::worker) fn all_have_tx_room(&mut self) -> bool {
        (0..self.lanes.len()).all(|lane| self.lane_has_tx_room(lane))
    }

    fn lane_has_tx_room(&mut self, lane: usize) -> bool {
        let device = &mut self.lanes[lane].device;
        if device.tx_room() >= BURST_MAX || device.is_link_down() {
            return true;
        }
        device.flush();
        device.replenish(&mut self.pool);
        device.tx_room() >= BURST_MAX
    }

    /// Publishes and kicks every device touched since the last flush, and wakes workers that were handed something.
    pub(in crate::worker) fn flush(&mut self) {
        let mut touched = std::mem::take(&mut self.touched);
        while touched != 0 {
            self.lanes[touched.trailing_zeros() as usize].device.flush();
            touched &= touched - 1;
        }
        self.handoff.flush(self.now, &self.counters.handoff);
        if let Some(asks) = &mut self.set_asks {
            asks.flush();
        }
    }

    /// Everything that waits for the gap between bursts, in bounded slices.
    pub(in crate::worker) fn tidy(&mut self, now: Now) {
        self.now = now;
        self.adopt_newest();
        if self.taps.is_on() {
            self.taps.refill(now);
        }
        self.tracker.look_for_listeners(now);
        self.answers.refill(self.snapshot.settings.answers, now);
        if self.snapshot.settings.track.log_invalid != 0 {
            self.notes.refill(now);
        }
        self.handoff.exchange_frames(&mut self.pool);
        for lane in &mut self.lanes {
            if lane.device.is_tx_pending() {
                lane.device.flush();
            }
            lane.device.replenish(&mut self.pool);
        }
        self.expire_datagrams(now);
        self.go_on_moving(now);
        // After all that frees frames.
        self.handoff.exchange_frames(&mut self.pool);
        self.count_lendable();
        // Flows that are being handed to another worker are left as they are.
        let expire_max = if self.moves.is_handing() { 0 } else { EXPIRE_MAX };
        for _ in 0..expire_max {
            let Ok(named) = self.expired.pop() else { break };
            self.tracker.expire(named, now);
        }
        self.serve_requests(now);
        if self.published.is_none_or(|then| now.nanos.wrapping_sub(then.nanos) >= PUBLISH_NANOS) {
            self.published = Some(now);
            self.publish();
        }
    }

    /// Takes up the newest snapshot.
    #[inline]
    pub(super) fn adopt_newest(&mut self) {
        if let Some(newest) = self.mailbox.observe(self.snapshot.generation) {
            let generation = newest.generation;
            if !Arc::ptr_eq(&newest.settings.taps, &self.snapshot.settings.taps) {
                self.taps.adopt(&newest.settings.taps, self.id);
            }
            self.snapshot = newest;
            self.mailbox.adopt(self.id, generation);
        }
        let (settings, labels) = (&self.snapshot.settings, self.snapshot.asks_labels());
        self.tracker.adopt(&settings.track, &settings.policies, labels);
    }

    /// Does what control wants done to flows, in the order in which it asked.
    #[inline]
    fn serve_requests(&mut self, now: Now) {
        if self.requests.is_empty() && !self.tracker.is_flushing() || self.moves.is_handing() {
            return;
        }
        for _ in 0..REQUESTS_MAX {
            if self.tracker.is_flushing() {
                if !self.tracker.flush_on() {
                    return;
                }
                self.counters.polls.served.add(1);
            }
            let Ok(request) = self.requests.pop() else { return };
            self.tracker.serve(request, now);
            if !self.tracker.is_flushing() {
                self.counters.polls.served.add(1);
            }
        }
    }

    /// Copies out what devices and flow table have counted.
    fn publish(&self) {
        for (lane, counters) in self.lanes.iter().zip(&self.counters.lanes) {
            counters.publish(&lane.device.counters());
        }
        self.counters.track.publish(self.tracker.stats());
        self.counters.polls.flows.set(u64::from(self.tracker.flow_count()));
        self.counters.polls.frames_free.set(self.pool.available() as u64);
    }

    /// How many of our own frames other workers may still be given: all but an eighth, which is to receive with.
    fn count_lendable(&mut self) {
        if self.handoff.peer_count() > 0 {
            let waiting: usize = self.lanes.iter().map(|lane| lane.device.rx_room()).sum();
            let reserve = self.pool.own_count() / 8;
            self.lendable = (self.pool.available() + waiting).saturating_sub(reserve);
        }
    }

    /// Whether neither a ring nor the mailbox holds anything for us and nothing of ours waits for a kick.
    pub(in crate::worker) fn nothing_waits(&self) -> bool {
        self.handoff.is_empty()
            && self.moves.is_quiet()
            && self.expired.is_empty()
            && self.requests.is_empty()
            && !self.tracker.is_flushing()
            && self.mailbox.observe(self.snapshot.generation).is_none()
            && !self.lanes.iter().any(|lane| lane.device.is_tx_pending())
    }
}
