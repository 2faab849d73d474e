//! The figure of the whole pipeline in process: what a 64-byte datagram of a known flow costs a worker from its headers to
//! its verdict, in bursts of 32, without a kernel.
//!
//! A worker is polled on queues in memory ([`stages::Pipeline`]), and in turn with it the queues by themselves over the
//! same packets ([`stages::Share`]). The goal is for the difference: a NIC's queues cost what they cost, and not this. It is
//! all of a poll but that: parse, hash, lookup, checksum, tracking, verdict, counters, and what is done between two bursts.
//! The clock, which a worker reads once a poll, stands still.
//!
//! Frames come as in copy mode, where the core that polls has just written them. What a poll costs where a NIC has written
//! them past all caches is printed beside: the difference is waiting for memory.

use crate::gateway::Plan;
use crate::report::{Report, median, range};
use crate::{Error, affinity};
use stages::{Arrival, BURST, Pipeline, Scale, Share, Stage};
use std::time::Duration;

/// Flows, what so many are called, and most nanoseconds a packet.
const GOALS: [(u32, &str, f64); 3] =
    [(1_000, "1,000", 25.0), (1_000_000, "1 million", 45.0), (10_000_000, "10 million", 60.0)];

/// Bursts between two looks at the clock.
const BATCH: u32 = 256;

/// Measures it with each number of flows.
///
/// # Errors
/// If it cannot be measured.
pub fn measure(plan: &Plan, report: &mut Report) -> Result<(), Error> {
    affinity::pin_to(plan.cores - 1)?;
    for (flows, name, goal) in GOALS {
        let copied = own(plan, name, flows, Arrival::Copied, report)?;
        own(plan, name, flows, Arrival::PastCaches, report)?;
        report.at_most(&format!("pipeline, {name} flows, ns a packet"), copied, goal);
    }
    Ok(())
}

/// What a poll costs without its queues, in nanoseconds a packet.
fn own(plan: &Plan, name: &str, flows: u32, arrival: Arrival, report: &Report) -> Result<f64, Error> {
    let scale = Scale { flows, hugepages: true, arrival };
    let (mut pipeline, mut queues) = (Pipeline::new(scale)?, Share::new(scale)?);
    let (mut polls, mut shares) = (Vec::new(), Vec::new());
    for _ in 0..plan.repetitions {
        polls.push(nanos(&mut pipeline, plan.time));
        shares.push(nanos(&mut queues, plan.time / 2));
    }
    let own: Vec<f64> = polls.iter().zip(&shares).map(|(poll, share)| poll - share).collect();
    let frames = match arrival {
        Arrival::Copied => "frames copied",
        Arrival::PastCaches => "frames past all caches",
    };
    let parts = [("a poll with its queues", &polls), ("the queues alone", &shares), ("without them", &own)];
    for (part, values) in parts {
        report.beside(&format!("{name} flows, {frames}, {part}, ns a packet"), &spread(values));
    }
    Ok(median(&own))
}

/// Nanoseconds of thread time per packet, over at least this long.
///
/// # Panics
/// If not every packet came out as it should.
pub fn nanos(stage: &mut dyn Stage, length: Duration) -> f64 {
    let from = affinity::thread_secs();
    let (mut packets, mut spent) = (0, 0.0);
    while spent < length.as_secs_f64() {
        for _ in 0..BATCH {
            stage.prepare();
            packets += stage.burst();
        }
        spent = affinity::thread_secs() - from;
        assert!(packets.is_multiple_of(BURST * BATCH as usize), "a packet did not come out as it should");
    }
    spent * 1e9 / packets as f64
}

/// The middle, and between what all lie.
fn spread(values: &[f64]) -> String {
    let (low, high) = range(values);
    format!("{:.1} ({low:.1} to {high:.1})", median(values))
}
