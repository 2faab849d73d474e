//! Datagrams put together again, so that a fragmented one is tracked and judged as the whole it is. The fragments
//! themselves are held in their frames until the datagram is complete, share its verdict, and then leave, each as long
//! as it came. Worker thread only; used where the rules track connections, as in the kernel.
//!
//! ```text
//! piece     what a fragment says about itself (piece.rs)
//! runs      which bytes of a datagram are there (runs.rs); pure
//! senders   how many fragments of others came between two of a datagram (senders.rs)
//! Defrag    datagrams in the making, their limits and timers (this file)
//! whole     one packet made of a datagram's fragments, for parser, tracker and answers (whole.rs)
//! ```
//!
//! Semantics follow Linux `ip_fragment.c`, `inet_fragment.c` and `nf_conntrack_reasm.c`, as observed from outside: what
//! is there already is ignored when it comes again, whatever overlaps otherwise spoils its datagram, and beyond a limit
//! no fragment is taken, until some were given up.
//!
//! Invariants: a frame is in exactly one datagram, in the list of those given up, or with the caller;
//! [`Defrag::frames`] counts the chunks held and never exceeds [`DefragLimits::frames`]; a datagram has exactly one
//! deadline; work per fragment grows with the logarithm of what is held, in whatever order fragments come.

mod piece;
mod runs;
mod senders;
#[cfg(test)]
mod tests;
mod whole;

pub use piece::{Piece, Unfit};
pub use whole::{Whole, settle_end};

use crate::clock::Now;
use crate::flow::TrackSettings;
use crate::ids::PortId;
use crate::packet::{Family, Packet, Tuple};
use crate::reason::DropReason;
use crate::xsk::Frame;
use runs::{Place, Runs};
use senders::Senders;
use std::collections::{BTreeMap, HashMap};

/// What a held fragment is reckoned to cost beside its bytes. The kernel counts what its `skb` takes: 832 bytes for a
/// short one from a veth, 2,304 for 1,400 bytes, seen by filling its table up.
const OVERHEAD: usize = 768;

/// What a datagram is reckoned to cost beside its fragments, seen in the same way.
const DATAGRAM_COST: usize = 184;

/// Longest IPv6 payload, and so the furthest that a fragment of it may reach. RFC 8200 section 4.5.
const V6_PAYLOAD_MAX: usize = 65_535;

/// Which datagram a fragment belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    src: u128,
    dst: u128,
    id: u32,
    /// IPv4 only: IPv6 takes the protocol from the first fragment.
    proto: u8,
    family: Family,
    ingress: PortId,
    vlans: u64,
}

/// A fragment in its frame.
#[derive(Debug)]
pub struct Held {
    /// The frame, as received.
    pub frame: Frame,
    /// Its own headers.
    pub packet: Packet,
    /// What it says of its place.
    pub piece: Piece,
}

/// ECN codepoints of a datagram's fragments, a bit for each.
#[derive(Clone, Copy, Debug, Default)]
struct Codepoints(u8);

impl Codepoints {
    const NOT_ECT: u8 = 1;

    fn note(&mut self, ecn: u8) {
        self.0 |= 1 << (ecn & 3);
    }

    /// Whether some fragments say that their transport knows of ECN and others that it does not: then a router's mark
    /// would be lost or made up. RFC 3168 section 5.3.
    const fn contradict(self) -> bool {
        self.0 & Self::NOT_ECT != 0 && self.0 != Self::NOT_ECT
    }
}

/// When a datagram is given up, and which of those it is.
type Deadline = (Now, u64);

/// A datagram in the making.
#[derive(Debug)]
struct Datagram {
    /// In the order in which they came.
    held: Vec<Held>,
    runs: Runs,
    codepoints: Codepoints,
    bytes: usize,
    frames: usize,
    deadline: Deadline,
    /// Whether its sender's fragments are counted, and how many there were when the last of its own came.
    sender_count: Option<u32>,
}

/// What becomes of a fragment.
#[derive(Debug)]
pub enum Added {
    /// It waits for the others.
    Held,
    /// It completed its datagram: all fragments, in order.
    Complete(Vec<Held>),
    /// It is none that could be put together: to be judged by itself.
    Alone(Held),
    /// It is given up.
    GivenUp,
}

/// A datagram on its way to another worker.
#[derive(Debug)]
pub struct Passage {
    key: Key,
    datagram: Datagram,
    /// Fragments of its sender that came since the last of its own.
    behind: Option<u32>,
}

/// A fragment that will not be part of any datagram.
#[derive(Debug)]
pub struct GivenUp {
    /// The fragment.
    pub held: Held,
    /// The NIC it came in by.
    pub ingress: PortId,
    /// Why.
    pub reason: DropReason,
}

/// How much may be held, beside what settings say.
#[derive(Clone, Copy, Debug)]
pub struct DefragLimits {
    /// Chunks of frames: a share of the worker's pool, so that holding never starves receiving.
    pub frames: usize,
}

