//! Members of a `list:set`, in order.

use super::slot::Slot;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A set in a list.
#[derive(Debug)]
pub struct Member {
    /// The set.
    pub slot: Arc<Slot>,
    /// Nanoseconds on the daemon's clock; 0: never.
    pub(super) deadline: AtomicU64,
    /// Packets and bytes.
    pub(super) counts: [AtomicU64; 2],
}

impl Member {
    pub(super) fn is_over(&self, nanos: u64) -> bool {
        let deadline = self.deadline.load(Ordering::Acquire);
        deadline != 0 && deadline <= nanos
    }
}
