//! The judge stage: what a worker does with one packet, from its flow to the tx ring. Worker thread only. What the rules
//! say about it is in `rules`, what becomes of it then in `act`; what waits for the gap between bursts in `tidy`.

mod act;
mod express;
mod fragments;
mod moving;
mod rules;
mod source;
mod survey;
mod tidy;
mod watch;

use super::answers::AnswerBucket;
use super::handoff::{self, Errand, HandoffCause, Label};
use super::notes::NoteLog;
use super::observer::{Fate, Observer};
use super::snapshot::{Mailbox, Snapshot};
use super::steering::{Spread, meeting_tuple};
use super::tap::{SNAP_MAX, Taps};
use super::{Handoff, Lane, Moves, Parts, PortState, SetAsks, Waker, WorkerCounters};
use crate::clock::Now;
use crate::defrag::{Defrag, DefragLimits, Whole};
use crate::device::Device;
use crate::flow::{
    self, Claim, Expired, FlowRef, FullPolicy, InvalidReason, Request, Said, Slot, TableFull, Tracked,
    Tracker,
};
use crate::ids::{PORTS_MAX, PortId, WorkerId};
use crate::packet::{Fragment, Packet, Tuple, proto};
use crate::reason::DropReason;
use crate::rss::BUCKETS;
use crate::rules::Matched;
use crate::rules::conn::{Flows, Marks, Orders};
use crate::rules::model::{RejectWith, Verdict};
use crate::wire::{self, checksum};
use crate::xsk::{Frame, FramePool, Umem};
use rtrb::Consumer;
use source::Source;
use std::sync::Arc;

/// Everything a packet meets behind the parser.
#[derive(Debug)]
pub(super) struct Path<D, O> {
    pub(super) id: WorkerId,
    /// How a flow's bucket is found, and whose each bucket is.
    spread: Spread,
    owners: Box<[WorkerId; BUCKETS]>,
    pub(super) moves: Moves,
    pub(super) umem: Arc<Umem>,
    pub(super) pool: FramePool,
    pub(super) lanes: Vec<Lane<D>>,
    /// Which of our lanes sends out of a NIC, by [`PortId`]; [`NO_LANE`] if none does.
    lane_of: [u8; PORTS_MAX],
    /// Lanes whose device wants a flush, one bit each.
    touched: u64,
    ports: Arc<[PortState]>,
    pub(super) tracker: Tracker,
    mailbox: Arc<Mailbox>,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) counters: Arc<WorkerCounters>,
    pub(super) handoff: Handoff,
    /// How many of our own chunks may still be given to other workers, or wait for a bucket, as of the last gap between
    /// bursts.
    lendable: usize,
    pub(super) waker: Arc<Waker>,
    expired: Consumer<Expired>,
    requests: Consumer<Request>,
    pub(super) set_asks: Option<SetAsks>,
    notes: NoteLog,
    pub(super) taps: Taps,
    /// A packet's bytes, for taps.
    staged: Vec<u8>,
    /// When this round over the queues began.
    now: Now,
    /// Whether rules have changed the packet in question.
    changed: bool,
    published: Option<Now>,
    matched: Matched,
    marks: Marks,
    answers: AnswerBucket,
    defrag: Defrag,
    whole: Whole,
    /// Whether every packet goes the long way.
    pub(super) without_express: bool,
    pub(super) observer: O,
}

const NO_LANE: u8 = u8::MAX;

/// What is to become of a packet. With `reject` it is dropped and answered, and `fate` does not say so yet.
struct Sentence {
    fate: Fate,
    tracked: Tracked,
    reject: Option<Rejection>,
}

/// How a packet is rejected.
#[derive(Clone, Copy)]
struct Rejection {
    with: RejectWith,
    /// Whether its checksum is right, all of the packet looked at: another one is owed no answer.
    is_sound: bool,
}

