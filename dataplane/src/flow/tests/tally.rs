//! Tallies beside whole views, and who the flows are.

use super::*;
use crate::packet::Family;

#[test]
fn a_tally_says_what_a_view_says() {
    let mut lab = Lab::new();
    for frame in [udp(A, B), udp(B, C), udp(A, B).v6(), tcp(A, C, SYN).seq(1000)] {
        lab.send(&frame);
        lab.send(&frame);
    }
    lab.send(&udp(B, A));
    let region = lab.tracker.region();
    let now = lab.now.tick();
    let mut seen = 0;
    region.tally(|tally| {
        let view = region.view(tally.slot, now).unwrap();
        assert_eq!((tally.seq, tally.packets, tally.bytes), (view.seq, view.packets, view.bytes));
        assert_eq!(region.orig_of(tally.slot, tally.seq), Some(view.orig));
        assert_eq!(region.created_of(tally.slot, tally.seq), Some(now));
        assert!(tally.slot.index() < region.slots_used(view.orig.family));
        // Another flow of the same slot is somebody else.
        assert_eq!(region.orig_of(tally.slot, tally.seq + 2), None);
        assert_eq!(region.created_of(tally.slot, tally.seq + 2), None);
        seen += 1;
    });
    assert_eq!(seen, 4);
    assert!(region.slots_used(Family::V4) >= 3);
}
