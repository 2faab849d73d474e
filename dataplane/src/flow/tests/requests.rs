//! What control asks for, and how it looks.

use super::*;

#[test]
fn a_flush_removes_what_is_there_in_slices_and_leaves_what_comes_later() {
    let mut lab = Lab::with_room(20_000);
    lab.settings.udp_timeout = 30;
    for port in 0..6000 {
        lab.send(&udp(A, B).ports(port, 53));
        if port % 2 == 0 {
            lab.send(&udp(A, B).ports(port, 53).v6());
        }
    }
    assert!(!lab.tracker.is_flushing());
    lab.tracker.serve(Request::Flush, lab.now);
    let mut slices = 0;
    while lab.tracker.is_flushing() {
        let before = lab.tracker.flow_count();
        lab.tracker.flush_on();
        assert!(before - lab.tracker.flow_count() <= 128, "a slice is small");
        slices += 1;
    }
    assert!(slices > 100, "{slices}");
    assert_eq!((lab.tracker.flow_count(), lab.tracker.half_open_count()), (0, 0));
    lab.send(&udp(A, B).ports(1, 53));
    assert!(lab.tracker.flush_on(), "nothing was asked");
    assert_eq!(lab.tracker.flow_count(), 1);
    let empty = &mut Lab::new().tracker;
    empty.serve(Request::Flush, lab.now);
    assert!(empty.flush_on(), "at once");
}

#[test]
fn control_changes_the_flow_it_names_and_no_other() {
    let mut lab = Lab::new();
    lab.send(&udp(A, B));
    let named = lab.flow();
    let ask = |lab: &mut Lab, seq, change| {
        lab.tracker.serve(Request::Flow { slot: named.slot, seq, change }, lab.now);
    };
    let update = Change::Update { mark: Some((0xff, 0x21)), labels: None, timeout_secs: Some(77) };
    ask(&mut lab, named.seq + 2, update);
    ask(&mut lab, named.seq + 2, Change::Delete);
    assert_eq!(lab.flow(), named);
    ask(&mut lab, named.seq, update);
    assert_eq!((lab.flow().mark, lab.flow().secs_left), (0x21, 77));
    ask(&mut lab, named.seq, Change::Update { mark: Some((1, 0x40)), labels: None, timeout_secs: None });
    assert_eq!((lab.flow().mark, lab.flow().secs_left), (0x60, 77));
    ask(&mut lab, named.seq, Change::Delete);
    assert_eq!(lab.tracker.flow_count(), 0);
}

#[test]
fn a_table_is_walked_in_slices_of_any_size() {
    let mut lab = Lab::new();
    for port in 0..200 {
        lab.send(&udp(A, B).ports(port, 53));
        lab.send(&udp(A, B).ports(port, 53).v6());
    }
    let region = lab.tracker.region();
    for budget in [1, 64, 65, 150, 1000] {
        let (mut seen, mut cursor) = (Vec::new(), Cursor::default());
        loop {
            let before = seen.len();
            cursor = region.walk_some(lab.now.tick(), cursor, budget, |view| seen.push(view.slot));
            assert!(seen.len() - before <= budget.next_multiple_of(64));
            if cursor.is_start() {
                break;
            }
        }
        assert_eq!(seen.len(), 400);
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 400, "each once");
    }
}
