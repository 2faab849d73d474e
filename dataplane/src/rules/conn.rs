//! What rules may ask about a packet's connection beyond its state, and what they may change on the way: marks, and
//! the tracker's orders (`-j CT`). Shared by [`super::linear`] and the compiled form: the conditions here hang on more
//! than the packet's header, so neither specialises them. Worker thread; evaluated only when a rule asks.

mod orders;

pub use orders::{CtEvents, Helper, Orders, PolicyId, Zone};

use super::Facts;
use super::alter::Alter;
use super::conncount::{ConnCount, CountKey};
use super::log::Log;
use super::model::{CtState, Hook};
use crate::clock::Tick;
use crate::flow::{Direction, FlowId, status};
use crate::ids::WorkerId;
use crate::packet::{Family, Packet, Tuple};
use crate::sets::{SetAsk, SetOrder};
use std::sync::Arc;

/// The connection a packet belongs to or is about, as rules see it: as it is after the packet was tracked. Exists for
/// every packet but INVALID and UNTRACKED ones.
#[derive(Clone, Copy, Debug)]
pub struct Conn {
    /// Tuple of the packets that go the way of the first one.
    pub orig: Tuple,
    /// Tuple of the packets that go the other way.
    pub reply: Tuple,
    /// Which way this packet goes.
    pub direction: Direction,
    /// Status bits, see [`crate::flow::status`].
    pub status: u16,
    /// Packets of each direction, this one included.
    pub packets: [u64; 2],
    /// IP bytes of each direction, this packet's included.
    pub bytes: [u64; 2],
    /// Whole seconds until it expires; 0 for one that is not in the table yet.
    pub secs_left: u32,
    /// Helper of the connection that announced this one.
    pub master_helper: Option<Helper>,
    /// Number of its zone.
    pub zone: u16,
    /// Its name; `None` while it is not in the table.
    pub id: Option<FlowId>,
    /// Whether it is what raw rules see behind `-j CT`: no connection yet, but what one will be made by.
    pub is_template: bool,
}

impl Conn {
    /// What stands in for the connection of a packet with orders to the tracker. Linux `nf_ct_tmpl_alloc`: its tuples
    /// and counts are empty, and it counts as confirmed.
    const fn template(family: Family) -> Self {
        let none = Tuple { family, ..Tuple::NONE };
        Self {
            orig: none,
            reply: none,
            direction: Direction::Orig,
            status: status::CONFIRMED,
            packets: [0; 2],
            bytes: [0; 2],
            secs_left: 0,
            master_helper: None,
            zone: 0,
            id: None,
            is_template: true,
        }
    }
}

static TEMPLATES: [Conn; 2] = [Conn::template(Family::V4), Conn::template(Family::V6)];

/// Looks at flows of all workers.
pub trait Flows: std::fmt::Debug {
    /// Whether a flow still is in the table, and no TCP connection that has ended. A newcomer is while another worker may
    /// be about to make it.
    fn is_open(&self, flow: FlowId) -> bool;

    /// The flow in a zone that a packet belongs to by its tuple alone.
    fn of(&self, packet: &Packet, zone: Zone) -> Option<Known>;

    /// Stands for the flow that the packet in question may start.
    fn newcomer(&self) -> FlowId;
}

/// A flow that a packet belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its name.
    pub flow: FlowId,
    /// The direction whose tuple it is known by.
    pub direction: Direction,
    /// Whether it is ASSURED.
    pub is_assured: bool,
}

/// No flows at all: for headers judged outside of a worker.
#[derive(Clone, Copy, Debug)]
pub struct NoFlows;

impl Flows for NoFlows {
    fn is_open(&self, _flow: FlowId) -> bool {
        false
    }

    fn of(&self, _packet: &Packet, _zone: Zone) -> Option<Known> {
        None
    }

    fn newcomer(&self) -> FlowId {
        FlowId::newcomer(WorkerId(0), Tick(0))
    }
}

/// What rules may change about a packet while it passes through them. One per worker, reset for each packet.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    /// The packet's mark (`nfmark`).
    pub packet: u32,
    /// Its connection's mark (`ctmark`).
    pub conn: u32,
    /// Whether rules have set `conn`.
    pub conn_is_set: bool,
    /// Orders to the tracker; raw rules only.
    pub orders: Option<Orders>,
    /// Whether a rule could not be asked about the packet, which is dropped for that: what iptables calls a hotdrop.
    pub hotdrop: bool,
    /// Connection counts this packet was counted by as a newcomer: its connection takes that place if it is accepted.
    pub counted: Vec<Counted>,
    /// What rules want changed about sets.
    pub set_asks: Vec<SetAsk>,
}

/// A place that a packet was given among the connections a rule counts.
#[derive(Clone, Debug)]
pub struct Counted {
    /// The rule's connections.
    count: Arc<ConnCount>,
    /// Under what it was counted.
    key: CountKey,
    /// The zone that its connection must be in, if it was counted by its tuple alone, before it was tracked.
    zone: Option<u16>,
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
    /// Forgets the packet before.
    #[inline]
    pub fn begin(&mut self) {
        self.packet = 0;
        if !self.counted.is_empty() {
            self.counted.clear();
        }
        if !self.set_asks.is_empty() {
            self.set_asks.clear();
        }
    }

