//! Flows that change their worker: what goes with them, and what does not.

use super::*;
use crate::ids::PortId;
use crate::rules::PathId;
use frames::Frame;

const LEFT: PortId = PortId(0);
const ONE: Generation = Generation(1);
const TWO: Generation = Generation(2);

/// Two workers of one gateway, with the flow of `frame` at the first one.
fn pair(frame: &Frame, labels: u128) -> [Lab; 2] {
    let mut labs = [0, 1].map(|worker| {
        let mut lab = Lab::new();
        let config = TrackerConfig {
            max_flows: 100,
            max_flows_v6: 100,
            worker: WorkerId(worker),
            seed: Seed([3, 5, 7, 9]),
            hugepages: false,
            prefault: false,
        };
        lab.tracker = Tracker::new(&config).unwrap();
        lab.tracker.adopt(&lab.settings, &Policies::default(), worker == 0);
        lab
    });
    let peers: Arc<[_]> = labs.iter().map(|lab| lab.tracker.region()).collect();
    labs.iter_mut().for_each(|lab| lab.tracker.peers = Arc::clone(&peers));
    let mut tracked = labs[0].track(frame);
    labs[0].tracker.set_labels(&tracked, labels);
    labs[0].commit(frame, &mut tracked).unwrap();
    let said = Said { path: Some(PathId(7)), ingress: LEFT, accepted: true };
    labs[0].tracker.remember(&tracked, ONE, said);
    labs
}

/// Moves the only flow from the first worker to the second one.
fn cross([from, to]: &mut [Lab; 2]) {
    let id = from.tracker.flow_id(from.flow().slot).unwrap();
    let passage = from.tracker.give(id).unwrap();
    assert!(to.tracker.take_in(&passage).is_some());
    from.tracker.let_go(id);
    assert_eq!((from.tracker.flow_count(), to.tracker.flow_count()), (0, 1));
}

#[test]
fn labels_move_with_the_flow_even_where_new_ones_get_none() {
    const MANY: u128 = 1 << 127 | 1 << 64 | 1 << 63 | 1;
    for frame in [udp(A, B), udp(A, B).v6()] {
        let mut labs = pair(&frame, MANY);
        cross(&mut labs);
        let [_, to] = &mut labs;
        assert_eq!(to.flow().labels, Some(MANY));
        let tracked = to.track(&frame);
        assert_eq!(to.tracker.labels(&tracked), Some(MANY));
    }
}

#[test]
fn what_a_flow_never_had_is_not_what_the_slot_had_before() {
    let mut labs = pair(&udp(A, B), 1 << 9);
    cross(&mut labs);
    let [from, to] = &mut labs;
    assert!(to.tracker.remove(to.flow().slot));
    from.tracker.adopt(&from.settings, &Policies::default(), false);
    from.send(&udp(A, B));
    cross(&mut labs);
    assert_eq!(labs[1].flow().labels, None);
}

#[test]
fn a_path_stays_behind_and_what_was_said_goes_along() {
    let mut labs = pair(&udp(A, B), 0);
    cross(&mut labs);
    let [_, to] = &mut labs;
    let tracked = to.track(&udp(A, B));
    assert_eq!(to.tracker.cached_path(&tracked, ONE, LEFT), None, "it is a number of the other worker's");
    let keeping = Tenure::of(ONE).after(TWO);
    assert!(to.flow().remembered.is_kept(keeping) && !to.flow().remembered.is_kept(Tenure::of(TWO)));
    assert!(to.tracker.is_kept(&tracked, keeping, LEFT));
}

#[test]
fn a_flow_that_is_kept_already_stays_so() {
    let mut labs = pair(&udp(A, B), 0);
    let keeping = Tenure::of(ONE).after(TWO);
    let tracked = labs[0].track(&udp(A, B));
    assert!(labs[0].tracker.is_kept(&tracked, keeping, LEFT));
    cross(&mut labs);
    let [_, to] = &mut labs;
    let tracked = to.track(&udp(A, B));
    assert_eq!(to.tracker.cached_path(&tracked, TWO, LEFT), Some(PathId::KEPT));
    assert!(!to.flow().remembered.is_kept(Tenure::of(TWO)));
}
