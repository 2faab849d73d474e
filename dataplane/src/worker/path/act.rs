//! What becomes of a packet that was judged: sent, answered or dropped, and counted as that. Worker thread only.

use super::{NO_LANE, Path, Rejection};
use crate::clock::Now;
use crate::device::Device;
use crate::flow::{FlowRef, Tracked};
use crate::ids::{PortId, WorkerId};
use crate::packet::Packet;
use crate::reason::DropReason;
use crate::rules::model::RejectWith;
use crate::wire;
use crate::worker::handoff::Errand;
use crate::worker::observer::{Fate, Observer};
use crate::worker::tap::{DROP_BYTES, Point};
use crate::xsk::Frame;
use arrayvec::ArrayVec;
use std::sync::atomic::Ordering::Relaxed;

impl<D: Device, O: Observer> Path<D, O> {
    /// Turns the offender into its answer, in place, and sends that back where it came from. Its first `first_len` bytes
    /// are in the first chunk of `frame`. Returns what it was dropped for: with an answer, or without.
    #[expect(clippy::too_many_arguments, reason = "what a packet is, and what was said of it")]
    pub(super) fn reject(
        &mut self,
        mut frame: Frame,
        first_len: usize,
        packet: &Packet,
        tracked: &Tracked,
        rejection: Rejection,
        now: Now,
        mut fate: Fate,
    ) -> DropReason {
        let Rejection { with, is_sound } = rejection;
        // The answer is written over the packet.
        let head: ArrayVec<u8, DROP_BYTES> =
            self.umem.head(&frame).iter().copied().take(DROP_BYTES).collect();
        self.stage(&frame);
        let limited = !is_sound || with != RejectWith::TcpReset && !self.answers.take();
        let answer = (!limited)
            .then(|| wire::reject::build(self.umem.buffer_mut(&mut frame), first_len, packet, with))
            .flatten();
        let Some(len) = answer else {
            fate.dropped = Some(DropReason::RuleRejectSilent);
            self.discard(frame, Some(packet), fate);
            return DropReason::RuleRejectSilent;
        };
        if with == RejectWith::TcpReset
            && let FlowRef::Existing(slot) = tracked.flow
        {
            self.tracker.close_rejected(slot, now, &self.snapshot.settings.track);
        }
        fate.dropped = Some(DropReason::RuleReject);
        self.log_drop(&head, Some(packet), packet.frame_len, &fate);
        self.show_staged(packet.frame_len, Point::Verdict, fate.ingress, Some(packet), Some(&fate));
        self.note_drop(frame.id(), Some(packet), packet.frame_len, &fate);
        let frame = self.pool.shorten(frame, len);
        self.answer(frame, fate.ingress);
        DropReason::RuleReject
    }

    /// Sends an answer to a packet back where that came in.
    fn answer(&mut self, frame: Frame, ingress: PortId) {
        if let Some(sender) = self.sends_elsewhere(ingress) {
            if let Err((frame, _)) = self.give(sender, Errand::Answer, frame, 0, ingress) {
                self.free(frame);
            }
            return;
        }
        self.answer_for_other(frame, ingress);
    }

    /// Sends an answer to a packet that perhaps another worker has judged.
    pub(in crate::worker) fn answer_for_other(&mut self, frame: Frame, ingress: PortId) {
        self.stage(&frame);
        match self.send(frame, ingress) {
            Ok(len) => {
                self.counters.port(ingress).answers.count(u64::from(len));
                self.show_staged(len, Point::Tx, ingress, None, None);
            }
            Err((frame, _)) => self.free(frame),
        }
    }

    /// Sends a packet out of the other NIC of its wire.
    #[inline]
    pub(super) fn forward(&mut self, frame: Frame, packet: &Packet, mut fate: Fate) {
        self.stage(&frame);
        if let Some(sender) = self.sends_elsewhere(fate.ingress.peer()) {
            return self.forward_by(sender, frame, packet, fate);
        }
        let id = frame.id();
        match self.send(frame, fate.ingress.peer()) {
            Ok(len) => {
                self.counters.port(fate.ingress).forwarded.count(u64::from(len));
                self.note_pass(id, packet, &fate, true);
            }
            Err((frame, reason)) => {
                fate.dropped = Some(reason);
                self.discard(frame, Some(packet), fate);
            }
        }
    }

