//! Single-producer single-consumer rings in memory shared with the kernel. Layout: `include/uapi/linux/if_xdp.h`; the
//! memory order is that of the kernel's `net/xdp/xsk_queue.h`: the producer releases its index after writing entries,
//! the consumer releases its own after reading them, and each acquires the other's.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where a ring lies: two shared indices, the kernel's flags, and the entries.
#[derive(Debug)]
pub(super) struct RingMemory<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    size: u32,
}

impl<T> RingMemory<T> {
    /// Describes a ring of `size` entries.
    ///
    /// # Safety
    /// The pointers must be aligned, point into one mapping that outlives the value, `entries` to `size` entries, and
    /// nobody in this process may use the same end of the ring otherwise. `size` must be a power of two.
    pub(super) unsafe fn new(
        producer: NonNull<AtomicU32>,
        consumer: NonNull<AtomicU32>,
        flags: NonNull<AtomicU32>,
        entries: NonNull<T>,
        size: u32,
    ) -> Self {
        debug_assert!(size.is_power_of_two());
        Self { producer, consumer, flags, entries, size }
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: valid and aligned for as long as the value lives, by the contract of `new`.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as for `producer`.
        unsafe { self.consumer.as_ref() }
    }

    fn needs_wakeup(&self) -> bool {
        // SAFETY: as for `producer`.
        let flags = unsafe { self.flags.as_ref() };
        flags.load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    fn entry(&self, index: u32) -> NonNull<T> {
        // SAFETY: the masked index is below `size`, so the entry lies within the ring.
        unsafe { self.entries.add((index & (self.size - 1)) as usize) }
    }
}

/// Our end of a ring the kernel reads: fill and tx.
#[derive(Debug)]
pub(super) struct Producer<T> {
    ring: RingMemory<T>,
    /// Next index to write; ahead of the shared index by what is not published.
    next: u32,
    published: u32,
    /// The consumer's index when last looked at.
    consumed: u32,
}

// SAFETY: the value owns its end of the ring; moving it to another thread moves that end.
unsafe impl<T: Send> Send for Producer<T> {}

impl<T: Copy> Producer<T> {
    pub(super) fn new(ring: RingMemory<T>) -> Self {
        let next = ring.producer().load(Ordering::Relaxed);
        let consumed = ring.consumer().load(Ordering::Acquire);
        Self { ring, next, published: next, consumed }
    }

    /// Entries that can be written; looks at the shared index only if fewer than `wanted` are known to be free.
    #[inline]
    pub(super) fn room(&mut self, wanted: u32) -> u32 {
        let known = self.ring.size - self.next.wrapping_sub(self.consumed);
        if known >= wanted {
            return known;
        }
        self.consumed = self.ring.consumer().load(Ordering::Acquire);
        self.ring.size - self.next.wrapping_sub(self.consumed)
    }

    /// Entries that can be written, as of now.
    pub(super) fn room_now(&self) -> u32 {
        self.ring.size - self.next.wrapping_sub(self.ring.consumer().load(Ordering::Acquire))
    }

    /// Writes an entry. [`Self::room`] has just said that there is room.
    #[inline]
    pub(super) fn push(&mut self, value: T) {
        debug_assert!(self.next.wrapping_sub(self.consumed) < self.ring.size, "the caller asked for room");
        // SAFETY: the entry is within the ring, and between the consumer's index and ours, so the kernel does not read
        // it before `publish` releases it.
        unsafe { self.ring.entry(self.next).write(value) };
        self.next = self.next.wrapping_add(1);
    }

    /// Shows the kernel what was written.
    #[inline]
    pub(super) fn publish(&mut self) {
        if self.next != self.published {
            self.ring.producer().store(self.next, Ordering::Release);
            self.published = self.next;
        }
    }

    /// Published entries that the kernel has not taken yet.
    #[inline]
    pub(super) fn outstanding(&self) -> u32 {
        self.published.wrapping_sub(self.ring.consumer().load(Ordering::Acquire))
    }

