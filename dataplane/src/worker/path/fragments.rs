//! The judge stage's way with fragments: gathered until their datagram is whole, judged as that, sent or dropped together.
//! Worker thread only; seldom used, so nothing of it is inlined into the way of other packets.

use super::{Path, Sentence, Source};
use crate::clock::Now;
use crate::defrag::{Added, GivenUp, Held, Piece, Unfit, Whole, settle_end};
use crate::device::{BURST_MAX, Device};
use crate::ids::{PortId, WorkerId};
use crate::packet::{Family, Fragment, Packet};
use crate::reason::DropReason;
use crate::wire;
use crate::worker::Observer;
use crate::worker::steering::meeting_tuple;
use crate::xsk::Frame;

/// Most incomplete datagrams given up between two bursts: as many as a burst can begin.
const DATAGRAMS_EXPIRED_MAX: usize = BURST_MAX;

impl<D: Device, O: Observer> Path<D, O> {
    /// A fragment: held until its datagram is complete, which is then judged as one.
    #[cold]
    pub(super) fn gather(&mut self, frame: Frame, packet: &Packet, ingress: PortId, now: Now) {
        let mut whole = std::mem::take(&mut self.whole);
        let bytes = if frame.segments() == 1 {
            self.umem.head(&frame)
        } else {
            whole.copy(&self.umem, &frame);
            whole.bytes()
        };
        match Piece::read(bytes, packet) {
            Ok(piece) => {
                let frame = self.cut(frame, packet, piece);
                let held = Held { frame, packet: *packet, piece };
                // In another bucket than that where fragments between these ends meet, only those are that were whole once.
                let meeting = meeting_tuple(packet);
                let again = packet.bucket != self.spread.bucket(&meeting, self.tracker.hash(&meeting));
                let settings = &self.snapshot.settings.track;
                let added = self.defrag.add(held, ingress, now, settings, again);
                let following = self.taps.set_aside();
                self.drop_given_up();
                self.taps.go_on(following);
                match added {
                    Added::Held | Added::GivenUp => {}
                    Added::Alone(Held { frame, packet, .. }) => {
                        self.judge_loner(self.id, frame, packet, ingress, now, &mut whole);
                    }
                    Added::Complete(all) => match whole.build(&self.umem, &all) {
                        Some(packet) => self.judge_whole(all, packet, &mut whole, ingress, now),
                        None => self.drop_held(all, DropReason::FragmentBad, ingress),
                    },
                }
            }
            Err(Unfit::Alone) => self.judge_loner(self.id, frame, *packet, ingress, now, &mut whole),
            Err(Unfit::Cut) => self.drop_frame(frame, DropReason::FragmentBad, ingress, Some(packet)),
        }
        self.whole = whole;
    }

    /// A fragment that is none to the tracker, from the worker where it met others.
    #[cold]
    pub(in crate::worker) fn judge_alone(
        &mut self,
        source: WorkerId,
        frame: Frame,
        ingress: PortId,
        now: Now,
    ) {
        let mut packet = Packet::EMPTY;
        if let Some(frame) = self.parse(frame, &mut packet, ingress) {
            let mut whole = std::mem::take(&mut self.whole);
            self.judge_loner(source, frame, packet, ingress, now, &mut whole);
            self.whole = whole;
        }
    }

    /// Judges a fragment that is none to the tracker, where its flow lives. `source` has sent it to us or is ourselves.
    fn judge_loner(
        &mut self,
        source: WorkerId,
        frame: Frame,
        mut packet: Packet,
        ingress: PortId,
        now: Now,
        whole: &mut Whole,
    ) {
        let mut frame = frame;
        whole.copy(&self.umem, &frame);
        wire::take_as_whole(whole.bytes(), &mut packet);
        self.steer_whole(&mut packet, whole.bytes(), None);
        if packet.fragment == Fragment::Whole
            && let Err(owner) = self.is_for_us(source, &packet)
        {
            return self.pass_on(owner, source, true, frame, &packet, ingress);
        }
        let sentence = self.sentence(Source::Bytes(whole.bytes_mut()), &mut packet, ingress, now);
        self.write_back(&mut frame, whole.bytes());
        self.carry_out(frame, &packet, &sentence, now);
    }

