//! What the tracker says about one packet. Values passed between the worker's stages; nothing here touches the table.

use super::record::Slot;
use super::stats::InvalidReason;
use crate::rules::model::CtState;

/// Which way a packet goes, relative to the packet that created its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Direction {
    /// The same way.
    Orig = 0,
    /// The other way.
    Reply = 1,
}

/// How a packet relates to the flow table.
#[derive(Clone, Copy, Debug)]
pub enum FlowRef {
    /// To no flow: INVALID or untracked. Nothing to commit.
    None,
    /// It belongs to this flow.
    Existing(Slot),
    /// It belongs to this flow and has ended it: rules still see the flow, then [`super::Tracker::finish`] removes it.
    Ending(Slot),
    /// It is an ICMP error about this flow: RELATED, neither counted for the flow nor to be cached with it.
    About(Slot),
    /// It would start a flow; [`super::Tracker::commit`] inserts it, if it is called before the next `track`.
    Tentative(Start),
}

/// What a tentative flow will start with. Opaque: made by `track`, used up by `commit`. What is larger or rarely asked
/// for waits in the tracker.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// Seconds until the flow expires if nothing follows.
    pub(super) timeout_secs: u32,
    /// The table's insert count when the lookup missed: unchanged means that a second lookup would miss too.
    pub(super) epoch: u64,
}

/// The tracker's word on one packet.
#[derive(Clone, Copy, Debug)]
pub struct Tracked {
    /// What rules see.
    pub state: CtState,
    /// Which way the packet goes in its flow; `Orig` when it has none.
    pub direction: Direction,
    /// The flow.
    pub flow: FlowRef,
    /// Why the state is INVALID; `None` for every other state.
    pub invalid: Option<InvalidReason>,
    /// Whether its flow counts the packet: one from which nothing is concluded about the flow does not count.
    pub counts: bool,
}

/// The table has no room for another flow, and no flow nearby could be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("flow table full")]
pub struct TableFull;

impl Direction {
    /// The other way.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Orig => Self::Reply,
            Self::Reply => Self::Orig,
        }
    }

    /// Position in per-direction arrays.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl FlowRef {
    /// The slot of the flow the packet belongs to or is about.
    #[must_use]
    pub const fn slot(&self) -> Option<Slot> {
        match *self {
            Self::Existing(slot) | Self::Ending(slot) | Self::About(slot) => Some(slot),
            Self::None | Self::Tentative(_) => None,
        }
    }
}

impl Tracked {
    pub(super) const fn invalid(reason: InvalidReason) -> Self {
        Self {
            state: CtState::Invalid,
            direction: Direction::Orig,
            flow: FlowRef::None,
            invalid: Some(reason),
            counts: false,
        }
    }

    pub(crate) const fn untracked() -> Self {
        Self {
            state: CtState::Untracked,
            direction: Direction::Orig,
            flow: FlowRef::None,
            invalid: None,
            counts: false,
        }
    }

    pub(super) const fn valid(state: CtState, direction: Direction, flow: FlowRef) -> Self {
        Self { state, direction, flow, invalid: None, counts: true }
    }
}
