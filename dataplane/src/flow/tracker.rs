//! The tracker: one worker's connection tracking. Owner thread only.
//!
//! A burst goes through it in two passes: [`Tracker::prefetch`] for all packets, then for each packet in order
//! [`Tracker::track`], the rules' verdict, if that is to forward [`Tracker::commit`], and [`Tracker::finish`]. What a
//! packet costs: a hit reads the record's first line, and its second for TCP; a miss reads one bucket, sometimes two.
//!
//! Verdicts cached in a flow: what rules see of its state in one direction changes only once, when the first reply
//! comes (NEW or RELATED becomes ESTABLISHED), and that is when the cache is cleared. So both the packets of a flow
//! that is not answered yet and those of one that is can be cached.

use super::events::{Events, FlowEvent, Listening};
use super::expect::{Expectation, Expectations};
use super::generic;
use super::helped::Helped;
use super::icmp;
use super::key::{self, Seed, flow_hash};
use super::record::{Extra, FlowId, Life, Record, Slot, status};
use super::region::Region;
use super::room::{Claim, Limits};
use super::sctp::{self, Message, SctpFlow};
use super::settings::{Policies, TrackSettings};
use super::stats::{InvalidReason, TrackStats};
use super::table::{NoRoom, Table};
use super::tcp::{self, EntryFacts, Step, TcpFlow, TcpState};
use super::tracked::{Direction, FlowRef, Start, TableFull, Tracked};
use super::view::{Cursor, Expired};
use crate::clock::{Now, Tick};
use crate::ids::{Generation, WorkerId};
use crate::packet::{Fragment, L4Fault, Packet, Tuple, proto};
use crate::rules::conn::{CtEvents, Orders, PolicyId, Zone};
use crate::rules::model::CtState;
use crate::wire::checksum;
use crate::wire::tcp::{Class, Segment};
use rtrb::Producer;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// No verdict cached. Not a path that can be cached.
const NO_VERDICT: u32 = u32::MAX;

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

/// What a protocol with states keeps of a flow.
#[derive(Debug, Default)]
enum Protocol {
    /// Nothing.
    #[default]
    None,
    Tcp(TcpFlow),
    Sctp(SctpFlow),
}

/// What a tentative flow will start with, beside its [`Start`].
#[derive(Debug, Default)]
pub(super) struct Opening {
    state: Protocol,
    pub(super) zone: Zone,
    pub(super) extra: Extra,
    pub(super) mark: u32,
    /// Whether rules have set the mark.
    is_marked: bool,
    /// Status bits.
    pub(super) status: u16,
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

    /// Tells listeners that a flow leaves the table.
    fn gone(&mut self, slot: Slot) {
        if let Some(events) = &mut self.events
            && events.is_on()
        {
            events.gone(slot, self.table.region());
        }
    }

