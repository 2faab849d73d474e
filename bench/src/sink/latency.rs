//! Latencies as the kernel's program counts them, and as a histogram.

use crate::Error;
use hdrhistogram::Histogram;

/// Buckets below this are of a nanosecond each; each power of two above has as many.
const LINEAR: u64 = 64;

/// Longest latency a bucket is there for, in nanoseconds: more than 17 s.
pub const LATENCY_MAX_NS: u64 = (1 << 34) - 1;

/// Latencies of stamped packets, in nanoseconds. A value stands for a bucket at most a 64th of it wide, in whose middle
/// it is.
#[derive(Clone, Debug)]
pub struct Latencies {
    /// What there is to read percentiles from.
    pub histogram: Histogram<u64>,
    /// Stamps that were later than their arrival: another machine's, or forged.
    pub from_future: u64,
    /// Latencies above [`LATENCY_MAX_NS`], which the histogram leaves out.
    pub beyond: u64,
}

/// An empty histogram for nanoseconds, three digits precise.
///
/// # Errors
/// If the library does not take the bounds, which would be a bug here.
pub(crate) fn histogram() -> Result<Histogram<u64>, Error> {
    Ok(Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3)?)
}

/// The middle of a bucket of `bpf/sink.bpf.c`.
pub(super) const fn middle_of(bucket: u64) -> u64 {
    if bucket < 2 * LINEAR {
        return bucket;
    }
    let shift = bucket / LINEAR - 1;
    ((bucket % LINEAR + LINEAR) << shift) + (1 << shift) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `count_latency` of the kernel's program does.
    fn bucket_of(ns: u64) -> u64 {
        let shift = ns.max(1).ilog2().saturating_sub(LINEAR.ilog2());
        u64::from(shift) * LINEAR + (ns >> shift)
    }

    #[test]
    fn a_bucket_is_a_64th_wide_at_most() {
        let mut ns = 1;
        while ns <= LATENCY_MAX_NS {
            for near in [ns - 1, ns, ns + 1, ns + ns / 3] {
                let middle = middle_of(bucket_of(near));
                assert!(middle.abs_diff(near) <= near / 128 + 1, "{near} ns are counted as {middle}");
            }
            ns *= 2;
        }
        assert!(bucket_of(LATENCY_MAX_NS) < bucket_of(LATENCY_MAX_NS + 1));
    }
}
