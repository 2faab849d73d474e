//! The giver's end of a ring, with room for what is to be published together. Owned by the giving thread.

#[cfg(loom)]
use crate::ring_model::Producer;
use arrayvec::ArrayVec;
#[cfg(not(loom))]
use rtrb::Producer;

/// Gathers up to `BATCH` items and publishes them in one go. What was staged has its place in the ring: publishing
/// never fails, and nothing is ever staged beyond the ring's capacity.
#[derive(Debug)]
pub struct Outbox<T, const BATCH: usize> {
    ring: Producer<T>,
    staged: ArrayVec<T, BATCH>,
    /// Places in the ring known to be free and not promised to what is staged.
    room: usize,
}

impl<T, const BATCH: usize> Outbox<T, BATCH> {
    /// An outbox for this ring.
    #[must_use]
    pub fn new(ring: Producer<T>) -> Self {
        Self { ring, staged: ArrayVec::new(), room: 0 }
    }

    /// Takes an item to be published, in order. A full batch goes out at once, otherwise [`Self::publish`] sends it.
    ///
    /// # Errors
    /// Gives it back when the ring is full.
    #[inline]
    pub fn stage(&mut self, item: T) -> Result<(), T> {
        if self.room == 0 {
            // Only now: the taker writes its index, so reading it costs a cache miss.
            self.room = self.ring.slots() - self.staged.len();
            if self.room == 0 {
                return Err(item);
            }
        }
        if self.staged.is_full() {
            self.publish();
        }
        self.room -= 1;
        self.staged.push(item);
        Ok(())
    }

    /// Makes everything staged visible to the taker, with one store.
    #[inline]
    pub fn publish(&mut self) {
        let count = self.staged.len();
        if count > 0 {
            let places = self.ring.write_chunk_uninit(count).ok();
            let places = places.expect("every staged item has its place in the ring");
            places.fill_from_iter(self.staged.drain(..));
        }
    }

    /// What is staged and not published, in order.
    #[must_use]
    pub fn staged(&self) -> &[T] {
        &self.staged
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_staged_is_seen_when_it_is_published_and_all_at_once() {
        let (ring, mut taker) = crate::ring(8);
        let mut outbox = Outbox::<u32, 4>::new(ring);
        (0..3).for_each(|item| outbox.stage(item).unwrap());
        assert_eq!((outbox.staged(), taker.slots()), (&[0, 1, 2][..], 0));
        outbox.publish();
        assert_eq!((outbox.staged(), taker.slots()), (&[][..], 3));
        assert!((0..3).all(|item| taker.pop() == Ok(item)));
    }

    #[test]
    fn a_full_batch_goes_out_and_a_full_ring_takes_no_more() {
        let (ring, mut taker) = crate::ring(6);
        let mut outbox = Outbox::<u32, 4>::new(ring);
        let refused: Vec<u32> = (0..9).filter_map(|item| outbox.stage(item).err()).collect();
        assert_eq!(refused, [6, 7, 8]);
        assert_eq!((outbox.staged(), taker.slots()), (&[4, 5][..], 4));
        assert_eq!(taker.pop(), Ok(0));
        outbox.stage(9).unwrap();
        assert_eq!(outbox.stage(10), Err(10));
        outbox.publish();
        assert!([1, 2, 3, 4, 5, 9].iter().all(|item| taker.pop() == Ok(*item)));
    }
}
