//! Peers in turn on one bed. Each repetition starts, measures and stops every peer once, beginning with another one each
//! time, so that a machine that slows down or speeds up favours nobody.
//!
//! A peer that is missing, does not start, ends by itself or cannot be measured is named with its reason; the others go on
//! without it.

use super::Plan;
use crate::bed::Bed;
use crate::peers::{Peer, Running, Setup};
use crate::results::Table;
use crate::{Error, interrupt};
use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Measures `columns` of `table`: `measure` is called with every peer that runs, in every repetition, and gives a value
/// for each.
///
/// # Errors
/// If the run is interrupted.
pub(super) fn take(
    plan: &Plan,
    bed: &Bed,
    setup: &Setup,
    (table, columns): (&mut Table, Range<usize>),
    mut measure: impl FnMut(&mut Running<'_>) -> Result<Vec<f64>, Error>,
) -> Result<(), Error> {
    for repetition in 0..plan.repetitions as usize {
        for turn in 0..plan.peers.len() {
            interrupt::check()?;
            let peer = plan.peers[(turn + repetition) % plan.peers.len()];
            if table.is_out(peer.name(), &columns) {
                table.enter(peer.name(), &columns, Err(""));
                continue;
            }
            let outcome = one(peer, bed, setup, &mut measure);
            interrupt::check()?;
            if let Err(reason) = &outcome {
                eprintln!("  {}: {reason}", peer.name());
            }
            table.enter(peer.name(), &columns, outcome.as_deref().map_err(String::as_str));
        }
    }
    Ok(())
}

/// One turn of one peer. What it set up is put back, however it ends.
fn one(
    peer: Peer,
    bed: &Bed,
    setup: &Setup,
    measure: &mut impl FnMut(&mut Running<'_>) -> Result<Vec<f64>, Error>,
) -> Result<Vec<f64>, String> {
    if let Some(missing) = peer.missing() {
        return Err(format!("not installed: {missing}"));
    }
    // What sets up namespaces panics where a test would; here it is one peer that is not measured.
    let attempt = AssertUnwindSafe(|| -> Result<Vec<f64>, Error> {
        let mut running = peer.start(bed, setup)?;
        let values = measure(&mut running);
        let alive = running.is_alive();
        let stopped = running.stop();
        alive?;
        stopped?;
        values
    });
    match catch_unwind(attempt) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => Err(words_of(&*panic)),
    }
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("ended by a panic").to_owned()
}
