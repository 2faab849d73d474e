//! Connection tracking of a packet that is only thought of: the tables of all workers looked at from another thread, and a
//! tracker of its own with copies of the few flows that the packet can touch. What that one makes of the packet is what the
//! owner would make of it, and no flow knows.
//!
//! Any thread but a worker. Invariant: regions and expectations are read here and never written.

use super::expect::{Expectation, Expectations};
use super::key::{self, Seed};
use super::record::{FlowId, Record, Slot, status};
use super::region::Region;
use super::room::Limits;
use super::settings::{Count, Policies, TrackSettings};
use super::table::Table;
use super::tcp::TcpFlow;
use super::tracked::Direction;
use super::tracker::{Tracker, TrackerConfig};
use super::view::FlowView;
use super::{Claim, FullPolicy};
use crate::clock::{Now, Tick};
use crate::ids::WorkerId;
use crate::packet::{Packet, Tuple, proto};
use crate::rules::conn::{Flows, Known, Zone};
use crate::rules::rate::Scratch;
use std::io;
use std::sync::Arc;

/// How often is looked for a flow, or copied one, that its owner may be moving or changing right then.
const TRIES: usize = 4;

/// Ticks for which a newcomer of another worker may still be about to enter the table.
const NEWCOMER_TICKS: u32 = 2;

/// Flows that a rehearsal has room for: a packet touches three at most.
const FLOWS: u32 = 64;

/// The flow tables of all workers.
#[derive(Clone, Copy, Debug)]
pub struct LiveTables<'a> {
    regions: &'a [Arc<Region>],
    expectations: &'a Expectations,
    now: Tick,
}

/// A flow as it is, and how a tuple stands to it.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// A copy.
    pub view: FlowView,
    /// Which of its tuples was looked for.
    pub direction: Direction,
}

/// Sequence numbers that one side of a connection would use next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextNumbers {
    /// Its sequence number.
    pub seq: u32,
    /// What it would acknowledge.
    pub ack: u32,
    /// Whether the other side was heard.
    pub is_answered: bool,
}

/// Whether there is room for one more flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// There is.
    Free,
    /// The table is full, but another flow would make room.
    Evicts,
    /// The table is full; whether a half-open flow somewhere would make room is not known.
    Perhaps,
    /// There is none.
    None,
}

impl<'a> LiveTables<'a> {
    /// These tables, by worker, at a moment.
    #[must_use]
    pub const fn new(regions: &'a [Arc<Region>], expectations: &'a Expectations, now: Now) -> Self {
        Self { regions, expectations, now: now.tick() }
    }

    /// The flow that a tuple belongs to in a zone, `owner`'s if it is there. One whose time is up is none.
    #[must_use]
    pub fn find(&self, owner: WorkerId, tuple: &Tuple, zone: Zone) -> Option<Found> {
        // While its bucket moves, a flow may be with another worker than its packets are.
        let others = self.regions.iter().enumerate().filter(|(worker, _)| *worker != owner.index());
        let own = self.regions.get(owner.index());
        own.into_iter()
            .chain(others.map(|(_, region)| region))
            .find_map(|region| self.find_in(region, tuple, zone))
    }

    fn find_in(&self, region: &Arc<Region>, tuple: &Tuple, zone: Zone) -> Option<Found> {
        let table = Table::new(Arc::clone(region), region.seed());
        let hash = region.hash(tuple);
        (0..TRIES).find_map(|_| {
            let (slot, direction) = table.find(hash, tuple, zone)?;
            let view = region.view(slot, self.now)?;
            let is_it = match direction {
                Direction::Orig => view.orig == *tuple,
                Direction::Reply => view.orig == key::inverse(tuple),
            };
            (is_it && !view.is_expired(self.now)).then_some(Found { view, direction })
        })
    }

    /// The expectation that the first packet of an unknown flow would use up.
    #[must_use]
    pub fn expected(&self, tuple: &Tuple, zone: Zone) -> Option<Expectation> {
        let fits = |expected: &Expectation| {
            (expected.src, expected.dst, expected.dst_port) == (tuple.src, tuple.dst, tuple.dst_port)
                && (expected.proto, expected.family, expected.zone) == (tuple.proto, tuple.family, zone.id)
        };
        self.expectations
            .may_expect(tuple)
            .then(|| self.expectations.list(self.now).into_iter().find(fits))?
    }

    /// Sequence numbers that a packet of such a flow and direction would have; `None` if it is no TCP connection.
    #[must_use]
    pub fn next_numbers(&self, found: &Found) -> Option<NextNumbers> {
        let Found { view, direction } = found;
        let record = self.regions.get(view.worker.index())?.record(view.slot)?;
        if view.orig.proto != proto::TCP {
            return None;
        }
        let flow = TcpFlow::load(record.tail, view.tcp_state?);
        let [own, other] = [*direction, direction.opposite()].map(|side| flow.sides[side.index()]);
        Some(NextNumbers { seq: own.end, ack: other.end, is_answered: other.maxwin != 0 })
    }

