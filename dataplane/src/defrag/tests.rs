//! Runs against a plain map of bytes.

use super::runs::{Place, Runs};
use crate::packet::Family;
use proptest::prelude::*;

proptest! {
    #[test]
    fn what_fits_never_overlaps_and_completes_exactly_when_all_is_there(
        pieces in proptest::collection::vec((0..40_usize, 0..12_usize, prop::bool::weighted(0.2)), 1..40), six: bool,
    ) {
        let family = if six { Family::V6 } else { Family::V4 };
        let mut runs = Runs::default();
        let mut there = [false; 64];
        let mut length = None;
        for (offset, len, is_last) in pieces {
            let end = offset + len;
            match runs.add(offset, end, is_last, family) {
                Place::Fits => {
                    prop_assert!(len > 0 && !there[offset..end].contains(&true));
                    there[offset..end].fill(true);
                    prop_assert!(length.is_none_or(|length| end <= length && (!is_last || end == length)));
                    if is_last {
                        length = Some(end);
                    }
                }
                Place::Repeats => {
                    prop_assert!(there[offset..end].iter().all(|byte| *byte));
                    if is_last {
                        length = Some(end);
                    }
                }
                Place::Contradicts => prop_assert!(six),
                Place::Spoils => break,
            }
            let is_whole = length.is_some_and(|length| there[..length].iter().all(|byte| *byte));
            prop_assert_eq!(runs.is_complete(), is_whole);
        }
    }
}

#[test]
fn pieces_in_any_order_fill_a_datagram() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut runs = Runs::default();
        for piece in order {
            assert!(!runs.is_complete());
            assert_eq!(runs.add(piece * 8, piece * 8 + 8, piece == 2, Family::V4), Place::Fits);
        }
        assert!(runs.is_complete());
    }
}
