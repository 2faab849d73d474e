//! What passes between two threads that never lock: batches over a ring, and the bell that wakes the one that sleeps.
//!
//! Every pair of threads has its own ring and every thread its own [`Bell`]. The giver stages what it has for a burst's
//! time, publishes it with one store ([`Outbox::publish`]), and then asks the bell once whether the taker has to be woken.
//! The taker lies down with [`Bell::doze`], looks at all its rings once more, and sleeps only if they are empty. So either
//! the taker's look finds what was published or the giver finds it asleep: no wake-up is lost.
//!
//! The rings are `rtrb`'s (single producer, single consumer, indices on cache lines of their own and cached by the other
//! side). The crate is this small so that `--cfg loom` builds nothing but it: its tests then run the same code on a model
//! of such a ring through every interleaving that the memory model allows.

mod bell;
mod outbox;
#[cfg(loom)]
mod ring_model;

pub use bell::Bell;
pub use outbox::Outbox;
#[cfg(loom)]
pub use ring_model::{Consumer, Producer, ring};
#[cfg(not(loom))]
pub use rtrb::Consumer;

/// A ring for `capacity` items and its two ends.
#[cfg(not(loom))]
#[must_use]
pub fn ring<T>(capacity: usize) -> (rtrb::Producer<T>, Consumer<T>) {
    rtrb::RingBuffer::new(capacity)
}
