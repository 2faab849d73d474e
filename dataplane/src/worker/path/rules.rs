//! What the rules say about a packet, before it is tracked and after, and the changes they make to it. Worker thread only.

use super::{Path, Source};
use crate::clock::Now;
use crate::device::Device;
use crate::flow::{FlowRef, Said, Tracked};
use crate::ids::PortId;
use crate::packet::Packet;
use crate::rules::conn::Orders;
use crate::rules::model::{CtState, RuleRef, Verdict};
use crate::rules::rate::Rates;
use crate::rules::{Decision, Facts, PathId};
use crate::wire::LINK_OVERHEAD;
use crate::worker::Observer;
use crate::worker::notes::RuleNotes;
use std::sync::atomic::Ordering::Relaxed;

/// What rules said, which one, and whether it is marked as management.
#[derive(Clone, Copy)]
pub(super) struct Decided {
    pub(super) verdict: Verdict,
    pub(super) by: RuleRef,
    pub(super) management: bool,
}

impl<D: Device, O: Observer> Path<D, O> {
    /// The raw rules on a packet that is not tracked yet: their orders to the tracker, or the rule that dropped it.
    pub(super) fn raw(
        &mut self,
        source: &mut Source<'_>,
        packet: &mut Packet,
        ingress: PortId,
        now: Now,
    ) -> Result<Orders, RuleRef> {
        let mtu = self.mtu(ingress);
        let Self { snapshot, tracker, matched, marks, id, umem, counters, notes, taps, changed, .. } = self;
        let rules = snapshot.rules(packet.tuple.family);
        let rule_counters = &rules.counters[id.index()];
        let flows = tracker.tables(now);
        let unlogged = &counters.polls.unlogged;
        let notes = RuleNotes { log: notes, taps, rules: &rules.compiled, unlogged };
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
        marks.reset(0, None);
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

    /// Rules on a packet. Tier one: the flow has a verdict of this generation for this direction and ingress NIC, or goes
    /// on under earlier rules. Else classify, and remember the path through the rules if only facts of the flow decided it.
    #[inline]
    pub(super) fn decide(
        &mut self,
        source: &mut Source<'_>,
        packet: &mut Packet,
        tracked: &Tracked,
        ingress: PortId,
        now: Now,
    ) -> Decided {
        let mtu = self.mtu(ingress);
        let Self { snapshot, tracker, counters, matched, marks, id, umem, notes, taps, changed, .. } = self;
        let rules = snapshot.rules(packet.tuple.family);
        let rule_counters = &rules.counters[id.index()];
        let mut bytes = u64::from(packet.l3_len);
        let mut path =
            if marks.is_traced() { None } else { tracker.cached_path(tracked, rules.since, ingress) };
        if path.is_none() && rules.tenure().keeps() && tracker.is_kept(tracked, rules.tenure(), ingress) {
            path = Some(PathId::KEPT);
        }
        if let Some(path) = path {
            counters.polls.verdict_hits.add(1);
            rule_counters.count_path(path, bytes);
            let (verdict, by) = rules.compiled.outcome(rule_counters.deciding_line(path));
            return Decided { verdict, by, management: false };
        }
        counters.polls.classified.add(1);
        let asks_conn = rules.compiled.asks_conn();
        let conn = if asks_conn { tracker.conn(packet, tracked, now) } else { None };
        let labels = if rules.compiled.asks_labels() { tracker.labels(tracked) } else { None };
        marks.reset(if asks_conn { tracker.mark(tracked) } else { 0 }, labels);
        let unlogged = &counters.polls.unlogged;
        let notes = RuleNotes { log: notes, taps, rules: &rules.compiled, unlogged };
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
        if let (true, Some(labels)) = (marks.labels_are_set, marks.labels) {
            tracker.set_labels(tracked, labels);
        }
        let cacheable = invariant && matches!(tracked.flow, FlowRef::Existing(_));
        let decider = matched.decider();
        let path = cacheable.then(|| rule_counters.intern(matched.lines(), decider)).flatten();
        match path {
            Some(path) => rule_counters.count_path(path, bytes),
            None => rule_counters.count_lines(matched.lines(), bytes),
        }
        let accepted = verdict == Verdict::Accept;
        tracker.remember(tracked, rules.since, Said { path, ingress, accepted });
        Decided { verdict, by, management }
    }

    /// The largest IP packet that both NICs of a wire can carry.
    #[inline]
    fn mtu(&self, ingress: PortId) -> u32 {
        let of = |port: PortId| self.ports[port.index()].frame_len_max.load(Relaxed);
        of(ingress).min(of(ingress.peer())).saturating_sub(LINK_OVERHEAD)
    }
}
