//! The giver's end of a ring, where items are written that the taker does not see yet. Owned by the giving thread.
//!
//! Invariant: the first `staged` places behind what was published hold items, written by [`Outbox::stage`] and by nobody
//! else: the giver has the ring's only writing end, and the taker reads no place that was not published.
#![allow(unsafe_code, reason = "places are published that were written before, one by one")]

#[cfg(loom)]
use crate::ring_model::{Producer, WriteChunk};
#[cfg(not(loom))]
use rtrb::{Producer, chunks::WriteChunkUninit as WriteChunk};

/// Gathers items and publishes them in one go. They are written where the taker will find them: a batch that is copied
/// when it is published waits for every cache line that the taker has had, one after the other, and this way the lines come
/// while the next packet is looked at (`./scripts/bench figures --only cores`).
#[derive(Debug)]
pub struct Outbox<T> {
    ring: Producer<T>,
    staged: usize,
}

impl<T> Outbox<T> {
    /// An outbox for this ring.
    #[must_use]
    pub fn new(ring: Producer<T>) -> Self {
        Self { ring, staged: 0 }
    }

    /// Takes an item to be published by [`Self::publish`], in order. One that never is is leaked with the ring.
    ///
    /// # Errors
    /// Gives it back when the ring is full.
    #[inline]
    pub fn stage(&mut self, item: T) -> Result<(), T> {
        let Ok(mut places) = self.ring.write_chunk_uninit(self.staged + 1) else { return Err(item) };
        write(&mut places, self.staged, item);
        self.staged += 1;
        Ok(())
    }

    /// How many more [`Self::stage`] takes now.
    #[cfg(not(loom))]
    #[must_use]
    pub fn room(&self) -> usize {
        self.ring.slots() - self.staged
    }

    /// Makes everything staged visible to the taker, with one store.
    #[inline]
    pub fn publish(&mut self) {
        if self.staged > 0 {
            let places = self.ring.write_chunk_uninit(self.staged).ok();
            let places = places.expect("every staged item has its place in the ring");
            // SAFETY: the module's invariant: these are the places that `stage` has written since the last time.
            unsafe { places.commit_all() };
            self.staged = 0;
        }
    }

    /// Looks at what is staged and not published, in order.
    #[cfg(not(loom))]
    pub fn look(&mut self, look: impl FnMut(&T)) {
        let places = self.ring.write_chunk_uninit(self.staged).ok();
        let mut places = places.expect("every staged item has its place in the ring");
        let (first, second) = places.as_mut_slices();
        // SAFETY: the module's invariant.
        first.iter().chain(&*second).map(|place| unsafe { place.assume_init_ref() }).for_each(look);
    }
}

/// Writes an item into one of the places.
#[cfg(not(loom))]
#[inline]
fn write<T>(places: &mut WriteChunk<'_, T>, at: usize, item: T) {
    let (first, second) = places.as_mut_slices();
    match at.checked_sub(first.len()) {
        None => first[at].write(item),
        Some(at) => second[at].write(item),
    };
}

#[cfg(loom)]
fn write<T>(places: &mut WriteChunk<'_, T>, at: usize, item: T) {
    places.write(at, item);
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn staged(outbox: &mut Outbox<u32>) -> Vec<u32> {
        let mut items = Vec::new();
        outbox.look(|item| items.push(*item));
        items
    }

    #[test]
    fn what_is_staged_is_seen_when_it_is_published_and_all_at_once() {
        let (ring, mut taker) = crate::ring(8);
        let mut outbox = Outbox::new(ring);
        (0..3).for_each(|item| outbox.stage(item).unwrap());
        assert_eq!((staged(&mut outbox), taker.slots()), (vec![0, 1, 2], 0));
        outbox.publish();
        assert_eq!((staged(&mut outbox), taker.slots()), (vec![], 3));
        assert!((0..3).all(|item| taker.pop() == Ok(item)));
    }

    #[test]
    fn a_full_ring_takes_no_more_and_batches_go_round_it() {
        let (ring, mut taker) = crate::ring(6);
        let mut outbox = Outbox::new(ring);
        let mut next = 0;
        for _ in 0..5 {
            let accepted = (next..).take_while(|item| outbox.stage(*item).is_ok()).count();
            assert_eq!((accepted, outbox.room(), outbox.stage(99)), (6, 0, Err(99)));
            assert_eq!(staged(&mut outbox), (next..next + 6).collect::<Vec<_>>());
            outbox.publish();
            assert_eq!(outbox.stage(99), Err(99));
            // One remains, so that the next batch begins at another place.
            assert!((next..next + 5).all(|item| taker.pop() == Ok(item)));
            next += 6;
            (next..next + 5).for_each(|item| outbox.stage(item).unwrap());
            assert_eq!(outbox.room(), 0);
            outbox.publish();
            assert!((next - 1..next + 5).all(|item| taker.pop() == Ok(item)));
            next += 5;
        }
    }
}
