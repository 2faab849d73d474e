//! Round trips, TCP and exchanges of rules measured for real, shortly: every value is there and can be true, and who lacks
//! something is named.

use bench::peers::Peer;
use bench::results::{Series, Table};
use bench::scenarios::{Plan, Scenario};
use palisade_tests::require_root;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Peers spin on one core: one measurement at a time.
static TURN: Mutex<()> = Mutex::new(());

/// Who is measured: one that has rules and is no firewall of ours, one without rules, and ours.
const PEERS: [Peer; 3] = [Peer::Palisade, Peer::BridgeIptables, Peer::Floor];

/// What is said where the generator, or who was measured, had to wait for its core on a busy machine.
const BUSY: [&str; 2] = ["the generator did not keep", "does not carry the load"];

/// Times a scenario is tried then.
const ATTEMPTS: usize = 5;

/// Takes the turn if something can be measured here.
fn turn() -> Option<(MutexGuard<'static, ()>, Plan)> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        eprintln!("skipped: two cores are needed");
        return None;
    }
    if let Some((peer, missing)) = PEERS.iter().find_map(|peer| Some((peer, peer.missing()?))) {
        eprintln!("skipped: {} is missing {missing}", peer.name());
        return None;
    }
    let time = Duration::from_millis(100);
    let plan = Plan { cores, repetitions: 1, time, peers: PEERS.to_vec() };
    Some((TURN.lock().unwrap_or_else(PoisonError::into_inner), plan))
}

fn names(tables: &[Table]) -> Vec<&str> {
    tables.iter().map(|table| table.name.as_str()).collect()
}

fn series(table: &Table, peer: Peer) -> &Series {
    let series = table.series.iter().find(|series| series.peer == peer.name());
    series.unwrap_or_else(|| panic!("nothing of {} in {table:#?}", peer.name()))
}

/// A peer's only sample at each point.
fn values(table: &Table, peer: Peer) -> Vec<f64> {
    let series = series(table, peer);
    assert_eq!(series.missing, None, "{}: {}", table.name, peer.name());
    let values = series.samples.iter().map(|samples| match samples[..] {
        [Some(value)] => value,
        _ => panic!("one sample a point in {table:#?}"),
    });
    values.collect()
}

/// Measures as the command does, on a thread that may be pinned; again where somebody had to wait for a core. `None` if that
/// was always so: then the machine is too busy for a measurement, which is said.
fn measure(scenario: Scenario, plan: &Plan) -> Option<Vec<Table>> {
    for _ in 0..ATTEMPTS {
        let on_thread = || {
            // Above what else runs here: other tests, builds.
            let _ = rustix::process::nice(-20);
            scenario.measure(plan)
        };
        let measured = thread::scope(|scope| scope.spawn(on_thread).join().expect("no panic on the way"));
        let tables = measured.expect("the rig can be built");
        let mut reasons =
            tables.iter().flat_map(|table| &table.series).filter_map(|series| series.missing.as_ref());
        if !reasons.any(|reason| BUSY.iter().any(|busy| reason.contains(busy))) {
            return Some(tables);
        }
    }
    eprintln!("skipped: the machine is too busy for rates to be kept");
    None
}

#[test]
fn round_trips_take_some_time_and_the_load_is_the_same_for_all() {
    require_root!();
    let Some((_turn, plan)) = turn() else { return };
    let Some(tables) = measure(Scenario::Rtt, &plan) else { return };
    assert_eq!(names(&tables), ["rtt"]);
    let points = ["idle", "loaded"].iter().flat_map(|state| {
        ["p10", "p50", "p90", "p99", "p99.9", "longest"].map(|quantile| format!("{state} {quantile}"))
    });
    assert_eq!(tables[0].points, points.collect::<Vec<_>>());
    for peer in PEERS {
        let values = values(&tables[0], peer);
        for state in values.chunks(6) {
            // From a microsecond to ten seconds.
            assert!(state[0] > 1.0 && state.is_sorted() && state[5] < 1e7, "{}: {values:?}", peer.name());
        }
    }
    let notes = tables[0].notes.join("\n");
    assert!(
        notes.contains("idle: 5,000 packets a second; packets that did not come back: floor 0 of "),
        "{notes}"
    );
    assert!(
        notes.contains(" packets a second for everybody; packets that did not come back: floor "),
        "{notes}"
    );
    assert!(notes.contains("that load is half of "), "{notes}");
}

#[test]
fn tcp_goes_through_with_one_stream_and_with_four() {
    require_root!();
    let Some((_turn, plan)) = turn() else { return };
    let Some(tables) = measure(Scenario::Goodput, &plan) else { return };
    assert_eq!(names(&tables), ["goodput"]);
    assert_eq!(tables[0].points, ["1 stream", "4 streams"]);
    for peer in PEERS {
        if series(&tables[0], peer).missing.as_deref() == Some("not installed: package iperf3") {
            eprintln!("skipped: iperf3 is missing");
            continue;
        }
        let values = values(&tables[0], peer);
        assert!(values.iter().all(|gbits| (0.001..1_000.0).contains(gbits)), "{}: {values:?}", peer.name());
    }
}

#[test]
fn exchanges_are_timed_and_who_has_no_rules_is_named() {
    require_root!();
    let Some((_turn, plan)) = turn() else { return };
    let Some(tables) = measure(Scenario::Swap, &plan) else { return };
    assert_eq!(names(&tables), ["swap-silence", "swap-lost", "swap-time"]);
    for table in &tables {
        assert_eq!(table.points, ["1,000 rules", "10,000 rules"]);
        let reason = series(table, Peer::Floor).missing.as_deref();
        assert_eq!(reason, Some("it has no rules to exchange"));
        for peer in [Peer::Palisade, Peer::BridgeIptables] {
            let values = values(table, peer);
            let is_right = |value: &f64| match table.unit {
                "per million" => (0.0..=1e6).contains(value),
                _ => *value > 0.0 && *value < 60e3,
            };
            assert!(values.iter().all(is_right), "{} of {}: {values:?}", table.name, peer.name());
        }
        assert!(table.notes.iter().any(|note| note.starts_with("10,000 rules: kernel bridge, iptables ")));
    }
}
