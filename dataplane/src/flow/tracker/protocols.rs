//! A packet of a known flow, and the first packet of one, by protocol: what the protocol's state machine makes of it is written to
//! the record. Owner thread only.

use super::opening::Protocol;
use super::{Arrival, Tracker, rules_state, settle};
use crate::clock::Tick;
use crate::flow::generic;
use crate::flow::record::{Life, Slot, status};
use crate::flow::sctp::{self, Message, SctpFlow};
use crate::flow::stats::InvalidReason;
use crate::flow::tcp::{self, EntryFacts, Step, TcpFlow, TcpState};
use crate::flow::tracked::{Direction, FlowRef, Tracked};
use crate::packet::Packet;
use crate::rules::conn::CtEvents;
use crate::wire::tcp::{Class, Segment};
use std::sync::atomic::Ordering::Relaxed;

impl Tracker {
    /// A packet of a known flow of any protocol but TCP.
    pub(super) fn untyped(&mut self, slot: Slot, direction: Direction, arrival: &Arrival<'_>) -> Tracked {
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

    pub(super) fn start_untyped(&mut self, arrival: &Arrival<'_>) -> Tracked {
        let &Arrival { packet, now, settings, .. } = arrival;
        let refresh = generic::refresh(packet.tuple.proto, (false, false), || now, now, settings);
        self.tentative(Protocol::None, refresh.timeout_secs)
    }

    /// A packet of a known association.
    pub(super) fn sctp(&mut self, slot: Slot, direction: Direction, arrival: &Arrival<'_>) -> Tracked {
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

    pub(super) fn start_sctp(&mut self, arrival: &Arrival<'_>) -> Tracked {
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
    pub(super) fn tcp(&mut self, slot: Slot, direction: Direction, arrival: &Arrival<'_>) -> Tracked {
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

    pub(super) fn start_tcp(&mut self, arrival: &Arrival<'_>) -> Tracked {
        let &Arrival { packet, bytes, settings, .. } = arrival;
        let Some(seg) = Segment::parse(bytes, packet) else {
            return Tracked::invalid(InvalidReason::Truncated);
        };
        match tcp::open(&seg, settings) {
            Ok((flow, timeout_secs)) => self.tentative(Protocol::Tcp(flow), timeout_secs),
            Err(reason) => Tracked::invalid(reason),
        }
    }
}