impl<D: Device, O: Observer> Path<D, O> {
    pub(super) fn new(parts: Parts<D>, observer: O) -> Self {
        let Parts {
            id,
            mut moves,
            umem,
            pool,
            lanes,
            ports,
            tracker,
            mailbox,
            counters,
            handoff,
            waker,
            expired,
            requests,
            set_asks,
            notes,
        } = parts;
        let mut lane_of = [NO_LANE; PORTS_MAX];
        for (index, lane) in lanes.iter().enumerate().rev() {
            lane_of[lane.port.index()] = u8::try_from(index).expect("a worker serves at most 64 queues");
        }
        let others = |port: usize| handoff.sender(PortId(u8::try_from(port).unwrap_or(u8::MAX))).is_some();
        assert!(
            (0..ports.len()).all(|port| lane_of[port] != NO_LANE || others(port)),
            "somebody sends out of every NIC"
        );
        let snapshot = mailbox.newest();
        mailbox.adopt(id, snapshot.generation);
        // Held fragments must leave the pool enough to receive with: both are counted in chunks.
        let limits = DefragLimits { frames: umem.frames_per_worker() as usize / 4 };
        moves.make_room(umem.frames_per_worker() as usize / 2);
        let mut path = Self {
            defrag: Defrag::new(limits),
            whole: Whole::new(),
            id,
            // A worker that is alone does not ask which bucket a NIC would find.
            spread: if moves.others() == 0 { Spread::Secret } else { moves.steering.spread() },
            owners: Box::new(moves.steering.owners()),
            moves,
            umem,
            pool,
            lanes,
            lane_of,
            touched: 0,
            ports,
            tracker,
            mailbox,
            snapshot,
            counters,
            handoff,
            lendable: 0,
            waker,
            expired,
            requests,
            set_asks,
            notes: NoteLog::new(notes),
            taps: Taps::new(),
            // Touched by nothing until there are taps, and so no memory until then.
            staged: Vec::with_capacity(SNAP_MAX as usize),
            now: Now::default(),
            changed: false,
            published: None,
            matched: Matched::default(),
            marks: Marks::default(),
            answers: AnswerBucket::default(),
            without_express: false,
            observer,
        };
        path.taps.adopt(&path.snapshot.settings.taps, id);
        for lane in &mut path.lanes {
            lane.device.replenish(&mut path.pool);
        }
        path
    }

    /// Reads what a frame holds. A malformed one is dropped.
    #[inline]
    pub(super) fn parse(&mut self, frame: Frame, packet: &mut Packet, ingress: PortId) -> Option<Frame> {
        let mut parsed = wire::parse_into(self.umem.head(&frame), frame.len(), packet);
        if frame.segments() > 1 && (parsed.is_err() || packet.l4_fault.is_some()) {
            parsed = self.parse_spread(&frame, packet);
        }
        if let Err(reason) = parsed {
            self.drop_frame(frame, reason, ingress, None);
            return None;
        }
        Some(frame)
    }

    /// Parses a frame whose headers may go on behind its first chunk: IPv6 extension headers can be as long as that.
    #[cold]
    fn parse_spread(&mut self, frame: &Frame, packet: &mut Packet) -> Result<(), DropReason> {
        self.whole.copy(&self.umem, frame);
        wire::parse_into(self.whole.bytes(), frame.len(), packet)
    }

    // Ownership.

    /// Finds the hash and, unless it is `known`, the bucket of the flow a packet belongs to: for an ICMP error those of the
    /// flow it is about, for a fragment those that all of its datagram have in common.
    #[inline]
    pub(super) fn steer(&mut self, frame: &Frame, packet: &mut Packet, known: Option<u8>) {
        if frame.segments() > 1
            && packet.fragment == Fragment::Whole
            && matches!(packet.tuple.proto, proto::ICMP | proto::ICMPV6)
        {
            let mut whole = std::mem::take(&mut self.whole);
            whole.copy(&self.umem, frame);
            self.steer_whole(packet, whole.bytes(), None);
            self.whole = whole;
        } else {
            self.steer_headed(frame, packet, known);
        }
    }

