//! The common case in one piece, from flow to verdict: a plain packet of a flow whose record is where it was guessed to be, of
//! which the packet changes nothing but deadline and counters, and of which the rules have said that all packets like this
//! one may pass. Owner thread only.
//!
//! [`Tracker::track`], [`Tracker::count`] and [`Tracker::cached_path`] one after the other mean the same, at three times the
//! price. Whatever is not like that changes nothing here and goes their way.

use super::Tracker;
use super::verdicts::accepted_path;
use crate::clock::{Now, Tick};
use crate::flow::record::{Life, Record, status};
use crate::flow::settings::TrackSettings;
use crate::flow::tracked::Direction;
use crate::flow::{tcp, udp};
use crate::ids::{Generation, PortId};
use crate::packet::{Packet, Plain};
use crate::rules::PathId;
use crate::rules::model::CtState;
use crate::wire::checksum;
use std::sync::atomic::Ordering::Relaxed;

impl Tracker {
    /// Whether packets may be judged by [`Self::express`]: nobody listens to events, and no flow has a helper that reads
    /// along. Once per burst.
    #[must_use]
    #[inline]
    pub fn may_express(&self) -> bool {
        !self.helped.any() && self.events.as_ref().is_none_or(|events| !events.is_on())
    }

    /// Tracks and counts a packet that is `Plain`, if it is of the common case, and says which way through the rules of
    /// generation `since` it takes and in which state its flow is. `None`: nothing has changed. Packets that are judged here
    /// are outside of all zones, as without raw rules all are.
    #[inline(always)]
    pub fn express(
        &mut self,
        packet: &Packet,
        bytes: &[u8],
        now: Now,
        settings: &TrackSettings,
        (since, ingress): (Generation, PortId),
    ) -> Option<(PathId, CtState)> {
        let (_, record, direction) = self.table.plain_at(packet.hint, &packet.tuple)?;
        let path = accepted_path(record.common, direction, since, ingress)?;
        if settings.checksum && !checksum::l4_ok(bytes, packet) {
            return None;
        }
        let tick = now.tick();
        self.tick = tick;
        let state = match packet.plain {
            Plain::No => return None,
            Plain::Ack => {
                let life = record.common.settled_life(true)?;
                if life.deadline().is_past(tick) {
                    return None;
                }
                let secs = tcp::advance_open(record.tail, packet.numbers, direction, settings)?;
                record.common.prolong(life, tick.plus_secs(secs));
                CtState::Established
            }
            Plain::Datagram => self.prolong_datagrams(record, direction, tick, settings)?,
        };
        record.counters.add(direction, packet.l3_len);
        self.stats.found += 1;
        Some((path, state))
    }

    /// Prolongs a UDP flow to which a packet brings nothing new: neither the first answer nor a stream that begins.
    #[inline(always)]
    fn prolong_datagrams(
        &self,
        record: Record<'_>,
        direction: Direction,
        now: Tick,
        settings: &TrackSettings,
    ) -> Option<CtState> {
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
        if refresh.assured != is_assured {
            return None;
        }
        let deadline = now.plus_secs(self.timeout(life, refresh.timeout_secs));
        record.common.set_life(Life { deadline, ..life });
        Some(super::rules_state(life, direction))
    }
}
