//! Whether a thread sleeps, and who wakes it. Read and written by the sleeper and by everyone who gives it something.

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// A thread's bell. It makes no sound itself: whoever is told so by [`Bell::must_wake`] wakes the thread by whatever it
/// sleeps on.
#[derive(Debug)]
pub struct Bell {
    asleep: AtomicBool,
}

impl Bell {
    /// The bell of a thread that is awake.
    #[must_use]
    pub fn new() -> Self {
        Self { asleep: AtomicBool::new(false) }
    }

    /// The thread is about to sleep. It must look at everything it may have been given once more before it does.
    pub fn doze(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        // Pairs with the fence in `must_wake`: either the giver sees `asleep`, or our look sees what it gave.
        fence(Ordering::SeqCst);
    }

    /// The thread is up again, or found that it need not sleep.
    pub fn rise(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Whether the thread sleeps, so that the caller, who has just given it something, has to wake it. Costs a fence and
    /// a load if it is awake.
    #[must_use]
    pub fn must_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        self.asleep.load(Ordering::Relaxed)
    }
}

impl Default for Bell {
    fn default() -> Self {
        Self::new()
    }
}
