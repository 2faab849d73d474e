//! Runs against a slow twin and a plain map of bytes; limits, distances, deadlines and marks of datagrams; how much work
//! a fragment can make.

use super::runs::{Offset, Place, Runs};
use super::*;
use crate::flow::Count;
use crate::ids::WorkerId;
use crate::testing::packets::udp;
use crate::wire;
use crate::xsk::{FramePool, Umem, UmemConfig};
use proptest::prelude::*;
use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

thread_local! {
    /// How often places of runs were compared.
    static COMPARED: Cell<usize> = const { Cell::new(0) };
}

impl PartialOrd for Offset {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Offset {
    fn cmp(&self, other: &Self) -> Ordering {
        COMPARED.set(COMPARED.get() + 1);
        self.0.cmp(&other.0)
    }
}

/// The same as [`Runs`], looking at every run for every piece.
#[derive(Default)]
struct Twin {
    runs: Vec<(usize, usize)>,
    known: usize,
    is_known_whole: bool,
}

impl Twin {
    fn add(&mut self, offset: usize, end: usize, is_last: bool) -> Place {
        let agrees = match (self.is_known_whole, is_last) {
            (true, true) => end == self.known,
            (true, false) => end <= self.known,
            (false, true) => end >= self.known,
            (false, false) => true,
        };
        if !agrees {
            return Place::Contradicts;
        }
        self.known = self.known.max(end);
        self.is_known_whole |= is_last;
        let highest = self.runs.iter().map(|run| run.1).max();
        let overlaps = |run: &&(usize, usize)| run.0 < end && offset < run.1;
        if end == offset {
            Place::Contradicts
        } else if self.runs.iter().any(|run| run.0 <= offset && end <= run.1) {
            Place::Repeats
        } else if self.runs.iter().any(|run| overlaps(&run)) {
            Place::Overlaps
        } else {
            match self.runs.iter_mut().find(|run| run.1 == offset && Some(run.1) == highest) {
                Some(run) => run.1 = end,
                None => self.runs.push((offset, end)),
            }
            Place::Fits
        }
    }

    fn is_whole(&self) -> bool {
        let mut there = vec![false; self.known];
        self.runs.iter().for_each(|&(from, to)| there[from..to].fill(true));
        self.is_known_whole && !there.contains(&false)
    }
}

/// Adds pieces `(offset, len, is last)` to both.
fn compare(pieces: &[(usize, usize, bool)]) {
    let (mut runs, mut twin) = (Runs::default(), Twin::default());
    for &(offset, len, is_last) in pieces {
        let place = runs.add(offset, offset + len, is_last);
        assert_eq!(place, twin.add(offset, offset + len, is_last), "{pieces:?}");
        if place == Place::Overlaps {
            return;
        }
        assert_eq!(runs.is_complete(), twin.is_whole());
    }
}

proptest! {
    #[test]
    fn runs_are_what_looking_at_all_of_them_finds(
        pieces in proptest::collection::vec((0..40_usize, 0..12_usize, prop::bool::weighted(0.2)), 1..40),
        units in proptest::collection::vec((0..60_usize, 1..4_usize), 1..60),
    ) {
        compare(&pieces);
        compare(&units.iter().map(|&(at, len)| (at * 8, len * 8, false)).collect::<Vec<_>>());
    }
}

/// An empty piece is refused only after it has told where the datagram ends, as in Linux `nf_ct_frag6_queue`.
#[test]
fn an_empty_last_piece_tells_the_length() {
    compare(&[(0, 0, true)]);
    compare(&[(8, 0, true), (0, 8, false)]);
    compare(&[(16, 0, true), (0, 8, true), (8, 8, false)]);
}

#[test]
fn pieces_in_any_order_fill_a_datagram() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut runs = Runs::default();
        for piece in order {
            assert!(!runs.is_complete());
            assert_eq!(runs.add(piece * 8, piece * 8 + 8, piece == 2), Place::Fits);
        }
        assert!(runs.is_complete());
    }
}

