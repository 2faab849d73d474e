//! Which bytes of a datagram have come: runs of pieces that came one after the other. Pure.

use std::collections::BTreeMap;

/// What a piece is to those that came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// New bytes.
    Fits,
    /// Bytes that are all there already.
    Repeats,
    /// It says another end of the datagram than one before, or carries nothing.
    Contradicts,
    /// It overlaps what is there: the datagram is to be given up (RFC 5722, and IPv4 likewise).
    Overlaps,
}

/// Pieces come so far. Linux `inet_frag_queue_insert`: a piece that continues the highest run joins it, any other starts
/// one of its own.
#[derive(Clone, Debug, Default)]
pub(super) struct Runs {
    /// Where each starts and ends; disjoint. A tree, because the order in which pieces come is up to their sender.
    runs: BTreeMap<Offset, usize>,
    /// Highest byte known to be there, or the datagram's length once that is known.
    len: usize,
    last_came: bool,
    filled: usize,
}

/// Where a run starts. Tests count how often two are compared: that is the work a hostile order could make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), derive(PartialOrd, Ord))]
pub(super) struct Offset(pub(super) usize);

impl Runs {
    pub(super) fn add(&mut self, offset: usize, end: usize, is_last: bool) -> Place {
        if is_last {
            if end < self.len || self.last_came && end != self.len {
                return Place::Contradicts;
            }
            self.last_came = true;
            self.len = end;
        } else if end > self.len {
            if self.last_came {
                return Place::Contradicts;
            }
            self.len = end;
        }
        if end == offset {
            return Place::Contradicts;
        }
        let place = self.insert(offset, end);
        if place == Place::Fits {
            self.filled += end - offset;
        }
        place
    }

    fn insert(&mut self, offset: usize, end: usize) -> Place {
        if let Some(mut last) = self.runs.last_entry()
            && end > *last.get()
        {
            let to = *last.get();
            if offset < to {
                return Place::Overlaps;
            }
            if offset == to {
                *last.get_mut() = end;
                return Place::Fits;
            }
        } else if let Some((&Offset(from), &to)) = self.runs.range(..Offset(end)).next_back()
            && to > offset
        {
            // Of the runs that begin before the piece ends, the last one: if any overlaps, that one does.
            return if offset >= from && end <= to { Place::Repeats } else { Place::Overlaps };
        }
        self.runs.insert(Offset(offset), end);
        Place::Fits
    }

    /// Whether every byte up to the end is there.
    pub(super) fn is_complete(&self) -> bool {
        self.last_came && self.filled == self.len
    }
}
