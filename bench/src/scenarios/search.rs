//! The highest rate that holds, by trials: doubled until one fails, then by halves of what is between. A trial that fails
//! is repeated, for a machine that hiccups once is no limit.

use crate::Error;
use std::ops::RangeInclusive;

/// Times a rate may fail until it counts as too high.
const ATTEMPTS: usize = 3;

/// The search ends when the lowest rate that failed is less than this much above the highest that held, as a share.
const PRECISION: f64 = 1.0 / 8.0;

/// What became of one rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trial {
    /// It held.
    Held,
    /// Too much was lost.
    Lost,
    /// The generator did not keep it.
    NotKept,
}

/// What a search came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The highest rate that held, in packets a second.
    pub(super) rate_pps: u64,
    /// What was in the way of higher ones.
    pub(super) limit: Limit,
}

/// Why a rate is the highest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// More was lost.
    Loss,
    /// The generator kept no more.
    Generator,
    /// More was not tried.
    Range,
}

/// Searches within `rates`, in packets a second.
///
/// # Errors
/// Of a trial; or if not even the lowest rate holds.
pub(super) fn highest(
    rates: RangeInclusive<u64>,
    mut trial: impl FnMut(u64) -> Result<Trial, Error>,
) -> Result<Found, Error> {
    let (least, most) = rates.into_inner();
    let mut held = None;
    let mut next = least;
    let (mut failed, mut limit) = loop {
        match repeated(next, &mut trial)? {
            None if next == most => return Ok(Found { rate_pps: most, limit: Limit::Range }),
            None => held = Some(next),
            Some(limit) => break (next, limit),
        }
        next = next.saturating_mul(2).min(most);
    };
    let mut held = held.ok_or_else(|| match limit {
        Limit::Generator => format!("the generator did not keep {least} packets a second"),
        _ => format!("packets were lost at {least} a second"),
    })?;
    while is_wide(held, failed) {
        let middle = u64::midpoint(held, failed);
        match repeated(middle, &mut trial)? {
            None => held = middle,
            Some(reason) => (failed, limit) = (middle, reason),
        }
    }
    Ok(Found { rate_pps: held, limit })
}

/// Tries a rate until it holds or has failed often enough; then says by what it failed last.
fn repeated(
    rate_pps: u64,
    trial: &mut impl FnMut(u64) -> Result<Trial, Error>,
) -> Result<Option<Limit>, Error> {
    let mut limit = Limit::Range;
    for _ in 0..ATTEMPTS {
        limit = match trial(rate_pps)? {
            Trial::Held => return Ok(None),
            Trial::Lost => Limit::Loss,
            Trial::NotKept => Limit::Generator,
        };
    }
    Ok(Some(limit))
}

#[expect(clippy::cast_precision_loss, reason = "a rate is far below 2^52")]
fn is_wide(held: u64, failed: u64) -> bool {
    (failed - held) as f64 > held as f64 * PRECISION
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Holds up to one rate, and is kept up to another.
    fn ideal(carries: u64, keeps: u64) -> impl FnMut(u64) -> Result<Trial, Error> {
        move |rate| {
            Ok(match rate {
                rate if rate > keeps => Trial::NotKept,
                rate if rate > carries => Trial::Lost,
                _ => Trial::Held,
            })
        }
    }

    #[test]
    fn the_rate_found_holds_and_little_more_would_not() {
        for limit in [10_000, 10_001, 39_999, 40_000, 77_777, 123_456, 999_999] {
            for (trial, reason) in
                [(ideal(limit, u64::MAX), Limit::Loss), (ideal(u64::MAX, limit), Limit::Generator)]
            {
                let Found { rate_pps, limit: found } = highest(10_000..=1_000_000, trial).unwrap();
                assert!(rate_pps <= limit && limit < rate_pps + rate_pps / 8 + 2, "{rate_pps} for {limit}");
                assert_eq!(found, reason, "for {limit}");
            }
        }
    }

    #[test]
    fn where_all_rates_hold_the_range_is_the_limit() {
        let found = highest(10_000..=70_000, ideal(u64::MAX, u64::MAX)).unwrap();
        assert_eq!(found, Found { rate_pps: 70_000, limit: Limit::Range });
    }

    #[test]
    fn a_rate_that_does_not_even_begin_is_an_error_that_says_whose() {
        for (trial, words) in
            [(ideal(9_999, 20_000), "lost at 10000"), (ideal(9_999, 9_999), "not keep 10000")]
        {
            let error = highest(10_000..=70_000, trial).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn hiccups_are_tried_again_and_errors_end_the_search() {
        let mut ideal = ideal(50_000, u64::MAX);
        let mut trials = 0;
        let hiccups = |rate| {
            trials += 1;
            if trials % 3 == 0 { ideal(rate) } else { Ok(Trial::NotKept) }
        };
        let Found { rate_pps, limit } = highest(10_000..=1_000_000, hiccups).unwrap();
        assert!((45_000..=50_000).contains(&rate_pps), "{rate_pps}");
        assert_eq!(limit, Limit::Loss);
        let error = highest(10_000..=70_000, |_| Err("unplugged".into())).unwrap_err();
        assert_eq!(error.to_string(), "unplugged");
    }
}
