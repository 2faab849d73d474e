//! What rules may ask about a packet's connection beyond its state, and what they may change on the way: marks, and
//! the tracker's orders (`-j CT`). Shared by [`super::linear`] and the compiled form: the conditions here hang on more
//! than the packet's header, so neither specialises them. Worker thread; evaluated only when a rule asks.

use super::conncount::ConnCount;
use super::model::CtState;
use crate::flow::{Direction, FlowId};
use crate::packet::Tuple;
use std::sync::Arc;

/// The connection a packet belongs to or is about, as rules see it: as it is after the packet was tracked. Exists for
/// every packet but INVALID and UNTRACKED ones.
#[derive(Clone, Copy, Debug)]
pub struct Conn<'a> {
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
    /// Its name; `None` while it is not in the table.
    pub id: Option<FlowId>,
    /// What else is in the tables of all workers.
    pub flows: &'a dyn Flows,
}

/// Looks at flows of all workers.
pub trait Flows: std::fmt::Debug {
    /// Whether a flow still is in the table, and no TCP connection that has ended.
    fn is_open(&self, flow: FlowId) -> bool;
}

/// No flows at all: for headers judged outside of a worker.
#[derive(Clone, Copy, Debug)]
pub struct NoFlows;

impl Flows for NoFlows {
    fn is_open(&self, _flow: FlowId) -> bool {
        false
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
    /// Connection counts this packet was counted by: its connection joins them if it is accepted.
    pub counted: Vec<ConnLimit>,
}

impl Marks {
    /// Forgets the connection of the last rules; the packet's mark goes with it from table to table.
    #[inline]
    pub fn reset(&mut self, conn: u32) {
        (self.conn, self.conn_is_set, self.orders) = (conn, false, None);
        if !self.counted.is_empty() {
            self.counted.clear();
        }
    }
}

/// What a `-j CT` or `-j NOTRACK` rule orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Orders {
    /// Do not track the packet.
    pub notrack: bool,
    /// Zone the packet is looked up in.
    pub zone: Zone,
    /// The zone's number is the packet's mark as it is after all raw rules.
    pub zone_is_mark: bool,
    /// Helper a connection gets that starts with this packet.
    pub helper: Option<Helper>,
    /// Timeout policy it gets.
    pub timeouts: Option<PolicyId>,
    /// Events it tells; `None`: all.
    pub events: Option<CtEvents>,
}

impl Orders {
    /// The same for a packet with this mark. Linux `nf_ct_zone_tmpl`: a zone is the low half of the mark.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "so does the kernel")]
    pub const fn with_mark(mut self, mark: u32) -> Self {
        if self.zone_is_mark {
            self.zone.id = mark as u16;
        }
        self
    }
}

/// A timeout policy, by its place in [`crate::worker::Settings::policies`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PolicyId(pub u8);

/// A set of things that happen to a connection. Bits are the kernel's (`IPCT_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct CtEvents(pub u16);

impl CtEvents {
    /// It has entered the table.
    pub const NEW: Self = Self(1 << 0);
    /// It has, announced by another one.
    pub const RELATED: Self = Self(1 << 1);
    /// It has left.
    pub const DESTROY: Self = Self(1 << 2);
    /// It was answered.
    pub const REPLY: Self = Self(1 << 3);
    /// It became ASSURED.
    pub const ASSURED: Self = Self(1 << 4);
    /// Its protocol's state changed.
    pub const PROTOINFO: Self = Self(1 << 5);
    /// Its mark changed.
    pub const MARK: Self = Self(1 << 7);
    /// A connection that it announced is expected. A bit of ours: the kernel has a set of its own for these.
    pub const EXPECT_NEW: Self = Self(1 << 10);

    /// What is in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether nothing is in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The set itself if `yes`, else nothing.
    #[must_use]
    pub const fn when(self, yes: bool) -> Self {
        if yes { self } else { Self(0) }
    }
}

/// A connection tracking zone: connections with the same tuple in different zones are different.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Zone {
    /// Its number.
    pub id: u16,
    /// Whether the original direction is in the zone (else in zone 0).
    pub orig: bool,
    /// Whether the reply direction is.
    pub reply: bool,
}

impl Zone {
    /// The zone of one direction.
    #[must_use]
    #[inline]
    pub const fn of(self, direction: Direction) -> u16 {
        let is_in = match direction {
            Direction::Orig => self.orig,
            Direction::Reply => self.reply,
        };
        if is_in { self.id } else { 0 }
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self { id: 0, orig: true, reply: true }
    }
}

