//! Runs against a plain map of bytes; bounds of what is kept.

use super::runs::{Place, Runs};
use super::*;
use crate::ids::WorkerId;
use crate::testing::packets::udp;
use crate::wire;
use crate::xsk::{FramePool, Umem, UmemConfig};
use proptest::prelude::*;
use std::net::Ipv4Addr;

/// What the pieces so far are known to be: a map of their bytes, the highest end, and whether that is the datagram's.
#[derive(Default)]
struct Model {
    there: Vec<bool>,
    known: usize,
    is_known_whole: bool,
}

impl Model {
    /// Whether a piece may end there; if so, and even if it is refused for being empty, what it says is remembered.
    fn learns(&mut self, end: usize, is_last: bool) -> bool {
        let agrees = match (self.is_known_whole, is_last) {
            (true, true) => end == self.known,
            (true, false) => end <= self.known,
            (false, true) => end >= self.known,
            (false, false) => true,
        };
        if agrees {
            self.known = self.known.max(end);
            self.is_known_whole |= is_last;
            self.there.resize(self.known, false);
        }
        agrees
    }

    fn is_whole(&self) -> bool {
        self.is_known_whole && self.there.iter().all(|byte| *byte)
    }
}

/// Adds pieces `(offset, len, is last)` to both.
fn compare(pieces: &[(usize, usize, bool)], family: Family) {
    let mut runs = Runs::default();
    let mut model = Model::default();
    for &(offset, len, is_last) in pieces {
        let end = offset + len;
        let agrees = model.learns(end, is_last);
        let place = runs.add(offset, end, is_last, family);
        let there = if agrees { &mut model.there[offset..end] } else { &mut [] };
        match place {
            Place::Fits => {
                assert!(agrees && len > 0 && !there.contains(&true));
                there.fill(true);
            }
            Place::Repeats => assert!(agrees && len > 0 && there.iter().all(|byte| *byte)),
            Place::Contradicts => assert!(family == Family::V6 && (!agrees || len == 0)),
            Place::Spoils => {
                let overlaps = there.contains(&true);
                assert!(overlaps || family == Family::V4 && (!agrees || len == 0));
                return;
            }
        }
        assert_eq!(runs.is_complete(), model.is_whole());
    }
}

proptest! {
    #[test]
    fn what_fits_never_overlaps_and_completes_exactly_when_all_is_there(
        pieces in proptest::collection::vec((0..40_usize, 0..12_usize, prop::bool::weighted(0.2)), 1..40), six: bool,
    ) {
        compare(&pieces, if six { Family::V6 } else { Family::V4 });
    }
}

/// IPv6 refuses an empty piece only after it has learnt from it where the datagram ends, as in Linux
/// `nf_ct_frag6_queue`.
#[test]
fn an_empty_last_piece_tells_the_length() {
    compare(&[(0, 0, true)], Family::V6);
    compare(&[(8, 0, true), (0, 8, false)], Family::V6);
    compare(&[(16, 0, true), (0, 8, true), (8, 8, false)], Family::V6);
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

/// One datagram that never becomes whole must not keep the deadlines of all the others that did.
#[test]
fn deadlines_of_whole_datagrams_do_not_pile_up() {
    let umem = Umem::new(&UmemConfig::plain(16, 1)).unwrap();
    let mut pool = FramePool::new(&umem, WorkerId(0));
    let mut defrag = Defrag::new(DefragLimits { frames: 8 });
    let mut add = |sender: u32, offset: u16, more: bool| {
        let src = Ipv4Addr::from_bits(0x0a00_0000 + sender);
        let bytes = udp(src, Ipv4Addr::BROADCAST).payload(&[0; 16]).fragment(offset, more).build();
        let packet = wire::parse(&bytes, u32::try_from(bytes.len()).unwrap()).unwrap();
        let piece = Piece::read(&bytes, &packet);
        let held = Held { frame: pool.alloc_filled(&bytes).unwrap(), packet, piece: piece.unwrap() };
        let added = defrag.add(held, piece, PortId(0), Tick::default(), &TrackSettings::default());
        if let Added::Complete(all) = added {
            all.into_iter().for_each(|held| pool.free(held.frame));
        }
        (defrag.frames, defrag.deadlines[0].len())
    };
    assert_eq!(add(0, 0, true), (1, 1));
    for sender in 1..5000 {
        assert_eq!(add(sender, 0, true).0, 2);
        let (frames, deadlines) = add(sender, 24, false);
        assert!(frames == 1 && deadlines <= DEADLINES_MIN + 4, "{frames} {deadlines}");
    }
}
