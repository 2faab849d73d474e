//! What would become of a packet, and why, without sending it: the worker's stages ([`crate::worker`]) walked once more for
//! one packet that is only thought of. Any thread but a worker.
//!
//! Parsing and the tracker are the worker's own, on copies; rules are walked as they mean ([`crate::rules::linear`]),
//! which is what their compiled form is held against. Tests hold the whole against workers that get the same packet.
//!
//! Invariant: nothing that a worker looks at is written. Bounded by the number of rules; flows cost nothing however many
//! there are.

mod judge;

use crate::clock::Now;
use crate::flow::{Direction, Expectation, Expectations, FlowView, InvalidReason, LiveTables, Region, Room};
use crate::ids::{PortId, WorkerId};
use crate::packet::Packet;
use crate::reason::DropReason;
use crate::rules::PathId;
use crate::rules::explain::{Step, Story};
use crate::rules::interned::Interned;
use crate::rules::log::LogSpec;
use crate::rules::model::{CtState, RejectWith, RuleRef};
use crate::wire;
use crate::worker::{PortState, Snapshot, Spread, Steering, place};
use std::io;
use std::sync::Arc;

/// The gateway a packet is thought to come to.
#[derive(Clone, Copy, Debug)]
pub struct Live<'a> {
    /// Rules and settings.
    pub snapshot: &'a Snapshot,
    /// Names of the NICs, by [`PortId`].
    pub names: &'a [String],
    /// Their state.
    pub ports: &'a [PortState],
    /// Which worker owns which flows.
    pub steering: &'a Steering,
    /// Flow tables, by worker.
    pub regions: &'a [Arc<Region>],
    /// Connections that helpers expect.
    pub expectations: &'a Expectations,
    /// When it comes.
    pub now: Now,
}

/// What would become of a packet.
#[derive(Clone, Debug)]
pub struct Explained {
    /// What it is, or why it is nothing that could be judged.
    pub packet: Result<Packet, DropReason>,
    /// Who judges it; `None` if nobody need.
    pub owner: Option<Owner>,
    /// Its flow.
    pub flow: Option<KnownFlow>,
    /// The flow after the packet: that of `flow`, or the one that it starts.
    pub after: Option<FlowView>,
    /// Whether the packet ends its flow.
    pub ends: bool,
    /// What the tracker says; `None` if it ends before.
    pub tracked: Option<Verdict>,
    /// Its way through the rules.
    pub story: Story,
    /// Packets that would be logged.
    pub logs: Vec<Logged>,
    /// What becomes of it.
    pub fate: Fate,
    /// The packet as rules have made it, if they have.
    pub changed: Option<Vec<u8>>,
    /// What is not known for sure.
    pub doubts: Vec<Doubt>,
}

/// Which worker judges a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The worker.
    pub worker: WorkerId,
    /// Its bucket.
    pub bucket: u8,
    /// By what it was found.
    pub by: OwnedBy,
}

/// By what a packet's owner is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnedBy {
    /// There is one worker.
    Alone,
    /// The packet's own flow.
    Flow(Spread),
    /// The flow that an ICMP error is about.
    About(Spread),
    /// What all fragments of a datagram have in common.
    Fragments(Spread),
}

/// The flow that a packet belongs to or is about.
#[derive(Clone, Copy, Debug)]
pub struct KnownFlow {
    /// As it is before the packet.
    pub view: FlowView,
    /// Which way the packet goes.
    pub direction: Direction,
    /// Whether the packet is an ICMP error about it.
    pub is_about: bool,
    /// The way through the rules that its worker remembers for packets like this one.
    pub path: Option<PathId>,
}

/// The tracker's word.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    /// What rules see.
    pub state: CtState,
    /// Why it is INVALID.
    pub invalid: Option<InvalidReason>,
    /// Why it is UNTRACKED.
    pub untracked: Option<Untracked>,
    /// What announced it.
    pub expected: Option<Expectation>,
}

/// Why a packet is not tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untracked {
    /// No rule asks for a state.
    NobodyAsks,
    /// A raw rule says so.
    Rule(RuleRef),
    /// Packets of its kind never are.
    Kind,
}

