//! What a long ruleset costs on the wire: the gateway with 10,000 rules beside itself with ten, for flows it knows and
//! for a new flow with every packet; Linux's bridge with the same rules beside it; and 100,000 rules exchanged under load.

use crate::Error;
use crate::gateway::{self, Plan};
use crate::peers::{Peer, Rules, Setup};
use crate::report::{Report, median, range};
use crate::rig::{Napi, Rig};
use crate::sink::Storage;
use std::time::Duration;

/// A long ruleset.
const LONG: u32 = 10_000;

/// The longest.
const LONGEST: u32 = 100_000;

/// Flows that are known after the first milliseconds.
const KNOWN_FLOWS: u32 = 1_000;

/// So many that in one run no flow comes twice: each packet starts one.
const NEW_FLOWS: u32 = 8_000_000;

/// Room for them.
const ROOM: u32 = 9_000_000;

/// Goal: speed with a long ruleset against a short one, flows known.
const KNOWN_GOAL: f64 = 0.97;

/// Goal: the same with a new flow for every packet.
const NEW_GOAL: f64 = 0.90;

/// Time under load while the longest ruleset is exchanged.
const EXCHANGE_TIME: Duration = Duration::from_secs(20);

/// Measures them all.
///
/// # Errors
/// If one cannot be measured.
pub fn measure(plan: &Plan, report: &mut Report) -> Result<(), Error> {
    let sizes = [("10 rules", Rules::new(10)), ("10,000 rules", Rules::new(LONG))];
    let (known, top_pps) = beside(plan, KNOWN_FLOWS, &sizes, "known flows")?;
    report.at_least("10,000 rules against 10, known flows", known, KNOWN_GOAL);
    let (new, _) = beside(plan, NEW_FLOWS, &sizes, "a new flow with every packet")?;
    report.at_least("10,000 rules against 10, a new flow with every packet", new, NEW_GOAL);
    for (name, rules) in sizes {
        kernel(plan, name, rules, report)?;
    }
    let both = [LONGEST, LONGEST - 1].map(|count| Rules::new(count).iptables_save());
    gateway::reload(plan, [&both[0], &both[1]], (gateway::safe(top_pps), EXCHANGE_TIME), report)
}

/// The gateway with either ruleset in turn; the second's speed as a share of the first's, and the second's rate.
fn beside(plan: &Plan, flows: u32, sizes: &[(&str, Rules); 2], what: &str) -> Result<(f64, f64), Error> {
    let mut storage = Storage::default();
    let rig = Rig::new(&mut storage, plan.cores, 0, Napi::Threaded)?;
    let mut rates = [Vec::new(), Vec::new()];
    for repetition in 0..plan.repetitions {
        let order = if repetition % 2 == 0 { [0, 1] } else { [1, 0] };
        for side in order {
            let setup = Setup { rules: sizes[side].1, max_flows: ROOM, ..Setup::default() };
            let gateway = Peer::Palisade.start(&rig, &setup)?;
            rates[side].push(rig.rate(flows, plan.time)?);
            gateway.stop()?;
        }
    }
    for ((name, _), rates) in sizes.iter().zip(&rates) {
        print_rate(&format!("{name}, {what}"), rates);
    }
    let ratios: Vec<f64> = rates[1].iter().zip(&rates[0]).map(|(long, short)| long / short).collect();
    Ok((median(&ratios), median(&rates[1])))
}

/// Linux's bridge with these rules, for reading beside. The far end is polled by whoever sends to it: a thread of its own would
/// fight with the bridge's for the core, and little would get through.
fn kernel(plan: &Plan, name: &str, rules: Rules, report: &Report) -> Result<(), Error> {
    let mut storage = Storage::default();
    let rig = Rig::new(&mut storage, plan.cores, 0, Napi::Plain)?;
    let bridge = Peer::BridgeIptables.start(&rig, &Setup { rules, ..Setup::default() })?;
    let rates: Result<Vec<f64>, Error> =
        (0..plan.repetitions).map(|_| rig.rate(KNOWN_FLOWS, plan.time)).collect();
    let rates = rates?;
    bridge.stop()?;
    let figure = format!("Linux's bridge with {name}, {KNOWN_FLOWS} flows, Mpps");
    report.beside(&figure, &format!("{:.3}", median(&rates) / 1e6));
    Ok(())
}

fn print_rate(what: &str, rates: &[f64]) {
    let (low, high) = range(rates);
    let mpps = [median(rates), low, high].map(|rate| rate / 1e6);
    println!("  {what}: {:.3} Mpps [{:.3}..{:.3}]", mpps[0], mpps[1], mpps[2]);
}
