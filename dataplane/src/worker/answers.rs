//! How many ICMP errors a worker may still send: a token bucket, refilled once per burst from the burst's clock.
//! TCP resets are not limited, as in netfilter: one is at most as long as what it answers.

use super::snapshot::AnswerRate;
use crate::clock::Now;

const NANOS_PER_SEC: u64 = 1_000_000_000;

/// A token bucket in units of a billionth of an answer, so that no fraction is ever lost.
#[derive(Debug, Default)]
pub(super) struct AnswerBucket {
    level: u64,
    refilled: Option<Now>,
    unlimited: bool,
}

impl AnswerBucket {
    /// Adds what has come together since the last call. The first call fills the bucket.
    pub(super) fn refill(&mut self, rate: AnswerRate, now: Now) {
        let full = u64::from(rate.burst) * NANOS_PER_SEC;
        let elapsed = self.refilled.map_or(u64::MAX, |then| now.nanos.saturating_sub(then.nanos));
        let gained = elapsed.saturating_mul(u64::from(rate.per_sec));
        self.level = self.level.saturating_add(gained).min(full);
        self.refilled = Some(now);
        self.unlimited = rate.per_sec == 0;
    }

    /// Whether there is no answer in it.
    pub(super) const fn is_empty(&self) -> bool {
        !self.unlimited && self.level < NANOS_PER_SEC
    }

    /// Takes one answer out, if there is one.
    pub(super) fn take(&mut self) -> bool {
        let enough = !self.is_empty();
        if enough && !self.unlimited {
            self.level -= NANOS_PER_SEC;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate_holds() {
        let rate = AnswerRate { per_sec: 10, burst: 3 };
        let mut bucket = AnswerBucket::default();
        bucket.refill(rate, Now::from_secs(1));
        assert_eq!((0..5).filter(|_| bucket.take()).count(), 3);
        for step in 1..=20 {
            bucket.refill(rate, Now::from_secs(1).plus_nanos(step * 10_000_000));
        }
        assert_eq!((0..5).filter(|_| bucket.take()).count(), 2, "200 ms at 10 a second");
        bucket.refill(rate, Now::from_secs(60));
        assert_eq!((0..5).filter(|_| bucket.take()).count(), 3);
    }

    #[test]
    fn rate_zero_is_no_limit() {
        let mut bucket = AnswerBucket::default();
        bucket.refill(AnswerRate { per_sec: 0, burst: 3 }, Now::from_secs(1));
        assert!((0..1000).all(|_| bucket.take()));
    }
}
