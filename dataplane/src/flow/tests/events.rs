//! What listeners are told.

use super::*;

/// `-j CT --ctevents`: what rules let a connection tell is what it tells.
#[test]
fn a_connection_tells_what_its_rules_let_it() {
    const N: CtEvents = CtEvents::NEW;
    for (asked, told) in [
        (None, &[EventKind::New, EventKind::Update, EventKind::Update, EventKind::Destroy][..]),
        (Some(N.or(CtEvents::DESTROY)), &[EventKind::New, EventKind::Destroy]),
        (Some(CtEvents::ASSURED), &[EventKind::Update]),
        (Some(CtEvents::REPLY), &[EventKind::Update]),
        (Some(CtEvents::PROTOINFO), &[EventKind::Update, EventKind::Update]),
        (Some(CtEvents::RELATED.or(CtEvents::MARK)), &[]),
        (Some(CtEvents::default()), &[]),
    ] {
        let mut lab = Lab::new();
        let mut events = lab.listen();
        lab.orders.events = asked;
        lab.handshake();
        let slot = lab.flow().slot;
        assert!(lab.tracker.remove(slot));
        let seen: Vec<_> = std::iter::from_fn(|| events.pop().ok()).map(|event| event.kind).collect();
        assert_eq!(seen, told, "{asked:?}");
    }
}

#[test]
fn who_keeps_accounts_hears_of_every_end_whatever_others_may_hear() {
    let destroy = (EventKind::Destroy, true);
    for (on, asked, told) in [
        (false, None, vec![destroy]),
        (false, Some(CtEvents::default()), vec![destroy]),
        (true, Some(CtEvents::NEW), vec![(EventKind::New, false), destroy]),
        (true, Some(CtEvents::DESTROY), vec![(EventKind::Destroy, false)]),
    ] {
        let mut lab = Lab::new();
        let mut events = lab.listen_to(on, true);
        lab.orders.events = asked;
        lab.handshake();
        assert!(lab.tracker.remove(lab.flow().slot));
        let seen: Vec<_> = std::iter::from_fn(|| events.pop().ok()).collect();
        assert_eq!(
            seen.iter().map(|event| (event.kind, event.for_accounts)).collect::<Vec<_>>(),
            told,
            "{asked:?}"
        );
        assert_eq!(seen.last().unwrap().view.tcp_state, Some(TcpState::Established));
    }
}

/// What was told since the last call: kinds, and what they were about.
fn told(events: &mut rtrb::Consumer<FlowEvent>) -> Vec<(EventKind, CtEvents)> {
    std::iter::from_fn(|| events.pop().ok()).map(|event| (event.kind, event.news)).collect()
}

#[test]
fn what_one_packet_brings_is_told_once_and_at_the_end() {
    let mut lab = Lab::new();
    let mut events = lab.listen();
    lab.send(&udp(A, B));
    assert_eq!(told(&mut events), [(EventKind::New, CtEvents::NEW)]);
    let reply = udp(B, A);
    let tracked = lab.track(&reply);
    lab.tracker.set_mark(&tracked, 5);
    assert_eq!(told(&mut events), [], "the rules may have more to say");
    lab.tracker.finish(&tracked, true);
    let both = CtEvents::REPLY.or(CtEvents::MARK);
    assert_eq!(told(&mut events), [(EventKind::Update, both)]);
    // One that starts with a mark says so.
    let mut tracked = lab.track(&udp(A, C));
    lab.tracker.set_mark(&tracked, 0);
    lab.commit(&udp(A, C), &mut tracked).unwrap();
    lab.tracker.finish(&tracked, true);
    assert_eq!(told(&mut events), [(EventKind::New, CtEvents::NEW.or(CtEvents::MARK))]);
    // The next one does not.
    lab.send(&udp(B, C));
    assert_eq!(told(&mut events), [(EventKind::New, CtEvents::NEW)]);
}

#[test]
fn news_of_a_packet_that_is_dropped_waits_for_one_that_passes() {
    let mut lab = Lab::new();
    let mut events = lab.listen();
    lab.send(&tcp(A, B, SYN).seq(1000));
    lab.send_dropped(&tcp(B, A, SYN | ACK).seq(5000).ack(1001));
    lab.send_dropped(&tcp(A, B, ACK).seq(1001).ack(5001));
    assert_eq!(told(&mut events), [(EventKind::New, CtEvents::NEW)]);
    lab.send(&tcp(A, B, ACK).seq(1001).ack(5001));
    let all = CtEvents::REPLY.or(CtEvents::ASSURED).or(CtEvents::PROTOINFO);
    assert_eq!(told(&mut events), [(EventKind::Update, all)]);
    lab.send_dropped(&tcp(A, B, FIN | ACK).seq(1001).ack(5001));
    assert!(lab.tracker.remove(lab.flow().slot));
    assert_eq!(told(&mut events), [(EventKind::Destroy, CtEvents::DESTROY)], "nothing else waits any more");
    // Dropped before it was told of: it never was.
    let mut tracked = lab.track(&udp(A, B));
    lab.commit(&udp(A, B), &mut tracked).unwrap();
    assert!(lab.tracker.remove(lab.flow().slot));
    lab.tracker.finish(&tracked, false);
    assert_eq!(told(&mut events), []);
}

#[test]
fn events_say_when_and_whether_somebody_asked() {
    let mut lab = Lab::new();
    let mut events = lab.listen();
    lab.send(&udp(A, B));
    let FlowView { slot, seq, .. } = lab.flow();
    lab.wait(5);
    lab.tracker.look_for_listeners(lab.now);
    for change in [Change::Update { mark: Some((0, 7)), labels: None, timeout_secs: None }, Change::Delete] {
        lab.tracker.serve(Request::Flow { slot, seq, change }, lab.now);
    }
    lab.send(&udp(A, B));
    lab.tracker.serve(Request::Flush, lab.now);
    assert!(lab.tracker.flush_on());
    let seen: Vec<_> = std::iter::from_fn(|| events.pop().ok())
        .map(|event| (event.kind, event.asked, event.at == lab.now))
        .collect();
    assert_eq!(
        seen,
        [
            (EventKind::New, false, false),
            (EventKind::Update, true, true),
            (EventKind::Destroy, true, true),
            (EventKind::New, false, true),
            (EventKind::Destroy, true, true),
        ]
    );
}
