//! Which bytes of a datagram have come: runs of pieces that came one after the other. Pure.

use crate::packet::Family;

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
    Spoils,
}

/// Pieces come so far. Linux `inet_frag_queue_insert`: a piece that continues the highest run joins it, any other starts
/// one of its own.
#[derive(Clone, Debug, Default)]
pub(super) struct Runs {
    /// Sorted, disjoint.
    runs: Vec<(usize, usize)>,
    /// Highest byte known to be there, or the datagram's length once that is known.
    len: usize,
    last_came: bool,
    filled: usize,
}

impl Runs {
    pub(super) fn add(&mut self, offset: usize, end: usize, is_last: bool, family: Family) -> Place {
        // IPv4 gives a datagram up that contradicts itself, IPv6 only the piece.
        let contradiction = if family == Family::V4 { Place::Spoils } else { Place::Contradicts };
        if is_last {
            if end < self.len || self.last_came && end != self.len {
                return contradiction;
            }
            self.last_came = true;
            self.len = end;
        } else if end > self.len {
            if self.last_came {
                return contradiction;
            }
            self.len = end;
        }
        if end == offset {
            return contradiction;
        }
        let place = self.insert(offset, end);
        if place == Place::Fits {
            self.filled += end - offset;
        }
        place
    }

    fn insert(&mut self, offset: usize, end: usize) -> Place {
        match self.runs.last_mut() {
            Some(last) if end > last.1 => {
                if offset < last.1 {
                    return Place::Spoils;
                }
                if offset == last.1 {
                    last.1 = end;
                } else {
                    self.runs.push((offset, end));
                }
                return Place::Fits;
            }
            _ => {}
        }
        let at = self.runs.partition_point(|run| run.1 <= offset);
        match self.runs.get(at) {
            Some(&(from, to)) if offset >= from && end <= to => Place::Repeats,
            Some(&(from, _)) if end > from => Place::Spoils,
            _ => {
                self.runs.insert(at, (offset, end));
                Place::Fits
            }
        }
    }

    /// Whether every byte up to the end is there.
    pub(super) fn is_complete(&self) -> bool {
        self.last_came && self.filled == self.len
    }
}