    /// The same for a packet whose first chunk says it all.
    #[inline]
    fn steer_headed(&self, frame: &Frame, packet: &mut Packet, known: Option<u8>) {
        if packet.fragment != Fragment::Whole {
            (packet.hash, packet.bucket) = self.place(&meeting_tuple(packet), known);
        } else {
            self.steer_whole(packet, self.umem.head(frame), known);
        }
    }

    /// The same for a packet whose bytes are all there.
    fn steer_whole(&self, packet: &mut Packet, bytes: &[u8], known: Option<u8>) {
        let about = flow::error_about(packet, bytes);
        (packet.hash, packet.bucket) = self.place(&about.unwrap_or(packet.tuple), known);
    }

    /// Hash and bucket of a tuple.
    #[inline]
    fn place(&self, tuple: &Tuple, known: Option<u8>) -> (u64, u8) {
        let hash = self.tracker.hash(tuple);
        (hash, known.unwrap_or_else(|| self.spread.bucket(tuple, hash)))
    }

    /// Which worker owns the flow of a packet that was steered.
    #[inline]
    pub(super) fn owner(&self, packet: &Packet) -> WorkerId {
        self.owners[usize::from(packet.bucket)]
    }

    /// Why a packet that has come in here has to leave for its owner.
    #[inline]
    fn cause(&self, frame: &Frame, packet: &Packet) -> HandoffCause {
        let is_icmp = matches!(packet.tuple.proto, proto::ICMP | proto::ICMPV6);
        let is_error = is_icmp && flow::error_about(packet, self.umem.head(frame)).is_some();
        handoff::cause(packet, is_error)
    }

    /// Gives a packet that was not judged to another worker, or drops it.
    #[inline]
    fn hand(&mut self, to: WorkerId, errand: Errand, frame: Frame, packet: &Packet, ingress: PortId) {
        if let Err((frame, reason)) = self.give(to, errand, frame, packet.bucket, ingress) {
            self.drop_frame(frame, reason, ingress, Some(packet));
        }
    }

    /// Gives a packet to another worker.
    ///
    /// # Errors
    /// Gives it back, with what it is to be dropped for.
    #[inline]
    fn give(
        &mut self,
        to: WorkerId,
        errand: Errand,
        frame: Frame,
        bucket: u8,
        ingress: PortId,
    ) -> Result<(), (Frame, DropReason)> {
        if !self.may_lend(&frame) {
            return Err((frame, DropReason::FramesLent));
        }
        let label = Label { ingress, errand, bucket };
        self.handoff.hand(to, frame, label).map_err(|frame| (frame, DropReason::HandoffFull))
    }

    /// Whether another worker may have this frame for a while, which then counts as lent.
    #[inline]
    fn may_lend(&mut self, frame: &Frame) -> bool {
        if !self.pool.is_own(frame) {
            return true;
        }
        match self.lendable.checked_sub(frame.segments() as usize) {
            Some(left) => {
                self.lendable = left;
                true
            }
            None => false,
        }
    }

    /// Whether it might, without counting it.
    fn could_lend(&self, frame: &Frame) -> bool {
        !self.pool.is_own(frame) || frame.segments() as usize <= self.lendable
    }

    // Judging.

    /// A non-IP frame: the pass list decides.
    pub(super) fn pass_l2(&mut self, frame: Frame, packet: &Packet, ingress: PortId) {
        if self.snapshot.settings.l2.passes(packet.ethertype) {
            self.forward(frame, packet, Fate { ingress, dropped: None, ct_state: None, rule: None });
        } else {
            self.drop_frame(frame, DropReason::L2NotListed, ingress, Some(packet));
        }
    }

    /// An IP packet: put together if it is a piece of one, and judged.
    pub(super) fn judge(&mut self, frame: Frame, packet: &mut Packet, ingress: PortId, now: Now) {
        if self.taps.is_on() {
            return self.judge_watched(frame, packet, ingress, now);
        }
        self.judge_any(frame, packet, ingress, now);
    }

