//! The figures of the gateway: its speed against the bare forwarder, reloads under load, and exact books.

use crate::Error;
use crate::load::Amount;
use crate::peers::{Peer, Setup, palisade};
use crate::report::{Report, median, range};
use crate::rig::{Napi, Rig};
use crate::sink::Storage;
use palisade_tests::daemon::{Daemon, Stats};
use std::thread;
use std::time::Duration;

/// Ten rules, stateful.
const RULES: &str = include_str!("../../tests/data/rules/bench10.v4.rules");

/// The gateway's share of the bare forwarder's speed.
const SPEED_GOAL: f64 = 0.95;

/// Share of its top speed that the gateway is loaded with where no packet may be lost to overload. The generator sends
/// in bursts of 64 and shares its core with `fwctl` and the daemon's control thread.
const SAFE_LOAD: f64 = 0.6;

/// Flows of the runs about reloads and books.
const FLOWS: u32 = 1_000;

/// Packets of the run about books.
const ACCOUNTED_PACKETS: u32 = 10_000_000;

/// Time under load for reloads.
const RELOAD_TIME: Duration = Duration::from_secs(5);

/// Time between two reloads.
const RELOAD_EVERY: Duration = Duration::from_millis(50);

/// How the figures are to be measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Cores of the machine.
    pub cores: usize,
    /// Measurements of each side.
    pub repetitions: u32,
    /// Length of each measurement.
    pub time: Duration,
}

/// Measures them all.
///
/// # Errors
/// If one cannot be measured.
pub fn measure(plan: &Plan, report: &mut Report) -> Result<(), Error> {
    let mut slowest = f64::INFINITY;
    for napi in [Napi::Plain, Napi::Threaded] {
        for flows in [1, FLOWS] {
            slowest = slowest.min(speed(plan, napi, flows, report)?);
        }
    }
    let rate_pps = safe(slowest);
    let other = RULES.replace("COMMIT", "-A FORWARD -p udp -m udp --dport 8000:8999 -j ACCEPT\nCOMMIT");
    reload(plan, [RULES, &other], (rate_pps, RELOAD_TIME), report)?;
    accounting(plan, rate_pps, report)
}

/// Floor and gateway in turn on the same rig; returns the gateway's median rate.
fn speed(plan: &Plan, napi: Napi, flows: u32, report: &mut Report) -> Result<f64, Error> {
    let mut storage = Storage::default();
    let rig = Rig::new(&mut storage, plan.cores, 0, napi)?;
    let (mut floor, mut gateway, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for repetition in 0..plan.repetitions {
        let mut pair = [0.0; 2];
        // Who comes first alternates: a machine that slows down or speeds up favours neither.
        let order = if repetition % 2 == 0 { [0, 1] } else { [1, 0] };
        for side in order {
            pair[side] = if side == 0 {
                let floor = Peer::Floor.start(&rig, &Setup::default())?;
                let rate = rig.rate(flows, plan.time)?;
                floor.stop()?;
                rate
            } else {
                let daemon = palisade::launch(&rig, palisade::builder(&rig).rules(RULES))?;
                let rate = rig.rate(flows, plan.time)?;
                palisade::stop(daemon)?;
                rate
            };
        }
        floor.push(pair[0]);
        gateway.push(pair[1]);
        ratios.push(pair[1] / pair[0]);
    }
    let name = match napi {
        Napi::Plain => "plain",
        Napi::Threaded => "threaded",
    };
    for (who, rates) in [("floor", &floor), ("gateway", &gateway)] {
        let (low, high) = range(rates);
        let mpps = [median(rates), low, high].map(|rate| rate / 1e6);
        println!("  {who}, {flows} flows, {name} NAPI: {:.3} Mpps [{:.3}..{:.3}]", mpps[0], mpps[1], mpps[2]);
    }
    let figure = format!("gateway against floor, 64-byte UDP, {flows} flows, {name} NAPI on the far end");
    report.at_least(&figure, median(&ratios), SPEED_GOAL);
    Ok(median(&gateway))
}

/// The rate at which nothing is lost to overload, by the top speed.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is positive and below 2^64"
)]
pub(crate) fn safe(top_pps: f64) -> u64 {
    (top_pps * SAFE_LOAD) as u64
}

