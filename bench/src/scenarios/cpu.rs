//! What a forwarded packet costs in processor time on every core that has to do with it, at a rate that everybody carries:
//! what a peer leaves to another core, or to softirqs, is not free.
//!
//! On the worker's core used is what is no slack ([`crate::slack`]); who spins uses all of it. On the generator's core the
//! generator itself never sleeps, but counts how long it waits for each packet's turn, with nothing else on its core
//! meanwhile but interrupts ([`crate::load::Sent::waited`]): that is slack too. What the generator and the sink cost is in
//! everybody's numbers alike; the floor's are the ones to compare with.

use super::{KNOWN_FLOWS, Plan, turns};
use crate::Error;
use crate::load::{Amount, Load};
use crate::peers::Setup;
use crate::results::{Better, Table};
use crate::rig::{Napi, Rig};
use crate::sink::Storage;
use crate::slack::Soak;
use std::thread;
use std::time::{Duration, Instant};

/// Packets a second.
pub const RATE_PPS: u64 = 300_000;

/// Time of the load before the first reading and after the last one.
const LEAD: Duration = Duration::from_millis(400);

/// Share of packets that may be lost: at another rate than the others' a packet's cost says nothing.
const LOSS_MAX: f64 = 0.01;

/// Share of the rate that must be kept, for the same reason.
const RATE_MIN: f64 = 0.95;

/// Times a measurement may not keep it.
const ATTEMPTS: usize = 3;

/// Both cores' slack as it is soaked up.
struct Cores {
    worker: Soak,
    generator: Soak,
}

/// What has happened up to a moment.
#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Instant,
    /// Packets that arrived.
    packets: u64,
    worker_slack: Duration,
    generator_slack: Duration,
}

/// What a packet costs.
#[derive(Clone, Copy, Debug)]
struct Cost {
    worker_ns: f64,
    generator_ns: f64,
    /// At this many packets a second.
    rate_pps: f64,
}

/// Measures it at `rate_pps` packets a second.
///
/// # Errors
/// If the rig cannot be built or slack not be measured, or the run is interrupted. A peer that fails does not end it.
#[expect(clippy::cast_precision_loss, reason = "a rate is far below 2^52")]
pub fn measure(plan: &Plan, rate_pps: u64) -> Result<Table, Error> {
    let points = ["worker's core", "generator's core", "both"].map(str::to_owned);
    let title =
        format!("Processor time of a packet at {rate_pps} packets/s, {KNOWN_FLOWS} flows, 64 B, 10 rules");
    let mut table = Table::new("cpu", &title, ("ns", Better::Lower), &points);
    let mut storage = Storage::default();
    let rig = Rig::new(&mut storage, plan.cores, 0, Napi::Plain)?;
    let cores =
        Cores { worker: Soak::start(rig.worker_core())?, generator: Soak::start(rig.generator_core())? };
    turns::take(plan, &rig, &Setup::default(), (&mut table, 0..points.len()), |running| {
        let load = Load { rate_pps: Some(rate_pps), ..rig.load_to(running, KNOWN_FLOWS) };
        let mut kept_pps = 0.0;
        for _ in 0..ATTEMPTS {
            let Cost { worker_ns, generator_ns, rate_pps: kept } = cores.cost(&rig, &load, plan.time)?;
            if kept >= rate_pps as f64 * RATE_MIN {
                return Ok(vec![worker_ns, generator_ns, worker_ns + generator_ns]);
            }
            kept_pps = kept;
        }
        Err(format!("{kept_pps:.0} packets a second came, {rate_pps} were to: something else is running")
            .into())
    })?;
    table.notes.push(
        "generator and sink cost everybody the same and are in all numbers: compare with the floor"
            .to_owned(),
    );
    table.notes.push(
        "who spins uses all of its core; whatever else runs on the cores, or is taken away by the machine's host, counts as used".to_owned(),
    );
    Ok(table)
}

impl Cores {
    /// Measures what a packet of the load costs while it is forwarded.
    #[expect(clippy::cast_precision_loss, reason = "counts and nanoseconds of seconds are far below 2^52")]
    fn cost(&self, rig: &Rig<'_>, load: &Load, time: Duration) -> Result<Cost, Error> {
        let packets_before = rig.sink.counts()?.packets;
        let (sent, (start, end)) = rig.run(load, Amount::Time(LEAD + time + LEAD), |_| {
            thread::sleep(LEAD);
            let start = self.read(rig)?;
            thread::sleep(time);
            Ok((start, self.read(rig)?))
        })?;
        let arrived = rig.at_rest()?.packets - packets_before;
        if (arrived as f64) < sent.packets as f64 * (1.0 - LOSS_MAX) {
            return Err(
                format!("does not carry the rate: {arrived} of {} packets arrived", sent.packets).into()
            );
        }
        let packets = (end.packets - start.packets) as f64;
        if packets == 0.0 {
            return Err("no packet arrived within the time of the measurement".into());
        }
        let elapsed = end.at - start.at;
        let used = |slack: Duration| (elapsed.as_nanos() as f64 - slack.as_nanos() as f64) / packets;
        Ok(Cost {
            worker_ns: used(end.worker_slack - start.worker_slack),
            // Waited for before each packet of the run, so as much in the time of the measurement as outside.
            generator_ns: used(end.generator_slack - start.generator_slack)
                - sent.waited.as_nanos() as f64 / sent.packets as f64,
            rate_pps: packets / elapsed.as_secs_f64(),
        })
    }

    fn read(&self, rig: &Rig<'_>) -> Result<Reading, Error> {
        Ok(Reading {
            at: Instant::now(),
            packets: rig.sink.counts()?.packets,
            worker_slack: self.worker.slack(),
            generator_slack: self.generator.slack(),
        })
    }
}