/// The last piece of eight bytes of a datagram as long as can be: 20 bytes of header, 65,512 of payload.
const LAST_PIECE: usize = 8_188;

/// Orders in which a sender may send all of those.
fn orders() -> Vec<(&'static str, Vec<usize>)> {
    const LAST: usize = LAST_PIECE;
    let up = 0..=LAST;
    // Every other one, then those between: each of them falls between two runs.
    let alternating = up.clone().step_by(2).chain((1..=LAST).step_by(2));
    let inwards = up.clone().map(|n| if n % 2 == 0 { n / 2 } else { LAST - n / 2 });
    // 4,099 is prime to their number.
    let scattered = up.clone().map(|n| n * 4_099 % (LAST + 1));
    assert_eq!(scattered.clone().collect::<HashSet<_>>().len(), LAST + 1);
    vec![
        ("forwards", up.clone().collect()),
        ("backwards", up.rev().collect()),
        ("alternating", alternating.collect()),
        ("inwards", inwards.collect()),
        ("scattered", scattered.collect()),
    ]
}

/// So many runs are a tree of at most five levels with eleven places to look at in each. A piece that fits is looked for
/// and put in, a repeated one looked for.
#[test]
fn a_piece_makes_little_work_in_whatever_order_they_come() {
    const COMPARED_MAX: usize = 3 * 5 * 11;
    for (name, order) in orders() {
        let mut runs = Runs::default();
        for &piece in &order {
            COMPARED.set(0);
            assert_eq!(runs.add(piece * 8, piece * 8 + 8, piece == LAST_PIECE), Place::Fits);
            // And again, which must be looked for.
            assert_eq!(runs.add(piece * 8, piece * 8 + 8, piece == LAST_PIECE), Place::Repeats);
            assert!(COMPARED.get() <= COMPARED_MAX, "{name}: {} comparisons", COMPARED.get());
        }
        assert!(runs.is_complete());
    }
}

/// Where a fragment is said to be, and whose it is.
#[derive(Clone, Copy)]
struct Fragment {
    sender: u8,
    id: u16,
    offset: u16,
    more: bool,
    ecn: u8,
    six: bool,
    len: usize,
}

const FIRST: Fragment = Fragment { sender: 1, id: 1, offset: 0, more: true, ecn: 0, six: false, len: 16 };
/// Completes what [`FIRST`] begins.
const LAST: Fragment = Fragment { offset: 24, more: false, ..FIRST };

/// What holds fragments, and the frames they are in.
struct Table {
    pool: FramePool,
    defrag: Defrag,
    settings: TrackSettings,
    now: Now,
    frames: usize,
}

/// What came of a fragment, and of those held before.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    Held,
    Complete(usize),
    Alone,
    GivenUp(Vec<DropReason>),
}

impl Table {
    fn new(frames: usize) -> Self {
        let umem = Umem::new(&UmemConfig::plain(u32::try_from(frames).unwrap() + 64, 1)).unwrap();
        let pool = FramePool::new(&umem, WorkerId(0));
        Self {
            frames: pool.len(),
            pool,
            defrag: Defrag::new(DefragLimits { frames }),
            settings: TrackSettings::default(),
            now: Now::from_secs(1),
        }
    }

    fn add(&mut self, fragment: Fragment) -> Came {
        self.add_frame(&bytes(fragment), false)
    }

    fn add_frame(&mut self, bytes: &[u8], again: bool) -> Came {
        let packet = wire::parse(bytes, u32::try_from(bytes.len()).unwrap()).unwrap();
        let piece = Piece::read(bytes, &packet).unwrap();
        let held = Held { frame: self.pool.alloc_filled(bytes).unwrap(), packet, piece };
        let added = self.defrag.add(held, PortId(0), self.now, &self.settings, again);
        let reasons = self.free_given_up();
        match added {
            Added::Held if reasons.is_empty() => Came::Held,
            Added::Held | Added::GivenUp => Came::GivenUp(reasons),
            Added::Alone(held) => {
                self.pool.free(held.frame);
                Came::Alone
            }
            Added::Complete(all) => {
                assert!(all.is_sorted_by_key(|held| held.piece.offset));
                let count = all.len();
                all.into_iter().for_each(|held| self.pool.free(held.frame));
                Came::Complete(count)
            }
        }
    }

