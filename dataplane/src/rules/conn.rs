//! What rules may ask about a packet's connection beyond its state, and what they may change on the way: marks, and
//! the tracker's orders (`-j CT`). Shared by [`super::linear`] and the compiled form: the conditions here hang on more
//! than the packet's header, so neither specialises them. Worker thread; evaluated only when a rule asks.

mod effect;
mod matching;
mod orders;

pub use effect::{Counted, Effect, LABELS, Marks, Shift};
pub(super) use matching::Asked;
pub use matching::{ConnBytes, ConnLimit, ConnMatch, Conntrack, CountedDirection, CountedWhat};
pub use orders::{CtEvents, Helper, Orders, PolicyId, Zone};

use crate::clock::Tick;
use crate::flow::{Direction, FlowId, status};
use crate::ids::WorkerId;
use crate::packet::{Family, Packet, Tuple};
use crate::rules::rate::Scratch;

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

    /// Where what rules count of the packet goes, if that is not to be kept.
    fn scratch(&self) -> Option<&Scratch> {
        None
    }
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