/// A connection tracking helper: reads a control connection and announces those it speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Helper {
    /// FTP (RFC 959, RFC 2428): PORT, EPRT, 227, 229.
    Ftp = 1,
    /// TFTP (RFC 1350): the server answers from another port.
    Tftp = 2,
}

impl Helper {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::Ftp, Self::Tftp];

    /// The name rules call it by.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ftp => "ftp",
            Self::Tftp => "tftp",
        }
    }

    /// Protocol it helps.
    #[must_use]
    pub const fn proto(self) -> u8 {
        match self {
            Self::Ftp => crate::packet::proto::TCP,
            Self::Tftp => crate::packet::proto::UDP,
        }
    }

    /// Undoes `as u8`; 0 is none.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            1 => Some(Self::Ftp),
            2 => Some(Self::Tftp),
            _ => None,
        }
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
}

/// `--left-shift-mark`, `--right-shift-mark`: bits to the left, negative to the right; 0 is none.
pub type Shift = i8;

const fn shifted(value: u32, shift: Shift) -> u32 {
    let bits = shift.unsigned_abs() as u32;
    let moved = if shift >= 0 { value.checked_shl(bits) } else { value.checked_shr(bits) };
    match moved {
        Some(moved) => moved,
        None => 0,
    }
}

impl Effect {
    /// Does it. Connection marks stay as they are on packets without a connection.
    pub fn apply(self, marks: &mut Marks, has_conn: bool) {
        match self {
            Self::SetMark { set, clear } => marks.packet = (marks.packet & !clear) ^ set,
            Self::Order(orders) => marks.orders = Some(marks.orders.unwrap_or(orders)),
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
    pub(super) tuple: &'a Tuple,
    pub(super) state: CtState,
    pub(super) conn: Option<&'a Conn<'a>>,
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
            Self::ConnBytes(bytes) => asked.conn.is_some_and(|conn| bytes.holds(conn)),
            Self::ConnLimit(limit) => limit.holds(asked, marks),
        }
    }
}

impl Conntrack {
    fn holds(&self, state: CtState, conn: Option<&Conn<'_>>) -> bool {
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
    fn holds(&self, conn: &Conn<'_>) -> bool {
        let of = |counts: [u64; 2]| match self.direction {
            CountedDirection::Orig => counts[0],
            CountedDirection::Reply => counts[1],
            CountedDirection::Both => counts[0] + counts[1],
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
    /// What a packet is counted under.
    #[must_use]
    pub const fn address(&self, tuple: &Tuple) -> u128 {
        self.mask & if self.by_dst { tuple.dst } else { tuple.src }
    }

    fn holds(&self, asked: Asked<'_>, marks: &mut Marks) -> bool {
        let (id, flows): (_, &dyn Flows) = match asked.conn {
            Some(conn) => (conn.id, conn.flows),
            None => (None, &NoFlows),
        };
        let count = self.count.count(self.address(asked.tuple), id, flows);
        if id.is_none() && asked.conn.is_some() {
            marks.counted.push(self.clone());
        }
        (count > self.limit) != self.upto
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_set_saved_and_restored_under_masks() {
        let mut marks = Marks { packet: 0xff00, conn: 0x1234, ..Marks::default() };
        Effect::SetMark { set: 0x21, clear: 0xf0f0 }.apply(&mut marks, true);
        assert_eq!(marks.packet, 0x0f21);
        Effect::SaveMark { from: 0xff, to: 0xffff, shift: 8 }.apply(&mut marks, true);
        assert_eq!((marks.conn, marks.conn_is_set), (0x2100, true));
        Effect::RestoreMark { from: 0xffff_ffff, to: 0xffff_ffff, shift: -4 }.apply(&mut marks, true);
        assert_eq!(marks.packet, 0x210);
        Effect::SetConnMark { set: 7, clear: u32::MAX, shift: 0 }.apply(&mut marks, false);
        assert_eq!(marks.conn, 0x2100, "no connection, no change");
    }

    #[test]
    fn the_first_order_to_the_tracker_counts() {
        let mut marks = Marks::default();
        let first = Orders { notrack: true, ..Orders::default() };
        Effect::Order(first).apply(&mut marks, false);
        Effect::Order(Orders { helper: Some(Helper::Ftp), ..Orders::default() }).apply(&mut marks, false);
        assert_eq!(marks.orders, Some(first));
    }
}