    fn free_given_up(&mut self) -> Vec<DropReason> {
        let mut reasons = Vec::new();
        while let Some(GivenUp { held, reason, .. }) = self.defrag.next_given_up() {
            self.pool.free(held.frame);
            reasons.push(reason);
        }
        reasons
    }

    fn expire(&mut self) -> Vec<DropReason> {
        while self.defrag.expire(self.now) {}
        self.free_given_up()
    }

    /// Whether every frame is where it is said to be.
    fn is_accounted_for(&self) -> bool {
        let Defrag { datagrams, deadlines, senders, bytes, frames, .. } = &self.defrag;
        let held: usize = datagrams.values().map(|datagram| datagram.frames).sum();
        *frames == held
            && self.pool.len() + held == self.frames
            && datagrams.len() == deadlines.len()
            && bytes.iter().sum::<usize>() == datagrams.values().map(|datagram| datagram.bytes).sum()
            && senders.is_empty() == datagrams.values().all(|datagram| datagram.sender_count.is_none())
    }
}

fn bytes(fragment: Fragment) -> Vec<u8> {
    let Fragment { sender, id, offset, more, ecn, six, len } = fragment;
    let ends: (IpAddr, IpAddr) = if six {
        (Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, sender.into()).into(), Ipv6Addr::LOCALHOST.into())
    } else {
        (Ipv4Addr::new(10, 0, 0, sender).into(), Ipv4Addr::BROADCAST.into())
    };
    let mut frame = udp(ends.0, ends.1).payload(&vec![0; len]).fragment(offset, more).build();
    if six {
        frame[15] |= ecn << 4;
        frame[60..62].copy_from_slice(&id.to_be_bytes());
    } else {
        frame[15] |= ecn;
        frame[18..20].copy_from_slice(&id.to_be_bytes());
        frame[24..26].fill(0);
        let check = wire::checksum::finish(wire::checksum::sum(&frame[14..34], 0));
        frame[24..26].copy_from_slice(&check.to_be_bytes());
    }
    frame
}

/// One datagram that never becomes whole must not keep anything of all the others that did.
#[test]
fn nothing_is_left_of_whole_datagrams() {
    let mut table = Table::new(8);
    assert_eq!(table.add(FIRST), Came::Held);
    for id in 2..5000 {
        assert_eq!(table.add(Fragment { id, ..FIRST }), Came::Held);
        assert_eq!(table.add(Fragment { id, ..LAST }), Came::Complete(2));
        let Defrag { datagrams, deadlines, frames, .. } = &table.defrag;
        assert_eq!((datagrams.len(), deadlines.len(), *frames), (1, 1, 1));
    }
    assert!(table.is_accounted_for());
}

#[test]
fn fragments_that_say_otherwise_of_ecn_spoil_their_datagram() {
    for six in [false, true] {
        for (first, last) in (0..4).flat_map(|first| (0..4).map(move |last| (first, last))) {
            let mut table = Table::new(8);
            assert_eq!(table.add(Fragment { ecn: first, six, ..FIRST }), Came::Held);
            let came = table.add(Fragment { ecn: last, six, ..LAST });
            let expected = if (first == 0) == (last == 0) {
                Came::Complete(2)
            } else {
                Came::GivenUp(vec![DropReason::FragmentEcn; 2])
            };
            assert_eq!(came, expected, "{first} and {last}");
            assert!(table.is_accounted_for());
        }
    }
}

