//! TCP connections opened a second, by true handshakes: the generator's SYNs are answered by the right host, those answers
//! by the left one, and what counts is the third segments that the right host sees.
//!
//! How many are offered decides how many come about: a forwarder that is given more SYNs than it can take spends itself on
//! those, and the answers are left lying in the ring of the other NIC. So each peer is offered one rate after the other,
//! and its figure is the best of what came about. No connection comes twice while a peer may remember it.

use super::ends::{Ends, syns};
use super::{Plan, turns};
use crate::Error;
use crate::bed::Bed;
use crate::handshake::Storage;
use crate::load::{Amount, FLOWS_MAX, Load};
use crate::peers::{Running, Setup};
use crate::results::{Better, Table};
use crate::rig::gain_per_sec;
use std::thread;
use std::time::Duration;

/// Connections a second that are offered first. Of somebody who cannot do that many a rate nearby is found, perhaps not the
/// best.
const RATE_FIRST: u64 = 25_000;

/// Most that are offered: beyond it the generator is the limit.
const RATE_MAX: u64 = 2_000_000;

/// Doubled rates that may bring no gain, one after the other, before there are no more: one may be an accident.
const MISSES: u32 = 2;

/// Rounds of looking between the doubled rates, each with half the distance (of logarithms) of the one before.
const ROUNDS: u32 = 3;

/// Rates that are tried at most: eight doublings up to [`RATE_MAX`], two in each round.
const TRIES_MAX: u32 = 8 + 2 * ROUNDS;

/// Connections of each rate, all of them others.
const FLOWS_PER_RATE: u32 = FLOWS_MAX / TRIES_MAX;

/// Time from the start of a load to the first reading: set-up of the run, and the first handshakes.
const LEAD: Duration = Duration::from_millis(100);

/// Time that the load goes on after the last reading.
const TAIL: Duration = Duration::from_millis(50);

/// Measures it.
pub(super) fn measure(plan: &Plan) -> Result<Table, Error> {
    let unit = ("thousand/s", Better::Higher);
    let title = "TCP connections opened, true handshakes, 10 rules";
    let mut table = Table::new("connections", title, unit, &["best of all offered rates".to_owned()]);
    let mut storages = [Storage::default(), Storage::default()];
    let bed = Bed::new(plan.cores)?;
    let ends = Ends::attach(&bed, &mut storages, FLOWS_MAX)?;
    let setup = Setup { max_flows: FLOWS_MAX, half_open_guard: true, ..Setup::default() };
    turns::take(plan, &bed, &setup, (&mut table, 0..1), |running| {
        ends.reset()?;
        let mut firsts = (0..TRIES_MAX).map(|tries| tries * FLOWS_PER_RATE);
        let best = best_of(|rate| {
            let first = firsts.next().ok_or("more rates were tried than there are connections for")?;
            completed(&bed, &ends, running, (first, rate), plan.time)
        })?;
        Ok(vec![best / 1e3])
    })?;
    table
        .notes
        .push("every connection is a new one and stays open: tables grow while rates are tried".to_owned());
    Ok(table)
}

/// Handshakes completed a second in steady state when so many are begun.
#[expect(clippy::cast_precision_loss, reason = "a count of seconds is far below 2^52")]
fn completed(
    bed: &Bed,
    ends: &Ends<'_>,
    running: &Running<'_>,
    (first, rate): (u32, u64),
    time: Duration,
) -> Result<f64, Error> {
    let load = Load { rate_pps: Some(rate), ..syns(bed, running, first, FLOWS_PER_RATE) };
    // Fast rates have used up their connections before the time is up.
    let longest = Duration::from_secs_f64(f64::from(FLOWS_PER_RATE) / rate as f64);
    let time = time.min(longest.saturating_sub(LEAD + TAIL));
    let (_, completed) = bed.run(&load, Amount::Time(LEAD + time + TAIL), |_| {
        thread::sleep(LEAD);
        gain_per_sec(time, || Ok(ends.arrived()?.completed))
    })?;
    // What is still under way would count for the next rate.
    ends.at_rest()?;
    // What was begun before and had to wait is not this rate's.
    Ok(completed.min(rate as f64))
}

