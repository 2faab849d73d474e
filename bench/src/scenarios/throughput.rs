//! Packets a second in steady state, under as much load as there is: by frame size, by flows, by rules.

use super::{KNOWN_FLOWS, Plan, turns};
use crate::Error;
use crate::load::{Load, Sizes};
use crate::peers::{Rules, Setup};
use crate::results::{Better, Table};
use crate::rig::{Napi, Rig};
use crate::sink::Storage;

/// Flow counts, in this order one after the other in each turn: a table holds what came before.
const FLOWS: [u32; 4] = [1, 1_000, 100_000, 1_000_000];

/// Rule counts.
const RULES: [u32; 3] = [10, 1_000, 10_000];

/// So many that in one run no flow comes twice: each packet starts one.
const NEW_FLOWS: u32 = 8_000_000;

/// Room for connections, beside those.
const ROOM: u32 = 1_000_000;

const MPPS: (&str, Better) = ("Mpps", Better::Higher);

/// By frame size.
pub(super) fn sizes(plan: &Plan) -> Result<Table, Error> {
    let sizes = [("64 B", Sizes::Fixed(64)), ("IMIX", Sizes::Imix), ("1514 B", Sizes::Fixed(1514))];
    let points = sizes.map(|(name, _)| name.to_owned());
    let title = format!("Throughput by frame size, {KNOWN_FLOWS} flows, 10 rules");
    let mut table = Table::new("sizes", &title, MPPS, &points);
    let loads = |load: Load| sizes.map(|(_, sizes)| Load { sizes, ..load.clone() });
    measure(plan, Napi::Plain, &Setup::default(), &mut table, 0, loads)?;
    Ok(table)
}

/// By flows.
pub(super) fn flows(plan: &Plan) -> Result<Table, Error> {
    by_flows(plan, Napi::Plain, "flows", "Throughput by flows, 64 B, 10 rules")
}

/// By flows, the far end polled by a thread.
pub(super) fn threaded(plan: &Plan) -> Result<Table, Error> {
    let title = "Throughput by flows, 64 B, 10 rules, threaded NAPI on the far end";
    by_flows(plan, Napi::Threaded, "threaded", title)
}

fn by_flows(plan: &Plan, napi: Napi, name: &str, title: &str) -> Result<Table, Error> {
    let mut table = Table::new(name, title, MPPS, &FLOWS.map(count));
    // What came before stays in the tables.
    let setup = Setup { max_flows: ROOM + FLOWS.iter().sum::<u32>(), ..Setup::default() };
    let loads = |load: Load| FLOWS.map(|flows| Load { flows, ..load.clone() });
    measure(plan, napi, &setup, &mut table, 0, loads)?;
    table
        .notes
        .push("one after the other in each turn: tables hold the flows of the columns before".to_owned());
    Ok(table)
}

/// By rules, flows known.
pub(super) fn rules(plan: &Plan) -> Result<Table, Error> {
    let title = format!("Throughput by rules, 64 B, {KNOWN_FLOWS} flows");
    by_rules(plan, "rules", &title, KNOWN_FLOWS, ROOM)
}

/// By rules, every packet a new flow.
pub(super) fn new_flows(plan: &Plan) -> Result<Table, Error> {
    let title = "Throughput by rules, 64 B, a new flow with every packet";
    by_rules(plan, "new-flows", title, NEW_FLOWS, NEW_FLOWS + ROOM)
}

fn by_rules(plan: &Plan, name: &str, title: &str, flows: u32, max_flows: u32) -> Result<Table, Error> {
    let mut table = Table::new(name, title, MPPS, &RULES.map(count));
    for (column, rules) in RULES.into_iter().enumerate() {
        let setup = Setup { rules: Rules::new(rules), max_flows, ..Setup::default() };
        measure(plan, Napi::Plain, &setup, &mut table, column, |load| [Load { flows, ..load }])?;
    }
    Ok(table)
}

/// Measures a column for each load, from `first` on.
fn measure<const COLUMNS: usize>(
    plan: &Plan,
    napi: Napi,
    setup: &Setup,
    table: &mut Table,
    first: usize,
    loads: impl Fn(Load) -> [Load; COLUMNS],
) -> Result<(), Error> {
    let mut storage = Storage::default();
    let rig = Rig::new(&mut storage, plan.cores, 0, napi)?;
    turns::take(plan, &rig, setup, (table, first..first + COLUMNS), |running| {
        let mpps = |load: Load| {
            // Of flows that are to be new nobody must have heard.
            let rate = if load.flows == NEW_FLOWS {
                rig.rate_of(&load, plan.time)?
            } else {
                rig.steady_rate_of(&load, plan.time)?
            };
            Ok(rate / 1e6)
        };
        loads(rig.load_to(running, KNOWN_FLOWS)).into_iter().map(mpps).collect()
    })
}

/// A count as people write it.
pub(super) fn count(number: impl Into<u64>) -> String {
    let digits = number.into().to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    groups.map(String::from_utf8_lossy).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([1_u32, 1_000, 100_000, 1_000_000].map(count), ["1", "1,000", "100,000", "1,000,000"]);
    }
}
