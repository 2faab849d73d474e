//! How often a value was about how large, in powers of two. One writing thread and any number of readers, as the other
//! counters: a value costs a count of leading zeros and two relaxed loads and stores.

use super::counters::Counter;

/// Counts values in buckets: the first for those of at most 2^`FIRST`, each of the others for those of at most twice as
/// much, the last for all that are larger.
#[derive(Debug)]
pub struct Histogram<const BUCKETS: usize, const FIRST: u32> {
    buckets: [Counter; BUCKETS],
    sum: Counter,
}

impl<const BUCKETS: usize, const FIRST: u32> Default for Histogram<BUCKETS, FIRST> {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| Counter::default()), sum: Counter::default() }
    }
}

impl<const BUCKETS: usize, const FIRST: u32> Histogram<BUCKETS, FIRST> {
    /// Counts a value. Owning thread only.
    #[inline]
    pub fn record(&self, value: u64) {
        self.buckets[Self::bucket(value)].add(1);
        self.sum.add(value);
    }

    /// Where a value is counted.
    #[inline]
    const fn bucket(value: u64) -> usize {
        // The power of two it does not exceed.
        let power = u64::BITS - value.saturating_sub(1).leading_zeros();
        let bucket = power.saturating_sub(FIRST) as usize;
        if bucket < BUCKETS { bucket } else { BUCKETS - 1 }
    }

    /// Upper bound and count of every bucket, and the sum of all values. `None` bounds the last one. A value that is
    /// counted meanwhile may be in the sum and not in its bucket, or the other way round.
    #[must_use]
    pub fn get(&self) -> (Vec<(Option<u64>, u64)>, u64) {
        let bounds = (0_u32..).map(|bucket| {
            let is_last = bucket as usize + 1 == BUCKETS;
            (!is_last).then(|| 1_u64 << (FIRST + bucket))
        });
        (bounds.zip(self.buckets.iter().map(Counter::get)).collect(), self.sum.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_counted_where_its_bound_says() {
        let histogram = Histogram::<4, 3>::default();
        for value in [0, 1, 8, 9, 16, 17, 32, 33, 1000, 1 << 40] {
            histogram.record(value);
        }
        let (buckets, sum) = histogram.get();
        assert_eq!(buckets, [(Some(8), 3), (Some(16), 2), (Some(32), 2), (None, 3)]);
        assert_eq!(sum, 1 + 8 + 9 + 16 + 17 + 32 + 33 + 1000 + (1 << 40));
        let ones = Histogram::<3, 0>::default();
        for value in [1, 2, 3] {
            ones.record(value);
        }
        assert_eq!(ones.get().0, [(Some(1), 1), (Some(2), 1), (None, 1)]);
        ones.record(u64::MAX);
        assert_eq!(ones.get().0[2], (None, 2));
    }
}
