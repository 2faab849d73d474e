//! The tracker: one worker's connection tracking. Owner thread only.
//!
//! A burst goes through it in passes: [`Tracker::prefetch_index`] for all packets, then [`Tracker::prefetch`], then in order
//! [`Tracker::track`], the rules' verdict, if that is to forward [`Tracker::commit`], and [`Tracker::finish`]. What a
//! packet costs: a hit reads the record's first line, and its second for TCP; a miss reads one bucket, sometimes two.
//!
//! How packets are judged is in `judge` and `protocols`; how flows come and go in `opening` and `ending`.

mod ending;
mod express;
mod judge;
mod opening;
mod protocols;
mod verdicts;

pub use verdicts::{Remembered, Said, Tenure};

use super::events::{Events, FlowEvent, Listening};
use super::expect::Expectations;
use super::helped::Helped;
use super::key::{Seed, flow_hash};
use super::record::{Life, Record, Slot, status};
use super::region::Region;
use super::room::Limits;
use super::settings::{Policies, TrackSettings};
use super::stats::TrackStats;
use super::table::Table;
use super::tracked::{Direction, FlowRef, Tracked};
use super::view::Cursor;
use crate::clock::{Now, Tick};
use crate::ids::WorkerId;
use crate::packet::{Packet, Plain, Tuple};
use crate::rules::conn::{CtEvents, Orders, Zone};
use crate::rules::model::CtState;
pub(super) use opening::Opening;
use rtrb::Producer;
use std::io;
use std::sync::Arc;

/// How a worker's table is made.
#[derive(Clone, Copy, Debug)]
pub struct TrackerConfig {
    /// Most flows of both families together; at most 2^30.
    pub max_flows: u32,
    /// Most IPv6 flows among them. Address space, and with the hugetlb pool memory, is set aside for both.
    pub max_flows_v6: u32,
    /// Whose table it is.
    pub worker: WorkerId,
    /// The process's secret.
    pub seed: Seed,
    /// Try for 2 MiB pages.
    pub hugepages: bool,
    /// Take all memory at once rather than as flows come.
    pub prefault: bool,
}

/// One worker's connection tracking. See the module's head.
#[derive(Debug)]
pub struct Tracker {
    pub(super) table: Table,
    pub(super) id: WorkerId,
    max_flows: u32,
    pub(super) limits: Limits,
    /// Where the last sweep for half-open flows ended.
    pub(super) hand: u32,
    half_open: u32,
    pub(super) stats: TrackStats,
    /// What the packet tracked last would start.
    opening: Opening,
    /// Whether a rule has ever put a packet into a zone.
    zones_seen: bool,
    /// The tables of all workers, this one's included, by worker.
    pub(super) peers: Arc<[Arc<Region>]>,
    pub(super) expectations: Arc<Expectations>,
    pub(super) helped: Helped,
    /// Where events go, if anywhere.
    pub(super) events: Option<Events>,
    /// When the last packet was tracked.
    tick: Tick,
    /// Whether flows that begin can have labels.
    labels: bool,
    /// Settings of the flows under each timeout policy.
    policies: Arc<[TrackSettings]>,
    /// Where a flush that control has asked for goes on.
    pub(super) flush: Option<Cursor>,
}

/// A packet, and what it is judged by.
#[derive(Clone, Copy)]
struct Arrival<'a> {
    packet: &'a Packet,
    /// The frame, or its first segment.
    bytes: &'a [u8],
    now: Tick,
    /// What its flow goes by.
    settings: &'a TrackSettings,
    /// What flows without a timeout policy go by.
    base: &'a TrackSettings,
    orders: &'a Orders,
}

