//! The common case in one piece: a plain packet of a flow whose record is where it was guessed to be, and to which the packet
//! brings nothing new. Owner thread only.
//!
//! Tracking takes it for one packet at a time ([`Tracker::go_on`]), and where rules have said that all packets like this
//! one may pass, it goes from flow to verdict ([`Tracker::express`]): [`Tracker::track`], [`Tracker::count`] and
//! [`Tracker::cached_path`] one after the other mean the same, at three times the price. Whatever is not like that changes
//! nothing here and goes the long way.

use super::verdicts::accepted_path;
use super::{Tracker, rules_state};
use crate::clock::{Now, Tick};
use crate::flow::record::{Life, Record, status};
use crate::flow::settings::TrackSettings;
use crate::flow::table::Records;
use crate::flow::tracked::{Direction, FlowRef, Tracked};
use crate::flow::{tcp, udp};
use crate::ids::{Generation, PortId};
use crate::packet::{Packet, Plain};
use crate::rules::PathId;
use crate::rules::conn::Orders;
use crate::rules::model::CtState;
use crate::wire::checksum;
use std::sync::atomic::Ordering::Relaxed;

impl Tracker {
    /// Where [`Self::express`] finds flows, looked up once for many packets.
    #[inline]
    pub(crate) fn records(&self) -> Records<'_> {
        self.table.records()
    }

    /// Whether packets may be judged by [`Self::express`]: nobody listens to events, and no flow has a helper that reads
    /// along. Once per run of packets: only raw rules give a flow a helper, and with them nothing goes this way.
    #[must_use]
    #[inline]
    pub(crate) fn may_express(&self) -> bool {
        !self.helped.any() && self.events.as_ref().is_none_or(|events| !events.is_on())
    }

    /// Tracks and counts a packet that is not [`Plain::No`], if it is of the common case, and says which way through the rules
    /// of generation `since` it takes and in which state its flow is. `None`: nothing has changed. Packets that are judged
    /// here are outside of all zones, as without raw rules all are. [`Self::note_expressed`] has to follow.
    #[inline(always)]
    pub(crate) fn express(
        &self,
        records: Records<'_>,
        packet: &Packet,
        bytes: &[u8],
        now: Now,
        settings: &TrackSettings,
        (since, ingress): (Generation, PortId),
    ) -> Option<(PathId, CtState)> {
        let (_, record, direction) = records.plain_at(packet.hint, &packet.tuple)?;
        let path = accepted_path(record.common, direction, since, ingress)?;
        let state = self.prolong(record, direction, packet, bytes, now.tick(), settings)?;
        record.counters.add(direction, packet.l3_len);
        Some((path, state))
    }

    /// Takes note of so many packets judged by [`Self::express`].
    #[inline]
    pub(crate) fn note_expressed(&mut self, packets: u64, now: Now) {
        self.tick = now.tick();
        self.stats.found += packets;
    }

    /// Tracks a packet of this kind if it is of the common case. `None`: nothing has changed.
    #[inline(always)]
    pub(super) fn go_on(
        &mut self,
        packet: &Packet,
        bytes: &[u8],
        now: Tick,
        settings: &TrackSettings,
        orders: &Orders,
        kind: Plain,
    ) -> Option<Tracked> {
        if packet.plain != kind || orders.notrack || orders.zone.id != 0 {
            return None;
        }
        let (slot, record, direction) = self.table.records().plain_at(packet.hint, &packet.tuple)?;
        let state = self.prolong(record, direction, packet, bytes, now, settings)?;
        self.stats.found += 1;
        Some(Tracked::valid(state, direction, FlowRef::Existing(slot)))
    }

    /// Brings a flow up to date of which the packet changes the deadline and, for TCP, what the window is made of.
    #[inline(always)]
    fn prolong(
        &self,
        record: Record<'_>,
        direction: Direction,
        packet: &Packet,
        bytes: &[u8],
        now: Tick,
        settings: &TrackSettings,
    ) -> Option<CtState> {
        // Asked for last: who goes the long way is asked there.
        let is_sound = || !settings.checksum || checksum::l4_ok(bytes, packet);
        match packet.plain {
            Plain::No => None,
            Plain::Ack => prolong_connection(record, direction, packet, is_sound, now, settings),
            Plain::Datagram => self.prolong_datagrams(record, direction, is_sound, now, settings),
        }
    }

    /// A UDP flow, unless this is its first answer or makes it a stream.
    #[inline(always)]
    fn prolong_datagrams(
        &self,
        record: Record<'_>,
        direction: Direction,
        is_sound: impl FnOnce() -> bool,
        now: Tick,
        settings: &TrackSettings,
    ) -> Option<CtState> {
        // A stream, which most datagrams are of: 65 instructions less.
        if let Some(life) = record.common.settled_life(false) {
            if life.deadline().is_past(now) || !is_sound() {
                return None;
            }
            record.common.prolong(life, now.plus_secs(settings.udp_timeout_stream));
            return Some(CtState::Established);
        }
        let life = record.common.life();
        if life.deadline.is_past(now) || life.status & status::OWN_TIMEOUTS != 0 {
            return None;
        }
        let (is_answered, is_assured) = (life.has(status::SEEN_REPLY), life.has(status::ASSURED));
        if !is_answered && direction == Direction::Reply {
            return None;
        }
        let created = || Tick(record.tail.created.load(Relaxed));
        let refresh = udp::refresh((is_answered, is_assured), created, now, settings);
        if refresh.assured != is_assured || !is_sound() {
            return None;
        }
        let deadline = now.plus_secs(self.timeout(life, refresh.timeout_secs));
        record.common.set_life(Life { deadline, ..life });
        Some(rules_state(life, direction))
    }
}

/// An open connection whose segment is in the window and nothing out of the ordinary.
#[inline(always)]
fn prolong_connection(
    record: Record<'_>,
    direction: Direction,
    packet: &Packet,
    is_sound: impl FnOnce() -> bool,
    now: Tick,
    settings: &TrackSettings,
) -> Option<CtState> {
    let life = record.common.settled_life(true)?;
    if life.deadline().is_past(now) || !is_sound() {
        return None;
    }
    let secs = tcp::advance_open(record.tail, packet.numbers, direction, settings)?;
    record.common.prolong(life, now.plus_secs(secs));
    Some(CtState::Established)
}
