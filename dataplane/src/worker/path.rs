//! The judge stage: what a worker does with one packet, from its flow to the tx ring, and what it tidies up between
//! bursts. Worker thread only.

use super::answers::AnswerBucket;
use super::handoff::Handed;
use super::observer::{Fate, Observer};
use super::snapshot::{Mailbox, Snapshot};
use super::{Handoff, Lane, Parts, PortState, Waker, WorkerCounters};
use crate::clock::Now;
use crate::device::{BURST_MAX, Device};
use crate::flow::{self, Expired, FlowRef, TableFull, Tracked, Tracker};
use crate::ids::{PORTS_MAX, PortId, WorkerId};
use crate::packet::Packet;
use crate::reason::DropReason;
use crate::rules::conn::Marks;
use crate::rules::model::{RejectWith, RuleRef, Verdict};
use crate::rules::{Decision, Facts, Matched, PathId};
use crate::wire;
use crate::xsk::{Frame, FramePool, Umem};
use rtrb::Consumer;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Most expired flows removed between two bursts.
const EXPIRE_MAX: usize = 64;

/// Everything a packet meets behind the parser.
#[derive(Debug)]
pub(super) struct Path<D, O> {
    pub(super) id: WorkerId,
    workers: u64,
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
    snapshot: Arc<Snapshot>,
    pub(super) counters: Arc<WorkerCounters>,
    pub(super) handoff: Handoff,
    pub(super) waker: Arc<Waker>,
    expired: Consumer<Expired>,
    published: Option<Now>,
    matched: Matched,
    marks: Marks,
    answers: AnswerBucket,
    pub(super) observer: O,
}

const NO_LANE: u8 = u8::MAX;

/// What rules said, and which one.
#[derive(Clone, Copy)]
struct Decided {
    verdict: Verdict,
    by: RuleRef,
}

impl<D: Device, O: Observer> Path<D, O> {
    pub(super) fn new(parts: Parts<D>, observer: O) -> Self {
        let Parts {
            id,
            workers,
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
        } = parts;
        let mut lane_of = [NO_LANE; PORTS_MAX];
        for (index, lane) in lanes.iter().enumerate().rev() {
            lane_of[lane.port.index()] = u8::try_from(index).expect("a worker serves at most 64 queues");
        }
        assert!(
            lanes.iter().all(|lane| lane_of[lane.port.peer().index()] != NO_LANE),
            "every worker has a queue on both sides of a wire"
        );
        let snapshot = mailbox.newest();
        mailbox.adopt(id, snapshot.generation);
        let mut path = Self {
            id,
            workers: workers as u64,
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
            waker,
            expired,
            published: None,
            matched: Matched::default(),
            marks: Marks::default(),
            answers: AnswerBucket::default(),
            observer,
        };
        for lane in &mut path.lanes {
            lane.device.replenish(&mut path.pool);
        }
        path
    }

    // Ownership.

    /// Hash of the flow a packet belongs to: for an ICMP error that of the flow it is about.
    #[inline]
    pub(super) fn flow_hash(&self, frame: &Frame, packet: &Packet) -> u64 {
        let about = flow::error_about(packet, self.umem.head(frame));
        self.tracker.hash(about.as_ref().unwrap_or(&packet.tuple))
    }

    /// Which worker owns the flow with this hash. Multiply-shift over the high 16 bits: buckets use the low 48.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "a fraction of at most 64 workers")]
    pub(super) fn owner(&self, hash: u64) -> WorkerId {
        WorkerId((((hash >> 48) * self.workers) >> 16) as u8)
    }

