//! A place for a set, which rules and lists name.

use super::set::Set;
use arc_swap::{ArcSwap, Guard};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Number of a slot, never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(pub u32);

/// A place for a set. It keeps its name while rules use it; what is in it may be swapped.
pub struct Slot {
    id: SlotId,
    set: ArcSwap<Set>,
    /// Sets that were here and that a worker may still look at: the last reference must go on control.
    left: Mutex<Vec<Arc<Set>>>,
}

impl fmt::Debug for Slot {
    /// Without what is in it: rules are printed for what they mean.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slot({})", self.id.0)
    }
}

impl Slot {
    /// A slot with a set.
    #[must_use]
    pub fn new(id: SlotId, set: Arc<Set>) -> Self {
        Self { id, set: ArcSwap::new(set), left: Mutex::new(Vec::new()) }
    }

    /// Its number.
    #[must_use]
    pub const fn id(&self) -> SlotId {
        self.id
    }

    /// What is in it, for a moment. Any thread.
    #[inline]
    pub(super) fn peek(&self) -> Guard<Arc<Set>> {
        self.set.load()
    }

    /// What is in it. Control.
    #[must_use]
    pub fn set(&self) -> Arc<Set> {
        self.set.load_full()
    }

    /// Puts another set in. Control.
    pub fn replace(&self, set: Arc<Set>) {
        let old = self.set.swap(set);
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.retain(|set| Arc::strong_count(set) > 1);
        left.push(old);
    }
}
