//! What control wants done to flows: one removed or changed, or all of them gone. Control asks over a ring of its own; the
//! worker that owns the flows does it between bursts, in bounded slices. Owner thread only.

use super::record::{Life, Slot};
use super::tracker::Tracker;
use super::view::Cursor;
use crate::clock::Now;
use crate::rules::conn::CtEvents;
use std::sync::atomic::Ordering::Relaxed;

/// Words of 64 slots each that a slice of a flush looks at.
const FLUSH_WORDS: usize = 256;

/// Flows that a slice of a flush removes, give or take those of one word.
const FLUSH_FLOWS: usize = 64;

/// One thing that control wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Something to one flow, if it still is that one.
    Flow {
        /// Where it is.
        slot: Slot,
        /// Which of the slot's flows it is.
        seq: u32,
        /// What.
        change: Change,
    },
    /// All flows that are there now go. Of those that come meanwhile, some may go with them.
    Flush,
}

/// What is to be done to a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It goes.
    Delete,
    /// It gets another mark, other labels, more time, or several of these.
    Update {
        /// Bits of its mark that are cleared, and bits that are flipped then.
        mark: Option<(u32, u32)>,
        /// Labels that are taken from it, and labels that it is given. A flow that can have none stays without.
        labels: Option<(u128, u128)>,
        /// Seconds until it expires if nothing more comes.
        timeout_secs: Option<u32>,
    },
}

impl Tracker {
    /// Does what control wants, or begins to: a flush goes on with [`Self::flush_on`].
    pub fn serve(&mut self, request: Request, now: Now) {
        match request {
            Request::Flush => self.flush = Some(Cursor::default()),
            Request::Flow { slot, seq, change } => {
                let seq_now = self.table.live_record(slot).map(|record| record.common.seq.load(Relaxed));
                if seq_now == Some(seq) {
                    self.at_request(true);
                    self.change(slot, change, now);
                    self.at_request(false);
                }
            }
        }
    }

    fn change(&mut self, slot: Slot, change: Change, now: Now) {
        let (mark, labels, timeout_secs) = match change {
            Change::Delete => {
                self.remove(slot);
                return;
            }
            Change::Update { mark, labels, timeout_secs } => (mark, labels, timeout_secs),
        };
        let record = self.table.record(slot);
        if let Some(secs) = timeout_secs {
            record.common.set_life(Life { deadline: now.tick().plus_secs(secs), ..record.common.life() });
        }
        if let Some((clear, flip)) = mark {
            record.tail.mark.store(record.tail.mark.load(Relaxed) & !clear ^ flip, Relaxed);
            self.note(CtEvents::MARK, slot);
        }
        if let (Some((take, give)), Some(have)) = (labels, self.labels_in(slot)) {
            self.label(slot, have & !take | give);
        }
        if (mark.is_some() || labels.is_some())
            && let Some(events) = &mut self.events
            && events.is_on()
        {
            events.tell(Some(slot), true, self.table.region());
        }
    }

    /// Marks what happens from now on as asked for by control, or no longer.
    fn at_request(&mut self, asked: bool) {
        if let Some(events) = &mut self.events {
            events.asked = asked;
        }
    }

    /// Whether a flush has begun and is not over.
    #[must_use]
    #[inline]
    pub const fn is_flushing(&self) -> bool {
        self.flush.is_some()
    }

    /// Goes on with a flush for a bounded while; true once it is over.
    pub fn flush_on(&mut self) -> bool {
        let Some(mut cursor) = self.flush else { return true };
        self.at_request(true);
        let mut removed = 0;
        for _ in 0..FLUSH_WORDS {
            let (mut slots, next) = self.table.region().slots_at(cursor);
            while let Some(slot) = slots.next_slot() {
                removed += usize::from(self.remove(slot));
            }
            cursor = next;
            if cursor.is_start() || removed >= FLUSH_FLOWS {
                break;
            }
        }
        self.at_request(false);
        self.flush = (!cursor.is_start()).then_some(cursor);
        self.flush.is_none()
    }
}
