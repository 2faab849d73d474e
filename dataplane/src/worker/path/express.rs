//! The way of packets to which nothing happens that has not happened to their flow before: found where they were guessed
//! to be, let pass by a remembered verdict, sent. Worker thread only.
//!
//! What it looks up once for a burst: whether packets may go this way at all, and what the egress NIC can take. A packet that
//! may not goes the long way ([`Path::judge`]), unchanged, and that is also the meaning of this one.

use super::{NO_LANE, Path};
use crate::clock::Now;
use crate::device::Device;
use crate::ids::PortId;
use crate::packet::{Family, Packet, Plain};
use crate::reason::DropReason;
use crate::worker::observer::{Fate, Observer};
use crate::xsk::Frame;
use std::sync::atomic::Ordering::Relaxed;

/// A burst's part that goes this way.
pub(in crate::worker) struct Express {
    ingress: PortId,
    /// Which of our lanes sends.
    lane: u8,
    /// Longest frame that goes this way; 0 if none does.
    len_max: u32,
    /// Whether IPv4 and IPv6 packets may.
    families: [bool; 2],
    /// What has gone.
    packets: u64,
    bytes: u64,
}

impl<D: Device, O: Observer> Path<D, O> {
    /// Looks up what a burst from this NIC may do.
    #[inline]
    pub(in crate::worker) fn begin_express(&self, ingress: PortId) -> Express {
        let egress = ingress.peer();
        let (lane, port) = (self.lane_of[egress.index()], &self.ports[egress.index()]);
        let is_open = !self.without_express
            && self.tracker.may_express()
            && lane != NO_LANE
            && port.link_up.load(Relaxed)
            && !self.lanes[usize::from(lane)].device.is_link_down();
        let len_max = if is_open { port.frame_len_max.load(Relaxed) } else { 0 };
        let families = [Family::V4, Family::V6].map(|family| {
            let rules = self.snapshot.rules(family);
            rules.track && !rules.compiled.has_raw()
        });
        Express { ingress, lane, len_max, families, packets: 0, bytes: 0 }
    }

    /// Judges a packet and sends it, if it may go this way.
    ///
    /// # Errors
    /// Gives it back if not, and nothing has happened.
    #[inline(always)]
    pub(in crate::worker) fn express(
        &mut self,
        frame: Frame,
        packet: &Packet,
        now: Now,
        burst: &mut Express,
    ) -> Result<(), Frame> {
        let len = frame.len();
        let is_whole = self.umem.head_len(&frame) >= packet.frame_len as usize;
        let family = packet.tuple.family;
        if packet.plain == Plain::No
            || len > burst.len_max
            || !is_whole
            || !burst.families[usize::from(family == Family::V6)]
        {
            return Err(frame);
        }
        let rules = &**self.snapshot.rules(family);
        let (bytes, settings) = (self.umem.head(&frame), &self.snapshot.settings.track);
        let by = (rules.since, burst.ingress);
        let Some((path, state)) = self.tracker.express(packet, bytes, now, settings, by) else {
            return Err(frame);
        };
        let counters = &rules.counters[self.id.index()];
        counters.count_path(path, packet.l3_len.into());
        let mut fate = Fate { ingress: burst.ingress, dropped: None, ct_state: Some(state), rule: None };
        if O::WATCHES {
            fate.rule = Some(rules.compiled.outcome(counters.deciding_line(path)).1);
        }
        let id = frame.id();
        match self.lanes[usize::from(burst.lane)].device.tx(frame) {
            Ok(()) => {
                burst.packets += 1;
                burst.bytes += u64::from(len);
                self.observer.fate(id, Some(packet), &fate);
            }
            Err(frame) => {
                self.counters.polls.verdict_hits.add(1);
                fate.dropped = Some(DropReason::TxRingFull);
                self.discard(frame, Some(packet), fate);
            }
        }
        Ok(())
    }

    /// Counts what has gone.
    #[inline]
    pub(in crate::worker) fn end_express(&mut self, burst: &Express) {
        if burst.packets > 0 {
            self.touched |= 1 << burst.lane;
            self.counters.port(burst.ingress).forwarded.count_many(burst.packets, burst.bytes);
            self.counters.polls.verdict_hits.add(burst.packets);
        }
    }
}
