//! What rules may change about a packet on the way: marks, orders to the tracker and to sets. Worker thread.

use super::{Asked, Orders};
use crate::flow::FlowId;
use crate::rules::Facts;
use crate::rules::alter::Alter;
use crate::rules::conncount::{ConnCount, CountKey};
use crate::rules::log::Log;
use crate::rules::model::Hook;
use crate::sets::{SetAsk, SetOrder};
use std::sync::Arc;

/// What rules may change about a packet while it passes through them. One per worker, reset for each packet.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    /// The packet's mark (`nfmark`).
    pub packet: u32,
    /// Its connection's mark (`ctmark`).
    pub conn: u32,
    /// Whether rules have set `conn`.
    pub conn_is_set: bool,
    /// Its connection's labels (`ctlabel`), one bit each; `None` without one, or if it can have none.
    pub labels: Option<u128>,
    /// Whether rules have set any of them that was not set.
    pub labels_are_set: bool,
    /// Orders to the tracker; raw rules only.
    pub orders: Option<Orders>,
    /// Whether a rule could not be asked about the packet, which is dropped for that: what iptables calls a hotdrop.
    pub hotdrop: bool,
    /// Whether the packet met `-j TRACE`.
    pub traced: bool,
    /// Whether every step of it is to be noted, `-j TRACE` or not. Set for a packet, and unset, by whoever has it judged.
    pub followed: bool,
    /// Connection counts this packet was counted by as a newcomer: its connection takes that place if it is accepted.
    pub counted: Vec<Counted>,
    /// What rules want changed about sets.
    pub set_asks: Vec<SetAsk>,
}

/// A place that a packet was given among the connections a rule counts.
#[derive(Clone, Debug)]
pub struct Counted {
    /// The rule's connections.
    pub(super) count: Arc<ConnCount>,
    /// Under what it was counted.
    pub(super) key: CountKey,
    /// The zone that its connection must be in, if it was counted by its tuple alone, before it was tracked.
    pub(super) zone: Option<u16>,
}

impl Counted {
    /// The packet's connection has entered the table, under that name and with its original direction in that zone.
    pub fn join(self, newcomer: FlowId, id: FlowId, zone: u16) {
        if self.zone.is_none_or(|wanted| wanted == zone) {
            self.count.take_place(self.key, newcomer, id);
        }
    }
}

impl Marks {
    /// Whether steps of the packet are noted.
    #[must_use]
    #[inline]
    pub const fn is_traced(&self) -> bool {
        self.traced | self.followed
    }

    /// Forgets the packet before.
    #[inline]
    pub fn begin(&mut self) {
        (self.packet, self.traced) = (0, false);
        if !self.counted.is_empty() {
            self.counted.clear();
        }
        if !self.set_asks.is_empty() {
            self.set_asks.clear();
        }
    }

    /// Forgets the connection of the last rules; the packet's mark goes with it from table to table.
    #[inline]
    pub fn reset(&mut self, conn: u32, labels: Option<u128>) {
        (self.conn, self.conn_is_set, self.orders, self.hotdrop) = (conn, false, None, false);
        (self.labels, self.labels_are_set) = (labels, false);
    }
}

/// A change that a rule makes before the next rule is tried. `set` bits are flipped after `clear` bits are cleared,
/// iptables' `--set-xmark set/clear`, which all ways to write a mark come down to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// `-j MARK`.
    SetMark {
        /// Bits flipped.
        set: u32,
        /// Bits cleared before.
        clear: u32,
    },
    /// `-j CONNMARK --set-xmark` and its kin.
    SetConnMark {
        /// Bits flipped.
        set: u32,
        /// Bits cleared before.
        clear: u32,
        /// Then shifted.
        shift: Shift,
    },
    /// `-j CONNMARK --save-mark`: the packet's mark to the connection.
    SaveMark {
        /// Bits of the packet's mark.
        from: u32,
        /// Bits of the connection's mark that are replaced.
        to: u32,
        /// The bits are shifted in between.
        shift: Shift,
    },
    /// `-j CONNMARK --restore-mark`: the connection's mark to the packet.
    RestoreMark {
        /// Bits of the connection's mark.
        from: u32,
        /// Bits of the packet's mark that are replaced.
        to: u32,
        /// The bits are shifted in between.
        shift: Shift,
    },
    /// `-j CT`, `-j NOTRACK`: the first one counts.
    Order(Orders),
    /// `-j SET`.
    Set(SetOrder),
    /// The packet itself is changed, by whoever holds its bytes.
    Alter(Alter),
    /// It is written down.
    Log(Log),
    /// `-j TRACE`: so is each of its further steps. In `raw` only.
    Trace,
}

/// `--left-shift-mark`, `--right-shift-mark`: bits to the left, negative to the right; 0 is none.
pub type Shift = i8;

/// Labels that a connection may have (`XT_CONNLABEL_MAXBIT` and one).
pub const LABELS: u8 = 128;

/// Most changes of sets that one packet may ask for: no more are noted.
const SET_ASKS_MAX: usize = 64;

