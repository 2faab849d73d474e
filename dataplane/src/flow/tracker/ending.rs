//! Flows that end: by their time, a reset, a wish of control's, or our own REJECT. Owner thread only.
//!
//! Whoever listens hears of an end before the record is gone.

use super::{Tracker, settle};
use crate::clock::Now;
use crate::flow::record::{Life, Slot};
use crate::flow::settings::TrackSettings;
use crate::flow::tcp::TcpState;
use crate::flow::tracked::{FlowRef, Tracked};
use crate::flow::view::Expired;
use crate::packet::proto;
use std::sync::atomic::Ordering::Relaxed;

impl Tracker {
    /// Tells listeners that a flow leaves the table.
    pub(super) fn gone(&mut self, slot: Slot) {
        if let Some(events) = &mut self.events
            && events.tells_ends()
        {
            events.gone(slot, self.table.region());
        }
    }

    /// A packet has been judged: listeners hear what it has brought its flow, if it passes, and a flow that it has ended
    /// goes. Once per tracked packet.
    #[inline]
    pub fn finish(&mut self, tracked: &Tracked, passed: bool) {
        if let FlowRef::Ending(slot) = tracked.flow {
            return self.bury(slot);
        }
        if let Some(events) = &mut self.events
            && events.is_on()
        {
            events.tell(tracked.flow.slot(), passed, self.table.region());
        }
    }

    #[cold]
    fn bury(&mut self, slot: Slot) {
        self.stats.delete += u64::from(self.clear(slot));
    }

    /// Removes a flow that control has found expired, if it still is that flow and still expired.
    pub fn expire(&mut self, named: Expired, now: Now) -> bool {
        let Expired { slot, seq } = named;
        let Some(record) = self.table.live_record(slot) else { return false };
        if record.common.seq.load(Relaxed) != seq {
            return false;
        }
        if !record.common.life().deadline.is_past(now.tick()) {
            return false;
        }
        self.stats.expired += 1;
        self.remove_entry(slot)
    }

    /// A packet of this flow was answered with a TCP reset by our own REJECT: closes the connection. Linux
    /// `nf_conntrack_tcp_set_closing`.
    pub fn close_rejected(&mut self, slot: Slot, now: Now, settings: &TrackSettings) {
        let Some(record) = self.table.live_record(slot) else { return };
        if record.proto() != proto::TCP {
            return;
        }
        let life = record.common.life();
        let timeouts = record.tail.extra().timeouts;
        let secs = self.settings_under(timeouts, settings).tcp_timeout_close;
        let deadline = now.tick().plus_secs(secs);
        let closed = Life { deadline, tcp_state: TcpState::Close, ..life };
        let news = settle(record, &mut self.half_open, life, closed);
        self.note(news, slot);
        // The packet was dropped, but its answer passes. (On a bridge the kernel waits for the next packet.)
        if let Some(events) = &mut self.events
            && events.is_on()
        {
            events.tell(Some(slot), true, self.table.region());
        }
    }

    /// Removes a flow, for whatever reason; `false` if there is none in the slot.
    pub fn remove(&mut self, slot: Slot) -> bool {
        self.delete(slot)
    }

    pub(super) fn delete(&mut self, slot: Slot) -> bool {
        let removed = self.remove_entry(slot);
        self.stats.delete += u64::from(removed);
        removed
    }

    pub(in crate::flow) fn remove_entry(&mut self, slot: Slot) -> bool {
        if self.table.live_record(slot).is_none() {
            return false;
        }
        self.gone(slot);
        self.clear(slot)
    }

    /// Removes a flow whose end was told.
    fn clear(&mut self, slot: Slot) -> bool {
        let Some(record) = self.table.live_record(slot) else { return false };
        self.half_open -= u32::from(record.common.life().is_half_open());
        if self.helped.any() {
            self.forget_helped(slot);
        }
        self.table.remove(slot)
    }
}