/// A packet that a rule has written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// The rule.
    pub by: RuleRef,
    /// How.
    pub spec: Interned<LogSpec>,
    /// Whether the egress NIC is known there.
    pub knows_egress: bool,
    /// The ingress NIC, too.
    pub knows_ingress: bool,
    /// The packet's mark.
    pub mark: u32,
    /// The beginning of the frame.
    pub bytes: Vec<u8>,
    /// Where its IP header begins.
    pub l3_offset: u16,
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It leaves on this NIC.
    Leaves {
        /// The NIC.
        egress: PortId,
        /// What let it pass, if rules did.
        by: Option<RuleRef>,
    },
    /// It is dropped.
    Dropped {
        /// Why.
        reason: DropReason,
        /// What decided, if rules did.
        by: Option<RuleRef>,
        /// How it was to be rejected.
        with: Option<RejectWith>,
        /// The answer that is sent back, as a frame.
        answer: Option<Vec<u8>>,
    },
    /// It waits for the rest of its datagram.
    Held,
}

/// What cannot be foreseen for sure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// The answer is sent only while the rate of ICMP errors is not used up.
    AnswerRate,
    /// A flow must make room for the new one.
    Room(Room),
    /// The flow table has no room; the packet passes and is forgotten.
    Forgotten,
    /// Its helper's memory of the connection is its worker's own.
    Helper,
    /// Earlier rules let its flow pass, and it goes on under them.
    Kept,
    /// No more packets were taken down for the log.
    Logs,
}

/// Says what would become of a frame that comes in on a NIC.
///
/// # Errors
/// When the system has not the memory for a copy of a flow.
pub fn explain(live: &Live<'_>, frame: &[u8], ingress: PortId) -> io::Result<Explained> {
    let mut explained = Explained {
        packet: Err(DropReason::EthernetTruncated),
        owner: None,
        flow: None,
        after: None,
        ends: false,
        tracked: None,
        story: Story::default(),
        logs: Vec::new(),
        fate: Fate::Held,
        changed: None,
        doubts: Vec::new(),
    };
    judge::frame(live, frame, ingress, &mut explained)?;
    Ok(explained)
}

impl<'a> Live<'a> {
    /// The flow tables.
    #[must_use]
    pub const fn tables(&self) -> LiveTables<'a> {
        LiveTables::new(self.regions, self.expectations, self.now)
    }

    /// How buckets are found: a worker that is alone does not ask which one a NIC would find.
    fn spread(&self) -> Spread {
        if self.regions.len() < 2 { Spread::Secret } else { self.steering.spread() }
    }

    /// Who judges a packet, by its own hash or by that of what it is about; fills in both.
    fn place(&self, packet: &mut Packet, bytes: &[u8]) -> Owner {
        let hash = |tuple: &_| self.regions.first().map_or(0, |region| region.hash(tuple));
        let spread = self.spread();
        let placed = place(spread, packet, bytes, hash);
        (packet.hash, packet.bucket) = (placed.hash, placed.bucket);
        let by = match (self.regions.len(), placed.is_about, placed.meets) {
            (0 | 1, ..) => OwnedBy::Alone,
            (_, true, _) => OwnedBy::About(spread),
            (_, _, true) => OwnedBy::Fragments(spread),
            _ => OwnedBy::Flow(spread),
        };
        let owners = self.steering.owners();
        Owner { worker: owners[usize::from(packet.bucket)], bucket: packet.bucket, by }
    }
}

/// The flow that a packet would belong to, for those who want to make one that fits it.
#[must_use]
pub fn flow_of(live: &Live<'_>, frame: &[u8]) -> Option<crate::flow::Found> {
    let mut packet = wire::parse(frame, u32::try_from(frame.len()).ok()?).ok()?;
    packet.family()?;
    let owner = live.place(&mut packet, frame);
    live.tables().find(owner.worker, &packet.tuple, crate::rules::conn::Zone::default())
}

/// Steps of a story about one rule.
impl Explained {
    /// The step at which a rule matched, the last one.
    #[must_use]
    pub fn step(&self, by: RuleRef) -> Option<&Step> {
        self.story.steps.iter().rev().find(|step| step.by == by)
    }
}