    #[inline]
    fn judge_any(&mut self, frame: Frame, packet: &mut Packet, ingress: PortId, now: Now) {
        if packet.fragment != Fragment::Whole && self.snapshot.rules(packet.tuple.family).track {
            return self.gather(frame, packet, ingress, now);
        }
        self.judge_frame(frame, packet, ingress, now);
    }

    /// Judges a packet in a frame of its own and acts.
    fn judge_frame(&mut self, mut frame: Frame, packet: &mut Packet, ingress: PortId, now: Now) {
        let in_pieces = self.umem.head_len(&frame) < packet.frame_len as usize;
        let sentence = if in_pieces {
            let mut whole = std::mem::take(&mut self.whole);
            whole.copy(&self.umem, &frame);
            let sentence = self.sentence(Source::Bytes(whole.bytes_mut()), packet, ingress, now);
            self.write_back(&mut frame, whole.bytes());
            self.whole = whole;
            sentence
        } else {
            self.sentence(Source::Frame(&mut frame), packet, ingress, now)
        };
        self.carry_out(frame, packet, &sentence, now);
    }

    /// Puts a packet that was judged, and changed, as a copy back into its frame.
    fn write_back(&self, frame: &mut Frame, bytes: &[u8]) {
        if self.changed {
            self.umem.copy_in(frame, 0, bytes);
        }
    }

    /// Acts on what was said of a packet in a frame of its own.
    #[inline]
    fn carry_out(&mut self, frame: Frame, packet: &Packet, sentence: &Sentence, now: Now) {
        let &Sentence { fate, ref tracked, reject } = sentence;
        match (reject, fate.dropped) {
            (Some(rejection), _) => {
                let first_len = self.umem.head_len(&frame);
                self.reject(frame, first_len, packet, tracked, rejection, now, fate);
            }
            (None, None) => self.forward(frame, packet, fate),
            (None, Some(_)) => self.discard(frame, Some(packet), fate),
        }
    }

    /// What is to become of a packet: raw rules, track, decide, and if it may pass what that entails.
    #[inline]
    fn sentence(&mut self, source: Source<'_>, packet: &mut Packet, ingress: PortId, now: Now) -> Sentence {
        let sentence = self.judged(source, packet, ingress, now);
        if self.marks.followed {
            self.note_findings(packet, &sentence);
        }
        self.ask_sets();
        sentence
    }

    /// Hands on what rules want changed about sets. What finds no room is counted.
    #[inline]
    fn ask_sets(&mut self) {
        for ask in self.marks.set_asks.drain(..) {
            if self.set_asks.as_mut().is_some_and(|asks| !asks.push(ask)) {
                self.counters.polls.unasked.add(1);
            }
        }
    }

    #[inline]
    fn judged(&mut self, mut source: Source<'_>, packet: &mut Packet, ingress: PortId, now: Now) -> Sentence {
        let mut orders = Orders::default();
        self.marks.begin();
        self.changed = false;
        if self.snapshot.rules(packet.tuple.family).compiled.has_raw() {
            match self.raw(&mut source, packet, ingress, now) {
                Ok(ordered) => orders = ordered,
                Err(by) => {
                    let fate =
                        Fate { ingress, dropped: Some(by.drop_reason()), ct_state: None, rule: Some(by) };
                    return Sentence { fate, tracked: Tracked::untracked(), reject: None };
                }
            }
        }
        let mut tracked = self.track(&source, packet, now, &orders);
        // What its connection counts is the packet as it came.
        let l3_len = packet.l3_len;
        if let Some(reason) = tracked.invalid {
            self.note_invalid(&source, packet, ingress, reason, now);
        }
        let decided = self.decide(&mut source, packet, &tracked, ingress, now);
        let mut fate = Fate { ingress, dropped: None, ct_state: Some(tracked.state), rule: Some(decided.by) };
        let mut reject = None;
        match decided.verdict {
            Verdict::Accept => {
                let claim = Claim {
                    policy: self.snapshot.settings.full[ingress.index() / 2],
                    management: decided.management,
                };
                let is_new = matches!(tracked.flow, FlowRef::Tentative(_));
                fate.dropped = self.accept(&source, packet, l3_len, &mut tracked, now, claim).err();
                if is_new {
                    let since = self.snapshot.rules(packet.tuple.family).since;
                    self.tracker.remember(&tracked, since, Said { path: None, ingress, accepted: true });
                }
            }
            Verdict::Drop => fate.dropped = Some(decided.by.drop_reason()),
            Verdict::Reject(with) => {
                let is_sound = checksum::l4_ok(source.bytes(&self.umem), packet);
                reject = Some(Rejection { with, is_sound });
            }
        }
        self.tracker.finish(&tracked, fate.dropped.is_none() && reject.is_none());
        Sentence { fate, tracked, reject }
    }

