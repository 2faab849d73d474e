//! What rules want done to sets, on its way to control: a ring, and a waker for the thread at its other end. Worker thread.

use super::Waker;
use crate::sets::SetAsk;
use rtrb::Producer;
use std::sync::Arc;

/// The worker's end.
#[derive(Debug)]
pub struct SetAsks {
    ring: Producer<SetAsk>,
    waker: Arc<Waker>,
    /// Whether something was put into the ring since the last [`Self::flush`].
    dirty: bool,
}

impl SetAsks {
    /// Asks through `ring` whoever sleeps on `waker`.
    #[must_use]
    pub const fn new(ring: Producer<SetAsk>, waker: Arc<Waker>) -> Self {
        Self { ring, waker, dirty: false }
    }

    /// Puts an order into the ring; `false` if it has no room.
    #[inline]
    pub(super) fn push(&mut self, ask: SetAsk) -> bool {
        self.dirty = true;
        self.ring.push(ask).is_ok()
    }

    /// Wakes the other end if there is something new for it.
    #[inline]
    pub(super) fn flush(&mut self) {
        if std::mem::take(&mut self.dirty) {
            self.waker.wake();
        }
    }
}