impl Tracker {
    /// Makes an empty table.
    ///
    /// # Errors
    /// When the sizes are out of range or the system has not the memory.
    pub fn new(config: &TrackerConfig) -> io::Result<Self> {
        let TrackerConfig { max_flows, max_flows_v6, worker, seed, hugepages, prefault } = *config;
        let region = Arc::new(Region::map((max_flows, max_flows_v6), worker, &seed, (hugepages, prefault))?);
        Ok(Self {
            peers: [Arc::clone(&region)].into(),
            table: Table::new(region, seed),
            id: worker,
            max_flows,
            limits: Limits::new(max_flows, 1, &TrackSettings::default()),
            hand: 0,
            half_open: 0,
            stats: TrackStats::default(),
            opening: Opening::default(),
            zones_seen: false,
            expectations: Arc::default(),
            helped: Helped::default(),
            events: None,
            tick: Tick(0),
            labels: false,
            policies: Arc::default(),
            flush: None,
        })
    }

    /// Makes the trackers of one gateway, by worker, know of each other: what one expects any of them may see come.
    pub fn join(trackers: &mut [Self]) {
        let peers: Arc<[_]> = trackers.iter().map(Self::region).collect();
        let expectations = Arc::<Expectations>::default();
        for tracker in trackers {
            tracker.peers = Arc::clone(&peers);
            tracker.expectations = Arc::clone(&expectations);
        }
    }

    /// Tells what happens to flows over this ring, while somebody listens.
    pub fn report_to(&mut self, out: Producer<FlowEvent>, listening: Arc<Listening>) {
        self.events = Some(Events::new(out, listening));
    }

    /// Looks up whether somebody listens to events. Once per poll, before its packets.
    #[inline]
    pub fn look_for_listeners(&mut self, now: Now) {
        if let Some(events) = &mut self.events {
            events.look(now);
        }
    }

    /// Notes what the packet being judged has brought a flow, if anything, for [`Self::finish`].
    #[inline]
    pub(super) fn note(&mut self, news: CtEvents, slot: Slot) {
        if let (Some(events), false) = (&mut self.events, news.is_empty()) {
            events.note(slot, news);
        }
    }

    /// Takes up settings that are not read per packet, those of timeout policies, and whether rules speak of labels: only
    /// flows that begin while they do can have any. Once per poll.
    #[inline]
    pub fn adopt(&mut self, settings: &TrackSettings, policies: &Policies, labels: bool) {
        self.labels = labels;
        if !Arc::ptr_eq(&self.policies, policies.settings()) {
            self.policies = Arc::clone(policies.settings());
        }
        self.limits = Limits::new(self.max_flows, self.peers.len(), settings);
    }

    /// Connections that helpers expect, of all workers.
    #[must_use]
    pub fn expectations(&self) -> &Arc<Expectations> {
        &self.expectations
    }

    /// The memory the flows are in, for other threads to read.
    #[must_use]
    pub fn region(&self) -> Arc<Region> {
        Arc::clone(self.table.region())
    }

    /// Hash of the flow a tuple belongs to, see [`flow_hash`]. What [`Packet::hash`] must hold.
    #[must_use]
    #[inline]
    pub fn hash(&self, tuple: &Tuple) -> u64 {
        flow_hash(self.table.seed(), tuple)
    }

    /// Starts fetching where the index has a packet's flow. [`Packet::hash`] must be set.
    #[inline]
    pub fn prefetch_index(&self, packet: &Packet) {
        self.table.prefetch_index(packet.hash);
    }

    /// Starts fetching the records of a burst's flows, and notes in [`Packet::hint`] where they are. [`Self::prefetch_index`]
    /// must have been called for all of them, a while ago.
    #[inline]
    pub fn prefetch(&self, packets: &mut [Packet]) {
        self.table.prefetch(packets);
    }

    /// Brings the record of a packet that is judged soon, two packets later say, nearer still.
    #[inline]
    pub fn prefetch_next(&self, packet: Option<&Packet>) {
        if let Some(packet) = packet {
            self.records().prefetch_near(packet.hint);
        }
    }

    /// Judges a packet: finds its flow and brings it up to date, or says that it would start one. `bytes` is the
    /// frame, or its first segment; [`Packet::hash`] must be set. `orders` are those of the raw rules.
    #[inline(always)]
    pub fn track(
        &mut self,
        packet: &Packet,
        bytes: &[u8],
        now: Now,
        settings: &TrackSettings,
        orders: &Orders,
    ) -> Tracked {
        self.tick = now.tick();
        // Datagrams are tried behind the call: in one piece with them each segment costs 12 instructions more.
        if let Some(tracked) = self.go_on(packet, bytes, self.tick, settings, orders, Plain::Ack) {
            return tracked;
        }
        self.track_any(&Arrival { packet, bytes, now: self.tick, settings, base: settings, orders })
    }

