//! A worker: one pinned thread that polls its NIC queues and takes every packet from rx to tx.
//!
//! The way of a burst, one pass per stage over up to 64 packets:
//! 1. **rx**: whole packets from one queue ([`Device::rx_burst`]), unless the egress ring has no room for them;
//! 2. **parse**: headers to [`Packet`]s; malformed and unlisted frames end here, each with its reason; non-IP frames
//!    that may pass go straight on; packets whose flow lives elsewhere go to their owner;
//!    the index buckets of the others are asked for;
//! 3. **prefetch**: flow records;
//! 4. **judge**: in order of arrival, because a packet may depend on the one before it: track,
//!    decide, and act. Deciding has three tiers: a flow hit with a verdict cached under this generation; a flow hit
//!    that has to be classified again; a miss, which is classified and enters the table only if accepted;
//! 5. **flush**: at most one kick per device touched.
//!
//! Between bursts (`Path::tidy`): newest snapshot adopted, frames sent home, fill rings topped up, flows that control
//! found expired removed, requests about flows served.
//!
//! Nothing here locks, allocates or formats per packet. All state is owned by the thread; what others see of it
//! (counters, the flow region) is atomics they may only read.

mod answers;
mod counters;
mod handoff;
mod histogram;
mod hold;
mod idle;
mod lanes;
mod moves;
mod notes;
mod observer;
mod path;
mod set_asks;
mod snapshot;
mod steering;
pub mod tap;

pub use counters::{
    Counter, HandoffCounters, LaneCounters, LoopCounters, PeerCounters, PortCounters, TrackCounters, Volume,
    WorkerCounters,
};
pub use handoff::{HANDOFF_CAUSES, Handoff, HandoffCause};
pub use histogram::Histogram;
pub use idle::{IdlePolicy, Waker};
pub use lanes::deal_lanes;
pub use moves::Moves;
pub use notes::{LINE_BYTES, Note, NoteReader, NoteWriter, Why, note_rings};
pub use observer::{Fate, Observer};
pub use set_asks::SetAsks;
pub use snapshot::{AnswerRate, FamilyRules, L2Policy, Mailbox, Settings, Snapshot};
pub(crate) use steering::place;
pub use steering::{BucketMove, Spread, Stage, Steering};

use crate::clock::Now;
use crate::device::{BURST_MAX, Device, FrameBurst};
use crate::flow::{Expired, Request, Tracker};
use crate::ids::{PortId, WorkerId};
use crate::packet::Packet;
use crate::xsk::{FramePool, Umem};
use handoff::{Errand, Label, Parcels};
use path::Path;
use rtrb::Consumer;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};

/// How often a worker copies out what its devices have counted.
pub const PUBLISH_NANOS: u64 = 50_000_000;

/// One NIC queue in a worker's care.
#[derive(Debug)]
pub struct Lane<D> {
    /// The NIC.
    pub port: PortId,
    /// Its queue.
    pub device: D,
}

/// What control knows about a NIC and workers have to: written by control, read by workers.
#[derive(Debug)]
pub struct PortState {
    /// Largest frame the NIC sends, in bytes from the Ethernet header on, one VLAN tag included.
    pub frame_len_max: AtomicU32,
    /// Whether the link is up.
    pub link_up: AtomicBool,
}

/// Everything a worker is made of.
#[derive(Debug)]
pub struct Parts<D> {
    /// Which worker this is.
    pub id: WorkerId,
    /// Which worker owns which flows, and how that changes.
    pub moves: Moves,
    /// The memory all frames live in.
    pub umem: Arc<Umem>,
    /// This worker's share of the frames.
    pub pool: FramePool,
    /// The queues it serves, if any. What leaves on a NIC of which it has none is sent by another worker
    /// ([`Handoff::share_lanes`]).
    pub lanes: Vec<Lane<D>>,
    /// State of all NICs, by [`PortId`].
    pub ports: Arc<[PortState]>,
    /// Its flow table.
    pub tracker: Tracker,
    /// Where snapshots come from.
    pub mailbox: Arc<Mailbox>,
    /// Where it counts.
    pub counters: Arc<WorkerCounters>,
    /// Rings to and from the other workers.
    pub handoff: Handoff,
    /// What wakes it.
    pub waker: Arc<Waker>,
    /// Flows that control found expired.
    pub expired: Consumer<Expired>,
    /// What control wants done to flows.
    pub requests: Consumer<Request>,
    /// Where packets go that are to be logged, if anywhere.
    pub notes: Option<NoteWriter>,
    /// Where rules' orders about sets go, if anywhere.
    pub set_asks: Option<SetAsks>,
}

/// A worker. `O` watches what becomes of every packet; `()` watches nothing and costs nothing.
#[derive(Debug)]
pub struct Worker<D, O = ()> {
    path: Path<D, O>,
    rx: FrameBurst,
    frames: FrameBurst,
    /// Parsed headers of `frames`, at the same positions.
    packets: Box<[Packet; BURST_MAX]>,
    /// Packets taken over from another worker.
    parcels: Parcels,
    /// Where `frames` that were taken over came in, at the same positions.
    from: [PortId; BURST_MAX],
    /// When the round before this one began, if it found packets.
    busy_since: Option<Now>,
}

impl<D: Device, O: Observer> Worker<D, O> {
    /// Puts a worker together.
    ///
    /// # Panics
    /// If nobody sends out of a NIC.
    pub fn new(parts: Parts<D>, observer: O) -> Self {
        Self {
            path: Path::new(parts, observer),
            rx: FrameBurst::new(),
            frames: FrameBurst::new(),
            packets: Box::new([Packet::EMPTY; BURST_MAX]),
            parcels: Parcels::new(),
            from: [PortId(0); BURST_MAX],
            busy_since: None,
        }
    }