const fn shifted(value: u32, shift: Shift) -> u32 {
    let bits = shift.unsigned_abs() as u32;
    let moved = if shift >= 0 { value.checked_shl(bits) } else { value.checked_shr(bits) };
    match moved {
        Some(moved) => moved,
        None => 0,
    }
}

impl Effect {
    /// The effect of a rule that stands there.
    #[must_use]
    pub const fn at(self, hook: Hook) -> Self {
        match self {
            Self::Log(log) => Self::Log(Log { hook, ..log }),
            Self::Set(order) => Self::Set(order.at(hook)),
            other => other,
        }
    }

    /// Whether it is about a connection's mark.
    pub(in crate::rules) const fn speaks_of_conn(self) -> bool {
        matches!(self, Self::SetConnMark { .. } | Self::SaveMark { .. } | Self::RestoreMark { .. })
    }

    /// Does it. Connection marks stay as they are on packets without a connection.
    pub fn apply(self, marks: &mut Marks, facts: &Facts<'_>) {
        if let Self::Set(order) = self {
            marks.ask(order.about(facts));
        } else {
            let has_conn = Asked::about(facts, marks).has_conn();
            self.mark(marks, has_conn);
        }
    }

    fn mark(self, marks: &mut Marks, has_conn: bool) {
        match self {
            Self::SetMark { set, clear } => marks.packet = (marks.packet & !clear) ^ set,
            Self::Trace => marks.traced = true,
            Self::Order(orders) => marks.orders = Some(marks.orders.unwrap_or(orders)),
            // Not to marks.
            Self::Set(_) | Self::Alter(_) | Self::Log(_) => {}
            _ if !has_conn => {}
            Self::SetConnMark { set, clear, shift } => {
                marks.set_conn(shifted((marks.conn & !clear) ^ set, shift));
            }
            Self::SaveMark { from, to, shift } => {
                marks.set_conn((marks.conn & !to) ^ shifted(marks.packet & from, shift));
            }
            Self::RestoreMark { from, to, shift } => {
                marks.packet = (marks.packet & !to) ^ shifted(marks.conn & from, shift);
            }
        }
    }
}

impl Marks {
    fn ask(&mut self, ask: SetAsk) {
        if self.set_asks.len() < SET_ASKS_MAX {
            self.set_asks.push(ask);
        }
    }

    /// Whether the connection has a label, once it was given it if `gives`.
    pub(super) fn has_label(&mut self, label: u8, gives: bool) -> bool {
        let Some(labels) = &mut self.labels else { return false };
        let before = *labels;
        if gives {
            *labels |= 1 << label;
            self.labels_are_set |= *labels != before;
        }
        *labels >> label & 1 != 0
    }

    fn set_conn(&mut self, mark: u32) {
        self.conn_is_set |= self.conn != mark;
        self.conn = mark;
    }
}

#[cfg(test)]
mod tests {
    use super::super::Helper;
    use super::*;

    #[test]
    fn marks_are_set_saved_and_restored_under_masks() {
        let mut marks = Marks { packet: 0xff00, conn: 0x1234, ..Marks::default() };
        Effect::SetMark { set: 0x21, clear: 0xf0f0 }.mark(&mut marks, true);
        assert_eq!(marks.packet, 0x0f21);
        Effect::SaveMark { from: 0xff, to: 0xffff, shift: 8 }.mark(&mut marks, true);
        assert_eq!((marks.conn, marks.conn_is_set), (0x2100, true));
        Effect::RestoreMark { from: 0xffff_ffff, to: 0xffff_ffff, shift: -4 }.mark(&mut marks, true);
        assert_eq!(marks.packet, 0x210);
        Effect::SetConnMark { set: 7, clear: u32::MAX, shift: 0 }.mark(&mut marks, false);
        assert_eq!(marks.conn, 0x2100, "no connection, no change");
    }

    #[test]
    fn labels_are_asked_set_and_inverted() {
        let mut marks = Marks { labels: Some(1 << 127), ..Marks::default() };
        let mut ask = |label, set, labels: Option<Option<u128>>| {
            marks.labels = labels.unwrap_or(marks.labels);
            marks.labels_are_set = false;
            (marks.has_label(label, set), marks.labels, marks.labels_are_set)
        };
        assert_eq!(ask(127, false, None), (true, Some(1 << 127), false));
        assert_eq!(ask(127, true, None), (true, Some(1 << 127), false), "it was set");
        assert_eq!(ask(0, false, None), (false, Some(1 << 127), false));
        assert_eq!(ask(0, true, None), (true, Some(1 << 127 | 1), true));
        assert_eq!(ask(0, true, Some(None)), (false, None, false), "it can have none");
    }

    #[test]
    fn the_first_order_to_the_tracker_counts() {
        let mut marks = Marks::default();
        let first = Orders { notrack: true, ..Orders::default() };
        Effect::Order(first).mark(&mut marks, false);
        Effect::Order(Orders { helper: Some(Helper::Ftp), ..Orders::default() }).mark(&mut marks, false);
        assert_eq!(marks.orders, Some(first));
    }
}