/// All datagrams in the making of one worker.
#[derive(Debug)]
pub struct Defrag {
    datagrams: HashMap<Key, Datagram>,
    deadlines: BTreeMap<Deadline, Key>,
    senders: Senders,
    bytes: [usize; 2],
    frames: usize,
    serial: u64,
    limits: DefragLimits,
    given_up: Vec<GivenUp>,
}

const fn index(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

impl Key {
    const fn of(held: &Held, ingress: PortId) -> Self {
        let Piece { id, vlans, .. } = held.piece;
        let Tuple { src, dst, family, .. } = held.packet.tuple;
        let proto = if matches!(family, Family::V4) { held.packet.tuple.proto } else { 0 };
        Self { src, dst, id, proto, family, ingress, vlans }
    }
}

impl Defrag {
    /// Nothing held yet.
    #[must_use]
    pub fn new(limits: DefragLimits) -> Self {
        Self {
            datagrams: HashMap::new(),
            deadlines: BTreeMap::new(),
            senders: Senders::default(),
            bytes: [0; 2],
            frames: 0,
            serial: 0,
            limits,
            given_up: Vec::new(),
        }
    }

    /// Chunks of the frames held.
    #[must_use]
    pub const fn frames(&self) -> usize {
        self.frames
    }

    /// A fragment given up since the last call: none is left behind when [`Self::add`] or [`Self::expire`] is called
    /// again.
    pub fn next_given_up(&mut self) -> Option<GivenUp> {
        self.given_up.pop()
    }

    /// Takes a fragment. With `again` its datagram was whole once already, at another worker.
    pub fn add(
        &mut self,
        held: Held,
        ingress: PortId,
        now: Now,
        settings: &TrackSettings,
        again: bool,
    ) -> Added {
        let key = Key::of(&held, ingress);
        if self.is_full(&held, settings) {
            return self.refuse(key, held, DropReason::FragmentLimit);
        }
        if self.datagrams.get(&key).is_some_and(|datagram| datagram.deadline.0 <= now) {
            self.give_up(key, DropReason::FragmentTimeout);
        }
        if !self.datagrams.contains_key(&key) {
            self.begin(key, now, settings, !again);
        }
        let max = settings.ipfrag_max_dist.0;
        if max > 0 && self.distance(&key) > max {
            self.give_up(key, DropReason::FragmentDistance);
            self.begin(key, now, settings, !again);
        }
        self.place(key, held)
    }

    /// Whether no fragment is taken.
    fn is_full(&self, held: &Held, settings: &TrackSettings) -> bool {
        let family = held.packet.tuple.family;
        let bytes_max = match family {
            Family::V4 => settings.ipfrag_high_thresh,
            Family::V6 => settings.frag6_high_thresh,
        };
        bytes_max.0 == 0
            || self.bytes[index(family)] > bytes_max.0 as usize
            || self.frames + held.frame.segments() as usize > self.limits.frames
    }

    /// Begins a datagram.
    fn begin(&mut self, key: Key, now: Now, settings: &TrackSettings, counts_distance: bool) {
        let secs = match key.family {
            Family::V4 => settings.ipfrag_time,
            Family::V6 => settings.frag6_timeout,
        };
        let counts = counts_distance && key.family == Family::V4 && settings.ipfrag_max_dist.0 > 0;
        self.serial += 1;
        let datagram = Datagram {
            held: Vec::new(),
            runs: Runs::default(),
            codepoints: Codepoints::default(),
            bytes: DATAGRAM_COST,
            frames: 0,
            deadline: (now.plus_nanos(u64::from(secs) * 1_000_000_000), self.serial),
            sender_count: counts.then(|| self.senders.join(key.src)),
        };
        self.bytes[index(key.family)] += datagram.bytes;
        self.deadlines.insert(datagram.deadline, key);
        self.datagrams.insert(key, datagram);
    }

    /// How many fragments the datagram's sender has sent since the last one of this datagram, the present one
    /// included; 0 if nothing of it is held.
    fn distance(&mut self, key: &Key) -> u32 {
        let Some(datagram) = self.datagrams.get_mut(key) else { return 0 };
        let Some(count) = &mut datagram.sender_count else { return 0 };
        let before = std::mem::replace(count, self.senders.count(key.src));
        if datagram.held.is_empty() { 0 } else { count.wrapping_sub(before) }
    }

    fn place(&mut self, key: Key, held: Held) -> Added {
        let Some(datagram) = self.datagrams.get_mut(&key) else {
            return self.refuse(key, held, DropReason::FragmentLimit);
        };
        let piece = held.piece;
        if key.family == Family::V6 && piece.end > V6_PAYLOAD_MAX {
            return self.refuse(key, held, DropReason::FragmentBad);
        }
        if piece.is_odd {
            // Not taken for one, but its datagram is not to be trusted any more.
            self.give_up(key, DropReason::FragmentBad);
            return Added::Alone(held);
        }
        match datagram.runs.add(piece.offset, piece.end, piece.is_last) {
            Place::Fits => {}
            Place::Repeats => return self.refuse(key, held, DropReason::FragmentRepeated),
            Place::Contradicts => {
                if key.family == Family::V4 {
                    self.give_up(key, DropReason::FragmentBad);
                }
                return self.refuse(key, held, DropReason::FragmentBad);
            }
            Place::Overlaps => {
                self.give_up(key, DropReason::FragmentOverlap);
                return self.refuse(key, held, DropReason::FragmentOverlap);
            }
        }
        let (cost, frames) = (held.frame.len() as usize + OVERHEAD, held.frame.segments() as usize);
        datagram.bytes += cost;
        datagram.frames += frames;
        datagram.codepoints.note(piece.ecn);
        datagram.held.push(held);
        let is_complete = datagram.runs.is_complete();
        self.bytes[index(key.family)] += cost;
        self.frames += frames;
        if is_complete { self.complete(key) } else { Added::Held }
    }

    /// All of a datagram is there: whether that makes one.
    fn complete(&mut self, key: Key) -> Added {
        let Some(Datagram { mut held, codepoints, .. }) = self.take(key) else { return Added::GivenUp };
        held.sort_unstable_by_key(|held| held.piece.offset);
        let end = held.last().map_or(0, |last| last.piece.end);
        let is_too_long = held.first().is_none_or(|first| whole::is_too_long(first, end));
        let reason = match (codepoints.contradict(), is_too_long) {
            (true, _) => DropReason::FragmentEcn,
            (_, true) => DropReason::FragmentBad,
            _ => return Added::Complete(held),
        };
        self.note_given_up(held, key.ingress, reason);
        Added::GivenUp
    }

    /// Gives up one fragment.
    fn refuse(&mut self, key: Key, held: Held, reason: DropReason) -> Added {
        self.given_up.push(GivenUp { held, ingress: key.ingress, reason });
        Added::GivenUp
    }

    /// Gives up what is held of a datagram.
    fn give_up(&mut self, key: Key, reason: DropReason) {
        if let Some(Datagram { held, .. }) = self.take(key) {
            self.note_given_up(held, key.ingress, reason);
        }
    }

    fn note_given_up(&mut self, held: Vec<Held>, ingress: PortId, reason: DropReason) {
        self.given_up.extend(held.into_iter().map(|held| GivenUp { held, ingress, reason }));
    }

    /// Removes a datagram.
    fn take(&mut self, key: Key) -> Option<Datagram> {
        let datagram = self.datagrams.remove(&key)?;
        self.deadlines.remove(&datagram.deadline);
        self.bytes[index(key.family)] -= datagram.bytes;
        self.frames -= datagram.frames;
        if datagram.sender_count.is_some() {
            self.senders.leave(key.src);
        }
        Some(datagram)
    }

    /// Takes out the datagrams of one bucket, which go to another worker.
    pub fn give(&mut self, bucket: u8) -> Vec<Passage> {
        let is_of =
            |datagram: &Datagram| datagram.held.first().is_some_and(|held| held.packet.bucket == bucket);
        let keys: Vec<Key> =
            self.datagrams.iter().filter(|(_, datagram)| is_of(datagram)).map(|(key, _)| *key).collect();
        let give = |key: Key| {
            // Before its sender may be forgotten.
            let fragments = self.senders.seen(key.src);
            let datagram = self.take(key)?;
            let behind = datagram.sender_count.map(|count| fragments.wrapping_sub(count));
            Some(Passage { key, datagram, behind })
        };
        keys.into_iter().filter_map(give).collect()
    }

    /// Takes in a datagram from another worker. If there is no room for it, it is given up.
    pub fn take_in(&mut self, passage: Passage) {
        let Passage { key, mut datagram, behind } = passage;
        if self.frames + datagram.frames > self.limits.frames || self.datagrams.contains_key(&key) {
            return self.note_given_up(datagram.held, key.ingress, DropReason::FragmentLimit);
        }
        self.serial += 1;
        datagram.deadline.1 = self.serial;
        datagram.sender_count = behind.map(|behind| self.senders.join(key.src).wrapping_sub(behind));
        self.bytes[index(key.family)] += datagram.bytes;
        self.frames += datagram.frames;
        self.deadlines.insert(datagram.deadline, key);
        self.datagrams.insert(key, datagram);
    }

    /// Gives up the next datagram whose time is up; false when there is no more.
    pub fn expire(&mut self, now: Now) -> bool {
        match self.deadlines.first_key_value() {
            Some((deadline, key)) if deadline.0 <= now => {
                let key = *key;
                self.give_up(key, DropReason::FragmentTimeout);
                true
            }
            _ => false,
        }
    }
}
