//! The other threads' side of a region: walking its flows and naming expired ones, read-only, while the owner goes on
//! writing. A flow's identity (tuples, mark of creation) is taken whole or not at all; what each packet changes is
//! read word by word, of which deadline, status and state share one.

use super::key;
use super::record::{LabelWords, Life, Record, Slot, status};
use super::region::{Region, family_index};
use super::sctp::{SctpFlow, SctpState};
use super::tcp::TcpState;
use super::tracked::Direction;
use super::tracker::Remembered;
use crate::clock::Tick;
use crate::ids::{PortId, WorkerId};
use crate::packet::{Family, Tuple, proto};
use crate::rules::conn::{Helper, Zone};
use std::sync::atomic::{Ordering, Ordering::Relaxed, fence};

/// A copy of one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowView {
    /// Whose flow it is.
    pub worker: WorkerId,
    /// Where it is.
    pub slot: Slot,
    /// Which of the flows that were ever in that slot it is.
    pub seq: u32,
    /// Tuple of the packets that go the way of the first one.
    pub orig: Tuple,
    /// Tuple of the packets that go the other way.
    pub reply: Tuple,
    /// TCP's state; `None` for every other protocol.
    pub tcp_state: Option<TcpState>,
    /// SCTP's state; `None` for every other protocol.
    pub sctp_state: Option<SctpState>,
    /// Whole seconds until it expires.
    pub secs_left: u32,
    /// When it does.
    pub deadline: Tick,
    /// Status bits, see [`status`].
    pub status: u16,
    /// Packets of each direction, by [`Direction::index`].
    pub packets: [u64; 2],
    /// IP bytes of each direction.
    pub bytes: [u64; 2],
    /// Connection mark.
    pub mark: u32,
    /// Its labels, one bit each; `None` if it can have none.
    pub labels: Option<u128>,
    /// Its helper.
    pub helper: Option<Helper>,
    /// Its zone.
    pub zone: Zone,
    /// When the first packet came.
    pub created: Tick,
    /// The NIC its first packet came in on, as far as it is known.
    pub ingress: Option<PortId>,
    /// What rules said of its packets last.
    pub remembered: Remembered,
}

/// A flow that control has found expired, for [`super::Tracker::expire`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired {
    /// Where it is.
    pub slot: Slot,
    /// Which of the slot's flows it is.
    pub seq: u32,
}

/// Where a sweep goes on, IPv4 first. `Cursor::default()` is the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Whether IPv4 is done.
    is_v6: bool,
    /// Word of the family's live bits.
    word: usize,
}

impl Cursor {
    /// Whether the sweep is at the start: before the first call, or after the last.
    #[must_use]
    pub const fn is_start(self) -> bool {
        !self.is_v6 && self.word == 0
    }

    const fn family(self) -> Family {
        if self.is_v6 { Family::V6 } else { Family::V4 }
    }
}

/// The flows that one word of live bits names.
pub(super) struct Slots {
    family: Family,
    word: usize,
    bits: u64,
}

impl Slots {
    /// The next one.
    pub(super) fn next_slot(&mut self) -> Option<Slot> {
        if self.bits == 0 {
            return None;
        }
        let index = u32::try_from(self.word * 64 + self.bits.trailing_zeros() as usize).ok()?;
        self.bits &= self.bits - 1;
        Some(Slot::new(self.family, index))
    }
}

impl FlowView {
    /// Whether a packet of the other direction has been seen.
    #[must_use]
    pub const fn is_seen_reply(&self) -> bool {
        self.status & status::SEEN_REPLY != 0
    }

    /// The state that `conntrack -L` names, of protocols that have states.
    #[must_use]
    pub const fn state_name(&self) -> Option<&'static str> {
        match (self.tcp_state, self.sctp_state) {
            (Some(state), _) => Some(state.name()),
            (_, Some(state)) => Some(state.name()),
            _ => None,
        }
    }

    /// Whether its time is up: it only waits to be removed.
    #[must_use]
    pub const fn is_expired(&self, now: Tick) -> bool {
        self.deadline.is_past(now)
    }

    /// Whether the flow is safe from early eviction.
    #[must_use]
    pub const fn is_assured(&self) -> bool {
        self.status & status::ASSURED != 0
    }
}

impl Region {
    /// Calls `visit` with a copy of every live flow, in slot order, IPv4 first. Flows that come or go meanwhile may
    /// or may not be among them.
    pub fn walk(&self, now: Tick, mut visit: impl FnMut(&FlowView)) {
        let mut cursor = Cursor::default();
        loop {
            cursor = self.walk_some(now, cursor, usize::MAX, &mut visit);
            if cursor.is_start() {
                return;
            }
        }
    }

    /// The same for no more than about `budget` slots from the cursor on. Returns where to go on; back at the start when
    /// all have been visited.
    pub fn walk_some(
        &self,
        now: Tick,
        from: Cursor,
        budget: usize,
        mut visit: impl FnMut(&FlowView),
    ) -> Cursor {
        self.each_slot(from, budget, |slot| {
            if let Some(view) = self.view(slot, now) {
                visit(&view);
            }
        })
    }

