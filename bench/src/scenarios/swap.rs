//! Exchanges of rules under load: known flows come in while the rules are exchanged again and again, as each peer's users
//! do it. How long the receiver hears nothing, what is lost, and how long an exchange takes.

use super::throughput::count;
use super::{KNOWN_FLOWS, Plan, turns};
use crate::Error;
use crate::gateway::safe;
use crate::load::{Amount, Load};
use crate::peers::{Rules, Running, Setup};
use crate::report::median;
use crate::results::{Better, Table, markdown::number};
use crate::rig::{Napi, Rig, gain_per_sec};
use crate::sink::{Options, Role, Storage};
use std::collections::BTreeMap;
use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

/// Rules that are exchanged for one less, and back.
const RULES: [u32; 2] = [1_000, 10_000];

/// Room for connections.
const MAX_FLOWS: u32 = 100_000;

/// A load is as long as so many exchanges take without one, if that is longer than was asked for.
const SWAPS_LEAST: u32 = 4;

/// Longest load.
const TIME_MAX: Duration = Duration::from_secs(60);

/// Time from the first packet of the full load to the first reading, and from the last reading to its end.
const SETTLE: Duration = Duration::from_millis(300);

/// Longest the first packet may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is measured, each in a table of its own: name, title, unit.
const VALUES: [(&str, &str, &str); 3] = [
    ("swap-silence", "Longest silence at the receiver while rules are exchanged", "ms"),
    ("swap-lost", "Packets lost while rules are exchanged", "per million"),
    ("swap-time", "Time of an exchange of rules under load", "ms"),
];

/// Measures it.
pub(super) fn measure(plan: &Plan) -> Result<Vec<Table>, Error> {
    let names = |rules: u32| VALUES.map(|(name, ..)| format!("{name}, {}", count(rules)));
    let points: Vec<String> = RULES.into_iter().flat_map(names).collect();
    let mut all = Table::new("swap", "Exchanges of rules", ("", Better::Lower), &points);
    let mut notes = vec![
        format!(
            "{KNOWN_FLOWS} flows in turn, 64 B, at 0.6 of what the peer carried just before; the rules are exchanged for one \
             less and back, without a pause, by commands that share the generator's core"
        ),
        "silence: from a packet to the next, or, if none was lost between and that one left later, from its departure on".to_owned(),
        "lost: of all packets sent, those that did not arrive, for whatever reason; those at full rings included; beside it see below \
         what the same load lost without exchanges"
            .to_owned(),
    ];
    for (at, rules) in RULES.into_iter().enumerate() {
        let mut storage = Storage::default();
        let options = Options { flows: KNOWN_FLOWS, stamps: true, role: Role::Drop };
        let rig = Rig::with_sink(&mut storage, plan.cores, options, Napi::Plain)?;
        let setup = Setup { rules: Rules::new(rules), max_flows: MAX_FLOWS, ..Setup::default() };
        let columns = at * VALUES.len()..(at + 1) * VALUES.len();
        let mut log = Log::default();
        turns::take(plan, &rig, &setup, (&mut all, columns), |running| {
            exchange(&rig, running, rules, plan.time, &mut log)
        })?;
        notes.push(format!("{} rules: {log}", count(rules)));
    }
    let tables = VALUES.into_iter().enumerate().map(|(value, (name, title, unit))| {
        let column =
            |(at, rules): (usize, u32)| (at * VALUES.len() + value, format!("{} rules", count(rules)));
        let columns: Vec<_> = RULES.into_iter().enumerate().map(column).collect();
        Table { notes: notes.clone(), ..all.extract(name, title, (unit, Better::Lower), &columns) }
    });
    Ok(tables.collect())
}