    // Tracking and rules.

    #[inline]
    fn track(&mut self, source: &Source<'_>, packet: &Packet, now: Now, orders: &Orders) -> Tracked {
        let snapshot = &*self.snapshot;
        if !snapshot.rules(packet.tuple.family).track {
            return Tracked::untracked();
        }
        let bytes = source.bytes(&self.umem);
        let tracked = self.tracker.track(packet, bytes, now, &snapshot.settings.track, orders);
        // As in the kernel, a flow's packets count whatever the rules say about them.
        if let (FlowRef::Existing(slot), true) = (tracked.flow, tracked.counts) {
            self.tracker.count(slot, tracked.direction, packet.l3_len);
        }
        tracked
    }

    /// An INVALID packet: noted for the log if it is wanted there.
    #[cold]
    fn note_invalid(
        &mut self,
        source: &Source<'_>,
        packet: &Packet,
        ingress: PortId,
        reason: InvalidReason,
        now: Now,
    ) {
        let wanted = NoteLog::wants(self.snapshot.settings.track.log_invalid, packet.tuple.proto);
        if wanted && !self.notes.note_invalid(packet, source.bytes(&self.umem), ingress, reason, now) {
            self.counters.polls.unlogged.add(1);
        }
    }

    /// Remembers the flow that an accepted packet starts, and lets helpers read the packet.
    #[inline]
    fn accept(
        &mut self,
        source: &Source<'_>,
        packet: &Packet,
        l3_len: u32,
        tracked: &mut Tracked,
        now: Now,
        claim: Claim,
    ) -> Result<(), DropReason> {
        let is_new = matches!(tracked.flow, FlowRef::Tentative(_));
        if is_new {
            match self.tracker.commit(packet, tracked, now, claim) {
                Ok(Some(slot)) => {
                    self.tracker.count(slot, tracked.direction, l3_len);
                    self.join_counts(slot, now);
                    self.note_new(packet, slot);
                }
                Ok(None) => {}
                Err(TableFull) if claim.policy == FullPolicy::PassUntracked => return Ok(()),
                Err(TableFull) => return Err(DropReason::FlowTableFull),
            }
        }
        let bytes = source.bytes(&self.umem);
        if self.tracker.help(packet, bytes, tracked, now, &self.snapshot.settings.track) {
            return Ok(());
        }
        // A connection whose first packet does not pass leaves nothing behind.
        if let (true, Some(slot)) = (is_new, tracked.flow.slot()) {
            self.tracker.remove(slot);
        }
        Err(DropReason::HelperLine)
    }

    /// A new flow goes with its bucket, if that is about to go.
    #[inline]
    fn note_new(&mut self, packet: &Packet, slot: Slot) {
        if self.moves.scanned() == Some(packet.bucket)
            && let Some(giving) = &mut self.moves.giving
        {
            giving.flows.extend(self.tracker.flow_id(slot));
        }
    }

    /// A flow that `connlimit` rules have counted exists now.
    #[inline]
    fn join_counts(&mut self, slot: Slot, now: Now) {
        if self.marks.counted.is_empty() {
            return;
        }
        let Some(id) = self.tracker.flow_id(slot) else { return };
        let newcomer = self.tracker.tables(now).newcomer();
        let zone = self.tracker.zone_of_orig(slot);
        for counted in self.marks.counted.drain(..) {
            counted.join(newcomer, id, zone);
        }
    }
}
