//! The way of packets to which nothing happens that has not happened to their flow before: found where they were guessed
//! to be, let pass by a remembered verdict, sent. Worker thread only.
//!
//! One call takes all packets of a burst up to the first that may not go this way, so that what is the same for all of
//! them is looked up once. That packet goes the long way ([`Path::judge`]), unchanged, and that is also the meaning of this
//! one.

use super::{NO_LANE, Path};
use crate::clock::Now;
use crate::device::{BURST_MAX, Device};
use crate::ids::{PortId, WorkerId};
use crate::packet::{Family, Packet, Plain};
use crate::rules::RuleCounters;
use crate::worker::observer::{Fate, Observer};
use crate::worker::snapshot::FamilyRules;
use crate::xsk::Frame;
use arrayvec::Drain;
use std::sync::atomic::Ordering::Relaxed;

/// Frames of a burst that have not been judged.
pub(in crate::worker) type Waiting<'a> = Drain<'a, Frame, BURST_MAX>;

/// What packets of one family need.
struct Way<'a> {
    rules: &'a FamilyRules,
    counters: &'a RuleCounters,
    /// Longest frame that may go; 0 if none may.
    len_max: u32,
}

impl<'a> Way<'a> {
    fn new(rules: &'a FamilyRules, worker: WorkerId, len_max: u32) -> Self {
        let is_open = rules.track && !rules.compiled.has_raw();
        Self { rules, counters: &rules.counters[worker.index()], len_max: if is_open { len_max } else { 0 } }
    }
}

impl<D: Device, O: Observer> Path<D, O> {
    /// Judges and sends packets of a burst from one NIC, from position `at` on and up to the first that cannot go this way:
    /// it is given back, and nothing has happened to it. `at` is then one beyond its position.
    #[inline(always)]
    pub(in crate::worker) fn express(
        &mut self,
        waiting: &mut Waiting<'_>,
        packets: &[Packet; BURST_MAX],
        at: &mut usize,
        ingress: PortId,
        now: Now,
    ) -> Option<Frame> {
        if self.taps.is_on() {
            self.express_as::<true>(waiting, packets, at, ingress, now)
        } else {
            self.express_as::<false>(waiting, packets, at, ingress, now)
        }
    }

    /// The same where it is known whether there are taps.
    #[inline(never)]
    fn express_as<const TAPPED: bool>(
        &mut self,
        waiting: &mut Waiting<'_>,
        packets: &[Packet; BURST_MAX],
        at: &mut usize,
        ingress: PortId,
        now: Now,
    ) -> Option<Frame> {
        let egress = ingress.peer();
        let (lane, port) = (self.lane_of[egress.index()], &self.ports[egress.index()]);
        let is_open = !self.without_express
            && lane != NO_LANE
            && port.link_up.load(Relaxed)
            && self.tracker.may_express()
            && !self.lanes[usize::from(lane)].device.is_link_down();
        if !is_open {
            *at += 1;
            return waiting.next();
        }
        let Self { umem, lanes, tracker, snapshot, counters, observer, taps, .. } = self;
        let (device, umem) = (&mut lanes[usize::from(lane)].device, &**umem);
        let len_max = port.frame_len_max.load(Relaxed);
        let ways = [Family::V4, Family::V6].map(|family| Way::new(snapshot.rules(family), self.id, len_max));
        let (settings, records, room) = (&snapshot.settings.track, tracker.records(), device.tx_room());
        let (mut sent, mut bytes) = (0, 0);
        let mut odd = None;
        let mut coming = packets[*at..].iter();
        while let (Some(frame), Some(packet)) = (waiting.next(), coming.next()) {
            if let Some(soon) = coming.as_slice().get(1) {
                records.prefetch_near(soon.hint);
            }
            let way = &ways[usize::from(packet.tuple.family == Family::V6)];
            let (head, len) = (umem.head(&frame), frame.len());
            let is_fit = packet.plain != Plain::No
                && len <= way.len_max
                && head.len() >= packet.frame_len as usize
                && sent < room
                && !(TAPPED && taps.would_follow(head, len, ingress));
            let by = (way.rules.since, ingress);
            let judged =
                if is_fit { tracker.express(records, packet, head, now, settings, by) } else { None };
            let Some((path, state)) = judged else {
                odd = Some(frame);
                break;
            };
            way.counters.count_path(path, packet.l3_len.into());
            if TAPPED {
                let by = way.rules.compiled.outcome(way.counters.deciding_line(path)).1;
                let fate = Fate { ingress, dropped: None, ct_state: Some(state), rule: Some(by) };
                taps.see_passing(now, packet, head, &fate, way.rules);
            }
            let id = frame.id();
            // There is room for it: it does not come back. If it did it would be judged once more, and dropped.
            odd = device.tx(frame).err();
            debug_assert!(odd.is_none(), "a ring takes as many as it has room for");
            if odd.is_some() {
                break;
            }
            sent += 1;
            bytes += u64::from(len);
            if O::WATCHES {
                let rule = Some(way.rules.compiled.outcome(way.counters.deciding_line(path)).1);
                observer.fate(
                    id,
                    Some(packet),
                    &Fate { ingress, dropped: None, ct_state: Some(state), rule },
                );
            }
        }
        *at += sent + 1;
        if sent > 0 {
            let sent = sent as u64;
            self.touched |= 1 << lane;
            tracker.note_expressed(sent, now);
            counters.port(ingress).forwarded.count_many(sent, bytes);
            counters.polls.verdict_hits.add(sent);
        }
        odd
    }
}
