//! What rules would say of the packet that begins a flow, where only the flow is known and not the packet. Control threads.
//!
//! Conditions hold, do not, or cannot be known. A line that may match and may not sends the walk both ways; as jumps lead
//! forward only, the ways are walked together, always from the one that is furthest behind, and each line is met once.
//! What a line does on some ways and not on others is not known behind it.
//!
//! Invariant: a sound packet of the flow never meets a verdict that is not foreseen.

use super::{Action, Compiled, Line, Program};
use crate::flow::status;
use crate::rules::conn::{ConnMatch, CountedWhat, Effect, Marks};
use crate::rules::header::HeaderMatch;
use crate::rules::line::Test;
use crate::rules::model::{CtState, Verdict};
use crate::rules::{Facts, boxes, classifier};
use crate::sets::{Kind, Set, SetMatch};
use std::collections::BTreeSet;

/// What may become of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Foreseen {
    /// It may pass.
    pub may_pass: bool,
    /// It may be dropped or rejected.
    pub may_be_refused: bool,
}

/// All ways through the rules that a packet may be on.
struct Walk<'a> {
    facts: Facts<'a>,
    marks: Marks,
    /// Whether these marks are those that the packet has on all ways; the same of its connection's, and of orders.
    knows_mark: bool,
    knows_conn_mark: bool,
    knows_orders: bool,
    foreseen: Foreseen,
}

impl Compiled {
    /// What may become of a packet of which tuple, NICs, state and connection are known, and nothing else that
    /// [`Facts::packet`] says. Its connection's mark is 0 if it is known. Nothing is counted or logged. Of rules that were
    /// edited and not compiled as a whole since, nothing is foreseen.
    #[must_use]
    pub fn foresee(&self, facts: &Facts<'_>, knows_conn_mark: bool) -> Foreseen {
        if self.is_edited() {
            return Foreseen { may_pass: true, may_be_refused: true };
        }
        let mut walk = Walk {
            facts: Facts { is_raw: true, ..*facts },
            marks: Marks::default(),
            knows_mark: true,
            knows_conn_mark,
            knows_orders: true,
            foreseen: Foreseen::default(),
        };
        if let Some(raw) = &self.base.raw {
            raw.foresee(&mut walk);
            if !walk.foreseen.may_pass {
                return walk.foreseen;
            }
            if !walk.knows_orders {
                return Foreseen { may_pass: true, may_be_refused: true };
            }
        }
        walk.foreseen.may_pass = false;
        walk.facts = match walk.marks.orders {
            Some(orders) if orders.notrack => Facts { ct_state: CtState::Untracked, conn: None, ..*facts },
            _ => *facts,
        };
        walk.marks.reset(0, None);
        walk.knows_conn_mark = knows_conn_mark;
        self.base.main.foresee(&mut walk);
        walk.foreseen
    }
}

impl Program {
    fn foresee(&self, walk: &mut Walk<'_>) {
        let mut cursor = self.classifier.find(&boxes::header(&walk.facts));
        let mut ways = BTreeSet::from([0]);
        while let Some(from) = ways.pop_first() {
            let index = self.classifier.next(&mut cursor, from);
            assert!(index != classifier::NONE, "every way ends with a line that decides about all packets");
            // Ways that join here.
            ways = ways.split_off(&(index + 1));
            let line = &self.lines[index as usize];
            let fits = self.is_exact || line.fields_match(&walk.facts);
            let holds = if fits { walk.holds(line) } else { Some(false) };
            if holds != Some(true) {
                ways.insert(if let Action::Gate(to) = line.action { to } else { index + 1 });
            }
            if holds == Some(false) {
                continue;
            }
            match line.action {
                Action::Decide(Verdict::Accept) => walk.foreseen.may_pass = true,
                Action::Decide(_) => walk.foreseen.may_be_refused = true,
                Action::SkipSilently(to) | Action::Skip(to) | Action::Pass(to) => {
                    ways.insert(to);
                }
                Action::Do(effect) => {
                    // The only way, and no other has left the rules with the packet.
                    let is_certain = ways.is_empty() && holds == Some(true) && !walk.foreseen.may_pass;
                    walk.apply(effect, is_certain);
                    ways.insert(index + 1);
                }
                Action::Count | Action::Gate(_) => {
                    ways.insert(index + 1);
                }
            }
        }
    }
}

impl Walk<'_> {
    /// Whether all conditions of a line hold beyond its fields, if that is known.
    fn holds(&mut self, line: &Line) -> Option<bool> {
        let mut all = Some(true);
        for test in &line.more {
            match self.asks(test) {
                Some(true) => {}
                Some(false) => return Some(false),
                None => all = None,
            }
        }
        all
    }

    fn asks(&mut self, test: &Test) -> Option<bool> {
        let is_known = match test {
            // Too short for that, it would have no flow.
            Test::Header(HeaderMatch::Carries(_)) => return Some(true),
            Test::Header(condition) => !condition.is_volatile(),
            Test::Conn(condition) => self.knows(condition),
            Test::Set(set) => is_answered_by_tuple(set),
            Test::TcpFlags { .. } | Test::Rate(_) => false,
            _ => true,
        };
        is_known.then(|| test.holds(&self.facts, &mut self.marks))
    }

    fn knows(&self, condition: &ConnMatch) -> bool {
        let is_expected = self.facts.conn.is_some_and(|conn| conn.status & status::EXPECTED != 0);
        let is_clear = !self.facts.is_raw || self.knows_orders;
        is_clear
            && match condition {
                ConnMatch::Mark { .. } => self.knows_mark,
                ConnMatch::ConnMark { .. } => self.knows_conn_mark,
                ConnMatch::Conntrack(_) => true,
                // By which helper is not remembered.
                ConnMatch::Helper { .. } => !is_expected,
                ConnMatch::ConnBytes(bytes) => bytes.what == CountedWhat::Packets,
                // Labels of a connection may be set by any packet.
                ConnMatch::ConnLimit(_) | ConnMatch::ConnLabel { .. } => false,
            }
    }

    /// Does what a rule does, on all ways or only on some.
    fn apply(&mut self, effect: Effect, is_certain: bool) {
        let Self { knows_mark, knows_conn_mark, knows_orders, .. } = self;
        let (knows_both, has_conn) = (*knows_mark && *knows_conn_mark, *knows_orders);
        match effect {
            Effect::SetMark { .. } => *knows_mark &= is_certain,
            Effect::SetConnMark { .. } => *knows_conn_mark &= is_certain && has_conn,
            Effect::SaveMark { .. } => *knows_conn_mark &= is_certain && knows_both && has_conn,
            Effect::RestoreMark { .. } => *knows_mark &= is_certain && knows_both && has_conn,
            Effect::Order(_) => *knows_orders &= is_certain,
            // None of these is known to any rule behind: sets change later, and bytes are not known anyway.
            Effect::Set(_) | Effect::Alter(_) | Effect::Log(_) | Effect::Trace => return,
        }
        effect.apply(&mut self.marks, &self.facts);
    }
}

/// Whether addresses, ports and NICs are all that a set is asked for.
fn is_answered_by_tuple(asked: &SetMatch) -> bool {
    let is_plain = |set: &Set| set.spec().kind != Kind::HashMac;
    let set = asked.slot.set();
    asked.packets.is_none()
        && asked.bytes.is_none()
        && is_plain(&set)
        && set.members().iter().all(|member| is_plain(&member.set()))
}