/// The most that `completed` gives for any offered rate, both a second: rates are doubled until that brings no more, and
/// then the best one's neighbours are tried.
///
/// # Errors
/// Those of `completed`.
#[expect(clippy::cast_precision_loss, reason = "a rate is far below 2^52")]
fn best_of(mut completed: impl FnMut(u64) -> Result<f64, Error>) -> Result<f64, Error> {
    let (mut best, mut best_rate) = (0.0, RATE_FIRST);
    let mut misses = 0;
    let mut rate = RATE_FIRST;
    loop {
        let value = completed(rate)?;
        if value > best {
            (best, best_rate, misses) = (value, rate, 0);
        } else {
            misses += 1;
        }
        if misses == MISSES || rate == RATE_MAX {
            break;
        }
        rate = (2 * rate).min(RATE_MAX);
    }
    let mut factor = 2.0_f64;
    for _ in 0..ROUNDS {
        factor = factor.sqrt();
        let middle = best_rate;
        for rate in [scaled(middle, factor).min(RATE_MAX), scaled(middle, 1.0 / factor)] {
            // No more are completed than are begun.
            if rate == middle || rate as f64 <= best {
                continue;
            }
            let value = completed(rate)?;
            if value > best {
                (best, best_rate) = (value, rate);
            }
        }
    }
    Ok(best)
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a positive rate far below 2^52"
)]
fn scaled(rate: u64, factor: f64) -> u64 {
    (rate as f64 * factor) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that completes everything up to `capacity`, and beyond it less and less if it starves its answers; what the
    /// sweep makes of it, and how often it asked.
    fn sweep(capacity: f64, starves: bool) -> (f64, u32) {
        let mut tries = 0;
        let best = best_of(|rate| {
            tries += 1;
            assert!(rate <= RATE_MAX);
            let offered = rate as f64;
            Ok(match starves {
                _ if offered <= capacity => offered,
                true => capacity * capacity / offered,
                false => capacity,
            })
        });
        (best.expect("nothing fails"), tries)
    }

    #[test]
    fn the_best_rate_is_found_within_a_tenth_whatever_it_is() {
        for starves in [false, true] {
            for step in 0..200 {
                let capacity = RATE_FIRST as f64 * 1.03_f64.powi(step);
                let (best, tries) = sweep(capacity, starves);
                let least = if capacity > RATE_MAX as f64 { RATE_MAX as f64 } else { capacity * 0.9 };
                assert!(best >= least && best <= capacity, "{best} of {capacity}, starves: {starves}");
                assert!(tries <= TRIES_MAX, "{tries} tries for {capacity}");
            }
        }
    }

    #[test]
    fn one_bad_measurement_does_not_end_the_sweep() {
        let mut tries = 0;
        let best = best_of(|rate| {
            tries += 1;
            Ok(if tries == 2 { 0.0 } else { (rate as f64).min(300_000.0) })
        });
        assert!(best.expect("nothing fails") >= 270_000.0);
    }

    #[test]
    fn a_peer_that_opens_nothing_is_worth_nothing() {
        assert_eq!(best_of(|_| Ok(0.0)).expect("nothing fails").to_bits(), 0.0_f64.to_bits());
    }

    #[test]
    fn a_measurement_that_fails_ends_the_sweep() {
        let mut tries = 0;
        let outcome = best_of(|rate| {
            tries += 1;
            if tries < 4 { Ok(rate as f64) } else { Err("it has ended".into()) }
        });
        assert_eq!((outcome.expect_err("the failure").to_string().as_str(), tries), ("it has ended", 4));
    }
}