    /// Forgets the connection of the last rules; the packet's mark goes with it from table to table.
    #[inline]
    pub fn reset(&mut self, conn: u32) {
        (self.conn, self.conn_is_set, self.orders, self.hotdrop) = (conn, false, None, false);
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
}

/// `--left-shift-mark`, `--right-shift-mark`: bits to the left, negative to the right; 0 is none.
pub type Shift = i8;

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
    pub(super) const fn speaks_of_conn(self) -> bool {
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

    fn set_conn(&mut self, mark: u32) {
        self.conn_is_set |= self.conn != mark;
        self.conn = mark;
    }
}

/// A condition on the packet's mark or its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnMatch {
    /// `-m mark`: `mark & mask == value`.
    Mark {
        /// What the masked mark must be.
        value: u32,
        /// The mask.
        mask: u32,
        /// With `!`.
        invert: bool,
    },
    /// `-m connmark`: false without a connection.
    ConnMark {
        /// What the masked mark must be.
        value: u32,
        /// The mask.
        mask: u32,
        /// With `!`.
        invert: bool,
    },
    /// `-m conntrack` beyond `--ctstate`: all that one such match says.
    Conntrack(Box<Conntrack>),
    /// `-m helper`: the connection was announced by one with this helper; empty is any.
    Helper {
        /// Name asked for.
        name: Box<str>,
        /// With `!`.
        invert: bool,
    },
    /// `-m connbytes`: false without a connection.
    ConnBytes(ConnBytes),
    /// `-m connlimit`.
    ConnLimit(ConnLimit),
}

/// All that one `-m conntrack` asks. Conditions that are absent hold.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Conntrack {
    /// `--ctstate`, one bit per [`CtState`], and whether inverted.
    pub states: Option<(u8, bool)>,
    /// `--ctdir`.
    pub direction: Option<Direction>,
    /// `--ctproto`.
    pub proto: Option<(u8, bool)>,
    /// `--ctorigsrc`, `--ctorigdst`, `--ctreplsrc`, `--ctrepldst`: address, mask, inverted.
    pub addresses: [Option<(u128, u128, bool)>; 4],
    /// The same for the ports: inclusive range, inverted.
    pub ports: [Option<(u16, u16, bool)>; 4],
    /// `--ctstatus`: any of these bits, inverted.
    pub status: Option<(u16, bool)>,
    /// `--ctexpire`: seconds left, inclusive range, inverted.
    pub expire: Option<(u32, u32, bool)>,
}

/// Which way `-m connbytes` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountedDirection {
    /// `original`.
    Orig,
    /// `reply`.
    Reply,
    /// `both`.
    Both,
}

/// What `-m connbytes` compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountedWhat {
    /// `packets`.
    Packets,
    /// `bytes`.
    Bytes,
    /// `avgpkt`: bytes per packet.
    Average,
}

/// `-m connbytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnBytes {
    /// Which direction.
    pub direction: CountedDirection,
    /// Which number.
    pub what: CountedWhat,
    /// At least.
    pub from: u64,
    /// At most.
    pub to: u64,
    /// With `!`.
    pub invert: bool,
}

/// `-m connlimit`: how many connections there are from (or to) the packet's address, under a mask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnLimit {
    /// The number compared with.
    pub limit: u32,
    /// `--connlimit-upto` rather than `--connlimit-above`.
    pub upto: bool,
    /// Mask over the address.
    pub mask: u128,
    /// `--connlimit-daddr`.
    pub by_dst: bool,
    /// The connections this rule has counted.
    pub count: Arc<ConnCount>,
}

/// What a condition is asked about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    packet: &'a Packet,
    state: CtState,
    conn: Option<&'a Conn>,
    /// The zone it is looked up in if it has no connection.
    zone: Zone,
    flows: &'a dyn Flows,
}

impl<'a> Asked<'a> {
    /// A packet as rules see it at this point. Before it is tracked that hangs on the orders given so far: the packet
    /// carries what they made, or nothing.
    pub(super) fn about(facts: &'a Facts<'_>, marks: &Marks) -> Self {
        let &Facts { packet, ct_state, conn, flows, is_raw, .. } = facts;
        let (state, conn) = match marks.orders {
            _ if !is_raw => (ct_state, conn),
            None => (CtState::Invalid, None),
            Some(orders) if orders.notrack => (CtState::Untracked, None),
            Some(_) => {
                let family = usize::from(packet.tuple.family == Family::V6);
                (CtState::New, Some(&TEMPLATES[family]))
            }
        };
        let zone = match (marks.orders, conn) {
            (Some(orders), Some(conn)) if conn.is_template => orders.zone,
            _ => Zone::default(),
        };
        Self { packet, state, conn, zone, flows }
    }

