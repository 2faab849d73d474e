//! The tracker's side of helpers: which flows have one, what each control connection is remembered by, and turning what
//! a helper heard into an expectation. Owner thread only; flows without a helper pay one comparison with zero.

use super::expect::{Expectation, WAIT_SECS};
use super::helper::ftp::Lines;
use super::helper::{Announced, Heard, tftp};
use super::record::{Extra, FlowId, Slot};
use super::settings::TrackSettings;
use super::tracked::{FlowRef, Tracked};
use super::tracker::Tracker;
use crate::clock::Now;
use crate::packet::{Packet, Tuple};
use crate::rules::conn::{CtEvents, Helper};
use crate::rules::model::CtState;
use crate::wire;
use crate::wire::tcp::Segment;
use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;

const UDP_HEADER_LEN: usize = 8;

/// Flows of one worker that have helpers.
#[derive(Debug, Default)]
pub(super) struct Helped {
    /// How many there are.
    flows: u32,
    ftp: HashMap<Slot, Lines>,
}

impl Helped {
    #[inline]
    pub(super) const fn any(&self) -> bool {
        self.flows != 0
    }

    /// A flow has left for another worker.
    pub(super) fn lost(&mut self, extra: Extra) {
        self.flows -= u32::from(extra.helper.is_some());
    }

    /// What a flow's helper has read so far, for another worker.
    pub(super) fn take_lines(&mut self, slot: Slot) -> Option<Lines> {
        self.ftp.remove(&slot)
    }

    /// The same, from another worker.
    pub(super) fn put_lines(&mut self, slot: Slot, lines: Lines) {
        self.ftp.insert(slot, lines);
    }

    pub(super) fn gained(&mut self, extra: Extra) {
        self.flows += u32::from(extra.helper.is_some());
    }
}

impl Tracker {
    /// Lets the helper of an accepted and committed packet's flow, if it has one, read it. False if the packet must be
    /// dropped: it announces a connection that could not be understood or noted down, and passing it would let that
    /// connection come unexpected.
    #[inline]
    pub fn help(
        &mut self,
        packet: &Packet,
        bytes: &[u8],
        tracked: &Tracked,
        now: Now,
        settings: &TrackSettings,
    ) -> bool {
        match tracked.flow {
            FlowRef::Existing(slot) if self.helped.any() => {
                self.help_slot(slot, packet, bytes, tracked, now, settings)
            }
            _ => true,
        }
    }

    #[cold]
    fn help_slot(
        &mut self,
        slot: Slot,
        packet: &Packet,
        bytes: &[u8],
        tracked: &Tracked,
        now: Now,
        settings: &TrackSettings,
    ) -> bool {
        let Some(helper) = self.table.live_record(slot).and_then(|record| record.tail.extra().helper) else {
            return true;
        };
        let heard = match helper {
            Helper::Ftp if tracked.state != CtState::Established => Heard::Nothing,
            Helper::Ftp => {
                let Some(seg) = Segment::parse(bytes, packet) else { return true };
                let payload = wire::payload(bytes, packet, seg.header_len());
                let sender = (packet.tuple.family, packet.tuple.src);
                self.helped.ftp.entry(slot).or_default().read(tracked.direction, seg.seq, payload, sender)
            }
            Helper::Tftp if tftp::is_request(wire::payload(bytes, packet, UDP_HEADER_LEN)) => {
                // Whoever asks, it is the client that is answered.
                let client = self.table.orig(slot);
                let announced = Announced { dst: Some(client.src), dst_port: client.src_port };
                Heard::Announced(announced)
            }
            Helper::Tftp => Heard::Nothing,
        };
        match heard {
            Heard::Nothing => true,
            Heard::Unclear => false,
            Heard::Announced(announced) => {
                let Some(expectation) = self.expectation(slot, helper, &packet.tuple, announced, now) else {
                    return true;
                };
                self.expectations.expect(expectation, settings.expect_max.0, now.tick()).is_ok()
            }
        }
    }

    /// What is expected: a connection from the other side of the one that announced it.
    fn expectation(
        &self,
        slot: Slot,
        helper: Helper,
        packet: &Tuple,
        announced: Announced,
        now: Now,
    ) -> Option<Expectation> {
        let record = self.table.live_record(slot)?;
        let orig = self.table.orig(slot);
        let told = record.tail.extra().events;
        let dst = announced.dst.unwrap_or(packet.src);
        let src = if dst == orig.src { orig.dst } else { orig.src };
        Some(Expectation {
            src,
            dst,
            dst_port: announced.dst_port,
            proto: helper.proto(),
            family: packet.family,
            zone: record.zone().id,
            master: FlowId { worker: self.id, slot, seq: record.common.seq.load(Relaxed) },
            master_orig: orig,
            helper,
            deadline: now.tick().plus_secs(WAIT_SECS),
            tells: (told.is_none_or(|told| !told.and(CtEvents::EXPECT_NEW).is_empty()), told.is_none()),
        })
    }

    /// A flow is being removed: forgets what its helper knew and expects.
    #[cold]
    pub(super) fn forget_helped(&mut self, slot: Slot) {
        let Some(record) = self.table.live_record(slot) else { return };
        if record.tail.extra().helper.is_none() {
            return;
        }
        self.helped.flows -= 1;
        self.helped.ftp.remove(&slot);
        let seq = record.common.seq.load(Relaxed);
        self.expectations.forget(FlowId { worker: self.id, slot, seq });
    }
}
