//! What taps are shown of packets on their way, and what the log of drops keeps. Worker thread only. Without taps nothing here
//! runs but [`Path::log_drop`].

use super::{Path, Sentence};
use crate::clock::Now;
use crate::device::Device;
use crate::flow::FlowRef;
use crate::ids::PortId;
use crate::packet::{Family, Packet};
use crate::worker::observer::{Fate, Observer};
use crate::worker::tap::{Findings, FlowPart, Judge, Point, Seen};
use crate::xsk::Frame;

impl<D: Device, O: Observer> Path<D, O> {
    /// Whose rules a packet met, and which of them decided.
    pub(super) fn judge_of(&self, packet: Option<&Packet>, fate: Option<&Fate>) -> Judge {
        let family = packet.and_then(Packet::family);
        let rules = self.snapshot.rules(family.unwrap_or(Family::V4));
        Judge::new(family, rules, fate.and_then(|fate| fate.rule))
    }

    /// Keeps what a drop is to be known by later. `bytes` are the frame's first ones.
    pub(super) fn log_drop(&self, bytes: &[u8], packet: Option<&Packet>, frame_len: u32, fate: &Fate) {
        let judge = self.judge_of(packet, Some(fate));
        self.counters.drops.note(self.now, fate, judge, frame_len, bytes);
    }

    /// Shows taps a burst as it has come in.
    #[cold]
    pub(in crate::worker) fn show_burst(&mut self, frames: &[Frame], ingress: PortId) {
        if self.taps.watches(Point::Rx) {
            for frame in frames {
                self.show(frame, Point::Rx, ingress, None, None);
            }
        }
    }

    /// Shows taps a packet.
    #[inline]
    pub(super) fn show(
        &mut self,
        frame: &Frame,
        point: Point,
        port: PortId,
        packet: Option<&Packet>,
        fate: Option<&Fate>,
    ) {
        if self.taps.watches(point) {
            if frame.segments() > 1 {
                self.copy(frame);
            }
            self.see(Some(frame), frame.len(), point, port, packet, fate);
        }
    }

    /// Keeps a packet's bytes, if there are taps, to be shown once it is known what has become of it.
    #[inline]
    pub(super) fn stage(&mut self, frame: &Frame) {
        if self.taps.is_on() {
            self.copy(frame);
        }
    }

    #[cold]
    fn copy(&mut self, frame: &Frame) {
        self.staged.clear();
        self.umem.copy_out(frame, &mut self.staged);
    }

    /// Shows taps the packet whose bytes were kept last.
    #[inline]
    pub(super) fn show_staged(
        &mut self,
        frame_len: u32,
        point: Point,
        port: PortId,
        packet: Option<&Packet>,
        fate: Option<&Fate>,
    ) {
        if self.taps.watches(point) {
            self.see(None, frame_len, point, port, packet, fate);
        }
    }

    /// Without a frame, or if it has several segments, the bytes are those that were kept.
    #[cold]
    fn see(
        &mut self,
        frame: Option<&Frame>,
        frame_len: u32,
        point: Point,
        port: PortId,
        packet: Option<&Packet>,
        fate: Option<&Fate>,
    ) {
        let judge = self.judge_of(packet, fate);
        let Self { taps, staged, umem, now, .. } = self;
        let whole = frame.filter(|frame| frame.segments() == 1);
        let bytes = whole.map_or(&**staged, |frame| umem.head(frame));
        taps.see(&Seen { at: *now, point, port, fate, judge, bytes, frame_len });
    }

    /// [`Path::judge`] while there are taps.
    #[cold]
    pub(super) fn judge_watched(&mut self, frame: Frame, packet: &mut Packet, ingress: PortId, now: Now) {
        if self.taps.follow() {
            let bytes = self.umem.head(&frame);
            self.marks.followed = self.taps.begin(bytes, frame.len(), ingress);
        }
        self.judge_any(frame, packet, ingress, now);
        self.marks.followed = false;
        self.taps.end();
    }

    /// What was found out about the packet that is followed.
    #[cold]
    pub(super) fn note_findings(&mut self, packet: &Packet, sentence: &Sentence) {
        let tracked = &sentence.tracked;
        let flow = match tracked.flow {
            FlowRef::None => FlowPart::None,
            FlowRef::Tentative(_) => FlowPart::Starts,
            FlowRef::Existing(_) => FlowPart::Belongs,
            FlowRef::Ending(_) => FlowPart::Ends,
            FlowRef::About(_) => FlowPart::About,
        };
        self.taps.find(Findings {
            flow,
            direction: tracked.direction,
            invalid: tracked.invalid,
            mark: self.marks.packet,
            bucket: packet.bucket,
            has_more_steps: false,
        });
    }
}