#[test]
fn a_datagram_whose_fragments_come_too_far_apart_is_begun_anew() {
    let others = |table: &mut Table, sender: u8, count: u16, six: bool| {
        for id in 0..count {
            assert_eq!(table.add(Fragment { sender, id: 1000 + id, six, ..FIRST }), Came::Held);
        }
    };
    let settle = |max: u32, sender: u8, count: u16, six: bool| {
        let mut table = Table::new(1000);
        table.settings.ipfrag_max_dist = Count(max);
        assert_eq!(table.add(Fragment { six, ..FIRST }), Came::Held);
        others(&mut table, sender, count, six);
        let came = table.add(Fragment { six, ..LAST });
        if came != Came::Complete(2) {
            assert_eq!(came, Came::GivenUp(vec![DropReason::FragmentDistance]));
            // The late one is the first of what may still become whole.
            assert_eq!(table.add(Fragment { six, ..FIRST }), Came::Complete(2));
        }
        assert!(table.is_accounted_for());
        came == Came::Complete(2)
    };
    assert!(settle(64, 1, 63, false) && !settle(64, 1, 64, false));
    assert!(settle(1, 1, 0, false) && !settle(1, 1, 1, false));
    assert!(settle(0, 1, 500, false), "switched off");
    assert!(settle(64, 2, 500, false), "another sender's");
    assert!(settle(64, 1, 500, true), "IPv6");
}

/// What another worker has put together is not judged by what came in between on its way here.
#[test]
fn distance_counts_once() {
    let mut table = Table::new(1000);
    assert_eq!(table.add_frame(&bytes(FIRST), true), Came::Held);
    for id in 2..200 {
        assert_eq!(table.add(Fragment { id, ..FIRST }), Came::Held);
    }
    assert_eq!(table.add_frame(&bytes(LAST), true), Came::Complete(2));
    assert!(table.is_accounted_for());
}

#[test]
fn a_datagram_has_its_time_from_its_first_fragment_on() {
    let mut table = Table::new(8);
    table.settings.ipfrag_time = 2;
    assert_eq!(table.add(FIRST), Came::Held);
    table.now = Now::from_secs(2);
    assert_eq!(table.add(Fragment { offset: 48, ..FIRST }), Came::Held);
    table.settings.ipfrag_time = 1;
    assert_eq!(table.add(Fragment { id: 2, ..FIRST }), Came::Held);
    assert_eq!(table.expire(), []);
    table.now = Now::from_secs(3);
    assert_eq!(table.expire(), [DropReason::FragmentTimeout; 3], "each by the setting of its time");
    assert!(table.is_accounted_for());
    // Nobody has looked for what is overdue: a late fragment does not complete it.
    assert_eq!(table.add(FIRST), Came::Held);
    table.now = Now::from_secs(4);
    assert_eq!(table.add(LAST), Came::GivenUp(vec![DropReason::FragmentTimeout]));
    assert_eq!(table.add(FIRST), Came::Complete(2));
    assert!(table.is_accounted_for());
}

#[test]
fn beyond_a_limit_nothing_is_taken() {
    for six in [false, true] {
        let limited = || Came::GivenUp(vec![DropReason::FragmentLimit]);
        let mut table = Table::new(100);
        let set = |table: &mut Table, bytes: u32| {
            let settings = &mut table.settings;
            (settings.ipfrag_high_thresh, settings.frag6_high_thresh) = (Count(bytes), Count(bytes));
        };
        set(&mut table, 0);
        assert_eq!(table.add(Fragment { six, ..FIRST }), limited(), "0: never");
        set(&mut table, 1);
        assert_eq!(table.add(Fragment { six, ..FIRST }), Came::Held, "something, if there is nothing yet");
        assert_eq!(table.add(Fragment { six, ..LAST }), limited(), "of what is begun neither");
        assert_eq!(table.add(Fragment { six: !six, ..FIRST }), Came::Held, "the other family's is another");
        set(&mut table, 10_000);
        assert_eq!(table.add(Fragment { six, ..LAST }), Came::Complete(2));
        assert!(table.is_accounted_for());
    }
}