/// Exchanges rules under load; returns the longest silence, packets lost of a million, and the median time of an exchange.
fn exchange(
    rig: &Rig<'_>,
    running: &mut Running<'_>,
    rules: u32,
    time: Duration,
    log: &mut Log,
) -> Result<Vec<f64>, Error> {
    if !running.peer().is_firewall() {
        return Err("it has no rules to exchange".into());
    }
    let top = Load { stamp: true, ..rig.load_to(running, KNOWN_FLOWS) };
    let rate_pps = safe(top_rate(rig, &top, time)?);
    if rate_pps == 0 {
        return Err("it carries nothing to speak of".into());
    }
    let load = Load { rate_pps: Some(rate_pps), ..top };
    rig.at_rest()?;
    rig.sink.reset()?;
    let (sent, ()) = rig.run(&load, Amount::Time(time), |_| Ok(()))?;
    let calm = (sent.packets, sent.packets.saturating_sub(rig.at_rest()?.packets));
    let mut swaps = Swaps { running, rules, done: 0 };
    let alone = swaps.one()?;
    let time = time.max(alone * SWAPS_LEAST).min(TIME_MAX);
    rig.sink.reset()?;
    let (sent, times) = rig.run(&load, Amount::Time(time), |generator| {
        wait_for_first(rig, 0)?;
        let mut times = Vec::new();
        loop {
            let time = swaps.one()?;
            // One that the load did not outlast says too little.
            if generator.is_finished() {
                break Ok(times);
            }
            times.push(millis(time));
        }
    })?;
    if times.is_empty() {
        return Err(
            format!("no exchange ended within {time:?} of load; without load one took {alone:?}").into()
        );
    }
    let arrived = rig.at_rest()?.packets;
    let lost = sent.packets.saturating_sub(arrived);
    if arrived < sent.packets / 2 {
        return Err(format!("forwarded {arrived} of {} packets: it did not go on", sent.packets).into());
    }
    let run = Run { rate_pps, swaps: times.len(), sent: sent.packets, calm };
    log.0.entry(swaps.running.peer().name()).or_default().push(run);
    let per_million = lost as f64 * 1e6 / sent.packets as f64;
    Ok(vec![millis(rig.sink.longest_silence()?), per_million, median(&times)])
}

/// Packets a second that arrive under as much load as there is, counted from a while after the first: with stamps for
/// every flow and commands beside it a generator may take long to begin.
fn top_rate(rig: &Rig<'_>, load: &Load, time: Duration) -> Result<f64, Error> {
    let before = rig.at_rest()?.packets;
    let (_, rate) = rig.run(load, Amount::Time(SETTLE + time + SETTLE), |_| {
        wait_for_first(rig, before)?;
        thread::sleep(SETTLE);
        gain_per_sec(time, || Ok(rig.sink.counts()?.packets))
    })?;
    Ok(rate)
}

/// Waits until more than `before` packets have arrived.
fn wait_for_first(rig: &Rig<'_>, before: u64) -> Result<(), Error> {
    let deadline = Instant::now() + PATIENCE;
    while rig.sink.counts()?.packets <= before {
        if Instant::now() > deadline {
            return Err(format!("nothing has arrived after {PATIENCE:?}").into());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Who exchanges rules, to and fro.
struct Swaps<'running, 'bed> {
    running: &'running mut Running<'bed>,
    rules: u32,
    done: u32,
}

impl Swaps<'_, '_> {
    /// One exchange; returns how long it took.
    fn one(&mut self) -> Result<Duration, Error> {
        self.done += 1;
        let rules = Rules::new(self.rules - self.done % 2);
        let start = Instant::now();
        self.running.swap_rules(&rules)?;
        Ok(start.elapsed())
    }
}

/// What has to be known beside the values of a run.
struct Run {
    rate_pps: u64,
    /// Exchanges that ended under the load.
    swaps: usize,
    /// Packets of the load.
    sent: u64,
    /// Packets of the same load without exchanges, and how many of them were lost.
    calm: (u64, u64),
}

/// Runs by peer.
#[derive(Default)]
struct Log(BTreeMap<&'static str, Vec<Run>>);

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nobody was measured");
        }
        for (at, (peer, runs)) in self.0.iter().enumerate() {
            let rates: Vec<f64> = runs.iter().map(|run| run.rate_pps as f64 / 1e6).collect();
            let swaps: usize = runs.iter().map(|run| run.swaps).sum();
            let sum = |of: fn(&Run) -> u64| count(runs.iter().map(of).sum::<u64>());
            let (sent, calm, lost) = (sum(|run| run.sent), sum(|run| run.calm.0), sum(|run| run.calm.1));
            let semicolon = if at > 0 { "; " } else { "" };
            write!(
                f,
                "{semicolon}{peer} {} Mpps (median), exchanged {swaps} times while {sent} packets were sent; without exchanges \
                 {lost} of {calm} lost",
                number(median(&rates)),
            )?;
        }
        Ok(())
    }
}