    /// Whatever packet it is.
    #[inline(never)]
    fn track_any(&mut self, arrival: &Arrival<'_>) -> Tracked {
        let &Arrival { packet, bytes, now, settings, orders, base: _ } = arrival;
        if let Some(tracked) = self.go_on(packet, bytes, now, settings, orders, Plain::Datagram) {
            return tracked;
        }
        let tracked = self.judge(arrival);
        match (tracked.state, tracked.invalid) {
            (_, Some(reason)) => self.stats.invalid[reason as usize] += 1,
            (CtState::Untracked, _) => self.stats.untracked += 1,
            _ => match tracked.flow {
                FlowRef::About(_) => self.stats.related += 1,
                FlowRef::Existing(_) | FlowRef::Ending(_) => self.stats.found += 1,
                FlowRef::None | FlowRef::Tentative(_) => {}
            },
        }
        tracked
    }

    /// A flow has come from another worker.
    pub(super) fn note_taken(&mut self, life: Life, zone: Zone) {
        self.half_open += u32::from(life.is_half_open());
        self.zones_seen |= zone.id != 0;
    }

    /// A flow has left for another worker.
    pub(super) fn note_left(&mut self, life: Life) {
        self.half_open -= u32::from(life.is_half_open());
    }

    /// Counts a packet of `bytes` IP bytes for its flow.
    #[inline]
    pub fn count(&mut self, slot: Slot, direction: Direction, bytes: u32) {
        if let Some(record) = self.table.live_record(slot) {
            record.counters.add(direction, bytes);
        }
    }

    /// Flows in the table.
    #[must_use]
    #[inline]
    pub fn flow_count(&self) -> u32 {
        self.table.flow_count()
    }

    /// Flows that are half a conversation: not answered, or a TCP handshake not finished.
    #[must_use]
    pub const fn half_open_count(&self) -> u32 {
        self.half_open
    }

    /// What has been counted so far.
    #[must_use]
    pub const fn stats(&self) -> &TrackStats {
        &self.stats
    }
}

impl Life {
    /// The same, after a packet in this direction.
    const fn answered_by(self, direction: Direction) -> Self {
        match direction {
            Direction::Orig => self,
            Direction::Reply => Self { status: self.status | status::SEEN_REPLY, ..self },
        }
    }
}

/// Stores a flow's new life, and does what hangs on the change: ways through the rules of an unanswered flow do not hold
/// for an answered one, and half-open flows are counted.
///
/// Says what listeners may want to know.
#[inline]
fn settle(record: Record<'_>, half_open: &mut u32, old: Life, new: Life) -> CtEvents {
    if old.has(status::SEEN_REPLY) != new.has(status::SEEN_REPLY) {
        record.common.forget_paths();
    }
    if old.is_half_open() != new.is_half_open() {
        *half_open = if new.is_half_open() { *half_open + 1 } else { *half_open - 1 };
    }
    record.common.set_life(new);
    let turned = |bit: u16| old.has(bit) != new.has(bit);
    let replied = CtEvents::REPLY.when(turned(status::SEEN_REPLY));
    let assured = CtEvents::ASSURED.when(turned(status::ASSURED));
    replied.or(assured).or(CtEvents::PROTOINFO.when(old.tcp_state != new.tcp_state))
}

/// What rules see of a flow's packet. `life` is as it was before the packet: the first reply is ESTABLISHED because
/// it is a reply.
const fn rules_state(life: Life, direction: Direction) -> CtState {
    if matches!(direction, Direction::Reply) || life.has(status::SEEN_REPLY) {
        CtState::Established
    } else if life.has(status::EXPECTED) {
        CtState::Related
    } else {
        CtState::New
    }
}