    /// Takes up settings that are not read per packet, and those of timeout policies. Once per poll.
    #[inline]
    pub fn adopt(&mut self, settings: &TrackSettings, policies: &Policies) {
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

    /// Starts fetching the records of a burst's flows, and notes in [`Packet::hint`] where they are. [`Packet::hash`] must
    /// be set.
    #[inline]
    pub fn prefetch(&self, packets: &mut [Packet]) {
        self.table.prefetch(packets);
    }

    /// Brings the record of a packet that is judged soon, two packets later say, nearer still.
    #[inline]
    pub fn prefetch_next(&self, packet: Option<&Packet>) {
        if let Some(packet) = packet {
            self.table.prefetch_near(packet.hint);
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
        if let Some((slot, direction)) = self.open_connection(packet, bytes, settings, orders) {
            self.stats.found += 1;
            return Tracked::valid(CtState::Established, direction, FlowRef::Existing(slot));
        }
        self.track_any(&Arrival { packet, bytes, now: now.tick(), settings, base: settings, orders })
    }

    /// Whatever packet it is.
    #[inline(never)]
    fn track_any(&mut self, arrival: &Arrival<'_>) -> Tracked {
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

    /// The common case in one piece: a segment of an open connection that carries an ACK and nothing out of the ordinary,
    /// its record where it was guessed to be. Brings the connection up to date and says which it is; otherwise nothing
    /// has changed, and [`Self::judge`] judges.
    #[inline(always)]
    fn open_connection(
        &self,
        packet: &Packet,
        bytes: &[u8],
        settings: &TrackSettings,
        orders: &Orders,
    ) -> Option<(Slot, Direction)> {
        if !packet.is_plain_ack || orders.notrack || orders.zone.id != 0 {
            return None;
        }
        let (slot, record, direction) = self.table.plain_at(packet.hint, &packet.tuple)?;
        let life = record.common.open_life()?;
        if life.deadline().is_past(self.tick) {
            return None;
        }
        if settings.checksum && !checksum::l4_ok(bytes, packet) {
            return None;
        }
        let secs = tcp::advance_open(record.tail, packet.numbers, direction, settings)?;
        record.common.prolong(life, self.tick.plus_secs(secs));
        Some((slot, direction))
    }

    fn judge(&mut self, arrival: &Arrival<'_>) -> Tracked {
        let &Arrival { packet, bytes, now, settings, orders, base: _ } = arrival;
        if orders.notrack || packet.family().is_none() {
            return Tracked::untracked();
        }
        if let Some(reason) = unfit(packet, bytes, settings) {
            self.use_up_expected(packet, orders.zone, now);
            return Tracked::invalid(reason);
        }
        let mut may_open = true;
        if matches!(packet.tuple.proto, proto::ICMP | proto::ICMPV6) {
            match icmp::kind(packet, bytes) {
                icmp::Kind::Query { opens } => may_open = opens,
                icmp::Kind::Error(about) => return self.icmp_error(packet, &about, orders.zone, now),
                icmp::Kind::Untracked => return Tracked::untracked(),
                icmp::Kind::Invalid(reason) => return Tracked::invalid(reason),
            }
        }
        match self.find_packet(packet, orders.zone, now) {
            Some((slot, direction)) if self.table.record(slot).common.life().has(status::OWN_TIMEOUTS) => {
                self.found_under_policy(slot, direction, arrival)
            }
            Some((slot, direction)) => self.found(slot, direction, arrival),
            None if may_open => self.start(arrival),
            None => Tracked::invalid(InvalidReason::IcmpUnsolicited),
        }
    }

    /// A packet of a known flow.
    #[inline]
    fn found(&mut self, slot: Slot, direction: Direction, arrival: &Arrival<'_>) -> Tracked {
        match arrival.packet.tuple.proto {
            proto::TCP => self.tcp(slot, direction, arrival),
            proto::SCTP => self.sctp(slot, direction, arrival),
            _ => self.untyped(slot, direction, arrival),
        }
    }

    /// A packet of a known flow that has timeouts of its own.
    #[cold]
    fn found_under_policy(&mut self, slot: Slot, direction: Direction, arrival: &Arrival<'_>) -> Tracked {
        let policy = self.table.record(slot).tail.extra().timeouts;
        let settings = self.settings_under(policy, arrival.settings);
        self.found(slot, direction, &Arrival { settings: &settings, ..*arrival })
    }

    /// The settings of flows under a policy; `settings` if there is none.
    fn settings_under(&self, policy: Option<PolicyId>, settings: &TrackSettings) -> TrackSettings {
        policy.and_then(|PolicyId(id)| self.policies.get(usize::from(id))).copied().unwrap_or(*settings)
    }

    /// A packet of no flow yet.
    fn start(&mut self, arrival: &Arrival<'_>) -> Tracked {
        let own;
        let mut arrival = *arrival;
        if arrival.orders.timeouts.is_some() {
            own = self.settings_under(arrival.orders.timeouts, arrival.base);
            arrival.settings = &own;
        } else {
            arrival.settings = arrival.base;
        }
        self.prepare(&arrival);
        match arrival.packet.tuple.proto {
            proto::TCP => self.start_tcp(&arrival),
            proto::SCTP => self.start_sctp(&arrival),
            _ => self.start_untyped(&arrival),
        }
    }

    /// A packet that cannot be tracked uses up what is expected where it goes, as a packet of no known flow does whatever
    /// becomes of it.
    #[cold]
    fn use_up_expected(&mut self, packet: &Packet, zone: Zone, now: Tick) {
        if packet.has_tuple()
            && self.expectations.may_expect(&packet.tuple)
            && self.find_packet(packet, zone, now).is_none()
        {
            self.expectations.take(&packet.tuple, zone.id, now);
        }
    }

    /// The flow a packet belongs to.
    #[inline]
    fn find_packet(&mut self, packet: &Packet, zone: Zone, now: Tick) -> Option<(Slot, Direction)> {
        match self.table.find_at(packet.hint, &packet.tuple, zone) {
            Some((slot, direction)) if !self.table.record(slot).common.life().deadline.is_past(now) => {
                Some((slot, direction))
            }
            _ => self.find_live(packet.hash, &packet.tuple, zone, now),
        }
    }

    /// The flow a tuple belongs to. One whose time is up is removed on the way and not found.
    #[inline]
    fn find_live(&mut self, hash: u64, tuple: &Tuple, zone: Zone, now: Tick) -> Option<(Slot, Direction)> {
        let (slot, direction) = self.table.find(hash, tuple, zone)?;
        if self.table.record(slot).common.life().deadline.is_past(now) {
            self.remove_entry(slot);
            self.stats.expired += 1;
            return None;
        }
        Some((slot, direction))
    }

    /// A packet of a known flow of any protocol but TCP.
    fn untyped(&mut self, slot: Slot, direction: Direction, arrival: &Arrival<'_>) -> Tracked {
        let &Arrival { packet, now, settings, .. } = arrival;
        let record = self.table.record(slot);
        let life = record.common.life();
        let facts = (life.has(status::SEEN_REPLY), life.has(status::ASSURED));
        let created = || Tick(record.tail.created.load(Relaxed));
        let refresh = generic::refresh(packet.tuple.proto, facts, created, now, settings);
        let mut next = life.answered_by(direction);
        if refresh.assured {
            next.status |= status::ASSURED;
        }
        next.deadline = now.plus_secs(self.timeout(next, refresh.timeout_secs));
        let news = settle(record, &mut self.half_open, life, next);
        self.note(news, slot);
        Tracked::valid(rules_state(life, direction), direction, FlowRef::Existing(slot))
    }

    /// A packet of a known association.
    fn sctp(&mut self, slot: Slot, direction: Direction, arrival: &Arrival<'_>) -> Tracked {
        let &Arrival { packet, bytes, now, settings, .. } = arrival;
        let Some(message) = Message::read(bytes, packet) else {
            return Tracked::invalid(InvalidReason::Truncated);
        };
        let record = self.table.record(slot);
        let life = record.common.life();
        let mut flow = SctpFlow::load(record.tail);
        let before = flow.state;
        let step = sctp::advance(&mut flow, &message, direction, settings);
        flow.store(record.tail);
        let mut next = life.answered_by(direction);
        let counts = match step {
            sctp::Step::Invalid(reason) => return Tracked::invalid(reason),
            sctp::Step::Ignore => false,
            sctp::Step::Accept { timeout_secs, assured } => {
                if assured {
                    next.status |= status::ASSURED;
                }
                next.deadline = now.plus_secs(self.timeout(next, timeout_secs));
                true
            }
        };
        let news = settle(record, &mut self.half_open, life, next);
        self.note(news.or(CtEvents::PROTOINFO.when(flow.state != before)), slot);
        Tracked { counts, ..Tracked::valid(rules_state(life, direction), direction, FlowRef::Existing(slot)) }
    }

    fn start_sctp(&mut self, arrival: &Arrival<'_>) -> Tracked {
        let &Arrival { packet, bytes, settings, .. } = arrival;
        let Some(message) = Message::read(bytes, packet) else {
            return Tracked::invalid(InvalidReason::Truncated);
        };
        match sctp::open(&message, settings) {
            Ok((flow, timeout_secs)) => self.tentative(Protocol::Sctp(flow), timeout_secs),
            Err(reason) => Tracked::invalid(reason),
        }
    }

    /// A segment of a known connection.
    fn tcp(&mut self, slot: Slot, direction: Direction, arrival: &Arrival<'_>) -> Tracked {
        let &Arrival { packet, bytes, now, settings, .. } = arrival;
        let Some(seg) = Segment::parse(bytes, packet) else {
            return Tracked::invalid(InvalidReason::Truncated);
        };
        let record = self.table.record(slot);
        let life = record.common.life();
        let mut flow = TcpFlow::load(record.tail, life.tcp_state);
        let facts = EntryFacts {
            seen_reply: life.has(status::SEEN_REPLY),
            assured: life.has(status::ASSURED),
            secs_left: life.deadline.secs_from(now),
        };
        let step = tcp::advance(&mut flow, &seg, direction, facts, settings);
        flow.store(record.tail);
        let state = rules_state(life, direction);
        match step {
            Step::Accept { timeout_secs, assured } => {
                let mut next = life.answered_by(direction);
                next.tcp_state = flow.state;
                if assured {
                    next.status |= status::ASSURED;
                }
                if let Some(secs) = timeout_secs {
                    next.deadline = now.plus_secs(self.timeout(next, secs));
                }
                let news = settle(record, &mut self.half_open, life, next);
                // An answer in this state is heeded only if it puts the two in step again: as good as a new state.
                let is_resync = (life.tcp_state, next.tcp_state) == (TcpState::SynRecv, TcpState::SynRecv)
                    && direction == Direction::Reply
                    && seg.class() == Class::SynAck;
                self.note(news.or(CtEvents::PROTOINFO.when(is_resync)), slot);
                let counts = timeout_secs.is_some();
                Tracked { counts, ..Tracked::valid(state, direction, FlowRef::Existing(slot)) }
            }
            Step::Ignore => {
                let news = settle(record, &mut self.half_open, life, life.answered_by(direction));
                self.note(news, slot);
                Tracked { counts: false, ..Tracked::valid(state, direction, FlowRef::Existing(slot)) }
            }
            Step::Invalid { reason, timeout_secs } => {
                if let Some(secs) = timeout_secs {
                    record.common.set_life(Life { deadline: now.plus_secs(secs), ..life });
                }
                Tracked::invalid(reason)
            }
            Step::Delete => {
                self.end(slot, direction, packet, flow.state);
                Tracked { counts: false, ..Tracked::valid(state, direction, FlowRef::Ending(slot)) }
            }
            Step::Reopen => {
                self.delete(slot);
                self.start(arrival)
            }
        }
    }

    /// A reset ends a connection that was not answered. Its end is told at once, with the packet counted; what is left of
    /// it is for the rules, and for them it has been answered.
    #[cold]
    fn end(&mut self, slot: Slot, direction: Direction, packet: &Packet, tcp_state: TcpState) {
        let record = self.table.record(slot);
        record.counters.add(direction, packet.l3_len);
        let life = record.common.life();
        let ended = Life { tcp_state, ..life };
        settle(record, &mut self.half_open, life, ended);
        self.gone(slot);
        settle(self.table.record(slot), &mut self.half_open, ended, ended.answered_by(direction));
    }

    fn start_tcp(&mut self, arrival: &Arrival<'_>) -> Tracked {
        let &Arrival { packet, bytes, settings, .. } = arrival;
        let Some(seg) = Segment::parse(bytes, packet) else {
            return Tracked::invalid(InvalidReason::Truncated);
        };
        match tcp::open(&seg, settings) {
            Ok((flow, timeout_secs)) => self.tentative(Protocol::Tcp(flow), timeout_secs),
            Err(reason) => Tracked::invalid(reason),
        }
    }

    fn start_untyped(&mut self, arrival: &Arrival<'_>) -> Tracked {
        let &Arrival { packet, now, settings, .. } = arrival;
        let refresh = generic::refresh(packet.tuple.proto, (false, false), || now, now, settings);
        self.tentative(Protocol::None, refresh.timeout_secs)
    }

    /// What a flow that this packet starts will be given, before its protocol has a say. Linux `init_conntrack`: what was
    /// expected is used up by now, and takes no helper from its own orders.
    fn prepare(&mut self, arrival: &Arrival<'_>) {
        let has = |yes: bool, bit: u16| if yes { bit } else { 0 };
        let &Arrival { packet, now, orders, .. } = arrival;
        let expected = self.expectations.take(&packet.tuple, orders.zone.id, now);
        self.opening = Opening {
            state: Protocol::None,
            zone: orders.zone,
            extra: Extra {
                helper: orders.helper.filter(|_| expected.is_none()),
                master_helper: expected.map(|expected| expected.helper),
                timeouts: orders.timeouts,
                events: orders.events,
            },
            mark: expected.map_or(0, |expected| self.mark_of_master(&expected, now)),
            is_marked: false,
            status: has(expected.is_some(), status::EXPECTED)
                | has(orders.timeouts.is_some(), status::OWN_TIMEOUTS),
        };
    }

    /// A flow that does not exist yet, prepared: NEW, or RELATED if it is expected.
    fn tentative(&mut self, state: Protocol, timeout_secs: u32) -> Tracked {
        self.zones_seen |= self.opening.zone.id != 0;
        self.opening.state = state;
        let start = Start { timeout_secs, epoch: self.table.inserts() };
        let is_expected = self.opening.status & status::EXPECTED != 0;
        let state = if is_expected { CtState::Related } else { CtState::New };
        Tracked::valid(state, Direction::Orig, FlowRef::Tentative(start))
    }

    /// An expected connection starts with the mark of the one that announced it.
    #[cold]
    fn mark_of_master(&self, expected: &Expectation, now: Tick) -> u32 {
        let FlowId { worker, slot, seq } = expected.master;
        let view = self.peers.get(worker.index()).and_then(|region| region.view(slot, now));
        view.filter(|view| view.seq == seq).map_or(0, |view| view.mark)
    }

    /// An ICMP error: RELATED if it is about a packet that some flow's side sent, and goes to that side.
    fn icmp_error(&mut self, packet: &Packet, about: &icmp::Embedded, zone: Zone, now: Tick) -> Tracked {
        // The error travels against the packet it is about.
        let wanted = key::inverse(&about.tuple);
        let hash = self.hash(&wanted);
        let Some((slot, direction)) = self.find_live(hash, &wanted, zone, now) else {
            return Tracked::invalid(InvalidReason::IcmpErrorNoFlow);
        };
        if packet.tuple.dst != wanted.dst {
            return Tracked::invalid(InvalidReason::IcmpErrorAddress);
        }
        Tracked::valid(CtState::Related, direction, FlowRef::About(slot))
    }

    /// The rules have accepted the packet: inserts its flow if it would start one. Gives the slot of the flow the
    /// packet belongs to, `None` if it belongs to none. If another packet has started the same flow since `track`,
    /// that flow is it, unchanged.
    ///
    /// # Errors
    /// When there is no room, and nothing that may be evicted for `claim`.
    pub fn commit(
        &mut self,
        packet: &Packet,
        tracked: &mut Tracked,
        now: Now,
        claim: Claim,
    ) -> Result<Option<Slot>, TableFull> {
        let start = match tracked.flow {
            FlowRef::Existing(slot) => return Ok(Some(slot)),
            FlowRef::None | FlowRef::Ending(_) | FlowRef::About(_) => return Ok(None),
            FlowRef::Tentative(start) => start,
        };
        let now = now.tick();
        let earlier = if start.epoch == self.table.inserts() {
            None
        } else {
            self.find_live(packet.hash, &packet.tuple, self.opening.zone, now)
        };
        if earlier.is_none() && self.clashes(packet) {
            self.stats.insert_failed += 1;
            return Err(TableFull);
        }
        let slot = match earlier {
            Some((slot, direction)) => {
                tracked.direction = direction;
                slot
            }
            None => self.insert(packet, &start, now, claim)?,
        };
        tracked.flow = FlowRef::Existing(slot);
        Ok(Some(slot))
    }

    /// Whether answers to a new flow would belong to another one, in the zone of its reply direction. Without zones a
    /// flow that was not found cannot be in anybody's way.
    fn clashes(&self, packet: &Packet) -> bool {
        if !self.zones_seen {
            return false;
        }
        let zone = Zone { id: self.opening.zone.of(Direction::Reply), ..Zone::default() };
        self.table.find(packet.hash, &key::inverse(&packet.tuple), zone).is_some()
    }

    fn insert(&mut self, packet: &Packet, start: &Start, now: Tick, claim: Claim) -> Result<Slot, TableFull> {
        if !self.make_room(packet.hash, claim, now) {
            self.stats.drop += 1;
            return Err(TableFull);
        }
        let mut result = self.try_insert(packet, start, now);
        if result.is_err() && self.evict(packet.hash, Some(packet.tuple.family), now) {
            result = self.try_insert(packet, start, now);
        }
        match result {
            Ok(slot) => {
                self.stats.insert += 1;
                self.half_open += 1;
                self.helped.gained(self.opening.extra);
                let is_expected = self.opening.status & status::EXPECTED != 0;
                let news = if is_expected { CtEvents::RELATED } else { CtEvents::NEW };
                self.note(news.or(CtEvents::MARK.when(self.opening.is_marked)), slot);
                Ok(slot)
            }
            Err(NoRoom::Records) => {
                self.stats.drop += 1;
                Err(TableFull)
            }
            Err(NoRoom::Buckets) => {
                self.stats.insert_failed += 1;
                Err(TableFull)
            }
        }
    }

    fn try_insert(&self, packet: &Packet, start: &Start, now: Tick) -> Result<Slot, NoRoom> {
        let Opening { state, zone, extra, mark, is_marked: _, status } = &self.opening;
        self.table.insert(packet.hash, &packet.tuple, *zone, |record| {
            let tcp_state = match state {
                Protocol::Tcp(flow) => {
                    flow.store(record.tail);
                    flow.state
                }
                Protocol::Sctp(flow) => {
                    flow.store(record.tail);
                    TcpState::None
                }
                Protocol::None => TcpState::None,
            };
            record.tail.created.store(now.0, Relaxed);
            record.tail.mark.store(*mark, Relaxed);
            if *extra != Extra::default() {
                record.tail.set_extra(*extra);
            }
            let life = Life { deadline: now, status: *status, tcp_state };
            let deadline = now.plus_secs(self.timeout(life, start.timeout_secs));
            record.common.set_life(Life { deadline, ..life });
        })
    }

    /// What the packet tracked last would start.
    pub(super) const fn opening(&self) -> &Opening {
        &self.opening
    }

    /// Sets the mark of the flow that the packet tracked last would start.
    pub(super) const fn set_opening_mark(&mut self, mark: u32) {
        (self.opening.mark, self.opening.is_marked) = (mark, true);
    }

    /// Counts a packet of `bytes` IP bytes for its flow.
    #[inline]
    pub fn count(&mut self, slot: Slot, direction: Direction, bytes: u32) {
        if let Some(record) = self.table.live_record(slot) {
            record.counters.add(direction, bytes);
        }
    }

    /// The verdict cached for packets like this one (same flow, direction and ct state) under these rules.
    #[must_use]
    #[inline]
    pub fn cached_verdict(&self, tracked: &Tracked, generation: Generation) -> Option<u32> {
        let FlowRef::Existing(slot) = tracked.flow else { return None };
        let common = self.table.live_record(slot)?.common;
        let verdict = common.verdicts[tracked.direction.index()].load(Relaxed);
        (common.verdict_generation.load(Relaxed) == generation.0
            && verdict != NO_VERDICT
            && rules_state(common.life(), tracked.direction) == tracked.state)
            .then_some(verdict)
    }

    /// Caches a verdict for packets like this one: `path` is the caller's own number for it, anything but
    /// `u32::MAX`. Does nothing for a packet without a flow, or one that saw its flow in an earlier state.
    pub fn cache_verdict(&mut self, tracked: &Tracked, generation: Generation, path: u32) {
        let FlowRef::Existing(slot) = tracked.flow else { return };
        let Some(Record { common, .. }) = self.table.live_record(slot) else { return };
        if rules_state(common.life(), tracked.direction) != tracked.state {
            return;
        }
        if common.verdict_generation.load(Relaxed) != generation.0 {
            common.verdict_generation.store(generation.0, Relaxed);
            common.verdicts[tracked.direction.opposite().index()].store(NO_VERDICT, Relaxed);
        }
        common.verdicts[tracked.direction.index()].store(path, Relaxed);
    }

    /// A packet has been judged: listeners hear what it has brought its flow, if it passes, and a flow that it has ended
    /// goes. Once per tracked packet.
    #[inline]
    pub fn finish(&mut self, tracked: &Tracked, passed: bool) {
        if let FlowRef::Ending(slot) = tracked.flow {
            return self.bury(slot);
        }
        if let Some(events) = &mut self.events
            && events.is_on()
        {
            events.tell(tracked.flow.slot(), passed, self.table.region());
        }
    }

    #[cold]
    fn bury(&mut self, slot: Slot) {
        self.stats.delete += u64::from(self.clear(slot));
    }

    /// Removes a flow that control has found expired, if it still is that flow and still expired.
    pub fn expire(&mut self, named: Expired, now: Now) -> bool {
        let Expired { slot, seq } = named;
        let Some(record) = self.table.live_record(slot) else { return false };
        if record.common.seq.load(Relaxed) != seq {
            return false;
        }
        if !record.common.life().deadline.is_past(now.tick()) {
            return false;
        }
        self.stats.expired += 1;
        self.remove_entry(slot)
    }

    /// A packet of this flow was answered with a TCP reset by our own REJECT: closes the connection. Linux
    /// `nf_conntrack_tcp_set_closing`.
    pub fn close_rejected(&mut self, slot: Slot, now: Now, settings: &TrackSettings) {
        let Some(record) = self.table.live_record(slot) else { return };
        if record.proto() != proto::TCP {
            return;
        }
        let life = record.common.life();
        let timeouts = record.tail.extra().timeouts;
        let secs = self.settings_under(timeouts, settings).tcp_timeout_close;
        let deadline = now.tick().plus_secs(secs);
        let closed = Life { deadline, tcp_state: TcpState::Close, ..life };
        let news = settle(record, &mut self.half_open, life, closed);
        self.note(news, slot);
        // The packet was dropped, but its answer passes. (On a bridge the kernel waits for the next packet.)
        if let Some(events) = &mut self.events
            && events.is_on()
        {
            events.tell(Some(slot), true, self.table.region());
        }
    }

    /// Removes a flow, for whatever reason; `false` if there is none in the slot.
    pub fn remove(&mut self, slot: Slot) -> bool {
        self.delete(slot)
    }

    fn delete(&mut self, slot: Slot) -> bool {
        let removed = self.remove_entry(slot);
        self.stats.delete += u64::from(removed);
        removed
    }

    pub(super) fn remove_entry(&mut self, slot: Slot) -> bool {
        if self.table.live_record(slot).is_none() {
            return false;
        }
        self.gone(slot);
        self.clear(slot)
    }

    /// Removes a flow whose end was told.
    fn clear(&mut self, slot: Slot) -> bool {
        let Some(record) = self.table.live_record(slot) else { return false };
        self.half_open -= u32::from(record.common.life().is_half_open());
        if self.helped.any() {
            self.forget_helped(slot);
        }
        self.table.remove(slot)
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

/// Stores a flow's new life, and does what hangs on the change: verdicts of an unanswered flow do not hold for an
/// answered one, and half-open flows are counted.
///
/// Says what listeners may want to know.
#[inline]
fn settle(record: Record<'_>, half_open: &mut u32, old: Life, new: Life) -> CtEvents {
    if old.has(status::SEEN_REPLY) != new.has(status::SEEN_REPLY) {
        record.common.verdict_generation.store(0, Relaxed);
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

/// Why a packet cannot be tracked at all, whatever its flow.
#[inline]
fn unfit(packet: &Packet, bytes: &[u8], settings: &TrackSettings) -> Option<InvalidReason> {
    if packet.fragment != Fragment::Whole || packet.l4_fault.is_some() {
        return misshapen(packet);
    }
    (settings.checksum && !checksum::l4_ok(bytes, packet)).then_some(InvalidReason::BadChecksum)
}

/// Why a packet that is a fragment, or has a fault, cannot be tracked.
#[cold]
fn misshapen(packet: &Packet) -> Option<InvalidReason> {
    // Datagrams are put together before they come here; what still is a fragment could not be.
    if packet.fragment != Fragment::Whole {
        return Some(InvalidReason::LaterFragment);
    }
    packet.l4_fault.map(|fault| match fault {
        L4Fault::Truncated => InvalidReason::Truncated,
        L4Fault::BadLength => InvalidReason::BadLength,
        L4Fault::BadFlags => InvalidReason::BadFlags,
        L4Fault::BadChecksum => InvalidReason::BadChecksum,
        L4Fault::NoUpperLayer => InvalidReason::NoUpperLayer,
        L4Fault::BadChunk => InvalidReason::BadChunk,
        L4Fault::BadGre => InvalidReason::BadGre,
    })
}