    /// Cuts off what a fragment carries beyond its place: nobody has judged those bytes, so nobody shall get them.
    fn cut(&mut self, mut frame: Frame, packet: &Packet, piece: Piece) -> Frame {
        let len = piece.payload_at + piece.len();
        if packet.tuple.family != Family::V4 || len == packet.l3_end() {
            return frame;
        }
        wire::shorten_ipv4(self.umem.buffer_mut(&mut frame), packet, piece.header_len + piece.len());
        self.pool.truncate(frame, len)
    }

    fn drop_held(&mut self, all: Vec<Held>, reason: DropReason, ingress: PortId) {
        for Held { frame, packet, .. } in all {
            self.drop_frame(frame, reason, ingress, Some(&packet));
        }
    }

    /// Drops what is not going to be part of a datagram.
    pub(super) fn drop_given_up(&mut self) {
        while let Some(GivenUp { held, ingress, reason }) = self.defrag.next_given_up() {
            self.drop_frame(held.frame, reason, ingress, Some(&held.packet));
        }
    }

    /// Judges a datagram whose fragments are all here; they share its verdict. If its flow lives elsewhere the
    /// fragments go there as they came, to be put together once more.
    fn judge_whole(
        &mut self,
        mut all: Vec<Held>,
        mut packet: Packet,
        whole: &mut Whole,
        ingress: PortId,
        now: Now,
    ) {
        self.steer_whole(&mut packet, whole.bytes(), None);
        if let Err(owner) = self.is_for_us(self.id, &packet) {
            settle_end(&self.umem, &mut all);
            for Held { frame, packet: fragment, .. } in all {
                let packet = Packet { hash: packet.hash, bucket: packet.bucket, ..fragment };
                self.pass_on(owner, self.id, false, frame, &packet, ingress);
            }
            return;
        }
        if !whole.unify(&self.umem, &mut self.pool, &mut all) {
            return self.drop_held(all, DropReason::FragmentBad, ingress);
        }
        let Sentence { mut fate, tracked, reject } =
            self.sentence(Source::Bytes(whole.bytes_mut()), &mut packet, ingress, now);
        // Each fragment leaves with what the rules have made of the datagram.
        let is_spread = !self.changed || whole.spread(&self.umem, &mut self.pool, &mut all);
        let bytes = whole.bytes();
        if !is_spread && fate.dropped.is_none() && reject.is_none() {
            fate.dropped = Some(DropReason::FragmentBad);
        }
        if fate.dropped.is_none() && reject.is_none() && !whole.can_be_sent() {
            fate.dropped = Some(DropReason::FragmentBad);
        }
        let mut fragments = all.into_iter();
        if let Some(rejection) = reject
            && let Some(Held { mut frame, .. }) = fragments.next()
        {
            // The answer quotes the datagram: as much of it as a frame holds takes the place of the first fragment.
            let buffer = self.umem.buffer_mut(&mut frame);
            let len = buffer.len().min(bytes.len());
            buffer[..len].copy_from_slice(&bytes[..len]);
            packet.frame_len = frame.len();
            fate.dropped = Some(self.reject(frame, len, &packet, &tracked, rejection, now, fate));
        }
        for Held { frame, packet, .. } in fragments {
            match fate.dropped {
                None => self.forward(frame, &packet, fate),
                Some(_) => self.discard(frame, Some(&packet), fate),
            }
        }
    }

    /// Gives up datagrams whose time is up, in bounded slices.
    pub(super) fn expire_datagrams(&mut self, now: Now) {
        for _ in 0..DATAGRAMS_EXPIRED_MAX {
            if !self.defrag.expire(now) {
                break;
            }
            self.drop_given_up();
        }
    }

    /// Chunks of frames held for datagrams that are not complete.
    pub(in crate::worker) const fn frames_held(&self) -> usize {
        self.defrag.frames()
    }
}
