//! What is remembered of a flow: ways through the rules, and flows that go on under earlier rules.

use super::*;
use crate::ids::PortId;
use crate::rules::PathId;

const LEFT: PortId = PortId(0);
const RIGHT: PortId = PortId(1);
const ONE: Generation = Generation(1);
const TWO: Generation = Generation(2);
const THREE: Generation = Generation(3);

impl Lab {
    fn path(&self, tracked: &Tracked, since: Generation, ingress: PortId) -> Option<u32> {
        self.tracker.cached_path(tracked, since, ingress).map(|path| path.0)
    }

    fn accept(&mut self, tracked: &Tracked, since: Generation, ingress: PortId, path: Option<u32>) {
        let said = Said { path: path.map(PathId), ingress, accepted: true };
        self.tracker.remember(tracked, since, said);
    }

    fn refuse(&mut self, tracked: &Tracked, since: Generation, ingress: PortId) {
        self.tracker.remember(tracked, since, Said { path: Some(PathId(5)), ingress, accepted: false });
    }

    /// A flow that rules of generation one let begin.
    fn begun(&mut self) -> Tracked {
        let mut first = self.track(&udp(A, B));
        self.commit(&udp(A, B), &mut first).unwrap();
        self.accept(&first, ONE, LEFT, None);
        first
    }

    fn is_kept(&mut self, frame: &Frame, tenure: Tenure, ingress: PortId) -> bool {
        let tracked = self.track(frame);
        self.tracker.is_kept(&tracked, tenure, ingress)
    }
}

#[test]
fn paths_are_cached_per_direction_generation_ingress_and_ct_state() {
    let mut lab = Lab::new();
    let first = lab.begun();
    assert_eq!(lab.path(&first, ONE, LEFT), None);
    lab.accept(&first, ONE, LEFT, Some(7));
    let second = lab.track(&udp(A, B));
    assert_eq!(lab.path(&second, ONE, LEFT), Some(7));
    assert_eq!((lab.path(&second, TWO, LEFT), lab.path(&second, ONE, RIGHT)), (None, None));
    // The reply turns NEW into ESTABLISHED: the path of NEW is gone, and cannot be put back.
    let reply = lab.track(&udp(B, A));
    assert_eq!(lab.path(&reply, ONE, RIGHT), None);
    lab.accept(&second, ONE, LEFT, Some(7));
    let third = lab.track(&udp(A, B));
    assert_eq!(third.state, Established);
    assert_eq!(lab.path(&third, ONE, LEFT), None);
    lab.accept(&third, ONE, LEFT, Some(8));
    lab.accept(&reply, ONE, RIGHT, Some(9));
    assert_eq!(lab.path(&third, ONE, LEFT), Some(8));
    assert_eq!(lab.path(&reply, ONE, RIGHT), Some(9));
    // Another generation forgets both.
    lab.accept(&third, TWO, LEFT, Some(10));
    assert_eq!((lab.path(&reply, TWO, RIGHT), lab.path(&third, ONE, LEFT)), (None, None));
    // An ICMP error about the flow is not one of its packets.
    let error = lab.track(&icmp_error(C, A, 3, &udp(A, B)));
    assert_eq!(lab.path(&error, TWO, LEFT), None);
}

#[test]
fn a_flow_is_kept_by_what_was_said_of_it_until_rules_that_keep_nothing() {
    let mut lab = Lab::new();
    lab.begun();
    let keeping = Tenure::of(ONE).after(TWO);
    assert!(lab.flow().remembered.is_kept(keeping));
    assert!(!lab.flow().remembered.is_kept(Tenure::of(TWO)));
    // Neither its state nor an answer that comes only now matters, and then the path is cached.
    assert!(lab.is_kept(&udp(B, A), keeping, RIGHT));
    assert!(lab.is_kept(&udp(A, B), keeping, LEFT));
    let tracked = lab.track(&udp(A, B));
    assert_eq!(lab.path(&tracked, TWO, LEFT), Some(PathId::KEPT.0));
    assert!(lab.flow().remembered.is_kept(keeping));
    // Rules that keep flows as well go on with it, also past some it had no packet under.
    assert!(lab.is_kept(&udp(A, B), keeping.after(THREE).after(Generation(9)), LEFT));
    assert!(!lab.is_kept(&udp(A, B), Tenure::of(Generation(10)), LEFT));
    // What keeps nothing in between ends it, even if no packet came meanwhile.
    assert!(!lab.is_kept(&udp(A, B), Tenure::of(Generation(10)).after(Generation(11)), LEFT));
}

#[test]
fn a_flow_that_begins_under_the_new_rules_is_not_kept() {
    let mut lab = Lab::new();
    let keeping = Tenure::of(ONE).after(TWO);
    let mut first = lab.track(&udp(A, B));
    lab.commit(&udp(A, B), &mut first).unwrap();
    assert!(!lab.tracker.is_kept(&first, keeping, LEFT), "nothing was said of it yet");
    assert!(!lab.flow().remembered.is_kept(keeping));
    lab.accept(&first, TWO, LEFT, None);
    for (frame, ingress) in [(udp(A, B), LEFT), (udp(B, A), RIGHT)] {
        assert!(!lab.is_kept(&frame, keeping, ingress));
    }
    assert!(!lab.flow().remembered.is_kept(keeping));
}

#[test]
fn only_a_direction_that_was_let_pass_goes_on() {
    let mut lab = Lab::new();
    lab.begun();
    let reply = lab.track(&udp(B, A));
    lab.refuse(&reply, ONE, RIGHT);
    let keeping = Tenure::of(ONE).after(TWO);
    assert!(!lab.is_kept(&udp(B, A), keeping, RIGHT));
    assert!(lab.is_kept(&udp(A, B), keeping, LEFT));
    // The new rules judge the reply, and that does not end what is kept.
    let reply = lab.track(&udp(B, A));
    lab.accept(&reply, TWO, RIGHT, Some(3));
    assert!(lab.is_kept(&udp(A, B), keeping, LEFT));
    assert!(!lab.is_kept(&udp(B, A), keeping, RIGHT));
    // A flow whose last word was no does not come back.
    let mut lab = Lab::new();
    let first = lab.begun();
    lab.refuse(&first, TWO, LEFT);
    assert!(!lab.flow().remembered.is_kept(Tenure::of(TWO).after(THREE)));
    assert!(!lab.is_kept(&udp(A, B), Tenure::of(TWO).after(THREE), LEFT));
}

#[test]
fn packets_from_another_nic_are_judged_and_take_nothing_away() {
    let mut lab = Lab::new();
    lab.begun();
    let keeping = Tenure::of(ONE).after(TWO);
    let other = PortId(4);
    assert!(!lab.is_kept(&udp(A, B), keeping, other));
    let tracked = lab.track(&udp(A, B));
    lab.refuse(&tracked, TWO, other);
    assert!(lab.is_kept(&udp(A, B), keeping, LEFT));
    assert!(!lab.is_kept(&udp(B, A), keeping, other.peer()), "the way back leads to the flow's NIC");
    assert!(lab.is_kept(&udp(B, A), keeping, RIGHT));
}

#[test]
fn generations_may_wrap_around() {
    let last = Generation(u32::MAX);
    let mut lab = Lab::new();
    let first = lab.begun();
    lab.accept(&first, last, LEFT, None);
    assert!(lab.flow().remembered.is_kept(Tenure::of(last).after(ONE)));
    assert!(!lab.flow().remembered.is_kept(Tenure::of(ONE).after(TWO)));
    assert!(lab.is_kept(&udp(A, B), Tenure::of(last).after(ONE), LEFT));
}
