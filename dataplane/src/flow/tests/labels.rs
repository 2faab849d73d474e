//! Labels: who can have some, how long they stay, and who hears of them.

use super::*;

/// Labels of the only flow.
fn labels(lab: &Lab) -> Option<u128> {
    lab.flow().labels
}

/// A flow of so many labels.
fn labelled(lab: &mut Lab, frame: &Frame, labels: u128) {
    let mut tracked = lab.track(frame);
    lab.tracker.set_labels(&tracked, labels);
    lab.commit(frame, &mut tracked).unwrap();
    lab.tracker.finish(&tracked, true);
}

#[test]
fn only_flows_that_begin_while_rules_speak_of_labels_have_any() {
    let mut lab = Lab::new();
    let speak = |lab: &mut Lab, labels| lab.tracker.adopt(&lab.settings, &Policies::default(), labels);
    for (at_start, later) in [(false, true), (true, false)] {
        speak(&mut lab, at_start);
        let tracked = lab.track(&udp(A, B));
        assert_eq!(lab.tracker.labels(&tracked), at_start.then_some(0));
        lab.send(&udp(A, B));
        speak(&mut lab, later);
        let tracked = lab.track(&udp(B, A));
        assert_eq!(
            (lab.tracker.labels(&tracked), labels(&lab)),
            (at_start.then_some(0), at_start.then_some(0))
        );
        assert_eq!(lab.flow().status & status::OURS, 0, "nobody else's business");
        assert!(lab.tracker.remove(lab.flow().slot));
    }
}

#[test]
fn labels_belong_to_the_flow_and_go_with_it() {
    const MANY: u128 = 1 << 127 | 1 << 64 | 1 << 63 | 1;
    for frame in [udp(A, B), udp(A, B).v6()] {
        let mut lab = Lab::new();
        labelled(&mut lab, &frame, MANY);
        assert_eq!(labels(&lab), Some(MANY));
        let tracked = lab.track(&frame);
        assert_eq!(lab.tracker.labels(&tracked), Some(MANY));
        lab.tracker.set_labels(&tracked, MANY | 2);
        assert_eq!(labels(&lab), Some(MANY | 2));
        let slot = lab.flow().slot;
        assert!(lab.tracker.remove(slot));
        assert_eq!(lab.tracker.labels(&tracked), None);
        lab.send(&frame);
        assert_eq!((lab.flow().slot, labels(&lab)), (slot, Some(0)), "the next one there has none of them");
    }
}

#[test]
fn a_refused_packet_leaves_no_label() {
    let mut lab = Lab::new();
    let tracked = lab.track(&udp(A, B));
    lab.tracker.set_labels(&tracked, 1);
    lab.tracker.finish(&tracked, false);
    lab.send(&udp(A, B));
    assert_eq!(labels(&lab), Some(0));
}

#[test]
fn an_error_about_a_flow_sees_its_labels() {
    let mut lab = Lab::new();
    labelled(&mut lab, &udp(A, B), 1 << 5);
    let tracked = lab.track(&icmp_error(B, A, 3, &udp(A, B)));
    assert_eq!((tracked.state, lab.tracker.labels(&tracked)), (Related, Some(1 << 5)));
    lab.tracker.set_labels(&tracked, 3 << 5);
    assert_eq!(labels(&lab), Some(3 << 5));
}

#[test]
fn control_gives_and_takes_labels() {
    let mut lab = Lab::new();
    let ask = |lab: &mut Lab, change| {
        let FlowView { slot, seq, .. } = lab.flow();
        lab.tracker.serve(Request::Flow { slot, seq, change }, lab.now);
    };
    let change = |take, give| Change::Update { mark: None, labels: Some((take, give)), timeout_secs: None };
    lab.send(&udp(A, B));
    ask(&mut lab, change(0, 1 << 100 | 6));
    ask(&mut lab, change(4, 0));
    assert_eq!(labels(&lab), Some(1 << 100 | 2));
    ask(&mut lab, change(u128::MAX, 0));
    assert_eq!(labels(&lab), Some(0));
    lab.tracker.remove(lab.flow().slot);
    lab.tracker.adopt(&lab.settings, &Policies::default(), false);
    lab.send(&udp(A, B));
    ask(&mut lab, change(0, 1));
    assert_eq!(labels(&lab), None, "it can have none");
}

#[test]
fn listeners_hear_of_labels() {
    let mut lab = Lab::new();
    let mut events = lab.listen();
    let mut told = || {
        std::iter::from_fn(|| events.pop().ok())
            .map(|event| (event.news, event.view.labels))
            .collect::<Vec<_>>()
    };
    labelled(&mut lab, &udp(A, B), 1);
    assert_eq!(told(), [(CtEvents::NEW.or(CtEvents::LABEL), Some(1))]);
    let tracked = lab.track(&udp(A, B));
    lab.tracker.set_labels(&tracked, 3);
    lab.tracker.finish(&tracked, true);
    assert_eq!(told(), [(CtEvents::LABEL, Some(3))]);
    let FlowView { slot, seq, .. } = lab.flow();
    let change = Change::Update { mark: Some((0, 1)), labels: Some((1, 0)), timeout_secs: None };
    lab.tracker.serve(Request::Flow { slot, seq, change }, lab.now);
    assert_eq!(told(), [(CtEvents::MARK.or(CtEvents::LABEL), Some(2))]);
}
