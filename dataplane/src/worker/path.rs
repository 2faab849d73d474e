//! The judge stage: what a worker does with one packet, from its flow to the tx ring, and what it tidies up between
//! bursts. Worker thread only.

mod fragments;
mod source;

use super::answers::AnswerBucket;
use super::handoff::Handed;
use super::notes::{NoteLog, RuleNotes};
use super::observer::{Fate, Observer};
use super::snapshot::{Mailbox, Snapshot};
use super::{Handoff, Lane, Parts, PortState, Waker, WorkerCounters};
use crate::clock::Now;
use crate::defrag::{Defrag, DefragLimits, Whole};
use crate::device::{BURST_MAX, Device};
use crate::flow::{
    self, Claim, Expired, FlowRef, FullPolicy, INGRESS_SHIFT, InvalidReason, Request, Slot, TableFull,
    Tracked, Tracker,
};
use crate::ids::{PORTS_MAX, PortId, WorkerId};
use crate::packet::{Family, Fragment, Packet, Tuple, proto};
use crate::reason::DropReason;
use crate::rules::conn::{Flows, Marks, Orders};
use crate::rules::model::{CtState, RejectWith, RuleRef, Verdict};
use crate::rules::rate::Rates;
use crate::rules::{Decision, Facts, Matched, PathId};
use crate::sets::SetAsk;
use crate::wire::{self, checksum};
use crate::xsk::{Frame, FramePool, Umem};
use rtrb::{Consumer, Producer};
use source::Source;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Most expired flows removed between two bursts.
const EXPIRE_MAX: usize = 64;

/// Most requests of control's served between two bursts.
const REQUESTS_MAX: usize = 64;

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
    requests: Consumer<Request>,
    set_asks: Option<Producer<SetAsk>>,
    notes: NoteLog,
    /// Whether rules have changed the packet in question.
    changed: bool,
    published: Option<Now>,
    matched: Matched,
    marks: Marks,
    answers: AnswerBucket,
    defrag: Defrag,
    whole: Whole,
    pub(super) observer: O,
}

const NO_LANE: u8 = u8::MAX;

/// Bytes of a frame around its IP packet, one VLAN tag included.
const LINK_OVERHEAD: u32 = 18;

/// Whether a rule dropped the packet, or its chain's policy.
const fn drop_reason(by: RuleRef) -> DropReason {
    if by.rule.is_none() { DropReason::PolicyDrop } else { DropReason::RuleDrop }
}

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

