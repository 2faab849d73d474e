//! What rules see of a flow, and what they write to it: its mark. Owner thread; only when a rule asks.

use super::key;
use super::record::{FlowId, status};
use super::region::Region;
use super::tcp::TcpState;
use super::tracked::{Direction, FlowRef, Tracked};
use super::tracker::Tracker;
use crate::clock::{Now, Tick};
use crate::packet::Packet;
use crate::rules::conn::{Conn, CtEvents, Flows};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// The tables of all workers at one moment.
#[derive(Debug)]
pub struct Tables {
    regions: Arc<[Arc<Region>]>,
    now: Tick,
}

impl Flows for Tables {
    fn is_open(&self, flow: FlowId) -> bool {
        let FlowId { worker, slot, seq } = flow;
        let view = self.regions.get(worker.index()).and_then(|region| region.view(slot, self.now));
        view.is_some_and(|view| {
            let is_over = matches!(view.tcp_state, Some(TcpState::TimeWait | TcpState::Close));
            view.seq == seq && view.secs_left > 0 && !is_over
        })
    }
}

impl Tracker {
    /// The tables of all workers, for [`Conn::flows`].
    #[must_use]
    pub fn tables(&self, now: Now) -> Tables {
        Tables { regions: Arc::clone(&self.peers), now: now.tick() }
    }

    /// The connection of the packet just tracked, as rules see it; `None` for INVALID and UNTRACKED packets. The packet
    /// must have been counted if its flow exists.
    #[must_use]
    pub fn conn<'a>(
        &self,
        packet: &Packet,
        tracked: &Tracked,
        now: Now,
        flows: &'a Tables,
    ) -> Option<Conn<'a>> {
        let direction = tracked.direction;
        if let FlowRef::Tentative(_) = tracked.flow {
            let (_, status, extra) = self.opening();
            return Some(Conn {
                orig: packet.tuple,
                reply: key::inverse(&packet.tuple),
                direction,
                status: status & !status::OWN_TIMEOUTS,
                packets: [1, 0],
                bytes: [u64::from(packet.l3_len), 0],
                secs_left: 0,
                master_helper: extra.master_helper,
                id: None,
                flows,
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
            status: life.status & !status::OWN_TIMEOUTS | status::CONFIRMED,
            packets: [orig_packets, reply_packets],
            bytes: [orig_bytes, reply_bytes],
            secs_left: life.deadline.secs_from(now.tick()),
            master_helper: record.tail.extra().master_helper,
            id: Some(FlowId { worker: self.id, slot, seq: record.common.seq.load(Relaxed) }),
            flows,
        })
    }

    /// Mark of the connection of the packet just tracked; 0 without one.
    #[must_use]
    pub fn mark(&self, tracked: &Tracked) -> u32 {
        match tracked.flow {
            FlowRef::Tentative(_) => self.opening().0,
            FlowRef::Existing(slot) | FlowRef::About(slot) => {
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
            FlowRef::None => {}
        }
    }

    /// Name of a flow.
    #[must_use]
    pub fn flow_id(&self, slot: super::Slot) -> Option<FlowId> {
        let record = self.table.live_record(slot)?;
        Some(FlowId { worker: self.id, slot, seq: record.common.seq.load(Relaxed) })
    }
}