    pub(super) const fn state(&self) -> CtState {
        self.state
    }

    /// Whether it has a connection whose mark may be set.
    pub(super) const fn has_conn(&self) -> bool {
        self.conn.is_some()
    }
}

impl ConnMatch {
    /// Whether it holds. Sources: `net/netfilter/xt_*.c`, as observed from outside.
    pub(super) fn holds(&self, asked: Asked<'_>, marks: &mut Marks) -> bool {
        match self {
            Self::Mark { value, mask, invert } => (marks.packet & mask == *value) != *invert,
            Self::ConnMark { value, mask, invert } => {
                asked.conn.is_some() && (marks.conn & mask == *value) != *invert
            }
            Self::Conntrack(conntrack) => conntrack.holds(asked.state, asked.conn),
            Self::Helper { name, invert } => {
                let helper = asked.conn.and_then(|conn| conn.master_helper);
                helper.is_some_and(|helper| name.is_empty() || name.starts_with(helper.name())) != *invert
            }
            Self::ConnBytes(bytes) => asked.conn.is_some_and(|conn| !conn.is_template && bytes.holds(conn)),
            Self::ConnLimit(limit) => limit.holds(asked, marks),
        }
    }
}

impl Conntrack {
    fn holds(&self, state: CtState, conn: Option<&Conn>) -> bool {
        if self.states.is_some_and(|(states, invert)| (states >> state as u8 & 1 != 0) == invert) {
            return false;
        }
        // Without a connection only the state can be asked, and what else the rule says does not matter.
        let Some(conn) = conn else { return self.states.is_some() };
        let ends = [conn.orig.src, conn.orig.dst, conn.reply.src, conn.reply.dst];
        let ports = [conn.orig.src_port, conn.orig.dst_port, conn.reply.src_port, conn.reply.dst_port];
        self.direction.is_none_or(|direction| direction == conn.direction)
            && self.proto.is_none_or(|(proto, invert)| (proto == conn.orig.proto) != invert)
            && self
                .addresses
                .iter()
                .zip(ends)
                .all(|(asked, have)| asked.is_none_or(|(addr, mask, invert)| (have & mask == addr) != invert))
            && self.ports.iter().zip(ports).all(|(asked, have)| {
                asked.is_none_or(|(low, high, invert)| (low..=high).contains(&have) != invert)
            })
            && self.status.is_none_or(|(bits, invert)| (conn.status & bits != 0) != invert)
            && self.expire.is_none_or(|(low, high, invert)| (low..=high).contains(&conn.secs_left) != invert)
    }
}

impl ConnBytes {
    fn holds(&self, conn: &Conn) -> bool {
        let of = |counts: [u64; 2]| match self.direction {
            CountedDirection::Orig => counts[0],
            CountedDirection::Reply => counts[1],
            CountedDirection::Both => counts[0].wrapping_add(counts[1]),
        };
        let have = match self.what {
            CountedWhat::Packets => of(conn.packets),
            CountedWhat::Bytes => of(conn.bytes),
            CountedWhat::Average => of(conn.bytes).checked_div(of(conn.packets)).unwrap_or(0),
        };
        (self.from..=self.to).contains(&have) != self.invert
    }
}

impl ConnLimit {
    /// What it has counted.
    pub(crate) fn count(&self) -> &ConnCount {
        &self.count
    }

    /// What a packet is counted under.
    const fn address(&self, tuple: &Tuple) -> u128 {
        self.mask & if self.by_dst { tuple.dst } else { tuple.src }
    }

    fn holds(&self, asked: Asked<'_>, marks: &mut Marks) -> bool {
        let Asked { packet, conn, zone, flows, .. } = asked;
        let conn = conn.filter(|conn| !conn.is_template);
        let known = match conn {
            Some(conn) => conn.id.map(|flow| {
                let is_assured = conn.status & status::ASSURED != 0;
                Known { flow, direction: Direction::Orig, is_assured }
            }),
            None if packet.has_tuple() => flows.of(packet, zone),
            None => {
                marks.hotdrop = true;
                return false;
            }
        };
        let zone_id = conn.map_or(zone.id, |conn| conn.zone);
        let key = CountKey { address: self.address(&packet.tuple), zone: zone_id };
        let count = match known {
            Some(known) => self.count.count_known(key, known, flows),
            None => {
                let zone = conn.is_none().then(|| zone.of(Direction::Orig));
                marks.counted.push(Counted { count: Arc::clone(&self.count), key, zone });
                self.count.count_newcomer(key, flows)
            }
        };
        (count > self.limit) != self.upto
    }
}

#[cfg(test)]
mod tests {
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
    fn the_first_order_to_the_tracker_counts() {
        let mut marks = Marks::default();
        let first = Orders { notrack: true, ..Orders::default() };
        Effect::Order(first).mark(&mut marks, false);
        Effect::Order(Orders { helper: Some(Helper::Ftp), ..Orders::default() }).mark(&mut marks, false);
        assert_eq!(marks.orders, Some(first));
    }
}