/// What rules said, which one, and whether it is marked as management.
#[derive(Clone, Copy)]
struct Decided {
    verdict: Verdict,
    by: RuleRef,
    management: bool,
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
            requests,
            set_asks,
            notes,
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
        // Held fragments must leave the pool enough to receive with: both are counted in chunks.
        let limits = DefragLimits { frames: pool.len() / 4 };
        let mut path = Self {
            defrag: Defrag::new(limits),
            whole: Whole::new(),
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
            requests,
            set_asks,
            notes: NoteLog::new(notes),
            changed: false,
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

    /// Parses a frame whose headers may go on behind its first chunk: IPv6 extension headers can be as long as that.
    #[cold]
    pub(super) fn parse_spread(&mut self, frame: &Frame, packet: &mut Packet) -> Result<(), DropReason> {
        self.whole.copy(&self.umem, frame);
        wire::parse_into(self.whole.bytes(), frame.len(), packet)
    }

    // Ownership.

    /// Hash of the flow a packet belongs to: for an ICMP error that of the flow it is about.
    /// Fragments of a datagram know no ports, and of IPv6 only the first one knows the protocol for sure: they meet by
    /// what they have in common.
    #[inline]
    pub(super) fn flow_hash(&mut self, frame: &Frame, packet: &Packet) -> u64 {
        let tuple = &packet.tuple;
        if packet.fragment != Fragment::Whole {
            let proto = if tuple.family == Family::V4 { tuple.proto } else { proto::FRAGMENT };
            return self.tracker.hash(&Tuple { src_port: 0, dst_port: 0, proto, ..*tuple });
        }
        if frame.segments() > 1 && matches!(tuple.proto, proto::ICMP | proto::ICMPV6) {
            self.whole.copy(&self.umem, frame);
            return self.hash_of(packet, self.whole.bytes());
        }
        self.hash_of(packet, self.umem.head(frame))
    }

    #[inline]
    fn hash_of(&self, packet: &Packet, bytes: &[u8]) -> u64 {
        let about = flow::error_about(packet, bytes);
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

    /// An IP packet: put together if it is a piece of one, and judged.
    pub(super) fn judge(&mut self, frame: Frame, packet: &mut Packet, ingress: PortId, now: Now) {
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
        self.ask_sets();
        sentence
    }

    /// Hands on what rules want changed about sets. What finds no room is counted.
    #[inline]
    fn ask_sets(&mut self) {
        for ask in self.marks.set_asks.drain(..) {
            if self.set_asks.as_mut().is_some_and(|asks| asks.push(ask).is_err()) {
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
                        Fate { ingress, dropped: Some(drop_reason(by)), ct_state: None, rule: Some(by) };
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
                fate.dropped = self.accept(&source, packet, l3_len, &mut tracked, now, claim).err();
            }
            Verdict::Drop => fate.dropped = Some(drop_reason(decided.by)),
            Verdict::Reject(with) => {
                let is_sound = checksum::l4_ok(source.bytes(&self.umem), packet);
                reject = Some(Rejection { with, is_sound });
            }
        }
        self.tracker.finish(&tracked, fate.dropped.is_none() && reject.is_none());
        Sentence { fate, tracked, reject }
    }

    // Tracking and rules.

    /// The raw rules on a packet that is not tracked yet: their orders to the tracker, or the rule that dropped it.
    fn raw(
        &mut self,
        source: &mut Source<'_>,
        packet: &mut Packet,
        ingress: PortId,
        now: Now,
    ) -> Result<Orders, RuleRef> {
        let mtu = self.mtu(ingress);
        let Self { snapshot, tracker, matched, marks, id, umem, counters, notes, changed, .. } = self;
        let rules = snapshot.rules(packet.tuple.family);
        let rule_counters = &rules.counters[id.index()];
        let flows = tracker.tables(now);
        let notes = RuleNotes { log: notes, rules: &rules.compiled, unlogged: &counters.polls.unlogged };
        let about = Facts {
            packet: &Packet::EMPTY,
            bytes: &[],
            now,
            rates: Rates::Live(&snapshot.settings.wall),
            ct_state: CtState::Invalid,
            conn: None,
            flows: &flows,
            is_raw: true,
            ingress,
            egress: ingress.peer(),
            mtu,
            notes: &notes,
        };
        marks.reset(0);
        let facts = Facts { packet, bytes: source.bytes(umem), ..about };
        let mut decision = rules.compiled.classify_raw(&facts, marks, matched);
        while let Some(alter) = matched.alter() {
            rule_counters.count_lines(matched.lines(), u64::from(packet.l3_len));
            matched.forget_lines();
            *changed = true;
            if source.change(umem, packet, alter, mtu).is_err() {
                break;
            }
            let facts = Facts { packet, bytes: source.bytes(umem), ..about };
            decision = Some(rules.compiled.resume(&facts, marks, matched));
        }
        rule_counters.count_lines(matched.lines(), u64::from(packet.l3_len));
        match decision {
            Some(Decision { verdict: Verdict::Drop | Verdict::Reject(_), by, .. }) => Err(by),
            _ => Ok(marks.orders.map_or_else(Orders::default, |orders| orders.with_mark(marks.packet))),
        }
    }

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

    /// Rules on a packet. Tier one: the flow has a verdict of this generation for this direction and ingress NIC.
    /// Else classify, and remember the path through the rules if only facts of the flow decided it.
    #[inline]
    fn decide(
        &mut self,
        source: &mut Source<'_>,
        packet: &mut Packet,
        tracked: &Tracked,
        ingress: PortId,
        now: Now,
    ) -> Decided {
        let mtu = self.mtu(ingress);
        let Self { snapshot, tracker, counters, matched, marks, id, umem, notes, changed, .. } = self;
        let rules = snapshot.rules(packet.tuple.family);
        let rule_counters = &rules.counters[id.index()];
        let mut bytes = u64::from(packet.l3_len);
        if let Some(word) = tracker.cached_verdict(tracked, rules.since)
            && let Some(path) = path_from(word, ingress)
        {
            counters.polls.verdict_hits.add(1);
            rule_counters.count_path(path, bytes);
            let (verdict, by) = rules.compiled.outcome(rule_counters.deciding_line(path));
            return Decided { verdict, by, management: false };
        }
        counters.polls.classified.add(1);
        let asks_conn = rules.compiled.asks_conn();
        let conn = if asks_conn { tracker.conn(packet, tracked, now) } else { None };
        marks.reset(if asks_conn { tracker.mark(tracked) } else { 0 });
        let notes = RuleNotes { log: notes, rules: &rules.compiled, unlogged: &counters.polls.unlogged };
        let flows = tracker.tables(now);
        let about = Facts {
            packet: &Packet::EMPTY,
            bytes: &[],
            now,
            rates: Rates::Live(&snapshot.settings.wall),
            ct_state: tracked.state,
            conn: conn.as_ref(),
            flows: &flows,
            is_raw: false,
            ingress,
            egress: ingress.peer(),
            mtu,
            notes: &notes,
        };
        let facts = Facts { packet, bytes: source.bytes(umem), ..about };
        let mut decision = rules.compiled.classify(&facts, marks, matched);
        while let Some(alter) = matched.alter() {
            // Rules count the packet as it was when they met it.
            rule_counters.count_lines(matched.lines(), bytes);
            matched.forget_lines();
            *changed = true;
            if source.change(umem, packet, alter, mtu).is_err() {
                break;
            }
            bytes = u64::from(packet.l3_len);
            let facts = Facts { packet, bytes: source.bytes(umem), ..about };
            decision = rules.compiled.resume(&facts, marks, matched);
        }
        let Decision { verdict, by, invariant, management } = decision;
        if marks.conn_is_set {
            tracker.set_mark(tracked, marks.conn);
        }
        let cacheable = invariant && matches!(tracked.flow, FlowRef::Existing(_));
        let decider = matched.decider();
        match cacheable.then(|| rule_counters.intern(matched.lines(), decider)).flatten() {
            Some(path) => {
                rule_counters.count_path(path, bytes);
                tracker.cache_verdict(tracked, rules.since, path_word(path, ingress));
            }
            None => rule_counters.count_lines(matched.lines(), bytes),
        }
        Decided { verdict, by, management }
    }

    /// The largest IP packet that both NICs of a wire can carry.
    #[inline]
    fn mtu(&self, ingress: PortId) -> u32 {
        let of = |port: PortId| self.ports[port.index()].frame_len_max.load(Relaxed);
        of(ingress).min(of(ingress.peer())).saturating_sub(LINK_OVERHEAD)
    }

    /// Turns the offender into its answer, in place, and sends that back where it came from. Its first `first_len` bytes
    /// are in the first chunk of `frame`. Returns what it was dropped for: with an answer, or without.
    #[expect(clippy::too_many_arguments, reason = "what a packet is, and what was said of it")]
    fn reject(
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
        self.note_drop(frame.id(), Some(packet), packet.frame_len, &fate);
        let frame = self.pool.shorten(frame, len);
        match self.send(frame, fate.ingress) {
            Ok(len) => self.counters.port(fate.ingress).answers.count(u64::from(len)),
            Err((frame, _)) => self.free(frame),
        }
        DropReason::RuleReject
    }

    // Acting.

    /// Sends a packet out of the other NIC of its wire.
    #[inline]
    fn forward(&mut self, frame: Frame, packet: &Packet, mut fate: Fate) {
        let id = frame.id();
        match self.send(frame, fate.ingress.peer()) {
            Ok(len) => {
                self.counters.port(fate.ingress).forwarded.count(u64::from(len));
                self.observer.fate(id, Some(packet), &fate);
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
        self.note_drop(frame.id(), packet, frame.len(), &fate);
        self.free(frame);
    }

    fn note_drop(&mut self, frame: u64, packet: Option<&Packet>, bytes: u32, fate: &Fate) {
        if let Some(reason) = fate.dropped {
            self.counters.port(fate.ingress).dropped(reason, bytes);
        }
        self.observer.fate(frame, packet, fate);
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
        self.tracker.look_for_listeners(now);
        let settings = &self.snapshot.settings;
        self.tracker.adopt(&settings.track, &settings.policies);
        self.answers.refill(self.snapshot.settings.answers, now);
        if self.snapshot.settings.track.log_invalid != 0 {
            self.notes.refill(now);
        }
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
        self.expire_datagrams(now);
        // After all that frees frames.
        self.send_frames_home();
        for _ in 0..EXPIRE_MAX {
            let Ok(named) = self.expired.pop() else { break };
            self.tracker.expire(named, now);
        }
        self.serve_requests(now);
        if self.published.is_none_or(|then| now.nanos.wrapping_sub(then.nanos) >= super::PUBLISH_NANOS) {
            self.published = Some(now);
            self.publish();
        }
    }

    /// Does what control wants done to flows, in the order in which it asked.
    #[inline]
    fn serve_requests(&mut self, now: Now) {
        if self.requests.is_empty() && !self.tracker.is_flushing() {
            return;
        }
        for _ in 0..REQUESTS_MAX {
            if self.tracker.is_flushing() {
                if !self.tracker.flush_on() {
                    return;
                }
                self.counters.polls.served.add(1);
            }
            let Ok(request) = self.requests.pop() else { return };
            self.tracker.serve(request, now);
            if !self.tracker.is_flushing() {
                self.counters.polls.served.add(1);
            }
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
            && self.requests.is_empty()
            && !self.tracker.is_flushing()
            && self.mailbox.observe(self.snapshot.generation).is_none()
            && !self.lanes.iter().any(|lane| lane.device.is_tx_pending())
    }
}

/// A cached verdict: the path through the rules in the low 24 bits, the ingress NIC it holds for above.
fn path_word(path: PathId, ingress: PortId) -> u32 {
    path.0 | u32::from(ingress.0) << INGRESS_SHIFT
}

fn path_from(word: u32, ingress: PortId) -> Option<PathId> {
    (word >> INGRESS_SHIFT == u32::from(ingress.0)).then_some(PathId(word & ((1 << INGRESS_SHIFT) - 1)))
}