    /// Whether the kernel wants to be woken to look at the ring.
    #[inline]
    pub(super) fn needs_wakeup(&self) -> bool {
        self.ring.needs_wakeup()
    }
}

/// Our end of a ring the kernel writes: rx and completion.
#[derive(Debug)]
pub(super) struct Consumer<T> {
    ring: RingMemory<T>,
    next: u32,
    released: u32,
    /// The producer's index when last looked at.
    produced: u32,
}

// SAFETY: as for `Producer`.
unsafe impl<T: Send> Send for Consumer<T> {}

impl<T: Copy> Consumer<T> {
    pub(super) fn new(ring: RingMemory<T>) -> Self {
        let next = ring.consumer().load(Ordering::Relaxed);
        let produced = ring.producer().load(Ordering::Acquire);
        Self { ring, next, released: next, produced }
    }

    /// Takes the next entry, if the kernel has written one.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<T> {
        if self.next == self.produced {
            self.produced = self.ring.producer().load(Ordering::Acquire);
            if self.next == self.produced {
                return None;
            }
        }
        // SAFETY: the entry is within the ring and below the producer's index, which was acquired: it is written, and
        // the kernel does not write it again before `release`.
        let value = unsafe { self.ring.entry(self.next).read() };
        self.next = self.next.wrapping_add(1);
        Some(value)
    }

    /// Gives the entries taken back to the kernel.
    #[inline]
    pub(super) fn release(&mut self) {
        if self.next != self.released {
            self.ring.consumer().store(self.next, Ordering::Release);
            self.released = self.next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    const SIZE: u32 = 8;

    /// A ring in ordinary memory whose indices start just before they wrap.
    struct Shared {
        producer: AtomicU32,
        consumer: AtomicU32,
        flags: AtomicU32,
        entries: [u64; SIZE as usize],
    }

    fn ends(shared: &mut Shared) -> (Producer<u64>, Consumer<u64>) {
        let entries = NonNull::from(&mut shared.entries).cast::<u64>();
        let memory = || {
            let (producer, consumer, flags) = (&shared.producer, &shared.consumer, &shared.flags);
            // SAFETY: the pointers are into `shared`, which outlives both ends in every test; each end is made once.
            unsafe { RingMemory::new(producer.into(), consumer.into(), flags.into(), entries, SIZE) }
        };
        (Producer::new(memory()), Consumer::new(memory()))
    }

    proptest! {
        #[test]
        fn a_ring_is_a_bounded_queue(steps in proptest::collection::vec((0..4_u8, 1..12_u32), 0..200)) {
            let start = u32::MAX - 20;
            let mut shared = Shared {
                producer: AtomicU32::new(start),
                consumer: AtomicU32::new(start),
                flags: AtomicU32::new(0),
                entries: [0; SIZE as usize],
            };
            let (mut producer, mut consumer) = ends(&mut shared);
            let (mut written, mut visible, mut number) = (VecDeque::new(), VecDeque::new(), 0_u64);
            let mut unreleased = 0;
            for (step, count) in steps {
                match step {
                    0 => for _ in 0..count {
                        let full = written.len() + visible.len() + unreleased == SIZE as usize;
                        prop_assert_eq!(producer.room(1) == 0, full);
                        if !full {
                            producer.push(number);
                            written.push_back(number);
                            number += 1;
                        }
                    },
                    1 => {
                        producer.publish();
                        visible.append(&mut written);
                        prop_assert_eq!(producer.outstanding() as usize, visible.len() + unreleased);
                    }
                    2 => for _ in 0..count {
                        let expected = visible.pop_front();
                        unreleased += usize::from(expected.is_some());
                        prop_assert_eq!(consumer.pop(), expected);
                    },
                    _ => {
                        consumer.release();
                        unreleased = 0;
                    }
                }
            }
        }
    }
}