/// Datagrams of which only the end is known hold no frame, yet they are not for nothing.
#[test]
fn datagrams_without_fragments_count() {
    let mut table = Table::new(100);
    table.settings.frag6_high_thresh = Count(100_000);
    let empty = |id| Fragment { id, six: true, len: 0, ..LAST };
    for id in 0..2000 {
        let came = table.add(empty(id));
        assert!(matches!(came, Came::GivenUp(_)));
    }
    assert_eq!(table.defrag.datagrams.len(), 100_000 / DATAGRAM_COST + 1);
    assert_eq!(table.add(empty(9000)), Came::GivenUp(vec![DropReason::FragmentLimit]));
    assert!(table.is_accounted_for());
}

/// A jumbo frame takes several chunks of the pool.
#[test]
fn the_limit_counts_chunks() {
    let mut table = Table::new(10);
    let jumbo = |id| Fragment { id, len: 5_000, ..FIRST };
    for id in 0..3 {
        assert_eq!(table.add(jumbo(id)), Came::Held);
        assert_eq!(table.defrag.frames(), 3 * usize::from(id + 1));
    }
    assert_eq!(table.add(jumbo(3)), Came::GivenUp(vec![DropReason::FragmentLimit]));
    assert_eq!(table.add(Fragment { id: 4, ..FIRST }), Came::Held);
    assert_eq!(table.add(Fragment { id: 5, ..FIRST }), Came::GivenUp(vec![DropReason::FragmentLimit]));
    table.now = Now::from_secs(100);
    assert_eq!(table.expire().len(), 4);
    assert!(table.is_accounted_for() && table.defrag.frames() == 0);
}

/// 64 KiB in pieces of eight bytes, whatever their order.
#[test]
fn a_datagram_may_have_as_many_fragments_as_it_has_offsets() {
    for (name, order) in orders() {
        let mut table = Table::new(9_000);
        table.settings.ipfrag_high_thresh = Count(1 << 30);
        for (n, piece) in order.iter().enumerate() {
            let (offset, more) = (u16::try_from(piece * 8).unwrap(), *piece != LAST_PIECE);
            // The header of the datagram is the first piece.
            let len = if offset == 0 { 0 } else { 8 };
            let came = table.add(Fragment { offset, more, len, ..FIRST });
            let expected = if n == LAST_PIECE { Came::Complete(n + 1) } else { Came::Held };
            assert!(came == expected, "{name}: {piece}");
        }
        assert!(table.is_accounted_for());
    }
}

proptest! {
    #[test]
    fn every_frame_is_held_or_given_back(
        fragments in proptest::collection::vec(
            (0..3_u8, 0..4_u16, 0..12_u16, prop::bool::weighted(0.7), 0..4_u8, any::<bool>(), 0..40_usize, 0..20_u64), 1..300),
        max in 0..6_u32,
    ) {
        let mut table = Table::new(40);
        let settings = &mut table.settings;
        (settings.ipfrag_time, settings.frag6_timeout, settings.ipfrag_max_dist) = (1, 2, Count(max));
        (settings.ipfrag_high_thresh, settings.frag6_high_thresh) = (Count(20_000), Count(20_000));
        for (sender, id, offset, more, ecn, six, len, millis) in fragments {
            let fragment = Fragment { sender, id, offset: offset * 8, more, ecn: ecn / 3, six, len };
            if offset == 0 && !more {
                continue;
            }
            table.add(fragment);
            prop_assert!(table.is_accounted_for());
            prop_assert!(table.defrag.frames() <= 40);
            table.now = table.now.plus_nanos(millis * 1_000_000);
            if millis == 0 {
                table.expire();
            }
        }
        table.now = Now::from_secs(100);
        table.expire();
        prop_assert!(table.is_accounted_for() && table.defrag.frames() == 0 && table.defrag.datagrams.is_empty());
    }
}
