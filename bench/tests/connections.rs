//! The scenarios that need true connections, full tables and slack, measured for real, but shortly and beside other work: that
//! there are figures and that they can be, not what they are.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use bench::bed::Bed;
use bench::load::{Amount, Flood, Load, Protocol};
use bench::peers::{Peer, Rules, Setup};
use bench::results::Table;
use bench::rig::{Napi, Rig};
use bench::scenarios::{Plan, Scenario, cpu};
use bench::sink::Storage;
use palisade_tests::require_root;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Peers spin on one core and set limits of the whole machine: one at a time.
static TURN: Mutex<()> = Mutex::new(());

/// Takes the turn, and plans to measure those peers that there are; none if it cannot be measured here.
fn turn(peers: &[Peer]) -> Option<(MutexGuard<'static, ()>, Plan)> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        eprintln!("skipped: two cores are needed");
        return None;
    }
    let (missing, peers): (Vec<Peer>, Vec<Peer>) = peers.iter().partition(|peer| peer.missing().is_some());
    for peer in missing {
        eprintln!("skipped: {} is missing {}", peer.name(), peer.missing().unwrap_or_default());
    }
    if peers.is_empty() {
        return None;
    }
    let plan = Plan { cores, repetitions: 1, time: Duration::from_millis(200), peers };
    Some((TURN.lock().unwrap_or_else(PoisonError::into_inner), plan))
}

/// All samples, a row for each peer; each has to be there.
#[track_caller]
fn samples(table: &Table, plan: &Plan) -> Vec<Vec<f64>> {
    let rows = table.series.iter().map(|series| {
        assert_eq!(series.missing, None, "{}", series.peer);
        let points = series.samples.iter().map(|samples| match samples[..] {
            [Some(value)] => value,
            _ => panic!("{}: {samples:?}", series.peer),
        });
        points.collect::<Vec<_>>()
    });
    let rows: Vec<_> = rows.collect();
    assert_eq!(rows.len(), plan.peers.len());
    assert!(rows.iter().all(|row| row.len() == table.points.len()), "{rows:?}");
    rows
}

#[test]
fn connections_are_counted_for_every_kind_of_peer() {
    require_root!();
    let peers = [Peer::Floor, Peer::Palisade, Peer::BridgeNft, Peer::RoutingIptables, Peer::Ovs];
    let Some((_turn, plan)) = turn(&peers) else { return };
    let table = Scenario::Connections.measure(&plan).unwrap().remove(0);
    for row in samples(&table, &plan) {
        // Two million a second are offered at most.
        assert!(row[0] > 1.0 && row[0] <= 2_000.0, "{row:?} thousand a second");
    }
}

#[test]
fn honest_packets_are_counted_beside_a_flood() {
    require_root!();
    let Some((_turn, plan)) = turn(&[Peer::Palisade, Peer::BridgeNft, Peer::Ovs]) else { return };
    let table = Scenario::Flood.measure(&plan).unwrap().remove(0);
    for row in samples(&table, &plan) {
        assert_eq!(row.len(), 6);
        assert!(row.iter().all(|share| (0.0..=100.0).contains(share)), "{row:?}");
        assert!(row[..2].iter().all(|share| *share > 50.0), "without a flood nearly all arrive: {row:?}");
    }
}

#[test]
fn a_packets_cost_is_found_on_both_cores() {
    require_root!();
    let peers = [Peer::Floor, Peer::Palisade, Peer::BridgeNft];
    let Some((_turn, plan)) = turn(&peers) else { return };
    // A rate for a machine that does other things too.
    let rate_pps = 10_000;
    let table = cpu::measure(&plan, rate_pps).unwrap();
    for (row, peer) in samples(&table, &plan).iter().zip(&plan.peers) {
        let [worker, generator, both] = row[..] else { panic!("{row:?}") };
        assert!(worker > 0.0 && generator > 0.0, "{}: {row:?}", peer.name());
        assert!((worker + generator - both).abs() < 1.0, "{}: {row:?}", peer.name());
        // The floor spins: a packet has cost all the time there was.
        if *peer == Peer::Floor {
            assert!(worker > 0.8e9 / rate_pps as f64, "{row:?}");
        }
    }
}

#[test]
fn palisades_guard_is_on_where_it_is_asked_for() {
    require_root!();
    const MAX_FLOWS: u32 = 8_000;
    let Some((_turn, plan)) = turn(&[Peer::Palisade]) else { return };
    for half_open_guard in [true, false] {
        let mut storage = Storage::default();
        let rig = Rig::new(&mut storage, plan.cores, 0, Napi::Plain).unwrap();
        let setup = Setup { rules: Rules::new(10), max_flows: MAX_FLOWS, half_open_guard };
        let running = Peer::Palisade.start(&rig, &setup).unwrap();
        let flood = Some(Flood { protocol: Protocol::Syn, honest_every: 0, first: 0 });
        let load = Load { flood, rate_pps: Some(20_000), ..rig.load_to(&running, 1) };
        rig.run(&load, Amount::Packets(2 * MAX_FLOWS), |_| Ok(())).unwrap();
        rig.at_rest().unwrap();
        let flows = running.flows().unwrap();
        let quarter = u64::from(MAX_FLOWS / 4);
        if half_open_guard {
            assert!(
                (1..=quarter).contains(&flows),
                "{flows} flows, a quarter of {MAX_FLOWS} may be half open"
            );
        } else {
            assert!(flows > quarter, "{flows} flows of {MAX_FLOWS}");
        }
        running.stop().unwrap();
    }
}

#[test]
fn the_generator_knows_how_long_it_waits() {
    require_root!();
    let Some((_turn, plan)) = turn(&[Peer::Floor]) else { return };
    let bed = Bed::new(plan.cores).unwrap();
    // Nobody has to take the frames.
    let waits = |rate_pps| {
        let load = bed.load(1, rate_pps);
        bed.run(&load, Amount::Packets(1_000), |_| Ok(())).unwrap().0
    };
    assert_eq!(waits(None).waited, Duration::ZERO);
    let sent = waits(Some(10_000));
    assert!(sent.waited > Duration::ZERO && sent.waited <= sent.elapsed, "{sent:?}");
}