    /// One round over all queues and rings. Returns how many packets it handled.
    pub fn poll(&mut self, now: Now) -> usize {
        if let Some(began) = self.busy_since.take() {
            // Whoever was busy neither slept nor gave his core away since: his clock is read once a round, and that does.
            self.path.counters.polls.busy_nanos.record(now.nanos.saturating_sub(began.nanos));
        }
        self.path.tidy(now);
        let mut handled = 0;
        for lane in 0..self.path.lanes.len() {
            handled += self.serve(lane, now);
        }
        handled += self.serve_handed(now);
        let polls = &self.path.counters.polls;
        if handled > 0 {
            polls.busy_polls.add(1);
            polls.busy_packets.record(handled as u64);
            self.busy_since = Some(now);
        } else {
            polls.idle_polls.add(1);
        }
        handled
    }

    /// Takes one burst from a queue all the way.
    fn serve(&mut self, lane: usize, now: Now) -> usize {
        if !self.path.has_tx_room(lane) {
            return 0;
        }
        let received = self.path.lanes[lane].device.rx_burst(&mut self.rx);
        self.path.note_drained(lane, received);
        if received > 0 {
            self.serve_burst(self.path.lanes[lane].port, now);
        }
        self.path.flush();
        received
    }

    /// The burst just received from a NIC: parsed, then judged, one pass each.
    fn serve_burst(&mut self, ingress: PortId, now: Now) {
        let Self { path, rx, frames, packets, .. } = self;
        let survey = path.survey(rx, packets);
        path.counters.port(ingress).rx.count_many(rx.len() as u64, survey.bytes);
        if path.taps.is_on() {
            path.show_burst(rx, ingress);
        }
        let ours = if survey.is_all_ours() {
            rx
        } else {
            path.settle(rx, survey, packets, ingress, frames);
            frames
        };
        path.tracker.prefetch(&mut packets[..ours.len()]);
        let (mut waiting, mut next) = (ours.drain(..), 0);
        while let Some(frame) = path.express(&mut waiting, packets, &mut next, ingress, now) {
            path.tracker.prefetch_next(packets.get(next + 1));
            path.judge(frame, &mut packets[next - 1], ingress, now);
        }
    }

    /// Takes over what other workers have for us: judges packets whose flows live here, and sends those that were judged
    /// elsewhere. One burst from each of them, and more of what waits by now if it can be sent: it has cost others work
    /// already, and a worker with more queues than one hands over more than a burst in a round.
    fn serve_handed(&mut self, now: Now) -> usize {
        let mut handled = 0;
        for peer in 0..self.path.handoff.peer_count() {
            let waiting = self.path.handoff.waiting(peer);
            let mut taken = 0;
            while taken < waiting && (taken == 0 || self.path.all_have_tx_room()) {
                taken += self.take_over(peer, now);
                self.path.flush();
            }
            handled += taken;
        }
        handled
    }

    /// One burst from another worker.
    fn take_over(&mut self, peer: usize, now: Now) -> usize {
        let Self { path, parcels, packets, .. } = self;
        let source = path.handoff.peer_id(peer);
        path.handoff.take(peer, now, &path.counters.handoff, &path.umem, parcels);
        let taken = parcels.len();
        let Self { frames, from, .. } = self;
        for (frame, Label { ingress, errand, bucket }) in parcels.drain(..) {
            match errand {
                Errand::Judge(_) => {
                    let at = frames.len();
                    let packet = &mut packets[at];
                    let Some(frame) = path.parse(frame, packet, ingress) else { continue };
                    path.steer(&frame, packet, Some(bucket));
                    if let Some(frame) = path.keep_ours(source, frame, packet, ingress) {
                        from[at] = ingress;
                        frames.push(frame);
                    }
                }
                Errand::JudgeAlone => path.judge_alone(source, frame, ingress, now),
                Errand::Forward => path.forward_for_other(frame, ingress),
                Errand::Answer => path.answer_for_other(frame, ingress),
            }
        }
        let packets = &mut self.packets[..self.frames.len()];
        packets.iter().for_each(|packet| self.path.count_bucket(packet));
        self.path.tracker.prefetch(packets);
        for (at, frame) in self.frames.drain(..).enumerate() {
            self.path.tracker.prefetch_next(packets.get(at + 2));
            self.path.judge(frame, &mut packets[at], self.from[at], now);
        }
        taken
    }

    /// The devices this worker serves, for tests and for replay, which feed and empty them by hand.
    pub fn lanes_mut(&mut self) -> &mut [Lane<D>] {
        &mut self.path.lanes
    }

    /// The devices together with the pool that feeds them.
    pub fn lanes_and_pool(&mut self) -> (&mut [Lane<D>], &mut FramePool) {
        (&mut self.path.lanes, &mut self.path.pool)
    }

    /// The frame pool, for the frame accounting.
    pub fn pool_mut(&mut self) -> &mut FramePool {
        &mut self.path.pool
    }

    /// Chunks of frames held for datagrams that are not complete, or until their flows have come.
    #[must_use]
    pub fn frames_held(&self) -> usize {
        self.path.frames_held() + self.path.moves.hold.chunks()
    }

    /// Chunks on their way from other workers, and those about to leave for them, for the frame accounting.
    pub fn frames_under_way(&mut self) -> usize {
        self.path.handoff.frames_under_way()
    }

    /// Has every packet go the long way from now on, or only those that must: for tests that compare the two.
    pub fn go_the_long_way(&mut self, always: bool) {
        self.path.without_express = always;
    }

    /// The flow table.
    pub fn tracker_mut(&mut self) -> &mut Tracker {
        &mut self.path.tracker
    }

    /// What watches the packets.
    pub fn observer_mut(&mut self) -> &mut O {
        &mut self.path.observer
    }
}
