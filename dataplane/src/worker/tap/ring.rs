//! What a tap has seen, on its way from a worker to control: two rings, as for notes ([`crate::worker::notes`]). One is of
//! sightings, which all are of one size, the other of the steps and bytes they speak of. Bytes are put in first, so whoever
//! finds a sighting finds its bytes.

use super::Point;
use crate::clock::Now;
use crate::flow::{Direction, InvalidReason};
use crate::ids::{Generation, PortId};
use crate::packet::Family;
use crate::rules::model::{ChainId, Hook, RuleId, RuleRef};
use crate::rules::trace::Step;
use crate::worker::Fate;
use arrayvec::ArrayVec;
use rtrb::{Consumer, Producer, RingBuffer};

/// Most steps that are kept of a packet's way through the rules.
pub const STEPS_MAX: usize = 64;

/// Bytes of a step in the ring: chain, rule, hook.
const STEP_BYTES: usize = 9;

/// A packet that a tap has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// When: its burst's time.
    pub at: Now,
    /// Where.
    pub point: Point,
    /// The NIC it came in on, or at [`Point::Tx`] that on which it leaves.
    pub port: PortId,
    /// What becomes of it, once that is known.
    pub fate: Option<Fate>,
    /// By which family's rules, if it is an IP packet.
    pub family: Option<Family>,
    /// Generation of these rules.
    pub since: Generation,
    /// Stable name of the rule that decided, if it is none of the policies.
    pub rule: Option<RuleId>,
    /// What was found out about it, if the tap follows packets.
    pub findings: Option<Findings>,
    /// Bytes of the whole frame.
    pub frame_len: u32,
    /// How many of them were kept: who writes it into a ring says so.
    pub kept: u32,
    /// How many steps were kept: who writes it into a ring says so.
    pub steps: u8,
}

/// What was found out about a packet that is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Findings {
    /// Its part in a flow.
    pub flow: FlowPart,
    /// Which way it goes in it.
    pub direction: Direction,
    /// Why it is INVALID.
    pub invalid: Option<InvalidReason>,
    /// Its mark behind the rules.
    pub mark: u32,
    /// Whether its bucket's flows are this worker's, and which bucket that is.
    pub bucket: u8,
    /// Whether there were more steps than are kept.
    pub has_more_steps: bool,
}

/// A packet's part in a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowPart {
    /// It has none.
    None,
    /// It would start one.
    Starts,
    /// It belongs to one.
    Belongs,
    /// It belongs to one, and ends it.
    Ends,
    /// It is an ICMP error about one.
    About,
}

/// Steps of one packet.
pub(super) type Steps = ArrayVec<Step, STEPS_MAX>;

/// The worker's end.
#[derive(Debug)]
pub struct TapWriter {
    sightings: Producer<Sighting>,
    bytes: Producer<u8>,
}

/// Control's end.
#[derive(Debug)]
pub struct TapReader {
    sightings: Consumer<Sighting>,
    bytes: Consumer<u8>,
}

/// Rings for so many sightings and bytes.
#[must_use]
pub fn tap_rings(sightings: usize, bytes: usize) -> (TapWriter, TapReader) {
    let (sightings_in, sightings_out) = RingBuffer::new(sightings);
    let (bytes_in, bytes_out) = RingBuffer::new(bytes);
    let writer = TapWriter { sightings: sightings_in, bytes: bytes_in };
    (writer, TapReader { sightings: sightings_out, bytes: bytes_out })
}

impl TapWriter {
    /// Writes a sighting, its steps and its bytes; false if there is no room.
    pub(super) fn write(&mut self, sighting: &Sighting, steps: &[Step], bytes: &[u8]) -> bool {
        let wanted = steps.len() * STEP_BYTES + bytes.len();
        if self.sightings.is_full() || self.bytes.slots() < wanted {
            return false;
        }
        let mut is_written = true;
        for Step { at, hook } in steps {
            let mut step = [0; STEP_BYTES];
            step[..4].copy_from_slice(&at.chain.0.to_le_bytes());
            step[4..8].copy_from_slice(&at.rule.unwrap_or(u32::MAX).to_le_bytes());
            step[8] = HOOKS.iter().position(|known| known == hook).map_or(0, |at| at.to_le_bytes()[0]);
            is_written &= self.bytes.push_entire_slice(&step).is_ok();
        }
        is_written &= self.bytes.push_entire_slice(bytes).is_ok();
        let kept = u32::try_from(bytes.len()).unwrap_or(0);
        let steps = u8::try_from(steps.len()).unwrap_or(0);
        is_written && self.sightings.push(Sighting { kept, steps, ..*sighting }).is_ok()
    }
}

const HOOKS: [Hook; 4] = [Hook::Forward, Hook::Raw, Hook::Prerouting, Hook::Postrouting];

impl TapReader {
    /// The next sighting; its steps and bytes are put into `steps` and `bytes`.
    pub fn read(&mut self, steps: &mut Vec<Step>, bytes: &mut Vec<u8>) -> Option<Sighting> {
        let sighting = self.sightings.pop().ok()?;
        steps.clear();
        for _ in 0..sighting.steps {
            let mut step = [0; STEP_BYTES];
            self.bytes.pop_entire_slice(&mut step).ok()?;
            let [c0, c1, c2, c3, r0, r1, r2, r3, hook] = step;
            let rule = u32::from_le_bytes([r0, r1, r2, r3]);
            let chain = ChainId(u32::from_le_bytes([c0, c1, c2, c3]));
            let at = RuleRef { chain, rule: (rule != u32::MAX).then_some(rule) };
            steps.push(Step { at, hook: *HOOKS.get(usize::from(hook))? });
        }
        bytes.clear();
        bytes.resize(sighting.kept as usize, 0);
        self.bytes.pop_entire_slice(bytes).ok()?;
        Some(sighting)
    }

    /// When the next sighting was, if there is one.
    #[must_use]
    pub fn next_at(&self) -> Option<Now> {
        self.sightings.peek().ok().map(|sighting| sighting.at)
    }
}