    /// Which other worker sends out of a NIC that we have no queue of.
    #[inline]
    pub(super) fn sends_elsewhere(&self, egress: PortId) -> Option<WorkerId> {
        if self.lane_of[egress.index()] == NO_LANE { self.handoff.sender(egress) } else { None }
    }

    /// Gives a packet to the worker that sends it. What is known of its fate stays here, so it is told here; should it be
    /// dropped there after all, that is counted.
    fn forward_by(&mut self, sender: WorkerId, frame: Frame, packet: &Packet, mut fate: Fate) {
        let id = frame.id();
        match self.give(sender, Errand::Forward, frame, packet.bucket, fate.ingress) {
            Ok(()) => self.note_pass(id, packet, &fate, false),
            Err((frame, reason)) => {
                fate.dropped = Some(reason);
                self.discard(frame, Some(packet), fate);
            }
        }
    }

    /// Sends a packet that another worker has judged.
    pub(in crate::worker) fn forward_for_other(&mut self, frame: Frame, ingress: PortId) {
        self.stage(&frame);
        match self.send(frame, ingress.peer()) {
            Ok(len) => {
                self.counters.port(ingress).forwarded.count(u64::from(len));
                self.show_staged(len, Point::Tx, ingress.peer(), None, None);
            }
            Err((frame, reason)) => {
                let fate = Fate { ingress, dropped: Some(reason), ct_state: None, rule: None };
                self.log_drop(self.umem.head(&frame), None, frame.len(), &fate);
                self.show_staged(frame.len(), Point::Verdict, ingress, None, Some(&fate));
                self.counters.port(ingress).dropped(reason, frame.len());
                self.free(frame);
            }
        }
    }

    /// A packet was sent, or given to the worker that sends it.
    #[inline]
    fn note_pass(&mut self, id: u64, packet: &Packet, fate: &Fate, is_sent: bool) {
        if self.taps.is_on() {
            self.show_staged(packet.frame_len, Point::Verdict, fate.ingress, Some(packet), Some(fate));
            if is_sent {
                self.show_staged(packet.frame_len, Point::Tx, fate.ingress.peer(), None, None);
            }
        }
        self.observer.fate(id, Some(packet), fate);
    }

    /// Puts a frame on a NIC's tx ring.
    #[inline]
    pub(super) fn send(&mut self, frame: Frame, egress: PortId) -> Result<u32, (Frame, DropReason)> {
        let port = &self.ports[egress.index()];
        let len = frame.len();
        if len > port.frame_len_max.load(Relaxed) {
            return Err((frame, DropReason::MtuExceeded));
        }
        let index = self.lane_of[egress.index()];
        let device = &mut self.lanes[usize::from(index)].device;
        if !port.link_up.load(Relaxed) || device.is_link_down() {
            return Err((frame, DropReason::LinkDown));
        }
        device.tx(frame).map_err(|frame| (frame, DropReason::TxRingFull))?;
        self.touched |= 1 << index;
        Ok(len)
    }

    /// Drops a frame that never became a judged packet.
    pub(in crate::worker) fn drop_frame(
        &mut self,
        frame: Frame,
        reason: DropReason,
        ingress: PortId,
        packet: Option<&Packet>,
    ) {
        self.discard(frame, packet, Fate { ingress, dropped: Some(reason), ct_state: None, rule: None });
    }

    pub(super) fn discard(&mut self, frame: Frame, packet: Option<&Packet>, fate: Fate) {
        self.log_drop(self.umem.head(&frame), packet, frame.len(), &fate);
        self.show(&frame, Point::Verdict, fate.ingress, packet, Some(&fate));
        self.note_drop(frame.id(), packet, frame.len(), &fate);
        self.free(frame);
    }

    pub(super) fn note_drop(&mut self, frame: u64, packet: Option<&Packet>, bytes: u32, fate: &Fate) {
        if let Some(reason) = fate.dropped {
            self.counters.port(fate.ingress).dropped(reason, bytes);
        }
        self.observer.fate(frame, packet, fate);
    }

    #[inline]
    pub(super) fn free(&mut self, frame: Frame) {
        self.pool.free(frame);
    }
}