    /// Gives a packet to the worker that owns its flow.
    pub(super) fn hand_off(&mut self, owner: WorkerId, handed: Handed) {
        let back = match self.handoff.to(owner) {
            Some(peer) => peer.hand(handed).err(),
            None => Some(handed),
        };
        match back {
            None => self.counters.polls.handed_off.add(1),
            Some(Handed { frame, packet, ingress }) => {
                self.drop_frame(frame, DropReason::HandoffFull, ingress, Some(&packet));
            }
        }
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

    /// An IP packet: track, decide, act.
    pub(super) fn judge(&mut self, frame: Frame, packet: &Packet, ingress: PortId, now: Now) {
        let mut tracked = self.track(&frame, packet, now);
        let decided = self.decide(packet, &tracked, ingress);
        let mut fate = Fate { ingress, dropped: None, ct_state: Some(tracked.state), rule: Some(decided.by) };
        match decided.verdict {
            Verdict::Accept => {
                if self.commit(packet, &mut tracked, now) {
                    self.forward(frame, packet, fate);
                } else {
                    fate.dropped = Some(DropReason::FlowTableFull);
                    self.discard(frame, Some(packet), fate);
                }
            }
            Verdict::Drop => {
                let by_policy = decided.by.rule.is_none();
                fate.dropped = Some(if by_policy { DropReason::PolicyDrop } else { DropReason::RuleDrop });
                self.discard(frame, Some(packet), fate);
            }
            Verdict::Reject(with) => self.reject(frame, packet, &tracked, with, now, fate),
        }
    }

    #[inline]
    fn track(&mut self, frame: &Frame, packet: &Packet, now: Now) -> Tracked {
        let snapshot = &*self.snapshot;
        if !snapshot.rules(packet.tuple.family).track {
            return Tracked::untracked();
        }
        let tracked = self.tracker.track(packet, self.umem.head(frame), now, &snapshot.settings.track);
        // As in the kernel, a flow's packets count whatever the rules say about them.
        if let FlowRef::Existing(slot) = tracked.flow {
            self.tracker.count(slot, tracked.direction, packet.l3_len);
        }
        tracked
    }

    /// Remembers the flow that an accepted packet starts. False if there is no room for it.
    #[inline]
    fn commit(&mut self, packet: &Packet, tracked: &mut Tracked, now: Now) -> bool {
        let FlowRef::Tentative(_) = tracked.flow else { return true };
        match self.tracker.commit(packet, tracked, now) {
            Ok(Some(slot)) => self.tracker.count(slot, tracked.direction, packet.l3_len),
            Ok(None) => {}
            Err(TableFull) => return false,
        }
        true
    }

    /// Rules on a packet. Tier one: the flow has a verdict of this generation for this direction and ingress NIC.
    /// Else classify, and remember the path through the rules if only facts of the flow decided it.
    #[inline]
    fn decide(&mut self, packet: &Packet, tracked: &Tracked, ingress: PortId) -> Decided {
        let Self { snapshot, tracker, counters, matched, marks, id, .. } = self;
        let rules = snapshot.rules(packet.tuple.family);
        let rule_counters = &rules.counters[id.index()];
        let bytes = u64::from(packet.l3_len);
        if let Some(word) = tracker.cached_verdict(tracked, snapshot.generation)
            && let Some(path) = path_from(word, ingress)
        {
            counters.polls.verdict_hits.add(1);
            rule_counters.count_path(path, bytes);
            let (verdict, by) = rules.compiled.outcome(rule_counters.deciding_line(path));
            return Decided { verdict, by };
        }
        counters.polls.classified.add(1);
        let facts = Facts { packet, ct_state: tracked.state, conn: None, ingress, egress: ingress.peer() };
        marks.reset(0);
        let Decision { verdict, by, invariant } = rules.compiled.classify(&facts, marks, matched);
        let cacheable = invariant && matches!(tracked.flow, FlowRef::Existing(_));
        match cacheable.then(|| rule_counters.intern(matched.lines(), matched.decider())).flatten() {
            Some(path) => {
                rule_counters.count_path(path, bytes);
                tracker.cache_verdict(tracked, snapshot.generation, path_word(path, ingress));
            }
            None => rule_counters.count_lines(matched.lines(), bytes),
        }
        Decided { verdict, by }
    }

    /// Turns the offender into its answer, in place, and sends that back where it came from.
    fn reject(
        &mut self,
        mut frame: Frame,
        packet: &Packet,
        tracked: &Tracked,
        with: RejectWith,
        now: Now,
        mut fate: Fate,
    ) {
        let limited = with != RejectWith::TcpReset && !self.answers.take();
        if with == RejectWith::TcpReset
            && let FlowRef::Existing(slot) = tracked.flow
        {
            self.tracker.close_rejected(slot, now, &self.snapshot.settings.track);
        }
        let first_len = self.umem.head_len(&frame);
        let answer = (!limited)
            .then(|| wire::reject::build(self.umem.buffer_mut(&mut frame), first_len, packet, with))
            .flatten();
        let Some(len) = answer else {
            fate.dropped = Some(DropReason::RuleRejectSilent);
            return self.discard(frame, Some(packet), fate);
        };
        fate.dropped = Some(DropReason::RuleReject);
        self.note_drop(Some(packet), packet.frame_len, &fate);
        let frame = self.pool.shorten(frame, len);
        match self.send(frame, fate.ingress) {
            Ok(len) => self.counters.port(fate.ingress).answers.count(u64::from(len)),
            Err((frame, _)) => self.free(frame),
        }
    }

    // Acting.

    /// Sends a packet out of the other NIC of its wire.
    #[inline]
    fn forward(&mut self, frame: Frame, packet: &Packet, mut fate: Fate) {
        match self.send(frame, fate.ingress.peer()) {
            Ok(len) => {
                self.counters.port(fate.ingress).forwarded.count(u64::from(len));
                self.observer.fate(Some(packet), &fate);
            }
            Err((frame, reason)) => {
                fate.dropped = Some(reason);
                self.discard(frame, Some(packet), fate);
            }
        }
    }

    /// Puts a frame on a NIC's tx ring.
    #[inline]
    fn send(&mut self, frame: Frame, egress: PortId) -> Result<u32, (Frame, DropReason)> {
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
    pub(super) fn drop_frame(
        &mut self,
        frame: Frame,
        reason: DropReason,
        ingress: PortId,
        packet: Option<&Packet>,
    ) {
        self.discard(frame, packet, Fate { ingress, dropped: Some(reason), ct_state: None, rule: None });
    }

    fn discard(&mut self, frame: Frame, packet: Option<&Packet>, fate: Fate) {
        self.note_drop(packet, frame.len(), &fate);
        self.free(frame);
    }

    fn note_drop(&mut self, packet: Option<&Packet>, bytes: u32, fate: &Fate) {
        if let Some(reason) = fate.dropped {
            self.counters.port(fate.ingress).dropped(reason, bytes);
        }
        self.observer.fate(packet, fate);
    }

    #[inline]
    fn free(&mut self, frame: Frame) {
        self.pool.free(frame);
    }

    // Between bursts.

    /// Whether a burst from this lane would fit the egress ring. Leaving packets on the rx ring costs nothing and
    /// keeps them; taking them only to drop them costs a whole pass.
    pub(super) fn has_tx_room(&mut self, lane: usize) -> bool {
        let egress = self.lane_of[self.lanes[lane].port.peer().index()];
        let device = &mut self.lanes[usize::from(egress)].device;
        if device.tx_room() >= BURST_MAX || device.is_link_down() {
            return true;
        }
        device.flush();
        device.replenish(&mut self.pool);
        device.tx_room() >= BURST_MAX
    }

    /// Publishes and kicks every device touched since the last flush, and wakes workers that were handed something.
    pub(super) fn flush(&mut self) {
        let mut touched = std::mem::take(&mut self.touched);
        while touched != 0 {
            self.lanes[touched.trailing_zeros() as usize].device.flush();
            touched &= touched - 1;
        }
        self.handoff.flush();
    }

    /// Everything that waits for the gap between bursts, in bounded slices.
    pub(super) fn tidy(&mut self, now: Now) {
        if let Some(newest) = self.mailbox.observe(self.snapshot.generation) {
            let generation = newest.generation;
            self.snapshot = newest;
            self.mailbox.adopt(self.id, generation);
        }
        self.answers.refill(self.snapshot.settings.answers, now);
        for peer in &mut self.handoff.peers {
            while let Ok(frame) = peer.homecoming.pop() {
                self.pool.free(frame);
            }
        }
        for lane in &mut self.lanes {
            if lane.device.is_tx_pending() {
                lane.device.flush();
            }
            lane.device.replenish(&mut self.pool);
        }
        self.send_frames_home();
        for _ in 0..EXPIRE_MAX {
            let Ok(named) = self.expired.pop() else { break };
            self.tracker.expire(named.slot, named.seq, now);
        }
        if self.published.is_none_or(|then| now.nanos.wrapping_sub(then.nanos) >= super::PUBLISH_NANOS) {
            self.published = Some(now);
            self.publish();
        }
    }

    /// Copies out what devices and flow table have counted.
    fn publish(&self) {
        for (lane, counters) in self.lanes.iter().zip(&self.counters.lanes) {
            counters.publish(&lane.device.counters());
        }
        self.counters.track.publish(self.tracker.stats());
        self.counters.polls.flows.set(u64::from(self.tracker.flow_count()));
    }

    /// Frames of other workers' pools that ended here go back.
    fn send_frames_home(&mut self) {
        while let Some((home, frame)) = self.pool.next_foreign() {
            let peer = self.handoff.to(home).expect("foreign frames come from workers in the mesh");
            peer.send_home(frame);
        }
        self.handoff.flush();
    }

    /// Whether neither a ring nor the mailbox holds anything for us and nothing of ours waits for a kick.
    pub(super) fn nothing_waits(&self) -> bool {
        self.handoff.peers.iter().all(|peer| peer.packets_in.is_empty() && peer.homecoming.is_empty())
            && self.expired.is_empty()
            && self.mailbox.observe(self.snapshot.generation).is_none()
            && !self.lanes.iter().any(|lane| lane.device.is_tx_pending())
    }
}

/// A cached verdict: the path through the rules in the low 24 bits, the ingress NIC it holds for above.
fn path_word(path: PathId, ingress: PortId) -> u32 {
    path.0 | u32::from(ingress.0) << 24
}

fn path_from(word: u32, ingress: PortId) -> Option<PathId> {
    (word >> 24 == u32::from(ingress.0)).then_some(PathId(word & 0x00ff_ffff))
}