    /// Whether a flow whose hash is this would find room in its owner's table. The budget of half-open flows is not asked:
    /// there a new one takes the place of an old one.
    #[must_use]
    pub fn room(&self, owner: WorkerId, hash: u64, claim: Claim, settings: &TrackSettings) -> Room {
        let Some(region) = self.regions.get(owner.index()) else { return Room::Free };
        let capacity = region.max_flows();
        let limits = Limits::new(capacity, self.regions.len(), settings);
        if region.flow_count() < limits.for_claim(claim) {
            return Room::Free;
        }
        let table = Table::new(Arc::clone(region), region.seed());
        let is_fair_game = |_: Slot, record: Record<'_>| {
            let life = record.common.life();
            !life.has(status::ASSURED) || life.deadline.is_past(self.now)
        };
        if table.find_victim(hash, is_fair_game).is_some() {
            return Room::Evicts;
        }
        if claim.management || claim.policy == FullPolicy::EvictHalfOpen { Room::Perhaps } else { Room::None }
    }
}

impl Tracker {
    /// A tracker for one packet that `owner` would judge, with nothing in it yet.
    ///
    /// # Errors
    /// When the system has not the memory.
    pub fn rehearsal(
        tables: &LiveTables<'_>,
        owner: WorkerId,
        settings: &TrackSettings,
        policies: &Policies,
        labels: bool,
    ) -> io::Result<Self> {
        let seed = tables.regions.get(owner.index()).map_or_else(Seed::random, |region| region.seed());
        let mut tracker = Self::new(&TrackerConfig {
            max_flows: FLOWS,
            max_flows_v6: FLOWS,
            worker: owner,
            seed,
            hugepages: false,
            prefault: false,
        })?;
        tracker.adopt(settings, policies, labels);
        // Room is asked of the live table.
        let roomy = TrackSettings { max: Count(0), adaptive_start_percent: 0, ..*settings };
        tracker.limits = Limits::new(FLOWS, 1, &roomy);
        tracker.peers = tables.regions.into();
        tracker.expectations = Arc::new(tables.expectations.copy(tables.now));
        Ok(tracker)
    }

    /// Puts a copy of a flow into a rehearsal; `None` if it has ended meanwhile.
    pub fn copy_in(&mut self, tables: &LiveTables<'_>, view: &FlowView) -> Option<Slot> {
        let region = tables.regions.get(view.worker.index())?;
        (0..TRIES).find_map(|_| {
            let before = region.view(view.slot, tables.now).filter(|before| before.seq == view.seq)?;
            let slot = self.copy_record(region, &before)?;
            let after = region.view(view.slot, tables.now);
            if after == Some(before) {
                return Some(slot);
            }
            // Its owner has written meanwhile: the copy may be of two moments.
            self.remove(slot);
            None
        })
    }

    /// What a flow has announced belongs to its copy in this slot from now on: the next word of its helper takes its place.
    pub fn take_over(&self, view: &FlowView, slot: Slot) {
        if let (Some(_), Some(copy)) = (view.helper, self.flow_id(slot)) {
            self.expectations.rename(FlowId { worker: view.worker, slot: view.slot, seq: view.seq }, copy);
        }
    }

    fn copy_record(&mut self, region: &Region, view: &FlowView) -> Option<Slot> {
        let theirs = region.record(view.slot)?;
        let hash = self.hash(&view.orig);
        let (life, extra) = (theirs.common.life(), theirs.tail.extra());
        let labels = region.labels_of(view.slot, life.status);
        let fill = |slot, ours: Record<'_>| {
            ours.copy_from(theirs);
            if let (Some(words), Some(labels)) = (self.table.region().labels(slot), labels) {
                words.set(labels);
            }
        };
        let slot = self.table.insert(hash, &view.orig, view.zone, fill).ok()?;
        self.note_taken(life, view.zone);
        self.helped.gained(extra);
        Some(slot)
    }
}

/// Flows of all workers, as rules ask for them about a packet that is only thought of.
#[derive(Debug)]
pub struct Onlooker<'a> {
    /// Where flows are.
    pub tables: LiveTables<'a>,
    /// Who would judge the packet.
    pub owner: WorkerId,
    /// Where what rules count goes.
    pub scratch: &'a Scratch,
}

impl Flows for Onlooker<'_> {
    fn is_open(&self, flow: FlowId) -> bool {
        let FlowId { worker, slot, seq } = flow;
        let LiveTables { regions, now, .. } = self.tables;
        if let Some(since) = flow.newcomer_at() {
            return worker != self.owner && now.0.wrapping_sub(since.0) < NEWCOMER_TICKS;
        }
        regions.get(worker.index()).is_some_and(|region| region.is_open(slot, seq, now))
    }

    fn of(&self, packet: &Packet, zone: Zone) -> Option<Known> {
        let region = self.tables.regions.get(self.owner.index())?;
        let Found { view, direction } = self.tables.find_in(region, &packet.tuple, zone)?;
        let flow = FlowId { worker: view.worker, slot: view.slot, seq: view.seq };
        Some(Known { flow, direction, is_assured: view.is_assured() })
    }

    fn newcomer(&self) -> FlowId {
        FlowId::newcomer(self.owner, self.tables.now)
    }

    fn scratch(&self) -> Option<&Scratch> {
        Some(self.scratch)
    }
}