/// Rules change back and forth while packets flow, twenty times a second or as often as they can be loaded.
///
/// # Errors
/// If it cannot be measured.
pub(crate) fn reload(
    plan: &Plan,
    rules: [&str; 2],
    (rate_pps, time): (u64, Duration),
    report: &mut Report,
) -> Result<(), Error> {
    let mut storage = Storage::default();
    let rig = Rig::new(&mut storage, plan.cores, FLOWS, Napi::Plain)?;
    let daemon = palisade::launch(&rig, palisade::builder(&rig).rules(rules[0]))?;
    let (offered, sunk) = (rig.offered()?, rig.at_rest()?);
    let load = rig.load(FLOWS, Some(rate_pps));
    let (sent, reloads) = rig.run(&load, Amount::Time(time), |generator| {
        let mut reloads = 0;
        while !generator.is_finished() {
            thread::sleep(RELOAD_EVERY);
            reloads += 1;
            daemon.apply(rules[reloads % 2]);
        }
        Ok(reloads)
    })?;
    let now = rig.at_rest()?;
    let sunk = now.packets + now.others - sunk.packets - sunk.others;
    let stats = settled(&daemon);
    let offered = rig.offered()? - offered;
    let overload = stats.queues("rx_dropped") + stats.drops("tx_ring_full");
    println!(
        "  {reloads} reloads of {} rules at {:.3} Mpps: {} packets sent, {offered} arrived, {sunk} came out; lost to overload, not \
         to reloads: {} before the gateway, {overload} at its rings",
        rule_count(rules[0]),
        mpps(rate_pps),
        sent.packets,
        sent.packets.saturating_sub(offered),
    );
    let lost = i128::from(offered) - i128::from(overload) - i128::from(sunk);
    report.exactly(
        &format!("packets lost to rule reloads under load, {} rules", rule_count(rules[0])),
        lost,
        0,
    );
    // A flow that was lost would have been made again by its next packet.
    let strays = i128::from(stats.flows_inserted()) - i128::from(FLOWS);
    report.exactly(
        &format!("flows lost to rule reloads under load, {} rules", rule_count(rules[0])),
        strays,
        0,
    );
    let silent = rig.sink.flows()?.iter().filter(|packets| **packets == 0).count();
    report.exactly(
        &format!("flows that did not come through, {} rules", rule_count(rules[0])),
        i128::try_from(silent)?,
        0,
    );
    palisade::stop(daemon)
}

/// Ten million packets, a tenth of which a rule drops.
fn accounting(plan: &Plan, rate_pps: u64, report: &mut Report) -> Result<(), Error> {
    let mut storage = Storage::default();
    let rig = Rig::new(&mut storage, plan.cores, 0, Napi::Plain)?;
    let first = "-A FORWARD -p udp -m udp --sport 1024:1123 -j DROP\n-A FORWARD -m conntrack";
    let rules = RULES.replacen("-A FORWARD -m conntrack", first, 1);
    let daemon = palisade::launch(&rig, palisade::builder(&rig).rules(&rules))?;
    let (stats_before, sunk_before, offered_before) = (settled(&daemon), rig.at_rest()?, rig.offered()?);
    let (sent, ()) =
        rig.run(&rig.load(FLOWS, Some(rate_pps)), Amount::Packets(ACCOUNTED_PACKETS), |_| Ok(()))?;
    let sunk = rig.at_rest()?;
    let stats = settled(&daemon);
    let grown = |count: fn(&Stats) -> u64| i128::from(count(&stats)) - i128::from(count(&stats_before));
    let offered = i128::from(rig.offered()? - offered_before);
    let (rx, forwarded, dropped) = (grown(Stats::rx), grown(Stats::forwarded), grown(Stats::dropped));
    let ring = grown(|stats| stats.queues("rx_dropped"));
    println!(
        "  {} packets sent at {:.3} Mpps, {offered} arrived, {ring} of them lost at the rx ring; {rx} received, \
         {forwarded} forwarded, {dropped} dropped ({} by a rule)",
        sent.packets,
        mpps(rate_pps),
        grown(|stats| stats.drops("rule_drop")),
    );
    report.exactly("packets sent", sent.packets.into(), ACCOUNTED_PACKETS.into());
    report.exactly(
        "packets arrived, but neither received nor counted as lost at the ring",
        offered - rx - ring,
        0,
    );
    report.exactly(
        "packets received, but neither forwarded nor dropped for a reason",
        rx - forwarded - dropped,
        0,
    );
    let sunk = i128::from(sunk.packets + sunk.others) - i128::from(sunk_before.packets + sunk_before.others);
    report.exactly("packets forwarded, but not seen by the receiver", forwarded - sunk, 0);
    palisade::stop(daemon)
}

/// Counters after the last packet: published a moment later, so read until they stand still.
fn settled(daemon: &Daemon) -> Stats {
    let mut before = daemon.stats();
    loop {
        thread::sleep(Duration::from_millis(300));
        let now = daemon.stats();
        if (now.rx(), now.forwarded(), now.dropped()) == (before.rx(), before.forwarded(), before.dropped()) {
            return now;
        }
        before = now;
    }
}

fn rule_count(text: &str) -> usize {
    text.lines().filter(|line| line.starts_with("-A ")).count()
}

#[expect(clippy::cast_precision_loss, reason = "a rate is far below 2^52")]
fn mpps(rate_pps: u64) -> f64 {
    rate_pps as f64 / 1e6
}
