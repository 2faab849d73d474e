//! Conditions on a packet's mark and its connection. Worker thread.

use super::{Conn, Counted, Flows, Known, Marks, TEMPLATES, Zone};
use crate::flow::{Direction, status};
use crate::packet::{Family, Packet, Tuple};
use crate::rules::Facts;
use crate::rules::conncount::{ConnCount, CountKey};
use crate::rules::model::CtState;
use std::sync::Arc;

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
    /// `-m connlabel`: no connection has none, nor has one that began while no rule asked this.
    ConnLabel {
        /// Which label, below [`super::LABELS`].
        label: u8,
        /// `--set`: the connection is given it first.
        set: bool,
        /// With `!`.
        invert: bool,
    },
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
pub(in crate::rules) struct Asked<'a> {
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
    pub(in crate::rules) fn about(facts: &'a Facts<'_>, marks: &Marks) -> Self {
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

    pub(in crate::rules) const fn state(&self) -> CtState {
        self.state
    }

    /// Whether it has a connection whose mark may be set.
    pub(in crate::rules) const fn has_conn(&self) -> bool {
        self.conn.is_some()
    }
}

impl ConnMatch {
    /// Whether it holds. Sources: `net/netfilter/xt_*.c`, as observed from outside.
    pub(in crate::rules) fn holds(&self, asked: Asked<'_>, marks: &mut Marks) -> bool {
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
            Self::ConnLabel { label, set, invert } => marks.has_label(*label, *set) != *invert,
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
        let own = flows.scratch().map(|scratch| scratch.connections(&self.count, key));
        let counting = own.as_ref().unwrap_or(&self.count);
        let count = match known {
            Some(known) => counting.count_known(key, known, flows),
            None => {
                let zone = conn.is_none().then(|| zone.of(Direction::Orig));
                marks.counted.push(Counted { count: Arc::clone(counting), key, zone });
                counting.count_newcomer(key, flows)
            }
        };
        (count > self.limit) != self.upto
    }
}
