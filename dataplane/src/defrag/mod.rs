//! Datagrams put together again, so that a fragmented one is tracked and judged as the whole it is. The fragments
//! themselves are held in their frames until the datagram is complete, share its verdict, and then leave as they
//! came. Worker thread only; used where the rules track connections, as in the kernel.
//!
//! ```text
//! piece     what a fragment says about itself (piece.rs)
//! runs      which bytes of a datagram are there (runs.rs); pure
//! Defrag    datagrams in the making, their limits and timers (this file)
//! whole     one packet made of a datagram's fragments, for parser, tracker and answers (whole.rs)
//! ```
//!
//! Semantics follow Linux `ip_fragment.c`, `inet_fragment.c` and `nf_conntrack_reasm.c`, as observed from outside: what
//! is there already is ignored when it comes again, whatever overlaps otherwise spoils its datagram, and beyond a limit
//! no new datagram is begun.
//!
//! Invariants: a frame is in exactly one datagram or with the caller; [`Defrag::frames`] counts those held and never
//! exceeds [`DefragLimits::frames`]; work per fragment is bounded by the fragments of its own datagram.

mod piece;
mod runs;
#[cfg(test)]
mod tests;
mod whole;

pub use piece::Piece;
pub use whole::{WHOLE_MAX, Whole};

use crate::clock::Tick;
use crate::flow::TrackSettings;
use crate::ids::PortId;
use crate::packet::{Family, Packet};
use crate::reason::DropReason;
use crate::xsk::Frame;
use runs::{Place, Runs};
use std::collections::{HashMap, VecDeque};

/// What a held fragment is reckoned to cost beside its bytes, as the kernel's `skb` does.
const OVERHEAD: usize = 768;

/// Most fragments one datagram may have: 64 KiB in the smallest pieces a sane path makes (68-byte MTU) and some.
const FRAGMENTS_MAX: usize = 2048;

/// So many deadlines are kept before those of datagrams that are gone are looked for.
const DEADLINES_MIN: usize = 1024;

/// Which datagram a fragment belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    src: u128,
    dst: u128,
    id: u32,
    /// IPv4 only: IPv6 takes the protocol from the first fragment.
    proto: u8,
    family: Family,
    ingress: PortId,
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

/// A datagram in the making.
#[derive(Debug, Default)]
struct Datagram {
    /// In order of their offsets.
    held: Vec<Held>,
    runs: Runs,
    bytes: usize,
    serial: u64,
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
    /// It is dropped.
    Dropped(Held, DropReason),
    /// It is dropped, and with it all that was held of its datagram.
    Spoiled(Vec<Held>, DropReason),
}

/// How much may be held, beside what settings say.
#[derive(Clone, Copy, Debug)]
pub struct DefragLimits {
    /// Frames: a share of the worker's pool, so that holding never starves receiving.
    pub frames: usize,
}

/// All datagrams in the making of one worker.
#[derive(Debug)]
pub struct Defrag {
    datagrams: HashMap<Key, Datagram>,
    /// Deadlines in the order in which datagrams were begun, by family: all of a family wait equally long.
    deadlines: [VecDeque<(Tick, Key, u64)>; 2],
    bytes: [usize; 2],
    frames: usize,
    serial: u64,
    limits: DefragLimits,
}