    /// A copy of the flow in a slot, if there is one.
    #[must_use]
    pub fn view(&self, slot: Slot, now: Tick) -> Option<FlowView> {
        let record = self.record(slot)?;
        // A few tries: a slot that is reused faster than it can be copied will be seen by the next walk.
        (0..4).find_map(|_| self.try_view(slot, record, now))
    }

    /// Whether a flow still is in the table, its time is not up, and it is no TCP connection that has ended.
    #[must_use]
    pub(super) fn is_open(&self, slot: Slot, seq: u32, now: Tick) -> bool {
        let Some(Record { common, .. }) = self.record(slot) else { return false };
        if common.seq.load(Ordering::Acquire) != seq {
            return false;
        }
        let Life { deadline, tcp_state, .. } = common.life();
        fence(Ordering::Acquire);
        common.seq.load(Relaxed) == seq
            && !deadline.is_past(now)
            && !matches!(tcp_state, TcpState::TimeWait | TcpState::Close)
    }

    /// Names flows whose time is up, looking at no more than about `budget` slots from the cursor on. Returns where
    /// to go on; back at the start when all have been looked at.
    #[must_use]
    pub fn expired(&self, now: Tick, from: Cursor, budget: usize, out: &mut Vec<Expired>) -> Cursor {
        self.each_slot(from, budget, |slot| {
            let Some(record) = self.record(slot) else { return };
            let seq = record.common.seq.load(Ordering::Acquire);
            // No second look at `seq`: the owner checks again before it removes.
            if seq & 1 == 1 && record.common.life().deadline.is_past(now) {
                out.push(Expired { slot, seq });
            }
        })
    }

    /// The flows that the word at the cursor names, and where the next word is.
    pub(super) fn slots_at(&self, at: Cursor) -> (Slots, Cursor) {
        let Cursor { is_v6, word } = at;
        let family = at.family();
        let bits = self.live_bits(family).get(word).map_or(0, |bits| bits.load(Relaxed));
        let next = match (word + 1 < self.words_used(family), is_v6) {
            (true, _) => Cursor { is_v6, word: word + 1 },
            (false, false) => Cursor { is_v6: true, word: 0 },
            (false, true) => Cursor::default(),
        };
        (Slots { family, word, bits }, next)
    }

    /// The labels of a flow with this status; `None` if it can have none.
    pub(super) fn labels_of(&self, slot: Slot, status: u16) -> Option<u128> {
        (status & status::LABELLED != 0).then(|| self.labels(slot).map(LabelWords::get)).flatten()
    }

    fn each_slot(&self, from: Cursor, budget: usize, mut visit: impl FnMut(Slot)) -> Cursor {
        let mut at = from;
        for _ in 0..budget.div_ceil(64).max(1) {
            let (mut slots, next) = self.slots_at(at);
            while let Some(slot) = slots.next_slot() {
                visit(slot);
            }
            at = next;
            if at.is_start() {
                break;
            }
        }
        at
    }

    /// Words of live bits that can have any bit set.
    pub(super) fn words_used(&self, family: Family) -> usize {
        let used = self.header().high_water[family_index(family)].load(Relaxed);
        used.min(self.capacity(family)).div_ceil(64) as usize
    }

    /// One attempt at a copy. Sequence lock: the copy counts only if `seq` was odd and did not move.
    fn try_view(&self, slot: Slot, record: Record<'_>, now: Tick) -> Option<FlowView> {
        let seq = record.common.seq.load(Ordering::Acquire);
        if seq & 1 == 0 {
            return None;
        }
        let orig = match slot.family() {
            Family::V4 => self.v4().get(slot.index())?.orig(),
            Family::V6 => self.v6().get(slot.index())?.orig(),
        };
        let Life { deadline, status, tcp_state } = record.common.life();
        let (orig_packets, orig_bytes) = record.counters.read(Direction::Orig);
        let (reply_packets, reply_bytes) = record.counters.read(Direction::Reply);
        let remembered = record.remembered();
        let view = FlowView {
            worker: self.worker(),
            slot,
            seq,
            orig,
            reply: key::inverse(&orig),
            tcp_state: (orig.proto == proto::TCP).then_some(tcp_state),
            sctp_state: (orig.proto == proto::SCTP).then(|| SctpFlow::state_of(record.tail)),
            secs_left: deadline.secs_from(now),
            deadline,
            status: status & !status::OURS,
            packets: [orig_packets, reply_packets],
            bytes: [orig_bytes, reply_bytes],
            mark: record.tail.mark.load(Relaxed),
            labels: self.labels_of(slot, status),
            helper: record.tail.extra().helper,
            zone: record.zone(),
            created: Tick(record.tail.created.load(Relaxed)),
            ingress: remembered.ingress(),
            remembered,
        };
        fence(Ordering::Acquire);
        (record.common.seq.load(Relaxed) == seq).then_some(view)
    }
}
