//! Flows that start: prepared when their first packet is tracked, in the table once the rules have accepted it. Owner
//! thread only.

use super::{Arrival, Tracker};
use crate::clock::{Now, Tick};
use crate::flow::expect::Expectation;
use crate::flow::key;
use crate::flow::record::{Extra, FlowId, Life, Slot, status};
use crate::flow::room::Claim;
use crate::flow::sctp::SctpFlow;
use crate::flow::table::NoRoom;
use crate::flow::tcp::{TcpFlow, TcpState};
use crate::flow::tracked::{Direction, FlowRef, Start, TableFull, Tracked};
use crate::packet::{Packet, proto};
use crate::rules::conn::{CtEvents, Zone};
use crate::rules::model::CtState;
use std::sync::atomic::Ordering::Relaxed;

/// What a protocol with states keeps of a flow.
#[derive(Debug, Default)]
pub(super) enum Protocol {
    /// Nothing.
    #[default]
    None,
    Tcp(TcpFlow),
    Sctp(SctpFlow),
}

/// What a tentative flow will start with, beside its [`Start`].
#[derive(Debug, Default)]
pub(in crate::flow) struct Opening {
    state: Protocol,
    pub(in crate::flow) zone: Zone,
    pub(in crate::flow) extra: Extra,
    pub(in crate::flow) mark: u32,
    /// Whether rules have set the mark.
    is_marked: bool,
    /// Labels that rules have given it.
    pub(in crate::flow) labels: u128,
    /// Status bits.
    pub(in crate::flow) status: u16,
}

impl Tracker {
    /// A packet of no flow yet.
    pub(super) fn start(&mut self, arrival: &Arrival<'_>) -> Tracked {
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
            labels: 0,
            status: has(expected.is_some(), status::EXPECTED)
                | has(self.labels, status::LABELLED)
                | has(orders.timeouts.is_some(), status::OWN_TIMEOUTS),
        };
    }

    /// A flow that does not exist yet, prepared: NEW, or RELATED if it is expected.
    pub(super) fn tentative(&mut self, state: Protocol, timeout_secs: u32) -> Tracked {
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
                let marked = CtEvents::MARK.when(self.opening.is_marked);
                let labelled = CtEvents::LABEL.when(self.opening.labels != 0);
                self.note(news.or(marked).or(labelled), slot);
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
        let Opening { state, zone, extra, mark, is_marked: _, labels, status } = &self.opening;
        let label_words = |slot| self.table.region().labels(slot).filter(|_| status & status::LABELLED != 0);
        self.table.insert(packet.hash, &packet.tuple, *zone, |slot, record| {
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
            if let Some(words) = label_words(slot) {
                words.set(*labels);
            }
            if *extra != Extra::default() {
                record.tail.set_extra(*extra);
            }
            let life = Life { deadline: now, status: *status, tcp_state };
            let deadline = now.plus_secs(self.timeout(life, start.timeout_secs));
            record.common.set_life(Life { deadline, ..life });
        })
    }

    /// What the packet tracked last would start.
    pub(in crate::flow) const fn opening(&self) -> &Opening {
        &self.opening
    }

    /// Sets the labels of the flow that the packet tracked last would start.
    pub(in crate::flow) const fn set_opening_labels(&mut self, labels: u128) {
        self.opening.labels = labels;
    }

    /// Sets the mark of the flow that the packet tracked last would start.
    pub(in crate::flow) const fn set_opening_mark(&mut self, mark: u32) {
        (self.opening.mark, self.opening.is_marked) = (mark, true);
    }
}
