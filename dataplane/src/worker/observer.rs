//! Who watches what becomes of a packet. Static dispatch: the `()` observer of a gateway under load compiles to
//! nothing, `fwctl replay` and tests bring one that takes notes.

use crate::ids::PortId;
use crate::packet::Packet;
use crate::reason::DropReason;
use crate::rules::model::{CtState, RuleRef};

/// What became of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    /// The NIC it came in on.
    pub ingress: PortId,
    /// Why it was dropped; `None` if it was forwarded.
    pub dropped: Option<DropReason>,
    /// Its connection state, if it got as far as the rules.
    pub ct_state: Option<CtState>,
    /// The rule that decided, if rules did.
    pub rule: Option<RuleRef>,
}

/// Watches packets leave the path, each exactly once, in the order in which they do.
pub trait Observer {
    /// Whether it does anything with what it is told.
    const WATCHES: bool = true;

    /// `frame` is the frame's [`crate::xsk::Frame::id`], the one it came in with; `packet` is `None` if it could not be
    /// parsed.
    fn fate(&mut self, frame: u64, packet: Option<&Packet>, fate: &Fate);
}

impl Observer for () {
    const WATCHES: bool = false;

    #[inline]
    fn fate(&mut self, _: u64, _: Option<&Packet>, _: &Fate) {}
}