const fn index(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

/// Whether a deadline is that of a datagram still in the making.
fn is_current(datagrams: &HashMap<Key, Datagram>, key: &Key, serial: u64) -> bool {
    datagrams.get(key).is_some_and(|datagram| datagram.serial == serial)
}

impl Defrag {
    /// Nothing held yet.
    #[must_use]
    pub fn new(limits: DefragLimits) -> Self {
        Self {
            datagrams: HashMap::new(),
            deadlines: [VecDeque::new(), VecDeque::new()],
            bytes: [0; 2],
            frames: 0,
            serial: 0,
            limits,
        }
    }

    /// Frames held.
    #[must_use]
    pub const fn frames(&self) -> usize {
        self.frames
    }

    /// Takes a fragment; `piece` is `None` if its header says nothing that could be used.
    pub fn add(
        &mut self,
        held: Held,
        piece: Option<Piece>,
        ingress: PortId,
        now: Tick,
        settings: &TrackSettings,
    ) -> Added {
        let packet = &held.packet;
        let family = packet.tuple.family;
        // IPv6: a piece that is no multiple of eight bytes, or lacks its upper header, is not taken for one.
        let Some(piece) = piece else { return Added::Alone(held) };
        if piece.end > WHOLE_MAX {
            return Added::Dropped(held, DropReason::FragmentBad);
        }
        let proto = if family == Family::V4 { packet.tuple.proto } else { 0 };
        let key = Key { src: packet.tuple.src, dst: packet.tuple.dst, id: piece.id, proto, family, ingress };
        if self.frames >= self.limits.frames {
            return Added::Dropped(held, DropReason::FragmentLimit);
        }
        if !self.datagrams.contains_key(&key) && !self.begin(key, now, settings) {
            return Added::Dropped(held, DropReason::FragmentLimit);
        }
        self.place(key, held, piece)
    }

    /// Begins a datagram; false if there is no room for another one.
    fn begin(&mut self, key: Key, now: Tick, settings: &TrackSettings) -> bool {
        let (secs, bytes_max) = match key.family {
            Family::V4 => (settings.ipfrag_time, settings.ipfrag_high_thresh),
            Family::V6 => (settings.frag6_timeout, settings.frag6_high_thresh),
        };
        if self.bytes[index(key.family)] > bytes_max.0 as usize {
            return false;
        }
        self.serial += 1;
        self.datagrams.insert(key, Datagram { serial: self.serial, ..Datagram::default() });
        let deadlines = &mut self.deadlines[index(key.family)];
        deadlines.push_back((now.plus_secs(secs), key, self.serial));
        // Most datagrams are complete long before their time: their deadlines must not pile up behind one that is not.
        if deadlines.len() > 2 * self.datagrams.len() + DEADLINES_MIN {
            let datagrams = &self.datagrams;
            deadlines.retain(|(_, key, serial)| is_current(datagrams, key, *serial));
        }
        true
    }

    fn place(&mut self, key: Key, held: Held, piece: Piece) -> Added {
        let Some(datagram) = self.datagrams.get_mut(&key) else {
            return Added::Dropped(held, DropReason::FragmentLimit);
        };
        let place = if datagram.held.len() >= FRAGMENTS_MAX {
            Place::Spoils
        } else {
            datagram.runs.add(piece.offset, piece.end, piece.is_last, key.family)
        };
        match place {
            Place::Fits => {}
            Place::Repeats => return Added::Dropped(held, DropReason::FragmentRepeated),
            Place::Contradicts => return Added::Dropped(held, DropReason::FragmentBad),
            Place::Spoils => {
                let mut all = self.take(key);
                all.push(held);
                return Added::Spoiled(all, DropReason::FragmentOverlap);
            }
        }
        let cost = held.frame.len() as usize + OVERHEAD;
        datagram.bytes += cost;
        let at = datagram.held.partition_point(|other| other.piece.offset < piece.offset);
        datagram.held.insert(at, held);
        self.bytes[index(key.family)] += cost;
        self.frames += 1;
        if !datagram.runs.is_complete() {
            return Added::Held;
        }
        let all = self.take(key);
        let header = all.first().map_or(0, |first| first.piece.header_len);
        if piece.end.max(all.last().map_or(0, |last| last.piece.end)) + header > WHOLE_MAX {
            return Added::Spoiled(all, DropReason::FragmentBad);
        }
        Added::Complete(all)
    }

    /// Removes a datagram and gives what was held of it.
    fn take(&mut self, key: Key) -> Vec<Held> {
        let Some(datagram) = self.datagrams.remove(&key) else { return Vec::new() };
        self.bytes[index(key.family)] -= datagram.bytes;
        self.frames -= datagram.held.len();
        datagram.held
    }

    /// The fragments of the next datagram whose time is up; `None` when there is no more.
    pub fn expire(&mut self, now: Tick) -> Option<(PortId, Vec<Held>)> {
        for family in [0, 1] {
            while let Some(&(deadline, key, serial)) = self.deadlines[family].front() {
                let is_current = is_current(&self.datagrams, &key, serial);
                if is_current && !deadline.is_past(now) {
                    break;
                }
                self.deadlines[family].pop_front();
                if is_current {
                    return Some((key.ingress, self.take(key)));
                }
            }
        }
        None
    }
}
